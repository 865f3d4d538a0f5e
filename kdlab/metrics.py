"""What a trained net is worth: its logits, its errors, its agreement with another, how sure it should be."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab import machine


def logits(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """(n, classes) logits of `model` for x, in eval mode and without gradients; the model's own modes are put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), machine.threads():
            return torch.cat([model(part) for part in x.split(batch_size)])
    finally:
        for module, training in modes.items():
            module.training = training


def errors(predicted_logits: Tensor, y: Tensor) -> int:
    """How many of the cases are wrong: the paper's count on MNIST. Logits (n, classes); y (n,) class numbers."""
    return int((predicted_logits.argmax(dim=1) != y).sum())


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of the cases in which two nets' logits (n, classes) choose the same class, in [0, 1]."""
    return float((a.argmax(dim=1) == b.argmax(dim=1)).float().mean())


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in bits of each row (…, classes) of probabilities; log2(classes) is a row that knows nothing."""
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=-1) / torch.log(torch.tensor(2.0))


def similarity(predicted_logits: Tensor, y: Tensor, T: float, n_classes: int | None = None) -> Tensor:
    """Row i: the mean soft targets at T of the cases of class i. Returns (classes, classes), each row summing to 1."""
    n_classes = n_classes or predicted_logits.shape[1]
    probabilities = F.softmax(predicted_logits.float() / T, dim=1)
    rows = torch.zeros(n_classes, predicted_logits.shape[1], device=probabilities.device)
    rows.index_add_(0, y, probabilities)
    return rows / torch.bincount(y, minlength=n_classes).clamp(min=1)[:, None]


def nearest(of: Tensor, logits: Tensor, T: float, among: Tensor | None = None, n: int = 4) -> Tensor:
    """Numbers of the `n` cases whose soft targets at T come nearest to those of one case, nearest first.

    of: (classes,) logits of the one; logits: (cases, classes); among: (cases,) bool, which of them count.
    Near is a small KL(one || other), in which classes that the one gives no mass do not count.
    """
    log_p, log_q = F.log_softmax(of.float() / T, dim=0), F.log_softmax(logits.float() / T, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    if among is not None:
        divergence = divergence.masked_fill(~among, torch.inf)
    return divergence.topk(min(n, int(divergence.isfinite().sum())), largest=False).indices
