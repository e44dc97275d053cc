"""Data selection for real language models: score a pool, select an SFT set and an RL set, train.

:mod:`~datadose.llm.pool` reads a pool, :mod:`~datadose.llm.score` measures it under a base model (extra
``datadose[llm]``), :mod:`~datadose.llm.selection` chooses from the measurements without any model, and
:mod:`~datadose.llm.posttrain` trains on what was chosen (extra ``datadose[train]``).
"""
