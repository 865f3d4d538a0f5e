"""Four pictures drawn in the browser: Bars, Curves, Matrix, Digit.

A piece draws what its `recipe` (a formula of js/math.js) makes of `inputs` at `index`, `T`, `alpha` …
Link those traits with `ipywidgets.jslink` and the picture follows a slider in the browser, in an exported page too.
"""

import math
import time
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

JS = Path(__file__).parent / "js"
RECIPES = {  # formula → the inputs it needs; {} takes any named series
    "Bars": {
        "as_given": {},
        "softened": {"logits"},
        "two_terms": {"student", "teacher", "labels"},
        "hot_limit": {"student", "teacher"},
        "ensemble": {"members"},
        "nets": {},
        "words": {"teacher", "student", "groups"},
        "eq5": {"logits", "specialists", "clusters"},
    },
    "Curves": {
        "": {},
        "paths": {"logits", "classes"},
        "gradient_size": {"student", "teacher"},
        "runs": {"x"},
        "rows": {"x"},
    },
    "Matrix": {"": {}, "similarity": {"logits", "labels"}, "confusion": {"logits", "labels", "classes"}},
    "Points": {"front": {"costs", "score"}},
    "Sound": {"heard": {"teacher", "student", "groups", "truth"}},
}
ROWS = ("logits", "student", "teacher")  # inputs with a row an image


def array(x: Any) -> np.ndarray:
    """A tensor (on any device, with or without gradient), array or list as an array."""
    x = x.detach().cpu() if hasattr(x, "detach") else x
    return np.asarray(x.float() if hasattr(x, "is_floating_point") and x.is_floating_point() else x)


def script(name: str) -> str:
    return "".join((JS / f"{part}.js").read_text(encoding="utf-8") for part in ("math", "draw", name))


def _numbers(name: str, x: Any) -> list:
    """Nested lists for the browser, at float32's seven digits: half the size of a saved notebook's state."""
    x = array(x)
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise ValueError(f"{name} contain NaN or infinity and cannot be drawn; did a training diverge?")
        x = np.array([float(f"{v:.7g}") for v in x.ravel()]).reshape(x.shape)
    elif x.dtype.kind not in "iub":
        raise ValueError(f"{name} must be numbers of one shape, got {x.dtype} with shape {x.shape}")
    return x.tolist()


class Piece(anywidget.AnyWidget):
    """What all pieces share: the knobs a slider can be linked to, and the checks."""

    _css = (JS / "style.css").read_text(encoding="utf-8")
    title = t.Unicode().tag(sync=True)
    recipe = t.Unicode().tag(sync=True)
    inputs = t.Dict().tag(sync=True)  # name → lists of numbers; tensors are converted
    order = t.List(t.Unicode()).tag(sync=True)  # of the inputs: a saved notebook keeps their names sorted
    index = t.Int(0).tag(sync=True)  # which row of logits, which image
    T = t.Float(1.0).tag(sync=True)  # temperature > 0
    alpha = t.Float(0.5).tag(sync=True)  # share of the soft-target term
    t_squared = t.Bool(True).tag(sync=True)
    bias = t.Float(0.0).tag(sync=True)  # added to some classes' logits
    step = t.Int(0).tag(sync=True)  # of eq. 5
    plain = t.Bool(False).tag(sync=True)  # eq. 5 by plain gradient descent
    labels = t.List().tag(sync=True)  # names of the classes; numbers without
    x_label = t.Unicode().tag(sync=True)
    y_label = t.Unicode().tag(sync=True)
    height = t.Int(300).tag(sync=True)  # of the chart, pixels

    def __init__(self, **settings):
        super().__init__(**settings)
        allowed = RECIPES.get(type(self).__name__, {"": {}})
        if self.recipe not in allowed:
            raise ValueError(f"{type(self).__name__} has no recipe {self.recipe!r}; it knows {sorted(allowed)}")
        missing = set(allowed[self.recipe]) - set(self.inputs)
        if missing:
            raise ValueError(f"recipe {self.recipe!r} needs inputs {sorted(missing)}, got only {sorted(self.inputs)}")

    @t.observe("inputs")
    def _keep_order(self, change):
        self.order = list(change.new)

    @t.validate("T")
    def _check_T(self, proposal):
        if not (proposal.value > 0 and math.isfinite(proposal.value)):
            raise ValueError(f"temperature T must be > 0, got {proposal.value}; T = 1 softens nothing")
        return proposal.value

    @t.validate("alpha")
    def _check_alpha(self, proposal):
        if not 0 <= proposal.value <= 1:
            raise ValueError(f"alpha is the soft targets' share of the loss, between 0 and 1, got {proposal.value}")
        return proposal.value

    @t.validate("inputs")
    def _check_inputs(self, proposal):
        inputs = {name: _numbers(name, x) for name, x in proposal.value.items()}
        shapes = {name: np.shape(x) for name, x in inputs.items()}
        by_row = self._by_row(inputs)
        for name, shape in shapes.items():
            if self.recipe == "nets" and shape == (0,):  # a net that was not asked yet: bars of no height
                continue
            if (name in by_row or name == "members") and (len(shape) != 2 or 0 in shape):
                raise ValueError(f"{name} must have two dimensions (images or members, classes), got shape {shape}")
        rows = {name: shapes[name] for name in by_row}
        if len(set(rows.values())) > 1:
            raise ValueError(f"logits of one shape are wanted, got {rows}; were they made on different images?")
        if rows and "labels" in shapes and "labels" not in rows:
            n, classes = next(iter(rows.values()))
            if shapes["labels"] != (n,):
                raise ValueError(f"{n} rows of logits want {n} labels, got labels of shape {shapes['labels']}")
            if not all(isinstance(c, int) and 0 <= c < classes for c in inputs["labels"]):
                raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}, the classes of the logits")
        return inputs

    @t.validate("index")
    def _check_index(self, proposal):
        n = self._rows()
        if proposal.value < 0 or (n and proposal.value >= n):
            raise ValueError(f"index must be from 0 to {n - 1}, got {proposal.value}")
        return proposal.value

    def _by_row(self, inputs: dict) -> list[str]:
        """The inputs with a row an image, or a run; those of `nets` and `runs` are called as the nets are."""
        curves = inputs.keys() - {"x", "stop"}
        named = {"nets": inputs.keys(), "runs": curves, "rows": curves}.get(self.recipe, ROWS)
        return [name for name in inputs if name in named]

    def _rows(self) -> int:
        return next((len(self.inputs[name]) for name in self._by_row(self.inputs)), 0)

    @t.validate("labels")
    def _check_labels(self, proposal):
        rows = [self.inputs[name] for name in (*self._by_row(self.inputs), "members") if len(self.inputs.get(name, []))]
        classes = len(rows[0][0]) if rows else None
        if "groups" in self.inputs:  # the names are those of groups of classes
            classes = max(self.inputs["groups"]) + 1
        if classes and proposal.value and len(proposal.value) != classes:
            raise ValueError(f"{len(proposal.value)} names for {classes} classes: {proposal.value}")
        return [str(name) for name in proposal.value]


class Bars(Piece):
    """Bars of a recipe's series, one group a class: `Bars(recipe="softened", inputs={"logits": rows}, T=4)`.

    Without a formula: `Bars(recipe="as_given", inputs={"errors": [3, 1, 2]})`, one series an input.
    """

    _esm = script("bars")
    recipe = t.Unicode("as_given").tag(sync=True)
    highlight = t.List(t.Int()).tag(sync=True)  # the true class: one for all rows, or one a row
    y_min = t.Float(1e-6).tag(sync=True)  # foot of a log axis
    y_max = t.Float(0.0).tag(sync=True)  # 0: from the values
    log_y = t.Bool(False).tag(sync=True)


class Curves(Piece):
    """Lines: a recipe's, with a cursor at T; given ones; or points that arrive while a net trains.

    >>> curves = Curves(x_label="step", y_label="loss")      # doctest: +SKIP
    >>> for step in range(1000):
    ...     curves.append(step, {"student": float(step)})
    >>> curves.flush()

    Lines whose names agree up to a comma ("alone, seed 0", "alone, seed 1") share a color.
    Only new points travel, at most every `interval` seconds. `flush` sends the rest and keeps at most `KEPT` points a
    series in the saved notebook; `append` does so by itself now and then, so that a reloaded page is not empty.
    """

    _esm = script("curves")
    KEPT = 2_000
    interval = 0.05  # seconds

    x_name = t.Unicode("step").tag(sync=True)  # what the read-out calls x
    cursor = t.Bool(False).tag(sync=True)  # a vertical line at x = T
    log_x = t.Bool(False).tag(sync=True)
    log_y = t.Bool(False).tag(sync=True)
    y_min = t.Float(None, allow_none=True).tag(sync=True)  # None: from the values
    y_max = t.Float(None, allow_none=True).tag(sync=True)
    history = t.Bytes().tag(sync=True)  # float32 pairs x, y, series after series
    history_names = t.List(t.Unicode()).tag(sync=True)
    history_counts = t.List(t.Int()).tag(sync=True)

    def __init__(self, lines: dict[str, tuple] | None = None, **settings):
        super().__init__(**settings)
        self._points: dict[str, list[float]] = {}  # x0, y0, x1, y1, …
        self._waiting: dict[str, list[float]] = {}
        self._sent_at, self._unkept, self._next_keep = -math.inf, 0, 1
        for name, (x, y) in (lines or {}).items():
            x, y = array(x).ravel(), array(y).ravel()
            if len(x) != len(y):
                raise ValueError(f"line {name!r} has {len(x)} x but {len(y)} y")
            self._points[name] = np.stack([x, y], 1).ravel().tolist()
        if lines:
            self.flush()

    def append(self, step: float, values: dict[str, float]) -> None:
        """Add a point to each named line; a new name begins a new line. Cheap enough for every step."""
        for name, value in values.items():
            point = (float(step), float(value))
            self._points.setdefault(name, []).extend(point)
            self._waiting.setdefault(name, []).extend(point)
        self._unkept += 1
        now = time.monotonic()
        if self._unkept >= self._next_keep:  # after 1, 2, 4, … points, later every KEPT
            self._next_keep = min(2 * self._next_keep, self.KEPT)
            self.flush()
        elif now - self._sent_at >= self.interval:
            self._send_waiting()
            self._sent_at = now

    def _send_waiting(self) -> None:
        names, self._waiting, waiting = list(self._waiting), {}, self._waiting
        data = np.array([v for name in names for v in waiting[name]], dtype="<f4").tobytes()
        counts = [len(waiting[name]) // 2 for name in names]
        self.send({"kind": "append", "names": names, "counts": counts}, buffers=[data])

    def flush(self) -> None:
        """Show every point and keep them, thinned, in the notebook: call it when a run pauses or ends."""
        kept = {name: thinned(np.array(xy).reshape(-1, 2), self.KEPT) for name, xy in self._points.items()}
        self._waiting, self._unkept, self._sent_at = {}, 0, time.monotonic()
        with self.hold_sync():
            self.history_names, self.history_counts = list(kept), [len(xy) for xy in kept.values()]
            self.history = b"".join(xy.astype("<f4").tobytes() for xy in kept.values())

    def clear(self) -> None:
        """Forget all points."""
        self._points, self._next_keep = {}, 1
        self.flush()

    def drop(self, *names: str) -> None:
        """Forget the points of these lines."""
        for name in names:
            self._points.pop(name, None)
        self.flush()

    def lines(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every point, unthinned: name → (x, y)."""
        return {name: tuple(np.array(xy).reshape(-1, 2).T) for name, xy in self._points.items()}


def thinned(xy: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the points (n, 2): the first, the last, and the lowest and highest of each stretch between."""
    if len(xy) <= most:
        return xy
    keep = [0, len(xy) - 1]
    for stretch in np.array_split(np.arange(1, len(xy) - 1), (most - 2) // 2):
        y = np.nan_to_num(xy[stretch, 1])
        keep += [stretch[y.argmin()], stretch[y.argmax()]]
    return xy[np.unique(keep)]


class Matrix(Piece):
    """A heat map of `values`, or of a recipe; `selected` [row, column] follows clicks and arrow keys."""

    _esm = script("matrix")
    values = t.List().tag(sync=True)  # (rows, columns); a tensor is converted
    row_labels = t.List(t.Unicode()).tag(sync=True)  # as `labels` if empty
    selected = t.List(t.Int()).tag(sync=True)
    hide_diagonal = t.Bool(False).tag(sync=True)
    z_max = t.Float(0.0).tag(sync=True)  # the brightest color's value; 0: the largest shown

    def __init__(self, values: Any = None, **settings):
        if values is not None:
            settings["values"] = self._lists(values)
        super().__init__(**settings)
        if not self.recipe and not self.values:
            raise ValueError("Matrix needs values (rows, columns), or a recipe with its inputs")

    def put(self, values: Any) -> None:
        """Show other values."""
        self.values = self._lists(values)

    @staticmethod
    def _lists(values: Any) -> list:
        if array(values).ndim != 2 or 0 in array(values).shape:
            raise ValueError(f"a matrix (rows, columns) is wanted, got shape {array(values).shape}")
        return _numbers("values", values)


class Digit(Piece):
    """Gray images, dark ink on light paper: the one at `index`, or all those in `show`.

    images: (n, H, W), (n, 1, H, W), (n, H·W) if square, or one (H, W); uint8, or floats from 0 (paper) to 1 (ink).
    """

    _esm = script("digit")
    images = t.Bytes().tag(sync=True)
    shape = t.List(t.Int()).tag(sync=True)  # n, H, W
    show = t.List(t.Int()).tag(sync=True)
    captions = t.List(t.Unicode()).tag(sync=True)  # one an image
    size = t.Int(168).tag(sync=True)  # of an image on the screen, pixels wide

    def __init__(self, images: Any, captions: list[str] = (), **settings):
        super().__init__(**self.sheets(images, captions), **settings)

    def put(self, images: Any, captions: list[str] = ()) -> None:
        """Show other images."""
        with self.hold_sync():
            self.set_trait("index", 0)
            for name, value in self.sheets(images, captions).items():
                self.set_trait(name, value)

    @staticmethod
    def sheets(images: Any, captions: list[str]) -> dict[str, Any]:
        x = array(images)
        side = math.isqrt(x.shape[-1]) if x.ndim else 0
        if x.ndim == 4 and x.shape[1] == 1:
            x = x[:, 0]
        elif x.ndim == 2 and x.shape[0] != x.shape[1] and side**2 == x.shape[1]:
            x = x.reshape(len(x), side, side)
        elif x.ndim == 2:
            x = x[None]
        if x.ndim != 3:
            raise ValueError(f"gray images (n, H, W) are wanted, got shape {x.shape}")
        if x.dtype != np.uint8:
            if x.size and not (x.min() >= 0 and x.max() <= 1):
                raise ValueError(
                    f"images must be uint8, or floats from 0 to 1, got {x.min():.3g} to {x.max():.3g}; "
                    "were they normalized for a net?"
                )
            x = (x * 255).round().astype(np.uint8)
        if captions and len(captions) != len(x):
            raise ValueError(f"{len(x)} images want {len(x)} captions, got {len(captions)}")
        return {"images": x.tobytes(), "shape": list(x.shape), "captions": [str(c) for c in captions]}

    def _rows(self) -> int:
        return self.shape[0] if self.shape else 0
