"""What goes on inside a transformer, for a student to match: hidden states, attention maps, how values resemble.

Every function takes activations of some layer, as `features.capture` gives them, and a mask (batch, tokens) that is
True at real tokens; padding never counts. Each returns a mean, so that its size does not depend on the batch, the
lengths or the widths; or with reduction="none" the mean of each text, (batch,), 0 for a text without a real token.
(The mean over the batch counts each token alike, so a longer text counts more.) No gradient reaches the teacher; half
precision is computed in single.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .logits import Reduction, check_reduction, kl, wide


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean squared distance of hidden states, or of embeddings. student, teacher: (batch, tokens, width).

    Where the widths differ, give a projection of the student's: nn.Linear(its width, the teacher's), which learns
    along with the student.

    TinyBERT, Jiao et al. 2019, arXiv:1909.10351, eq. 8 (and 9 for embeddings).
    """
    student, teacher = _states(student, teacher, mask)
    return _mean((student - teacher).square(), mask[:, :, None], reduction)


def cls_direction_mse(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean squared distance of directions: each state is divided by its length. student, teacher: (…, width).

    Made for the states of [CLS], (batch, layers, width), of layers that the student is to follow, all but the last.
    From 0, the same directions, to 4, opposite ones.

    Patient KD, Sun et al. 2019, arXiv:1908.09355, eq. 7, there a sum over the layers.
    """
    student, teacher = _same(student, teacher)
    distance = (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(dim=-1)
    distance = torch.atleast_1d(distance)
    return _mean(distance, torch.ones_like(distance, dtype=torch.bool), reduction)


def cosine(student: Tensor, teacher: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """1 − the cosine between hidden states, the mean over real tokens. student, teacher: (batch, tokens, width).

    DistilBERT, Sanh et al. 2019, arXiv:1910.01108, section 3, L_cos.
    """
    student, teacher = _states(student, teacher, mask)
    return _mean(1 - F.cosine_similarity(student, teacher, dim=-1), mask, reduction)


def scores(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """(batch, heads, tokens, tokens): query · key / √d in every head, d = width / heads: attention before softmax.

    queries, keys: (batch, tokens, width), what a layer's linear maps of these names return. With values for both it
    is their relation; with another number of heads than the layer's, the "relation heads" of MiniLM v2 (Wang et al.
    2020, arXiv:2012.15828, section 3), which let nets of different head counts be compared.
    """
    if queries.dim() != 3 or queries.shape != keys.shape or queries.shape[2] % heads:
        raise ValueError(
            f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must have one shape (batch, "
            f"tokens, width), and {heads} heads must divide the width; give the layer's own number"
        )
    queries, keys = (wide(each).unflatten(2, (heads, -1)).transpose(1, 2) for each in (queries, keys))
    return queries @ keys.mT / queries.shape[-1] ** 0.5


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean squared distance of attention scores, over pairs of real tokens. student, teacher: (batch, heads, tokens,
    tokens), before softmax, as `scores` gives them.

    TinyBERT, Jiao et al. 2019, arXiv:1909.10351, eq. 7: scores taught faster than the maps after softmax.
    """
    student, teacher, pairs = _maps(student, teacher, mask)
    return _mean((student - teacher).square(), pairs, reduction)


def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """KL(teacher || student) between attention maps, in nats, the mean over heads and real tokens that look.

    student, teacher: (batch, heads, tokens, tokens) scores before softmax; each row is softened here over real tokens.

    MiniLM, Wang et al. 2020, arXiv:2002.10957, eqs. 1 and 2.
    """
    student, teacher, pairs = _maps(student, teacher, mask)
    log_q, log_p = (F.log_softmax(each.masked_fill(~pairs, -1e9), dim=-1) for each in (student, teacher))
    return _mean(kl(log_p, log_q), mask[:, None], reduction)


def value_relation(
    student: Tensor, teacher: Tensor, mask: Tensor, heads: int, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL(teacher || student) between the relations of values, softmax(V Vᵀ / √d) in each head: which tokens carry
    alike. student, teacher: (batch, tokens, width) values; the widths may differ, no projection is needed.

    heads: into which both are cut. MiniLM, Wang et al. 2020, arXiv:2002.10957, eqs. 3 and 4.
    """
    relations = scores(student, student, heads), scores(teacher, teacher, heads)
    return attention_kl(*relations, mask, reduction=reduction)


def _mean(values: Tensor, real: Tensor, reduction: Reduction) -> Tensor:
    """The mean of `values` (batch, …) where `real`, which is as large or broadcast to it: of all, or of each text."""
    check_reduction(reduction)
    values, real = (each.reshape(len(values), -1) for each in (values, real.expand_as(values)))
    totals, counts = values.masked_fill(~real, 0).sum(dim=1), real.sum(dim=1)
    return totals.sum() / counts.sum() if reduction == "mean" else totals / counts.clamp(min=1)


def _states(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    student, teacher = _same(student, teacher)
    _masked(mask, student.shape[:2])
    return student, teacher


def _same(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's states {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must "
            "have one shape; where only the widths differ, put nn.Linear(student's, teacher's) after the "
            "student's; else another number of layers was chosen for one, or a net cut the batch"
        )
    return wide(student), wide(teacher.detach())


def _maps(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both, and (batch, 1, tokens, tokens) True where a real token looks at a real token."""
    if student.dim() != 4 or student.shape != teacher.shape:
        raise ValueError(
            f"the student's attention {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} "
            "must have one shape (batch, heads, tokens, tokens); where the heads differ, build the "
            "student with the teacher's number, or cut both into as many by losses.scores(…, heads)"
        )
    _masked(mask, (student.shape[0], student.shape[2]))
    return wide(student), wide(teacher.detach()), mask[:, None, :, None] & mask[:, None, None, :]


def _masked(mask: Tensor, wanted: tuple[int, ...]) -> None:
    if mask.shape != tuple(wanted) or mask.dtype != torch.bool or not mask.any():
        raise ValueError(
            f"the mask {tuple(mask.shape)} of {mask.dtype} must be bool, of shape {tuple(wanted)}, and "
            "True at some token; x != 0 makes one of token numbers x that are padded with 0"
        )
