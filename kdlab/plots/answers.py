"""What models see and answer: images, spectrograms, soft targets, calibration."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from kdlab import losses, metrics

from .style import OTHER, STUDENT, TEACHER, TRUE, WIDTH, colors_of, make_axes, styled


def softened(
    logits: Tensor, names: Sequence[str], *, T: float = 1.0, label: int | None = None, ax: Axes | None = None
) -> Axes:
    """Bars of softmax(logits / T), a teacher's; the true class stands out, the title gives the entropy.

    logits: (classes,).
    """
    ax = make_axes(ax, 6, 3.2)
    p = losses.softened(logits, T)
    colors = [TRUE if c == label else TEACHER for c in range(len(names))]
    ax.bar(range(len(names)), p.tolist(), color=colors)
    ax.set(
        ylim=(0, 1),
        xticks=range(len(names)),
        xticklabels=names,
        ylabel="probability",
        title=f"T = {T:g}: {metrics.entropy(p):.2f} bits",
    )
    ax.grid(axis="x", visible=False)
    return ax


def temperatures(
    logits: Tensor, names: Sequence[str], *, image: Tensor, label: int | None = None, Ts: Sequence[float] = (1, 4, 20)
) -> np.ndarray:
    """An image beside its soft targets at each temperature of Ts. image: (1, height, width); logits: (classes,)."""
    with styled():
        _, axes = plt.subplots(
            1,
            1 + len(Ts),
            figsize=(2 + 2.9 * len(Ts), 2.5),
            layout="constrained",
            gridspec_kw={"width_ratios": [0.8] + [1.2] * len(Ts)},
        )
    digit(image, ax=axes[0])
    for ax, T in zip(axes[1:], Ts, strict=True):
        softened(logits, names, T=T, label=label, ax=ax)
    for ax in axes[2:]:
        ax.set_ylabel("")
    return axes


def digit(image: Tensor, caption: str = "", ax: Axes | None = None) -> Axes:
    """One image, dark ink on light paper. image: (1, height, width) in [0, 1]."""
    ax = make_axes(ax, 2, 2)
    ax.imshow(image[0].cpu(), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(caption, loc="center", fontsize=10)
    ax.axis("off")
    return ax


def digits(images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> np.ndarray:
    """Images in rows, each under its caption. images: (n, 1, height, width). Returns the Axes of all cells."""
    rows = -(-len(images) // columns)
    with styled():
        _, axes = plt.subplots(
            rows,
            columns,
            figsize=(0.95 * columns, (1.35 if captions else 1.0) * rows),
            squeeze=False,
            layout="constrained",
        )
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        digit(image, captions[i] if captions else "", ax=ax)
    return axes


def spectrogram(energies: Tensor, words: Sequence[tuple[str, int, int]], ax: Axes | None = None) -> Axes:
    """Frames (n, bands) of 10 ms along time, the louder the darker, under the words: (name, first frame, last + 1)."""
    ax = make_axes(ax, WIDTH, 2.9)
    picture = energies.cpu().T
    low, high = np.quantile(picture, [0.05, 0.995])
    ax.imshow(
        picture,
        cmap="gray_r",
        origin="lower",
        aspect="auto",
        vmin=low,
        vmax=high,
        extent=(0, len(energies) / 100, 0, len(picture)),
    )
    for name, begin, end in words:
        ax.axvspan(begin / 100, end / 100, ymin=1.01, ymax=1.11, color=STUDENT, alpha=0.25, clip_on=False)
        ax.text((begin + end) / 200, len(picture) * 1.06, name, ha="center", va="center", fontsize=10)
    ax.set(xlabel="seconds", ylabel="mel band")
    ax.grid(visible=False)
    return ax


def reliability(bins: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Accuracy against confidence, a line a net, from `metrics.calibration`; the larger a dot, the more cases."""
    ax = make_axes(ax, 5.5, 5)
    ax.plot([0, 1], [0, 1], color=OTHER, linestyle=":")
    for color, (name, table) in zip(colors_of(bins), bins.items(), strict=True):
        confidence, accuracy, cases = table[table[:, 2] > 0].cpu().unbind(dim=1)
        ax.plot(confidence, accuracy, color=color, label=name)
        ax.scatter(confidence, accuracy, s=8 + 60 * (cases / cases.sum()).sqrt(), color=color)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    ax.legend(frameon=False)
    return ax
