"""Figures of record: data in, Axes out. Each draws on `ax` where one is given, else on a new figure."""

from .answers import digit, digits, reliability, softened, spectrogram, temperatures
from .results import bars, heat, learning, lines, matrix, outcomes, signed, tradeoff
from .style import ALONE, CYCLE, OTHER, STUDENT, STYLE, TEACHER, TRUE

__all__ = [
    "ALONE",
    "CYCLE",
    "OTHER",
    "STUDENT",
    "STYLE",
    "TEACHER",
    "TRUE",
    "bars",
    "digit",
    "digits",
    "heat",
    "learning",
    "lines",
    "matrix",
    "outcomes",
    "reliability",
    "signed",
    "softened",
    "spectrogram",
    "temperatures",
    "tradeoff",
]
