"""The study of a real language model; see :mod:`datadose.experiments.llm_study.study`."""

from datadose.experiments.llm_study.study import LlmStudy

__all__ = ["LlmStudy"]
