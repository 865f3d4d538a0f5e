"""Figures of record: data in, Axes out. Each draws on `ax` where one is given, else on a new figure."""

from .answers import digit, digits, reliability, softened, spectrogram, temperatures
from .idea import diagram, image_and_bars, label_and_soft_target
from .results import bars, heat, learning, lines, matrix, outcomes, signed, tradeoff
from .style import ALONE, CYCLE, OTHER, STUDENT, STYLE, TEACHER, TRUE, colors_of

__all__ = [
    "ALONE",
    "CYCLE",
    "OTHER",
    "STUDENT",
    "STYLE",
    "TEACHER",
    "TRUE",
    "bars",
    "colors_of",
    "diagram",
    "digit",
    "digits",
    "heat",
    "image_and_bars",
    "label_and_soft_target",
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
