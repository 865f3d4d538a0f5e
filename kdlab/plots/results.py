"""What was measured: curves over steps or temperatures, seeds side by side, tables as colors, costs and scores."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox
from torch import Tensor

from kdlab.metrics import front

from .style import OTHER, STUDENT, TEACHER, WIDTH, colors_of, make_axes


def learning(
    x: Sequence[float], runs: Mapping[str, Sequence[Sequence[float]]], xlabel: str, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Curves over x by name: a line through the mean of its runs (seeds), a band from the least to the greatest."""
    ax = make_axes(ax, WIDTH, 4)
    for color, (name, values) in zip(colors_of(runs), runs.items(), strict=True):
        values = np.asarray(values, dtype=float)
        ax.plot(x, values.mean(axis=0), color=color, linewidth=2, label=name)
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.25, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)  # ty: ignore[unknown-argument]  (MaxNLocator's)
    ax.legend(frameon=False)
    return ax


def outcomes(
    values: Mapping[str, Sequence[float]],
    xlabel: str,
    near: bool = False,
    colors: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """A row per name: a dot per seed, a bar to their mean, and the mean in figures. near: not from 0 on.

    colors: one a row; default by the roles that the names begin with.
    """
    ax = make_axes(ax, WIDTH, 0.7 + 0.6 * len(values))
    for row, (color, each) in enumerate(zip(colors or colors_of(values), values.values(), strict=True)):
        mean = float(np.mean(each))
        if near:
            ax.plot([mean] * 2, [row - 0.3, row + 0.3], color=color, linewidth=3, alpha=0.6)
        else:
            ax.barh(row, mean, color=color, alpha=0.45, height=0.6)
        ax.plot(each, [row] * len(each), "o", color=color, markeredgecolor="white")
        said = f"{mean:.2f}" if near else f"{mean:.0f}" if mean >= 100 else f"{mean:.3g}"
        ax.text(max(each), row, f"   {said}", va="center", fontweight="bold")
    ax.set(yticks=range(len(values)), yticklabels=list(values), xlabel=xlabel, xlim=(None if near else 0, None))
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    mark: float | Sequence[float] = (),
    ax: Axes | None = None,
) -> Axes:
    """One line per name over x. mark: where on x to draw a dotted line, or several."""
    ax = make_axes(ax, WIDTH, 4)
    for color, (name, values) in zip(colors_of(series), series.items(), strict=True):
        shown = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        ax.plot(x, shown, linewidth=2, label=name, color=color)
    for place in np.atleast_1d(mark):
        ax.axvline(place, color=OTHER, linestyle=":")
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    for axis in [ax.xaxis] * log_x + [ax.yaxis] * log_y:
        axis.set_major_formatter("{x:g}")
        if axis.get_view_interval()[1] < 30 * axis.get_view_interval()[0]:  # else powers of ten are enough
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter("{x:g}")
    ax.legend(frameon=False)
    return ax


def bars(
    series: Mapping[str, Sequence[float]],
    names: Sequence[str],
    ylabel: str,
    colors: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Groups of bars: one group per class of `names`, in it one bar per series.

    colors: one a series; default by the roles that the names begin with.
    """
    ax = make_axes(ax, WIDTH, 3.6)
    width, colors = 0.8 / len(series), colors or colors_of(series)
    for i, (name, values) in enumerate(series.items()):
        ax.bar(
            np.arange(len(names)) + (i - (len(series) - 1) / 2) * width,
            values,
            width,
            label=name,
            color=colors[i],
        )
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xticks=range(len(names)), xticklabels=names, ylabel=ylabel)
    ax.grid(axis="x", visible=False)
    ax.legend(frameon=False)
    return ax


def matrix(values: Tensor, names: Sequence[str], xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """A square table as colors with its figures in percent, the diagonal left out. values: (classes, classes)."""
    ax = make_axes(ax, 7.5, 6.4)
    table = np.array(values.cpu(), dtype=float)
    np.fill_diagonal(table, np.nan)
    ax.imshow(table, cmap="cividis")
    middle = np.nanmax(table) / 2
    for (i, j), value in np.ndenumerate(table):
        if i != j:
            ax.text(
                j,
                i,
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if value < middle else "black",
            )
    ax.set(
        xticks=range(len(names)),
        xticklabels=names,
        yticks=range(len(names)),
        yticklabels=names,
        xlabel=xlabel,
        ylabel=ylabel,
    )
    ax.grid(visible=False)
    return ax


def heat(
    values: Sequence[Sequence[float]],
    rows: Sequence,
    columns: Sequence,
    xlabel: str,
    ylabel: str,
    *,
    mark: Sequence[int] = (),
    by_row: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A table as colors with its figures; NaN stays empty. mark: the column to frame in each row.

    by_row: each row has its own colors, from its least (light) to its greatest (dark).
    """
    ax = make_axes(ax, max(WIDTH, 1.6 + 0.62 * len(columns)), 1.2 + 0.56 * len(rows))
    table = np.asarray(values, dtype=float)
    along = 1 if by_row else None
    low, high = np.nanmin(table, axis=along, keepdims=True), np.nanmax(table, axis=along, keepdims=True)
    shade = (table - low) / np.where(high > low, high - low, 1)
    ax.imshow(shade, cmap="cividis_r", aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            ax.text(
                j,
                i,
                f"{value:.3g}" if value < 1000 else f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if shade[i, j] > 0.5 else "black",
            )
    for i, j in enumerate(mark):
        ax.add_patch(plt.Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor=TEACHER, linewidth=2.5))
    ax.set(
        xticks=range(len(columns)),
        xticklabels=columns,
        yticks=range(len(rows)),
        yticklabels=rows,
        xlabel=xlabel,
        ylabel=ylabel,
    )
    ax.grid(visible=False)
    return ax


def signed(
    values: Mapping[tuple[str, str], tuple[float, float]], names: Sequence[str], label: str = "", ax: Axes | None = None
) -> Axes:
    """A number and its standard error for each pair of names, as colors from 0 to either side; bold where it is
    further from 0 than two errors."""
    ax = make_axes(ax, 1.9 + 1.05 * len(names), 1.2 + 0.75 * len(names))
    table = np.full((len(names), len(names)), np.nan)
    for (a, b), (value, error) in values.items():
        i, j = sorted((names.index(a), names.index(b)), reverse=True)
        table[i, j] = value
        ax.text(
            j,
            i,
            f"{value:+.1f}\n± {error:.1f}",
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold" if abs(value) > 2 * error else "normal",
        )
    most = np.nanmax(np.abs(table)) * 2 or 1  # so that black figures are read on every color
    drawn = ax.imshow(
        table[1:, :-1],
        cmap="PuOr",
        vmin=-most,
        vmax=most,
        aspect="auto",
        extent=(-0.5, len(names) - 1.5, len(names) - 0.5, 0.5),
    )
    ax.figure.colorbar(drawn, ax=ax, label=label)
    ax.set(xticks=range(len(names) - 1), xticklabels=names[:-1], yticks=range(1, len(names)), yticklabels=names[1:])
    ax.grid(visible=False)
    return ax


def tradeoff(
    points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str, room: float = 0.15, ax: Axes | None = None
) -> Axes:
    """Name → (cost, score) as dots on a logarithmic axis of costs. A line joins the front: those that no other beats
    in one without losing in the other. room: left free at either side for long names, as a share of the width."""
    ax = make_axes(ax, WIDTH, 4.4)
    best = front(points)
    ax.plot(*zip(*(points[name] for name in best), strict=True), color=OTHER, drawstyle="steps-post", zorder=1)
    for name, (cost, score) in points.items():
        ax.scatter(cost, score, color=STUDENT if name in best else OTHER, zorder=2)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.margins(room, 0.15)
    _name(ax, points)
    return ax


def _name(ax: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, where it covers no dot and no name written before."""
    places = [(x, y) for y in (-4, 12, -18, 26, -32, 40) for x in (6, -6)]  # from the dot, in points
    ax.autoscale_view()  # now, for the dots' places on the figure
    dots = ax.transData.transform(list(points.values()))
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    for name, point in points.items():
        for x, y in places:
            said = ax.annotate(
                name,
                point,
                xytext=(x, y),
                textcoords="offset points",
                fontsize=11,
                va="top",
                ha="left" if x > 0 else "right",
            )
            box = said.get_window_extent(ax.figure.canvas.get_renderer())
            if not any(box.overlaps(other) for other in taken):
                break
            if (x, y) != places[-1]:
                said.remove()
        taken.append(box)
