"""A generalist and its specialists: how they are trained (`training`), and one answer from all (`equation5`).

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.
"""

from .training import (
    answer,
    ask,
    awake,
    clusters,
    correction,
    covariance,
    coverage,
    learn,
    relabeled,
    sample,
    start,
)

__all__ = [
    "answer",
    "ask",
    "awake",
    "clusters",
    "correction",
    "coverage",
    "covariance",
    "learn",
    "relabeled",
    "sample",
    "start",
]
