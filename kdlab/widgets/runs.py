"""Curves that were computed before, a slider to pick among them."""

import math
from typing import Any

import ipywidgets as w
import numpy as np

from .controls import WIDE, Panel
from .pieces import Curves, array


def runs(
    x: Any,
    curves: dict[str, Any],
    names: list[str],
    stop: Any = None,
    start: int = 0,
    *,
    what: str = "run",
    x_label: str = "step",
    y_label: str = "",
    x_name: str = "step",
) -> Panel:
    """One run's learning curves after another's, on the same axes.

    x: (points,) > 0, the same for all, on a log axis. curves: name → (runs, points); lines whose names agree up to a
    comma share a color. names: what the slider calls each run; what: how it calls them all.
    stop: (runs,) where on x a line stands and the curves are read. start: the run to begin with.
    x_name: what a place on x is called; of steps the panel also says where each curve ends.
    """
    rows = {name: array(each) for name, each in curves.items()}
    if odd := {name: each.shape for name, each in rows.items() if each.shape != (len(names), len(x))}:
        raise ValueError(f"{len(names)} runs of {len(x)} points are wanted, got {odd}; is a seed's dimension left?")
    inputs = {"x": x, **rows} | ({} if stop is None else {"stop": stop})
    low, high = min(each.min() for each in rows.values()), max(each.max() for each in rows.values())
    picture = Curves(
        recipe="runs" if x_name == "step" else "rows",
        inputs=inputs,
        index=start,
        log_x=True,
        y_min=math.floor(low),
        y_max=math.ceil(high),
        x_label=x_label,
        x_name=x_name,
        y_label=y_label,
        height=360,
        layout=w.Layout(width="100%"),
    )
    slider = w.SelectionSlider(
        options=list(names), index=start, description=what, style=WIDE, layout=w.Layout(width="100%")
    )
    return Panel({"index": slider}, {"curves": picture}, [[picture]])


def grids(x: Any, counts: dict[str, Any], bits: list[int], scores: dict[str, Any], start: int = 0) -> Panel:
    """A histogram of weights on the grids of ever fewer bits, above the scores of nets with so many bits.

    x: (bins,) the middles of the bins. counts: name → (bits, bins) weights in each bin, drawn on a log axis where
    an empty bin counts a half. bits: what the slider offers. scores: name → (bits,). start: the place in `bits` to
    begin with.
    """
    rows = {name: np.maximum(array(each), 0.5) for name, each in counts.items()}
    same = {name: np.tile(array(each), (len(bits), 1)) for name, each in scores.items()}
    if odd := {name: each.shape for name, each in rows.items() if each.shape != (len(bits), len(x))}:
        raise ValueError(f"counts for {len(bits)} numbers of bits in {len(x)} bins are wanted, got {odd}")
    if odd := {name: each.shape[1] for name, each in same.items() if each.shape[1] != len(bits)}:
        raise ValueError(f"a score for each of {len(bits)} numbers of bits is wanted, got {odd}")
    wide = {"index": start, "layout": w.Layout(width="100%")}
    said = {"x_label": "weight", "x_name": "weight", "y_label": "weights"}
    histogram = Curves(recipe="rows", inputs={"x": x, **rows}, log_y=True, y_min=0.5, height=300, **said, **wide)
    upward = {name: each[:, np.argsort(bits)] for name, each in same.items()}  # an axis wants growing numbers
    inputs = {"x": sorted(bits), **upward, "stop": bits}
    said = {"x_label": "bits", "x_name": "bits", "y_label": "right, percent"}
    score = Curves(recipe="rows", inputs=inputs, y_min=0, y_max=100, height=260, **said, **wide)
    slider = w.SelectionSlider(
        options=[str(each) for each in bits], index=start, description="bits", style=WIDE, layout=w.Layout(width="100%")
    )
    return Panel({"index": slider}, {"histogram": histogram, "score": score}, [[histogram], [score]])
