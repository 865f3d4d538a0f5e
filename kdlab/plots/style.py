"""The look of all figures: colors, fonts, and the axes that a figure draws on."""

import contextlib
import re
from collections.abc import Iterable, Iterator

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Okabe & Ito's colors, which the color-blind tell apart. A color is a role: the widgets (draw.js) use the same ones.
STUDENT, TEACHER, ALONE, TRUE, OTHER = "#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#999999"
CYCLE = (STUDENT, TRUE, "#009E73", "#CC79A7", TEACHER, ALONE, "#000000")
ROLES = {  # by how a name begins
    r"teacher|ensemble": TEACHER,
    r"(student )?alone|labels": ALONE,
    r"label$": TRUE,
    r"student|distilled|soft targets": STUDENT,
}

WIDTH = 9.5  # inches of a figure that fills a notebook's column

STYLE = {
    "figure.dpi": 110,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.prop_cycle": plt.cycler(color=CYCLE),
}


def colors_of(names: Iterable[str]) -> list[str]:
    """Return a color for each name: that of the role its beginning names, else one that is left, in order."""
    names, taken = list(names), []
    for name in names:
        role = next((color for begins, color in ROLES.items() if re.match(begins, name)), None)
        taken.append(None if role in taken else role)
    rest = [color for color in CYCLE if color not in taken]
    return [color or rest.pop(0) if rest or color else OTHER for color in taken]


def make_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of this size in inches where it is None."""
    if ax is not None:
        return ax
    with styled():
        return plt.subplots(figsize=(width, height), layout="constrained")[1]


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """STYLE inside the block. Not rc_context: it would also put back the interactive mode that the first figure of a
    notebook switches on, and no later figure would be shown."""
    before = {key: plt.rcParams[key] for key in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)
