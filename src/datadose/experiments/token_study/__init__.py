"""The token study: a small language model of our own on families of string tasks."""

from datadose.experiments.token_study.experiment import TokenStudy

__all__ = ["TokenStudy"]
