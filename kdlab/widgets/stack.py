"""Ways of compressing to tick, one after another, and what comes of every stack on one chart."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as w
import traitlets as t

from kdlab.metrics import Row

from .controls import NEEDS_KERNEL
from .pieces import Piece, script

COSTS = {
    "bytes": ("on disk, MB", 1e-6),
    "ms_32": ("milliseconds for 32 texts", 1.0),
    "multiply_adds": ("multiply-adds a text, millions", 1e-6),
}
Order = tuple[str, ...]


class Points(Piece):
    """Named points on a chart of cost (logarithmic) and score, with the line of those that no other beats.

    inputs: "costs" (kinds, points) > 0 and "score" (points,). index: which kind of cost; costs: what each is called.
    """

    _esm = script("points")
    recipe = t.Unicode("front").tag(sync=True)
    costs = t.List(t.Unicode()).tag(sync=True)
    current = t.Int(-1).tag(sync=True)  # the point that stands out
    now = t.Unicode().tag(sync=True)  # what stands above the chart, at its right


class Stack(w.VBox):
    """A checkbox a way; the order of ticking is the order of stacking. Every stack stays on the chart as a point.

    ways: name → what the box says. measure: maps an order, such as ("layers", "bytes"), to a row of
    `metrics.measure`; () is the net itself. It is asked once for each order, and a ValueError that it raises is shown
    as the reason why there is no such stack. known: rows by order, for which it need not be asked.
    seen: orders whose points are there from the beginning.
    """

    def __init__(
        self,
        ways: Mapping[str, str],
        measure: Callable[[Order], Row],
        known: Mapping[Order, Row] | None = None,
        seen: Sequence[Order] = (),
    ):
        self.measure, self.rows, self.order, self.seen = measure, dict(known or {}), (), []
        self.boxes = {
            name: w.Checkbox(False, description=said, indent=False, layout=w.Layout(width="auto"))
            for name, said in ways.items()
        }
        self.axis = w.ToggleButtons(options=[said for said, _ in COSTS.values()], style={"button_width": "auto"})
        self.points = Points(
            inputs={"costs": [[]] * len(COSTS), "score": []},
            y_label="right, percent",
            height=420,
            costs=list(self.axis.options),
            layout=w.Layout(width="100%"),
        )
        self.link = w.jslink((self.axis, "index"), (self.points, "index"))
        for name, box in self.boxes.items():
            box.observe(lambda change, name=name: self._ticked(name, change["new"]), "value")
        line = w.Layout(flex_flow="row wrap", grid_gap="4px 22px", width="100%")
        super().__init__(
            [w.HBox(list(self.boxes.values()), layout=line), self.axis, self.points],
            layout=w.Layout(max_width="960px", width="100%", overflow="hidden", grid_gap="6px"),
        )
        self.add_class("kd-panel").add_class(NEEDS_KERNEL)
        for order in (*seen, ()):
            self.show(order)

    def _ticked(self, name: str, on: bool) -> None:
        self.order = tuple(each for each in self.order if each != name) + ((name,) if on else ())
        self.show(self.order)

    def show(self, order: Order) -> None:
        """Put the point of a stack on the chart, measured now if it was not before; or say why there is none."""
        said = self.said(order)
        self.points.now = said
        if order not in self.rows:
            self.points.title = f"{said}: being built and measured …"
            try:
                self.rows[order] = self.measure(order)
            except Exception as error:  # an error in a callback would vanish in the log
                self.points.current = -1
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                self.points.title = f"There is no {said}: {kind}{error}"
                return
        if order not in self.seen:
            self.seen.append(order)
        self._draw(order)

    def _draw(self, order: Order) -> None:
        rows = [self.rows[each] for each in self.seen]
        costs = [[getattr(row, key) * unit for row in rows] for key, (_, unit) in COSTS.items()]
        with self.points.hold_sync():
            self.points.labels = [self.said(each) for each in self.seen]
            self.points.inputs = {"costs": costs, "score": [row.score for row in rows]}
            self.points.current = self.seen.index(order)
            first, row = self.rows.get((), self.rows[order]), self.rows[order]
            costs_now = [
                f"{getattr(row, key) * unit:,.1f} {said} ({getattr(row, key) / getattr(first, key):.0%})"
                for key, (said, unit) in COSTS.items()
            ]
            self.points.title = f"{self.said(order)}: {row.score:.1f} % right, {', '.join(costs_now)}"

    @staticmethod
    def said(order: Order) -> str:
        """Such as "1 layers → 2 bytes"."""
        return " → ".join(f"{i} {name}" for i, name in enumerate(order, start=1)) or "the whole net"
