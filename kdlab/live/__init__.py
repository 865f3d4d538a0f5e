"""Live training: values that change while a model learns (`knobs`), and a thread that trains meanwhile (`player`)."""

from .knobs import Knob, Knobs, Run, fingerprint, follow, learning_curve, replay
from .player import Player

__all__ = ["Knob", "Knobs", "Player", "Run", "fingerprint", "follow", "learning_curve", "replay"]
