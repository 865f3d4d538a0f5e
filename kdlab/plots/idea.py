"""Distillation as pictures: what a soft target says that a label does not, and how the two terms are computed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from kdlab import losses

from .answers import digit
from .results import bars
from .style import OTHER, STUDENT, TEACHER, TRUE, WIDTH, styled

BOXES = {  # name → (x, y, color), in the diagram's own units
    "image": (0.0, 1.5, OTHER),
    "teacher": (1.5, 2.3, TEACHER),
    "student": (1.5, 0.8, STUDENT),
    "softmax(t / T)": (3.6, 2.3, TEACHER),
    "softmax(s / T)": (3.6, 1.2, STUDENT),
    "softmax(s)": (3.6, 0.4, STUDENT),
    "KL divergence": (5.7, 1.75, OTHER),
    "cross-entropy": (5.7, 0.2, OTHER),
    "label": (3.6, -0.45, TRUE),
    "loss": (7.7, 1.0, OTHER),
}
ARROWS = [  # from, to, what is written on it
    ("image", "teacher", ""),
    ("image", "student", ""),
    ("teacher", "softmax(t / T)", "logits t"),
    ("student", "softmax(s / T)", "logits s "),
    ("student", "softmax(s)", ""),
    ("softmax(t / T)", "KL divergence", ""),
    ("softmax(s / T)", "KL divergence", ""),
    ("softmax(s)", "cross-entropy", ""),
    ("label", "cross-entropy", ""),
    ("KL divergence", "loss", "α T²"),
    ("cross-entropy", "loss", "1 − α"),
]


def label_and_soft_target(
    image: Tensor, logits: Tensor, names: Sequence[str], *, label: int, T: float, examples: Mapping[int, Tensor]
) -> np.ndarray:
    """An image, its label and its soft target, side by side.

    image: (1, height, width). logits: (classes,), the teacher's. examples: by class an image (1, height, width) to
    stand above its bar. Returns the three Axes.
    """
    with styled():
        _, axes = plt.subplots(
            1, 3, figsize=(WIDTH, 3.6), layout="constrained", gridspec_kw={"width_ratios": [0.7, 1.25, 1.25]}
        )
    digit(image, "An image", ax=axes[0])
    soft = losses.softened(logits, T)
    certain = [float(c == label) for c in range(len(names))]
    for ax, values, color, title in (
        (axes[1], certain, TRUE, f"Its label: a {names[label]}"),
        (axes[2], soft.tolist(), TEACHER, f"Its soft target at T = {T:g}"),
    ):
        ax.bar(range(len(names)), values, color=[TRUE if c == label else color for c in range(len(names))])
        ax.set(ylim=(0, 1.05), xticks=range(len(names)), xticklabels=names, title=title)
        ax.grid(axis="x", visible=False)
    axes[1].set_ylabel("probability")
    axes[2].tick_params(labelleft=False)
    for c, example in examples.items():
        inset = axes[2].inset_axes((c - 0.5, float(soft[c]) + 0.02, 1.0, 0.22), transform=axes[2].transData)
        digit(example, ax=inset)
    return axes


def image_and_bars(
    image: Tensor, series: Mapping[str, Sequence[float]], names: Sequence[str], ylabel: str, caption: str = ""
) -> np.ndarray:
    """An image beside bars for each class: a group per class of `names`, in it a bar per series (`bars`).

    image: (1, height, width). Returns both Axes.
    """
    with styled():
        _, axes = plt.subplots(
            1, 2, figsize=(WIDTH, 3.4), layout="constrained", gridspec_kw={"width_ratios": [0.45, 1.55]}
        )
    digit(image, caption, ax=axes[0])
    bars(series, names, ylabel, ax=axes[1])
    return axes


def diagram() -> Axes:
    """Draw how one image becomes the two terms of the distillation loss, and which model each part belongs to."""
    with styled():
        ax = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")[1]
    boxes = {}
    for name, (x, y, color) in BOXES.items():
        look = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": color, "linewidth": 2}
        boxes[name] = ax.text(x, y, name, ha="center", va="center", bbox=look)
    for begin, end, text in ARROWS:
        (x, y, _), (to_x, to_y, _) = BOXES[begin], BOXES[end]
        ends = {"patchA": boxes[begin].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        ax.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "0.35"} | ends)
        ax.text(0.56 * x + 0.44 * to_x, 0.56 * y + 0.44 * to_y + 0.1, text, ha="center", va="bottom")
    ax.set(xlim=(-0.5, 8.2), ylim=(-0.8, 2.7))
    ax.axis("off")
    return ax
