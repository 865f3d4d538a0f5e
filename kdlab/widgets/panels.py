"""Sliders above pieces: data in, a box out. The browser joins them and does the sums, so that panels need no kernel.

Logits are (images, classes), or (classes,) for one image; labels a number or one an image; names one a class.
"""

import math
from typing import Any

import ipywidgets as w
import torch

from kdlab import metrics
from kdlab.metrics import class_bias as of

from .pieces import Bars, Curves, Digit, Matrix, Piece, array

WIDE = {"description_width": "120px"}


class Panel(w.VBox):
    """Controls above pieces. Each control drives the trait of its name in every piece that has it, in the browser.

    controls, pieces: by name, such as `panel.controls["T"].value = 20` or `panel.pieces["bars"].title = "…"`.
    """

    def __init__(self, controls: dict[str, w.Widget], pieces: dict[str, Piece], rows: list[list[w.Widget]]):
        self.controls, self.pieces = controls, pieces
        self.links = [
            w.jslink((control, "index" if isinstance(control, w.SelectionSlider) else "value"), (piece, name))
            for name, control in controls.items()
            for piece in pieces.values()
            if piece.has_trait(name)
        ]
        free = {"overflow": "hidden", "width": "100%"}
        boxes = [w.HBox(row, layout=w.Layout(align_items="flex-start", grid_gap="24px", **free)) for row in rows]
        super().__init__([*controls.values(), *boxes], layout=w.Layout(max_width="960px", grid_gap="6px", **free))
        self.add_class("kd-panel")


def _slider_T(T: float) -> w.FloatLogSlider:
    if T <= 0:
        raise ValueError(f"temperature T must be > 0, got {T}; T = 1 leaves the predictions unsoftened")
    step, at = 0.05, math.log10(T)  # twenty steps a decade, from about 0.1 to about 100, one of them at T itself
    low = at - step * max(0, round((at + 1) / step))
    return w.FloatLogSlider(
        T,
        base=10,
        min=low,
        max=max(at, low + 3),
        step=step,
        readout_format=".3g",
        description="temperature T",
        style=WIDE,
        layout=w.Layout(width="100%"),
    )


def _slider_index(n: int) -> dict[str, w.IntSlider]:
    """A slider for the image, or none for one image."""
    style = {"description": "image", "style": WIDE, "layout": w.Layout(width="100%")}
    return {"index": w.IntSlider(0, 0, n - 1, **style)} if n > 1 else {}


def _check(value: bool, text: str) -> w.Checkbox:
    return w.Checkbox(value, description=text, style=WIDE, layout=w.Layout(width="auto"))


def _rows(logits: Any) -> Any:
    return array(logits)[None] if array(logits).ndim == 1 else array(logits)


def _label_list(label: Any, n: int) -> list[int]:
    labels = [] if label is None else [int(c) for c in array(label).ravel()]
    if labels and len(labels) != n:
        raise ValueError(f"{n} rows of logits want {n} labels, got {len(labels)}")
    return labels


def _grow(piece: Piece) -> Piece:
    """Let a piece take the room that its neighbours in a row leave."""
    piece.layout = w.Layout(flex="1 1 0", min_width="0", width="auto")
    return piece


def _digit(image: Any, n: int, captions: list[str] = ()) -> dict[str, Digit]:
    """The picture beside the bars, or none."""
    if image is None:
        return {}
    digit = Digit(image, captions=captions, layout=w.Layout(flex="0 0 auto"))
    if digit.shape[0] != n:
        raise ValueError(f"{n} rows of logits want {n} images, got {digit.shape[0]}")
    return {"digit": digit}


def _softened(logits: Any, names: list[str], image: Any, label: Any, T: float) -> tuple[dict, dict]:
    """Controls and pieces of a soft target."""
    logits = _rows(logits)
    labels = _label_list(label, len(logits))
    inputs = {"logits": logits} | ({"labels": labels} if labels else {})
    bars = Bars(recipe="softened", inputs=inputs, labels=names, highlight=labels, T=T, y_max=1.0, y_label="probability")
    controls = _slider_index(len(logits)) | {"T": _slider_T(T), "log_y": _check(False, "log axis")}
    return controls, _digit(image, len(logits)) | {"bars": _grow(bars)}


def temperature(logits: Any, names: list[str], image: Any = None, label: Any = None, T: float = 4.0) -> Panel:
    """Softmax(logits / T) as bars, its entropy and the wrong classes' share; on a log axis by the check box."""
    controls, pieces = _softened(logits, names, image, label, T)
    return Panel(controls, pieces, [list(pieces.values())])


def microscope(
    logits: Any,
    images: Any,
    labels: Any,
    classes: tuple[int, ...] = (3, 7),
    names: list[str] | None = None,
    T: float = 4.0,
    others: tuple | None = None,
    n_shown: int = 4,
) -> Panel:
    """Dark knowledge in one image after another: its soft target at T, and the probability of `classes` at every T.

    others: (logits, images, labels); of their cases of `classes`, those whose soft targets come nearest to this
    image's are shown below, nearest first (this needs a kernel).
    """
    names = names or [str(c) for c in range(array(logits).shape[-1])]
    controls, pieces = _softened(logits, names, images, labels, T)
    paths = Curves(
        recipe="paths",
        inputs={"logits": _rows(logits), "classes": list(classes)},
        labels=names,
        T=T,
        cursor=True,
        log_x=True,
        y_min=0.0,
        x_label="temperature T",
        x_name="T",
        y_label="probability",
        height=260,
    )
    panel = Panel(controls, pieces | {"paths": paths}, [list(pieces.values()), [_grow(paths)]])
    if others is not None:  # added late, so that no slider is linked to its own index
        panel.pieces["near"] = _near(torch.as_tensor(_rows(logits)), pieces["bars"], others, classes, names, n_shown)
        panel.children = [*panel.children, panel.pieces["near"]]
    return panel


def _near(logits: torch.Tensor, bars: Bars, others: tuple, classes: tuple, names: list[str], n_shown: int) -> Digit:
    """The cases of `others` that look most like the image the bars show, following its index and T."""
    theirs, images, labels = (torch.as_tensor(array(part)) for part in others)
    sheets = Digit(images[:1], size=84, layout=w.Layout(flex="1 1 0"))

    def show(_=None):
        near = [metrics.nearest(logits[bars.index], theirs, bars.T, labels == c, n_shown) for c in classes]
        near = torch.cat(near)
        sheets.put(images[near], [f"a {names[c]}" for c in labels[near].tolist()])
        sheets.show = list(range(len(near)))
        sheets.title = f"nearest at T = {bars.T:.3g}: " + ", ".join(f"{names[c]}s" for c in classes)

    bars.observe(show, names=["index", "T"])
    show()
    return sheets


def similarity(logits: Any, labels: Any, names: list[str], T: float = 4.0, images: Any = None) -> Panel:
    """Which class looks like which: row i is the mean soft target of class i's images, in per cent.

    Click a cell (i, j): with `images`, the class i images that look most like j appear beside it (this needs a kernel).
    """
    logits, truth = torch.as_tensor(_rows(logits)), torch.as_tensor(array(labels))
    inputs = {"logits": logits, "labels": truth}
    matrix = Matrix(
        recipe="similarity",
        inputs=inputs,
        labels=names,
        T=T,
        hide_diagonal=True,
        y_label="class of the image",
        x_label="mean probability of, in per cent",
    )
    controls, pieces = {"T": _slider_T(T)}, {"matrix": _grow(matrix)}
    if images is None:
        return Panel(controls, pieces, [[matrix]])
    if len(images) != len(logits):
        raise ValueError(f"{len(logits)} rows of logits want {len(logits)} images, got {len(images)}")
    sheets = Digit(images[:1], title="click a cell", size=84, layout=w.Layout(flex="0 0 384px"))

    def show(_=None):
        i, j = matrix.selected
        share = (logits / matrix.T).softmax(1)[:, j].where(truth == i, -1.0)
        top = share.topk(min(8, int((truth == i).sum()))).indices.tolist()
        if top:
            sheets.put(images[top], [f"{100 * share[n]:.1f} %" for n in top])
        sheets.show = list(range(len(top)))
        sheets.title = f"{names[i]}s most like {names[j]}, at T = {matrix.T:.3g}"

    matrix.observe(show, names=["selected", "T"])
    likeliest = int(metrics.similarity(logits, truth, T).fill_diagonal_(0).argmax())
    matrix.selected = list(divmod(likeliest, logits.shape[1]))
    return Panel(controls, pieces | {"sheets": sheets}, [[matrix, sheets]])


def omitted(
    logits: Any,
    labels: Any,
    classes: tuple[int, ...],
    names: list[str],
    images: Any = None,
    bias: float = 0.0,
    width: float = 15.0,
) -> Panel:
    """Confusions while a slider moves the bias of `classes`, which the student never saw (or alone saw).

    bias: where the slider begins; width: how far it reaches to either side of 0. With `images`, those of the classes
    that are still got wrong appear beside it (this needs a kernel).
    """
    logits, truth = torch.as_tensor(_rows(logits)), torch.as_tensor(array(labels))
    inputs = {"logits": logits, "labels": truth, "classes": list(classes)}
    matrix = Matrix(
        recipe="confusion",
        inputs=inputs,
        labels=names,
        bias=bias,
        hide_diagonal=True,
        y_label="class of the image",
        x_label="called, how often",
    )
    said = "bias of " + ", ".join(f"{names[c]}" for c in classes)
    slider = w.FloatSlider(
        bias, min=-width, max=width, step=0.1, description=said, style=WIDE, layout=w.Layout(width="100%")
    )
    if images is None:
        return Panel({"bias": slider}, {"matrix": matrix}, [[matrix]])
    if len(images) != len(logits):
        raise ValueError(f"{len(logits)} rows of logits want {len(logits)} images, got {len(images)}")
    sheets, images = Digit(images[:1], size=64, layout=w.Layout(flex="0 0 360px")), torch.as_tensor(array(images))

    def show(_=None):
        called = of.shifted(logits, classes, matrix.bias).argmax(dim=1)
        wrong = (torch.isin(truth, torch.tensor(list(classes))) & (called != truth)).nonzero().flatten()
        some = wrong[:20]
        if len(some):
            sheets.put(images[some], [f"called {names[c]}" for c in called[some].tolist()])
        sheets.show = list(range(len(some)))
        told = " and ".join(f"{names[c]}s" for c in classes)
        sheets.title = f"{len(wrong)} {told} still wrong" + (f", the first {len(some)}" if len(wrong) > 20 else "")

    matrix.observe(show, names="bias")
    show()
    return Panel({"bias": slider}, {"matrix": _grow(matrix), "sheets": sheets}, [[matrix, sheets]])


def specialists(
    generalist: Any, answers: Any, clusters: Any, labels: Any, names: list[str], images: Any = None, n_steps: int = 60
) -> Panel:
    """Eq. 5, image by image: the generalist's doubt, what awake specialists say, and q on its way to one answer.

    generalist: (images, classes) logits; answers: the specialists' corrected ones, (specialists, images, own + 1), the
    dustbin last; clusters: the classes of each. A class outside its own a specialist leaves to "others".
    """
    logits, answers, clusters = _rows(generalist), array(answers), array(clusters)
    if answers.shape[:2] != (len(clusters), len(logits)) or answers.shape[2:] != (clusters.shape[1] + 1,):
        raise ValueError(
            f"{len(clusters)} specialists of {clusters.shape[1]} classes and {len(logits)} images want "
            f"answers (specialists, images, classes + dustbin), got {answers.shape}"
        )
    truth = _label_list(labels, len(logits))
    bars = Bars(
        recipe="eq5",
        labels=names,
        y_max=1.0,
        y_label="probability",
        height=340,
        inputs={"logits": logits, "specialists": answers, "clusters": clusters, "labels": truth},
    )
    wide = {"style": WIDE, "layout": w.Layout(width="100%")}
    controls = _slider_index(len(logits)) | {
        "step": w.IntSlider(0, 0, n_steps, description="steps of eq. 5", **wide),
        "plain": _check(False, "plain gradient descent on z"),
    }
    pieces = _digit(images, len(logits), [names[c] for c in truth]) | {"bars": _grow(bars)}
    return Panel(controls, pieces, [list(pieces.values())])


def two_terms(
    student_logits: Any,
    teacher_logits: Any,
    label: Any,
    names: list[str],
    image: Any = None,
    T: float = 4.0,
    alpha: float = 0.5,
) -> Panel:
    """The two terms of the loss at T and alpha, and what each asks of the student's logits, class by class."""
    student, teacher = _rows(student_logits), _rows(teacher_logits)
    labels = _label_list(label, len(student))
    inputs = {"student": student, "teacher": teacher, "labels": labels}
    bars = Bars(
        recipe="two_terms",
        inputs=inputs,
        labels=names,
        highlight=labels,
        T=T,
        alpha=alpha,
        y_label="gradient of the loss with respect to the logit",
    )
    pieces = _digit(image, len(student)) | {"bars": _grow(bars)}
    slider = w.FloatSlider(
        alpha,
        min=0,
        max=1,
        step=0.05,
        readout_format=".2f",
        description="weight alpha",
        style=WIDE,
        layout=w.Layout(width="100%"),
    )
    controls = {"T": _slider_T(T), "alpha": slider, "t_squared": _check(True, "soft targets' term times T²")}
    return Panel(_slider_index(len(student)) | controls, pieces, [list(pieces.values())])


def gradient_size(student_logits: Any, teacher_logits: Any, T: float = 4.0) -> Panel:
    """Mean size of the soft targets' gradient against T, with and without the factor T²."""
    inputs = {"student": _rows(student_logits), "teacher": _rows(teacher_logits)}
    curves = Curves(
        recipe="gradient_size",
        inputs=inputs,
        T=T,
        cursor=True,
        log_x=True,
        log_y=True,
        height=340,
        x_label="temperature T",
        x_name="T",
        y_label="gradient size",
    )
    return Panel({"T": _slider_T(T)}, {"curves": _grow(curves)}, [[curves]])


def hot_limit(student_logits: Any, teacher_logits: Any, names: list[str], T: float = 4.0) -> Panel:
    """The soft targets' gradient beside its limit for high T, the difference of centred logits (section 2.1)."""
    inputs = {"student": _rows(student_logits), "teacher": _rows(teacher_logits)}
    bars = Bars(recipe="hot_limit", inputs=inputs, labels=names, T=T, y_label="student − teacher")
    controls = _slider_index(len(inputs["student"])) | {"T": _slider_T(T)}
    return Panel(controls, {"bars": _grow(bars)}, [[bars]])


def ensemble(member_logits: Any, names: list[str], T: float = 1.0) -> Panel:
    """Two ways of averaging an ensemble's soft targets: arithmetic and geometric. member_logits: (members, classes)."""
    inputs = {"members": member_logits}
    bars = Bars(recipe="ensemble", inputs=inputs, labels=names, T=T, y_max=1.0, y_label="probability")
    controls = {"T": _slider_T(T), "log_y": _check(False, "log axis")}
    return Panel(controls, {"bars": _grow(bars)}, [[bars]])
