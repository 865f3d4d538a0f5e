"""A pad to draw a digit on, and what nets make of it while one draws: this panel needs a kernel, which has the nets."""

from typing import Any

import ipywidgets as w
import torch
import torch.nn.functional as F
import traitlets as t
from torch import Tensor, nn

from kdlab import metrics
from kdlab.data import like_mnist

from .controls import NEEDS_KERNEL, Panel, check_box, temperature_slider
from .pieces import Bars, Digit, Piece, script

SIDE = 140  # pixels of the drawing, five times MNIST's 28


class Pad(Piece):
    """Paper for one digit, for mouse, pen or finger. `ink` follows while one draws, at most 25 times a second.

    Undo (Backspace) takes back the last stroke, Clear (Delete) empties the paper.
    """

    _esm = script("pad")
    side = t.Int(SIDE, read_only=True).tag(sync=True)
    ink = t.CBytes().tag(sync=True)  # side rows of side bytes, 0 (paper) to 255 (ink); no bytes: empty paper

    @t.validate("ink")
    def _check_ink(self, proposal):
        if len(proposal.value) not in (0, SIDE**2):
            raise ValueError(f"ink must be {SIDE} rows of {SIDE} bytes, or none, got {len(proposal.value)} bytes")
        return proposal.value

    def drawing(self) -> Tensor:
        """What is on the paper: (side, side) uint8, 0 for paper, 255 for ink."""
        return torch.frombuffer(bytearray(self.ink or bytes(SIDE**2)), dtype=torch.uint8).reshape(SIDE, SIDE)

    def put(self, image: Any) -> None:
        """Lay one image on the paper, in place of what is there: square; uint8, or floats from 0 (paper) to 1 (ink)."""
        sheet = Digit.sheets(image, [])
        n, height, width = sheet["shape"]
        if n != 1 or height != width or not height:
            raise ValueError(f"Pad.put takes one square image, got {n} of {height} × {width} pixels; take x[i] of many")
        pixels = torch.frombuffer(bytearray(sheet["images"]), dtype=torch.uint8).reshape(1, 1, height, width)
        # 28 × 28 pixels become squares of 5 × 5, from which like_mnist makes the same 28 × 28 again
        self.ink = F.interpolate(pixels.float(), size=(SIDE, SIDE), mode="area").round().byte().numpy().tobytes()

    def clear(self) -> None:
        """Empty the paper."""
        self.ink = b""


def pad(nets: dict[str, nn.Module], names: list[str], *, T: float = 4.0) -> Panel:
    """Draw a digit: the nets' soft targets at T follow, side by side, and so does the image that they see.

    nets: by name, at most six, such as {"teacher": teacher, "student": student}; each maps (1, 1, 28, 28) to
    (1, classes). They are asked as they are at that moment, in eval mode, and left as they were.
    `panel.pieces["pad"].put(image)` begins with a given image instead of empty paper.
    """
    if not isinstance(nets, dict) or not 1 <= len(nets) <= 6:
        raise ValueError(f'nets by name are wanted, one to six, such as {{"teacher": teacher}}, got {nets!r}')
    paper, sheet = Pad(title="draw here", layout=w.Layout(flex="0 0 280px")), like_mnist(torch.zeros(1, 1))
    seen = Digit(sheet, title="as the models see it", layout=w.Layout(flex="0 0 auto"))
    bars = Bars(
        recipe="nets",
        inputs=_asked(nets, sheet),
        labels=names,
        T=T,
        y_max=1.0,
        y_label="probability",
        height=260,
        layout=w.Layout(flex="1 1 380px", min_width="0", width="auto"),
    )

    def show(_=None):
        sheet = like_mnist(paper.drawing())
        drawn = bool(sheet.any())
        seen.put(sheet)
        with bars.hold_sync():
            bars.inputs = _asked(nets, sheet) if drawn else {name: [] for name in nets}
            bars.title = "soft targets" if drawn else "soft targets: draw a digit first"

    paper.observe(show, names="ink")
    show()
    controls = {"T": temperature_slider(T), "log_y": check_box(False, "log axis")}
    panel = Panel(controls, {"pad": paper, "digit": seen, "bars": bars}, [[paper, seen, bars]])
    panel.add_class(NEEDS_KERNEL)
    panel.children[-1].layout.flex_flow = "row wrap"  # on a narrow page the bars go below
    return panel


def _asked(nets: dict[str, nn.Module], image: Tensor) -> dict[str, Tensor]:
    """Each net's logits (1, classes) for one image (1, 28, 28), asked where the net lives."""
    return {name: metrics.logits(net, image[None].to(_home(net))) for name, net in nets.items()}


def _home(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))
