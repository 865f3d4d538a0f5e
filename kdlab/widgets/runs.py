"""Learning curves that were computed before, a slider to pick among them."""

import math
from typing import Any

import ipywidgets as w

from .panels import WIDE, Panel
from .pieces import Curves, array


def runs(x: Any, curves: dict[str, Any], names: list[str], stop: Any = None, start: int = 0, *, what: str = "run",
         x_label: str = "step", y_label: str = "") -> Panel:  # fmt: skip
    """One run's learning curves after another's, on the same axes.

    x: (points,) > 0, the same for all, on a log axis. curves: name → (runs, points); lines whose names agree up to a
    comma share a colour. names: what the slider calls each run; what: how it calls them all.
    stop: (runs,) where on x a line stands and the curves are read. start: the run to begin with.
    """
    rows = {name: array(each) for name, each in curves.items()}
    if odd := {name: each.shape for name, each in rows.items() if each.shape != (len(names), len(x))}:
        raise ValueError(f"{len(names)} runs of {len(x)} points are wanted, got {odd}; is a seed's dimension left?")
    inputs = {"x": x, **rows} | ({} if stop is None else {"stop": stop})
    low, high = min(each.min() for each in rows.values()), max(each.max() for each in rows.values())
    picture = Curves(recipe="runs", inputs=inputs, index=start, log_x=True, y_min=math.floor(low),
                     y_max=math.ceil(high), x_label=x_label, y_label=y_label, height=360,
                     layout=w.Layout(width="100%"))  # fmt: skip
    slider = w.SelectionSlider(options=list(names), index=start, description=what, style=WIDE,
                               layout=w.Layout(width="100%"))  # fmt: skip
    return Panel({"index": slider}, {"curves": picture}, [[picture]])
