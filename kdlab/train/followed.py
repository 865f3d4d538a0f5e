"""A training that is scored on its way: how much a model gets right after 10 steps, after 100, after 1000."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from kdlab import losses, metrics

from . import checks
from .loop import Training
from .minibatches import Data
from .objectives import Objective


def log_spaced(steps: int, n: int = 10) -> list[int]:
    """Return up to `n` numbers of steps, each about √2 times the one before, the last of them `steps`."""
    return sorted({max(1, round(steps / 2 ** (i / 2))) for i in range(n)})


def follow(
    model: nn.Module,
    data: Data,
    objective: Objective,
    parts: Sequence[tuple[Tensor, Tensor]],
    *,
    at: Iterable[int],
    **settings,
) -> list[list[list[float]]]:
    """Train `model`; return its scores on the way, as lists (at, parts, 2): percent right, cross-entropy in nats.

    parts: (x, y) each, such as the training data, held-out data and the test data; y: class numbers. at: after how many
    steps, ascending, such as log_spaced(1000). settings: as for `Training`; without steps= and epochs= the training
    ends at the last of `at`. Scoring changes nothing of what is learned.
    Raises FloatingPointError when the loss is no longer a number at one of these steps.
    """
    at = [int(number) for number in at]
    if not at or at[0] < 1 or at != sorted(set(at)):
        raise ValueError(f"at must be ascending numbers of steps, the first at least 1, got {at}")
    length = {} if {"steps", "epochs"} & settings.keys() else {"steps": at[-1]}
    training = Training(model, data, objective, **length, **settings)
    if at[-1] > len(training):
        raise ValueError(f"at must end with the training, which takes {len(training)} steps, got {at[-1]}")
    scores = []
    for step in training:
        if training.number in at:
            checks.means(step.epoch, [step.terms])
            scores.append([_scores(model, x, y) for x, y in parts])
    return scores


def _scores(model: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    s = metrics.logits(model, x)
    return [float(metrics.accuracy(s, y)), float(losses.label(s, y))]
