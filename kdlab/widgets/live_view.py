"""The parts of the live panel and their layout: buttons, curves, soft targets, confusions and the table of runs."""

from typing import Any

import anywidget
import ipywidgets as w
import torch
import traitlets as t
from torch import Tensor

from kdlab.live.knobs import Run

from .controls import WIDE
from .pieces import JS, Bars, Curves, Digit, Matrix

BUTTONS = [
    ("play", "Play", "play", "train, in the background"),
    ("pause", "Pause", "pause", "stop after this step"),
    ("step", "Step", "step-forward", "take one step"),
    ("reset", "Reset", "undo", "begin the active run again"),
    ("fork", "Fork", "code-fork", "from here on two runs: compare them"),
    ("save", "Save log", "save", "write the log and the weights"),
]
HALF = {"flex": "1 1 0", "min_width": "0", "width": "auto"}


class Pulse(anywidget.AnyWidget):
    """Tells whether a page shows the panel; keeps what went wrong, so that a run of the notebook notices."""

    _esm = JS / "pulse.js"
    problem = t.Unicode().tag(sync=True)


def curves(y_label: str, title: str) -> Curves:
    """Return empty curves over steps, on a log scale."""
    layout = w.Layout(**HALF)
    return Curves(x_label="step", y_label=y_label, log_y=True, title=title, height=320, layout=layout)


def soft_targets(logits: dict[str, Tensor], names: list[str], labels: list[int], T: float) -> Bars:
    """Return bars of the models' predictions at T. logits: (cases, classes) by the model's name."""
    look = {"y_max": 1.0, "y_label": "probability at T", "title": "soft targets", "layout": w.Layout(**HALF)}
    return Bars(recipe="nets", inputs=logits, labels=names, T=T, highlight=labels, **look)


def confusion(names: list[str]) -> Matrix:
    """Return an empty matrix of the classes that the student takes for another."""
    axes = {"y_label": "class of the case", "x_label": "what the student says"}
    look = {"hide_diagonal": True, "title": "taken for", "layout": w.Layout(flex="0 0 470px")}
    return Matrix(torch.zeros(2, 2).int(), labels=names, **axes, **look)


def image(x: Tensor) -> Digit | None:
    """Return the picture of the test cases, or None where they are no images of one channel."""
    if x.dim() == 4 and x.shape[1] == 1:
        return Digit(x, size=130, layout=w.Layout(flex="0 0 auto"))
    return None


def case_chooser(texts: list[str], n: int) -> w.Widget:
    """Return what chooses one of n test cases: a list of their texts, or a slider."""
    look = {"description": "test case", "style": WIDE, "layout": w.Layout(width="100%")}
    return w.Dropdown(options=texts, **look) if texts else w.IntSlider(0, 0, n - 1, **look)


def link(case: w.Widget, T: w.Widget | None, bars: Bars, picture: Digit | None) -> None:
    """Let the chosen case and the temperature drive the pictures, in the browser."""
    of_case = (case, "index" if isinstance(case, w.Dropdown) else "value")
    w.jslink(of_case, (bars, "index"))
    if picture is not None:
        w.jslink(of_case, (picture, "index"))
    if T is not None:
        w.jslink((T, "value"), (bars, "T"))


def rows(live: Any) -> list[w.Widget]:
    """Return the rows of a `Live` panel, from its buttons to its log."""
    line = {"align_items": "center", "flex_flow": "row wrap", "grid_gap": "6px 10px"}
    keep = [live.buttons["save"], live.file, live.upload]
    bias = [w.HBox([live.classes, live.controls["bias"]])] if "bias" in live.controls else []
    sliders = [slider for name, slider in live.controls.items() if name != "bias"]
    pictures = [piece for piece in (live.image, live.bars) if piece is not None]
    seen = w.VBox(
        [live.case, w.HBox(pictures, layout=w.Layout(grid_gap="16px"))],
        layout=w.Layout(flex="1 1 0", min_width="0"),
    )
    few = [live.confusion] if len(live.names) <= 30 else []  # more cells than one can read, or a browser draw
    buttons = [live.buttons[name] for name in ("play", "pause", "step", "reset", "fork")]
    return [
        w.HBox([*buttons, live.all_play, live.active], layout=w.Layout(**line)),
        live.status,
        *sliders,
        *bias,
        w.HBox([live.errors, live.losses], layout=w.Layout(grid_gap="16px")),
        live.table,
        w.HBox([seen, *few], layout=w.Layout(grid_gap="16px", align_items="flex-start")),
        w.HBox([*keep, live.pulse], layout=w.Layout(**line)),
    ]


def table(runs: dict[str, Run], errors: dict[str, int], verdicts: dict[Run, str], n: int) -> str:
    """The runs side by side: steps, errors, and where their knobs stood from which step on."""
    rows = [
        f"<tr><td>{name}</td><td>{run.number:,}</td><td>{f'{errors[name]:,} of {n:,}' if name in errors else ''}</td>"
        f"<td style='text-align: left'>{_turned(run)} <b>{verdicts.get(run, '')}</b></td></tr>"
        for name, run in runs.items()
    ]
    head = "<tr><th>run</th><th>steps</th><th>errors</th><th style='text-align: left'>knobs, from step</th></tr>"
    return f"<table style='font-size: 14px; border-spacing: 14px 1px'>{head}{''.join(rows)}</table>"


def _turned(run: Run, most: int = 3) -> str:
    turns = [{"step": 0, **run.knobs.start}, *run.knobs.turns]
    told = [
        f"{turn['step']:,}: " + ", ".join(f"{key} {_short(value)}" for key, value in turn.items() if key != "step")
        for turn in turns
    ]
    return "; ".join(told if len(told) <= most + 1 else [told[0], f"… {len(told) - 1 - most} turns …", *told[-most:]])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "[" + " ".join(f"{v:g}" for v in value) + "]"
