"""A student that learns in the page: no kernel, no network; in JupyterLab, in an exported page, in a file of its own.

The program is js/engine.js (the student, the loss, the steps), js/engine_worker.js (which trains beside the page) and
js/in_page.js (the panel). From the same start, data and seed it takes the steps of `train.Training`.
"""

import base64
import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import torch
import traitlets as t
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdlab import data, live, losses, metrics, models, teachers, train

from .live import Live
from .pieces import JS

PIECES = ("curves", "bars", "digit", "pad")
KNOBS = {"T": (0.1, 100.0, True), "alpha": (0.0, 1.0, False), "lr": (1e-5, 10.0, True), "smoothing": (0.0, 0.5, False)}
DIGITS, SIDE = tuple("0123456789"), 28  # the pad draws on so many pixels, and ten classes can be left out
OPTIMIZERS = {"adam": train.adam, "sgd": lambda weights, lr: torch.optim.SGD(weights, lr, momentum=0.9)}


def pack(part: train.Data, test: tuple[Tensor, Tensor, Tensor], names: Sequence[str]) -> bytes:
    """Return the data of a page, gzipped: images, labels and a teacher's logits, (x, y, t) to learn from and to test.

    x: (n, 1, 28, 28) floats that are whole 255ths, as `data.load` gives them; y: class numbers; t: (n, classes) logits,
    at most ten classes. Raises ValueError for images of another shape, or with values that a byte would change.
    """
    x, y, logits = (torch.cat([a.cpu(), b.cpu()]) for a, b in zip(part, test, strict=True))
    if x.shape[1:] != (1, SIDE, SIDE) or logits.shape != (len(x), len(names)) or len(names) > len(DIGITS):
        raise ValueError(
            f"a page takes square images of one channel (n, 1, {SIDE}, {SIDE}) and logits (n, {len(names)}), one for "
            f"each name, of at most {len(DIGITS)} classes, got {tuple(x.shape)} and {tuple(logits.shape)}"
        )
    images = (x * 255).round().to(torch.uint8)
    if not torch.equal(images.float() / 255, x):
        raise ValueError("a page keeps a byte a pixel: images must be bytes / 255, from 0 to 1, and not normalized")
    header = {
        "n": len(part[1]),
        "n_test": len(test[1]),
        "side": x.shape[2],
        "pixels": x.shape[2] ** 2,
        "classes": len(names),
        "names": [str(name) for name in names],
        "optimizers": {name: _said(optimizer) for name, optimizer in OPTIMIZERS.items()},
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 4)
    parts = (images, y.to(torch.uint8), logits.float())
    body = b"".join(part.contiguous().numpy().tobytes() for part in parts)
    return gzip.compress(struct.pack("<I", len(head)) + head + body, 9, mtime=0)


def _said(optimizer: Any) -> str:
    """The optimizer as `train.Training.settings` names it, so that a log is compared with the same words."""
    few = (torch.zeros(2, 1), torch.zeros(2).long())
    return train.Training(nn.Linear(1, 2), few, train.labels(), steps=1, lr=1.0, optimizer=optimizer).settings()[
        "optimizer"
    ]


def mnist(n: int = 3_000, n_test: int = 1_000, seed: int = 0) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return what the page of the course learns from: digits, their labels and the packaged teacher's logits."""
    digits, teacher = data.load("mnist"), teachers.mnist()
    found = {}
    for part, many in (("train", n), ("test", n_test)):
        x, y = data.subset(*getattr(digits, part), many, seed=seed)
        found[part] = (x.cpu(), y.cpu(), metrics.logits(teacher, x).cpu())
    return found


def run(log: dict[str, Any], part: tuple[Tensor, Tensor, Tensor]) -> live.Run:
    """Return a run of the recipe of a log that a page saved, for `live.replay(log, run(log, part))`.

    part: the (x, y, t) that the page had to learn from. The log names how many of them the student saw, which classes
    it missed, its size and seed. Raises ValueError for a log that no page saved.
    """
    if not isinstance(log.get("page"), dict):
        raise ValueError("this log was not saved by a page: it has no entry 'page' with the student's size and data")
    page, settings = log["page"], log["settings"]
    x, y, logits = (tensor[: int(page["images"])] for tensor in part)
    seen = torch.tensor([str(int(c)) not in str(page["missing"]) for c in y])
    hidden, n_classes = (int(page["units"]),) * int(page["layers"]), logits.shape[1]
    n_in = x[0].numel()
    return live.Run(
        lambda: models.mlp(hidden, n_in=n_in, n_classes=n_classes, seed=settings["seed"]),
        (x[seen], y[seen], logits[seen]),
        objective,
        live.Knobs(**{name: live.Knob(log["start"][name], *KNOBS[name]) for name in KNOBS}),
        batch_size=settings["batch_size"],
        seed=settings["seed"],
    )


def objective(knobs: live.Knobs) -> train.Objective:
    """Return the page's objective: `losses.two_terms`, with `knobs.smoothing` of the label."""

    def terms(model: nn.Module, x: Tensor, y: Tensor, t: Tensor) -> dict[str, Tensor]:
        s = model(x)
        ce = cross_entropy(s, y, label_smoothing=knobs.smoothing)
        return {"ce": (1 - knobs.alpha) * ce, "kd": knobs.alpha * losses.soft_targets(s, t, knobs.T)}

    return terms


# ---- the program, put together


def worker_script() -> str:
    """Return the worker's program."""
    return "\n".join(_source(name) for name in ("pack", "engine", "engine_log", "engine_worker"))


def panel_script() -> str:
    """Return the panel's program: `inPage` and the pieces that it draws with."""
    pieces = [f"const {name.capitalize()} = (() => {{\n{_source(name)}\n}})();" for name in PIECES]
    pieces = [piece.replace("export default", "return") for piece in pieces]
    return "\n".join([_source("math"), _source("draw"), *pieces, _source("pack"), _source("in_page")])


def _source(name: str) -> str:
    return (JS / f"{name}.js").read_text(encoding="utf-8")


class InPage(anywidget.AnyWidget):
    """A panel whose student learns in the browser: the same one with a kernel, without one, and in a page of its own.

    data: {"train": (x, y, t), "test": (x, y, t)}, images of one channel with a teacher's logits; by default `mnist()`.
    names: of the classes. knobs: T, alpha, lr, smoothing, and units, layers, images, seeds, missing to begin with;
    opening={"steps": 100, "fork": {"T": 0.3}} opens it after so many steps, a fork, and as many steps again.
    `log` is what Save log saved, for `live.replay`.
    """

    _esm = panel_script() + "\nexport default { render: inNotebook };"
    _css = (JS / "style.css").read_text(encoding="utf-8")
    packed = t.Bytes().tag(sync=True)
    source = t.Unicode().tag(sync=True)
    given = t.Dict().tag(sync=True)
    log = t.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(self, data: dict[str, tuple] | None = None, names: Sequence[str] = DIGITS, **knobs):
        found = data or mnist()
        super().__init__(packed=pack(found["train"], found["test"], names), source=worker_script(), given=knobs)


def or_in_page(panel: Live, **knobs: Any) -> w.VBox:
    """Return the live panel, and for exported pages, which have no kernel, one whose student learns in the page.

    panel: of a run on (x, y, t), images of one channel, with the teacher's logits of its test cases. knobs: as for
    InPage; T, alpha and lr begin where the panel's do.
    """
    run = panel.runs["A"]
    if panel.teacher is None or not isinstance(run.recipe["data"], tuple) or len(run.recipe["data"]) != 3:
        raise ValueError(
            "a student in the page learns from (x, y, teacher's logits) and is tested beside the teacher: make the run "
            "on (x, y, metrics.logits(teacher, x)), and the panel with teacher=metrics.logits(teacher, x_test)"
        )
    begun = {name: value for name, value in run.knobs.start.items() if name in KNOBS}
    n, n_test = min(len(run.recipe["data"][1]), 3_000), min(len(panel.y), 1_000)
    part, test = run.recipe["data"], (panel.x, panel.y, panel.teacher)
    found = {"train": tuple(each[:n] for each in part), "test": tuple(each[:n_test] for each in test)}
    page = InPage(found, panel.names, **{"images": n, **begun, **knobs})
    panel.add_class("kd-with-kernel")
    page.add_class("kd-without-kernel")
    return w.VBox([panel, page])


def write_page(path: Path | str, packed: bytes | None = None) -> Path:
    """Write a page of its own with the panel: one file, opened from a disk, that needs no network. Returns its path.

    packed: the data, from `pack`; by default those of `mnist`.
    """
    if packed is None:
        packed = pack(*mnist().values(), DIGITS)
    page = (Path(__file__).parent / "page" / "student.html").read_text(encoding="utf-8")
    filled = {
        "STYLE": (JS / "style.css").read_text(encoding="utf-8"),
        "PANEL": panel_script(),
        "HERO": _source("hero"),
        "WORKER": worker_script(),
        "PACK": base64.b64encode(packed).decode(),
    }
    for name, text in filled.items():
        page = page.replace(f"/*{name}*/", text.replace("</", "<\\/") if name in ("PANEL", "HERO", "WORKER") else text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
