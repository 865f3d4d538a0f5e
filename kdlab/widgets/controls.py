"""The controls of panels: sliders, check boxes, and the box that joins controls to pieces in the browser."""

import math

import ipywidgets as w

from kdlab.live.knobs import Knob

from .pieces import Piece

NEEDS_KERNEL = "kd-needs-kernel"  # on an exported page style.css says so of what has this class
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


def temperature_slider(T: float) -> w.FloatLogSlider:
    """Return a slider for the temperature on a log scale, about 0.1 to 100, with a step at T itself."""
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


def index_sliders(n: int) -> dict[str, w.IntSlider]:
    """Return the slider for one of n images by the name it drives, or none for one image."""
    style = {"description": "image", "style": WIDE, "layout": w.Layout(width="100%")}
    return {"index": w.IntSlider(0, 0, n - 1, **style)} if n > 1 else {}


def check_box(value: bool, text: str) -> w.Checkbox:
    """Return a check box with a label."""
    return w.Checkbox(value, description=text, style=WIDE, layout=w.Layout(width="auto"))


def knob_slider(name: str, knob: Knob) -> w.Widget:
    """Return a slider over the range of a knob, linear or logarithmic as the knob is."""
    said = {"T": "temperature T", "lr": "learning rate", "alpha": "weight alpha"}.get(name, name)
    common = {"description": said, "style": WIDE, "layout": w.Layout(width="100%")}
    if knob.log:
        slider = w.FloatLogSlider(
            base=10,
            min=math.log10(knob.low),
            max=math.log10(knob.high),
            step=0.05,
            value=knob.value,
            readout_format=".3g",
            **common,
        )
    else:
        slider = w.FloatSlider(
            knob.value, min=knob.low, max=knob.high, step=(knob.high - knob.low) / 100, readout_format=".3g", **common
        )
    put(slider, knob, knob.value)
    return slider


def put(slider: w.Widget, knob: Knob, value: float) -> None:
    """Put the slider to value, and its steps so that value is one of them: a page moves it to the nearest step, and
    that would turn the knob."""
    place = math.log10 if knob.log else float
    low, high, at = place(knob.low), place(knob.high), place(value)
    slider.min, slider.max = low, high
    slider.value = value
    slider.min = at - slider.step * math.floor((at - low) / slider.step + 1e-9)


def was_moved(slider: w.Widget, before: float, after: float) -> bool:
    """Whether a hand moved it; what is less than a hundredth of a step is the page's rounding."""
    place = math.log10 if isinstance(slider, w.FloatLogSlider) else float
    return abs(place(after) - place(before)) > 0.01 * slider.step
