"""What a trained model is worth: its logits, its errors, its agreement with another, how sure it should be."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab import losses, machine, models

from .rounding import round_to_spread


def logits(model: nn.Module, x: Tensor | Mapping[str, Tensor], batch_size: int = 1000) -> Tensor:
    """Return the logits (n, classes) of `model` for x, in eval mode and without gradients.

    x: all inputs, or a mapping of them by name, such as a tokenizer of transformers returns. batch_size: how many are
    asked at once. The modes of the model's modules are put back; what it returns is unwrapped, see `models.logits`.
    """
    with models.evaluating(model), machine.threads():
        if isinstance(x, Mapping):
            names, parts = list(x), zip(*(part.split(batch_size) for part in x.values()), strict=True)
            return torch.cat([models.logits(model, dict(zip(names, part, strict=True))) for part in parts])
        return torch.cat([models.logits(model, part) for part in x.split(batch_size)])


def errors(predicted_logits: Tensor, y: Tensor) -> int:
    """How many of the cases are wrong: the paper's count on MNIST. Logits (n, classes); y (n,) class numbers."""
    if y.shape != predicted_logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(predicted_logits.shape)} and labels {tuple(y.shape)} must have the shapes "
            "(n, classes) and (n,); labels are class numbers, not one-hot rows"
        )
    return int((chosen(predicted_logits) != y).sum())


class Score(float):
    """Percent of the cases that are right: a float that knows its standard error and prints both.

    error: the standard error in points, how far another test set of this size may be off. n: cases.
    """

    def __new__(cls, right: float, n: int):
        return super().__new__(cls, 100 * right)

    def __init__(self, right: float, n: int):
        self.right, self.n, self.error = right, n, 100 * (right * (1 - right) / n) ** 0.5

    def __reduce__(self):
        return Score, (self.right, self.n)

    def __repr__(self) -> str:
        return " ± ".join(round_to_spread(float(self), self.error)) + " %" if self.error else f"{float(self):g} %"


def accuracy(predicted_logits: Tensor, y: Tensor) -> Score:
    """Return percent of the cases that are right, with its standard error. Logits (n, classes); y (n,).

    Two models asked for the same cases differ by less than these errors suggest; compare them case by case.
    """
    return Score(1 - errors(predicted_logits, y) / len(y), len(y))


def score(model: nn.Module, data: tuple[Tensor, Tensor], batch_size: int = 1000) -> Score:
    """Return percent of `data` = (x, y) that `model` gets right, with its standard error."""
    x, y = data
    return accuracy(logits(model, x, batch_size), y)


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of the cases in which two nets' logits (n, classes) choose the same class, in [0, 1]."""
    if a.shape[:1] != b.shape[:1]:
        raise ValueError(f"the nets were asked for different cases: logits {tuple(a.shape)} and {tuple(b.shape)}")
    return float((chosen(a) == chosen(b)).float().mean())


def chosen(logits: Tensor) -> Tensor:
    """Return the class numbers (n,) that logits (n, classes) choose; raise ValueError where they hold NaN."""
    if logits.dim() != 2 or logits.numel() == 0 or logits.isnan().any():
        raise ValueError(
            f"logits must have the shape (n, classes) and hold no NaN, got {tuple(logits.shape)}"
            f"{' with NaN' if logits.isnan().any() else ''}; NaN comes from a training that broke"
        )
    return logits.argmax(dim=1)


def confusion(predicted_logits: Tensor, y: Tensor) -> Tensor:
    """(classes, classes) counts: row i, column j: cases of class i that the net calls j."""
    n_classes = predicted_logits.shape[1]
    pairs = y * n_classes + chosen(predicted_logits)
    return torch.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def calibration(predicted_logits: Tensor, y: Tensor, bins: int = 10) -> Tensor:
    """(bins, 3): the mean confidence, the accuracy and the number of cases, by confidence in bins of equal width.

    Confidence is the probability of the chosen class at T = 1. Bins without a case hold zeros.
    """
    confidence = losses.softened(predicted_logits.double(), 1.0).amax(dim=1)
    right = (chosen(predicted_logits) == y).double()
    place = (confidence * bins).long().clamp(max=bins - 1)
    cases = torch.bincount(place, minlength=bins).double()
    sums = [torch.bincount(place, weights=values, minlength=bins) for values in (confidence, right)]
    return torch.stack([*(each / cases.clamp(min=1) for each in sums), cases], dim=1)


def calibration_error(predicted_logits: Tensor, y: Tensor, bins: int = 10) -> float:
    """Mean over the cases of |confidence - accuracy| of their bin, in [0, 1]: 0 is a net as sure as it may be.

    Guo et al. 2017, arXiv:1706.04599, eq. 3 (expected calibration error).
    """
    confidence, accuracy, cases = calibration(predicted_logits, y, bins).unbind(dim=1)
    return ((confidence - accuracy).abs() * cases).sum().item() / len(y)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in bits of each row (…, classes) of probabilities; log2(classes) is a row that knows nothing."""
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=-1) / torch.log(torch.tensor(2.0))


def similarity(predicted_logits: Tensor, y: Tensor, T: float, n_classes: int | None = None) -> Tensor:
    """Row i: the mean soft targets at T of the cases of class i. Returns (classes, classes), each row summing to 1."""
    n_classes = n_classes or predicted_logits.shape[1]
    probabilities = losses.softened(predicted_logits.float(), T)
    rows = torch.zeros(n_classes, predicted_logits.shape[1], device=probabilities.device)
    rows.index_add_(0, y, probabilities)
    return rows / torch.bincount(y, minlength=n_classes).clamp(min=1)[:, None]


def nearest(of: Tensor, logits: Tensor, T: float, among: Tensor | None = None, n: int = 4) -> Tensor:
    """Numbers of the `n` cases whose soft targets at T come nearest to those of one case, nearest first.

    of: (classes,) logits of the one; logits: (cases, classes); among: (cases,) bool, which of them count.
    Near is a small KL(one || other), in which classes that the one gives no mass do not count.
    """
    T = losses.temperature(T)
    log_p, log_q = F.log_softmax(of.float() / T, dim=0), F.log_softmax(logits.float() / T, dim=1)
    divergence = losses.kl(log_p, log_q)
    if among is not None:
        divergence = divergence.masked_fill(~among, torch.inf)
    return divergence.topk(min(n, int(divergence.isfinite().sum())), largest=False).indices
