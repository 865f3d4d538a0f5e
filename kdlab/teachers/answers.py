"""The fine-tuned BERT's logits for every WordNet definition, packaged: no notebook asks it again for the same text."""

import functools

import torch
from torch import Tensor

from kdlab import metrics, store

from . import bert

PACKAGED = "glosses-answers"
_MULTIPLIER = 6364136223846793005  # of Knuth's generator of 64-bit numbers


def glosses(x: Tensor) -> Tensor:
    """Return the fine-tuned BERT's logits for definitions, as `bert.glosses()` would give them.

    x: (n, length) token numbers of `text.read("glosses")`, padded with 0. Returns (n, 45) float32 on x's device. The
    packaged answers are rounded to float16, to about 0.004 of a logit; a text that is not among them is asked.
    """
    known, logits = _packaged()
    wanted = hashes(x).cpu()
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    found = known[place] == wanted
    answers = logits[place].float()
    if not found.all():
        new = (~found).to(x.device)
        answers[~found] = metrics.logits(bert.glosses(x.device), x[new], 64).cpu()
    return answers.to(x.device)


def hashes(x: Tensor) -> Tensor:
    """Return one int64 number for each text (n, length), the same however far it is padded."""
    weights = [1]
    for _ in range(x.shape[1] - 1):
        weights.append(weights[-1] * _MULTIPLIER % 2**64)
    signed = [weight - 2**64 if weight >= 2**63 else weight for weight in weights]
    return (x.long() * torch.tensor(signed, device=x.device)).sum(dim=1)


@functools.cache
def _packaged() -> tuple[Tensor, Tensor]:
    state, _ = store.packaged(PACKAGED)
    return state["hashes"], state["logits"]
