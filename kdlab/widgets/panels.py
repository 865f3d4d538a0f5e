"""Sliders above pieces: data in, a box out. The browser joins them and does the sums, so that panels need no kernel.

Every panel takes the logits, then the labels where it needs them, then the names of the classes, and the rest by name.
Logits are (images, classes), or (classes,) for one image; labels a number or one an image.
"""

from typing import Any

import ipywidgets as w
import torch

from kdlab import metrics
from kdlab.metrics import class_bias as of

from .controls import NEEDS_KERNEL, WIDE, Panel, check_box, index_sliders, temperature_slider
from .pieces import Bars, Curves, Digit, Matrix, Piece, array


def _rows(logits: Any) -> Any:
    return array(logits)[None] if array(logits).ndim == 1 else array(logits)


def _label_list(label: Any, n: int) -> list[int]:
    labels = [] if label is None else [int(c) for c in array(label).ravel()]
    if labels and len(labels) != n:
        raise ValueError(f"{n} rows of logits want {n} labels, got {len(labels)}")
    return labels


def _check_number(images: Any, n: int) -> None:
    if len(images) != n:
        raise ValueError(f"{n} rows of logits want {n} images, got {len(images)}")


def _grow(piece: Piece) -> Piece:
    """Let a piece take the room that its neighbors in a row leave."""
    piece.layout = w.Layout(flex="1 1 0", min_width="0", width="auto")
    return piece


def _digit(image: Any, n: int, captions: list[str] = ()) -> dict[str, Digit]:
    """The picture beside the bars, or none."""
    if image is None:
        return {}
    digit = Digit(image, captions=captions, layout=w.Layout(flex="0 0 auto"))
    _check_number(range(digit.shape[0]), n)
    return {"digit": digit}


def _softened(logits: Any, names: list[str], image: Any, label: Any, T: float) -> tuple[dict, dict]:
    """Controls and pieces of a soft target."""
    logits = _rows(logits)
    labels = _label_list(label, len(logits))
    inputs = {"logits": logits} | ({"labels": labels} if labels else {})
    bars = Bars(recipe="softened", inputs=inputs, labels=names, highlight=labels, T=T, y_max=1.0, y_label="probability")
    controls = index_sliders(len(logits)) | {"T": temperature_slider(T), "log_y": check_box(False, "log axis")}
    return controls, _digit(image, len(logits)) | {"bars": _grow(bars)}


def temperature(logits: Any, names: list[str], *, image: Any = None, label: Any = None, T: float = 4.0) -> Panel:
    """Softmax(logits / T) as bars, its entropy and the wrong classes' share; on a log axis by the check box."""
    controls, pieces = _softened(logits, names, image, label, T)
    return Panel(controls, pieces, [list(pieces.values())])


def microscope(
    logits: Any,
    labels: Any,
    names: list[str],
    *,
    images: Any,
    classes: tuple[int, ...] = (3, 7),
    T: float = 4.0,
    others: tuple | None = None,
    n_shown: int = 4,
) -> Panel:
    """Dark knowledge in one image after another: its soft target at T, and the probability of `classes` at every T.

    others: (logits, labels, images); of their cases of `classes`, those whose soft targets come nearest to this
    image's are shown below, nearest first (this needs a kernel).
    """
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
    theirs, labels, images = (torch.as_tensor(array(part)) for part in others)
    sheets = Digit(images[:1], size=84, layout=w.Layout(flex="0 0 auto", width="100%"))  # below, at its own height
    sheets.add_class(NEEDS_KERNEL)

    def show(_=None):
        near = [metrics.nearest(logits[bars.index], theirs, bars.T, labels == c, n_shown) for c in classes]
        near = torch.cat(near)
        sheets.put(images[near], [f"a {names[c]}" for c in labels[near].tolist()])
        sheets.show = list(range(len(near)))
        sheets.title = f"nearest at T = {bars.T:.3g}: " + ", ".join(f"{names[c]}s" for c in classes)

    bars.observe(show, names=["index", "T"])
    show()
    return sheets


def similarity(logits: Any, labels: Any, names: list[str], *, images: Any = None, T: float = 4.0) -> Panel:
    """Which class looks like which: row i is the mean soft target of class i's images, in percent.

    Click a cell (i, j): with `images`, the class i images that look most like j appear beside it (this needs a kernel).
    """
    logits, truth = torch.as_tensor(_rows(logits)), torch.as_tensor(array(labels))
    matrix = Matrix(
        recipe="similarity",
        inputs={"logits": logits, "labels": truth},
        labels=names,
        T=T,
        hide_diagonal=True,
        y_label="class of the image",
        x_label="mean probability of, in percent",
    )
    controls, pieces = {"T": temperature_slider(T)}, {"matrix": _grow(matrix)}
    if images is None:
        return Panel(controls, pieces, [[matrix]])
    _check_number(images, len(logits))
    sheets = Digit(images[:1], title="click a cell", size=84, layout=w.Layout(flex="0 0 384px"))
    sheets.add_class(NEEDS_KERNEL)

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
    names: list[str],
    *,
    classes: tuple[int, ...],
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
    axes = {"hide_diagonal": True, "y_label": "class of the image", "x_label": "called, how often"}
    matrix = Matrix(recipe="confusion", inputs=inputs, labels=names, bias=bias, **axes)
    said = "bias of " + ", ".join(f"{names[c]}" for c in classes)
    slider = w.FloatSlider(
        bias, min=-width, max=width, step=0.1, description=said, style=WIDE, layout=w.Layout(width="100%")
    )
    if images is None:
        return Panel({"bias": slider}, {"matrix": matrix}, [[matrix]])
    _check_number(images, len(logits))
    sheets, images = Digit(images[:1], size=64, layout=w.Layout(flex="0 0 360px")), torch.as_tensor(array(images))
    sheets.add_class(NEEDS_KERNEL)

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
    generalist: Any,
    answers: Any,
    clusters: Any,
    labels: Any,
    names: list[str],
    *,
    images: Any = None,
    n_steps: int = 60,
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
    controls = index_sliders(len(logits)) | {
        "step": w.IntSlider(0, 0, n_steps, description="steps of eq. 5", **wide),
        "plain": check_box(False, "plain gradient descent on z"),
    }
    pieces = _digit(images, len(logits), [names[c] for c in truth]) | {"bars": _grow(bars)}
    return Panel(controls, pieces, [list(pieces.values())])


def two_terms(
    student_logits: Any,
    teacher_logits: Any,
    label: Any,
    names: list[str],
    *,
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
    controls = {
        "T": temperature_slider(T),
        "alpha": slider,
        "t_squared": check_box(True, "soft targets' term times T²"),
    }
    return Panel(index_sliders(len(student)) | controls, pieces, [list(pieces.values())])


def gradient_size(student_logits: Any, teacher_logits: Any, *, T: float = 4.0) -> Panel:
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
    return Panel({"T": temperature_slider(T)}, {"curves": _grow(curves)}, [[curves]])


def hot_limit(student_logits: Any, teacher_logits: Any, names: list[str], *, T: float = 4.0) -> Panel:
    """The soft targets' gradient beside its limit for high T, the difference of centered logits (section 2.1)."""
    inputs = {"student": _rows(student_logits), "teacher": _rows(teacher_logits)}
    bars = Bars(recipe="hot_limit", inputs=inputs, labels=names, T=T, y_label="student − teacher")
    controls = index_sliders(len(inputs["student"])) | {"T": temperature_slider(T)}
    return Panel(controls, {"bars": _grow(bars)}, [[bars]])


def ensemble(member_logits: Any, names: list[str], *, T: float = 1.0) -> Panel:
    """Two ways of averaging an ensemble's soft targets: arithmetic and geometric. member_logits: (members, classes)."""
    inputs = {"members": member_logits}
    bars = Bars(recipe="ensemble", inputs=inputs, labels=names, T=T, y_max=1.0, y_label="probability")
    controls = {"T": temperature_slider(T), "log_y": check_box(False, "log axis")}
    return Panel(controls, {"bars": _grow(bars)}, [[bars]])
