"""A generalist and its specialists: their training, one answer from all (`equation5`), and where it is right (`joint`).

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.
"""

from .joint import Joint, Part, by_activity, by_cover, conditional_accuracy, examples, join, trend
from .training import (
    answer,
    ask,
    awake,
    clusters,
    correction,
    covariance,
    coverage,
    learn,
    learn_all,
    relabeled,
    sample,
    start,
    team,
)

__all__ = [
    "Joint",
    "Part",
    "answer",
    "ask",
    "awake",
    "by_activity",
    "by_cover",
    "clusters",
    "conditional_accuracy",
    "correction",
    "covariance",
    "coverage",
    "examples",
    "join",
    "learn",
    "learn_all",
    "relabeled",
    "sample",
    "start",
    "team",
    "trend",
]
