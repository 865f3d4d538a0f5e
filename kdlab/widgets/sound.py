"""A recording one can listen to: its spectrogram, what was said, and what two nets hear in it, frame by frame."""

import io
import wave
from collections.abc import Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import traitlets as t

from .controls import WIDE, Panel, temperature_slider
from .pieces import Bars, Piece, array, script


class Sound(Piece):
    """A spectrogram above lanes of words, with a cursor at frame `index` that follows a click: recipe "heard".

    energies: (frames, bands) of any scale. inputs: "teacher" and "student" logits (frames, states), "groups" (states,)
    the word of each state, "truth" (frames,) the word said in each frame; labels: the words' names.
    """

    _esm = script("sound")
    energies = t.Bytes().tag(sync=True)
    shape = t.List(t.Int()).tag(sync=True)  # frames, bands

    def __init__(self, energies: Any, **settings):
        x = array(energies)
        if x.ndim != 2 or 0 in x.shape or not np.isfinite(x).all():
            raise ValueError(f"a spectrogram is finite numbers (frames, bands), got the shape {x.shape}")
        low, high = np.quantile(x, [0.05, 0.995])
        ink = np.clip((x - low) / max(high - low, 1e-9), 0, 1)
        super().__init__(energies=(ink * 255).astype(np.uint8).tobytes(), shape=list(x.shape), **settings)


def listen(
    student_logits: Any,
    teacher_logits: Any,
    labels: Any,
    names: Sequence[str],
    *,
    groups: Sequence[int],
    energies: Any,
    sound: Any,
    rate: int,
    T: float = 1.0,
) -> Panel:
    """Hear an utterance, and follow what a teacher and a student hear along its frames, at any T.

    student_logits, teacher_logits: (frames, states). labels: (frames,) the state each frame is in. names: of the words.
    groups: (states,) the word of each state. energies: (frames, bands). sound: (samples,) int16, `rate` a second.
    """
    inputs = {"teacher": array(teacher_logits), "student": array(student_logits), "groups": list(groups)}
    truth, n = array(labels), len(array(energies))
    if not len(inputs["teacher"]) == len(inputs["student"]) == len(truth) == n:
        raise ValueError(
            f"{n} frames want as many rows of logits and labels, got {len(inputs['teacher'])}, "
            f"{len(inputs['student'])} and {len(truth)}"
        )
    said = array(groups)[truth].tolist()
    picture = Sound(energies, recipe="heard", inputs=inputs | {"truth": said}, labels=list(names), T=T, height=150)
    bars = Bars(
        recipe="words", inputs=inputs, labels=list(names), T=T, y_max=1.0, y_label="probability of the word", height=260
    )
    frame = w.IntSlider(0, 0, n - 1, description="frame", style=WIDE, layout=w.Layout(width="100%"))
    panel = Panel({"index": frame, "T": temperature_slider(T)}, {"sound": picture, "bars": bars}, [[picture], [bars]])
    panel.links.append(w.jslink((picture, "index"), (frame, "value")))  # a click in the picture moves the slider
    for piece in (picture, bars):
        piece.layout = w.Layout(width="100%")
    audio = w.Audio(value=_wav(array(sound), rate), format="wav", autoplay=False, loop=False)
    panel.children = [audio, *panel.children]
    return panel


def _wav(sound: np.ndarray, rate: int) -> bytes:
    """The bytes of a .wav file of one channel."""
    if sound.ndim != 1 or sound.dtype != np.int16:
        raise ValueError(f"sound is (samples,) int16, got {sound.shape} of {sound.dtype}")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    return buffer.getvalue()
