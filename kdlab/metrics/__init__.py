"""What a trained model is worth and what it costs, one by one, and as rows of a table.

`quality`: logits, errors, agreement, calibration. `cost`: parameters, bytes, multiply-adds, milliseconds, memory.
`table`: one row a model. `class_bias`: the bias of a class that a student never saw.
"""

from .cost import Timing, disk_bytes, latency, memory, multiply_adds, nonzero, parameters, weight_bytes
from .quality import (
    Score,
    accuracy,
    agreement,
    calibration,
    calibration_error,
    confusion,
    entropy,
    errors,
    logits,
    nearest,
    score,
    similarity,
)
from .rounding import round_to_spread
from .table import Reference, Row, Table, front, measure, sample

__all__ = [
    "Reference",
    "Row",
    "Score",
    "Table",
    "Timing",
    "accuracy",
    "agreement",
    "calibration",
    "calibration_error",
    "confusion",
    "disk_bytes",
    "entropy",
    "errors",
    "front",
    "latency",
    "logits",
    "measure",
    "memory",
    "multiply_adds",
    "nearest",
    "nonzero",
    "parameters",
    "round_to_spread",
    "sample",
    "score",
    "similarity",
    "weight_bytes",
]
