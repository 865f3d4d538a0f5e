"""Pictures that follow a slider in the browser, without Python in between.

`pieces` draws (Bars, Curves, Matrix, Digit); `panels` puts sliders above pieces; `live` trains under them, `in_page`
without a kernel; `pad` takes a drawing; `stack` asks for a net for each set of ticks. Formulas live in js/math.js and
are tested against torch.
"""

from .controls import Panel
from .in_page import InPage, or_in_page
from .live import Live
from .pad import Pad, pad
from .panels import (
    ensemble,
    gradient_size,
    hot_limit,
    microscope,
    omitted,
    similarity,
    specialists,
    temperature,
    two_terms,
)
from .pieces import Bars, Curves, Digit, Matrix
from .runs import grids, runs
from .sound import Sound, listen
from .stack import Points, Stack

__all__ = [
    "Bars",
    "Curves",
    "Digit",
    "InPage",
    "Live",
    "Matrix",
    "Pad",
    "Panel",
    "Points",
    "Sound",
    "Stack",
    "ensemble",
    "gradient_size",
    "grids",
    "hot_limit",
    "listen",
    "microscope",
    "omitted",
    "or_in_page",
    "pad",
    "runs",
    "similarity",
    "specialists",
    "temperature",
    "two_terms",
]
