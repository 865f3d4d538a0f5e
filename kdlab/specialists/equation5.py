"""One answer out of a generalist's and its specialists': eq. 5, solved for many images at once.

A specialist's logits are (n, own classes + 1): its classes in the order of its cluster, then its dustbin, which stands
for all others. One that has every class, in its cluster all of their numbers, has no dustbin.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab import losses, machine

Clusters = Sequence[Sequence[int]]  # the classes of each specialist; they may overlap
SAFE = 4.0  # a rate at which gradient descent on z never makes eq. 5 larger: its curvature, by model, is at most 1/2
CHUNK = 500  # cases solved at once: what they need stays in the processor's cache


class Answers(NamedTuple):
    """All that eq. 5 needs to know of the models' answers, case by case."""

    generalist: Tensor  # (cases, classes): its probabilities
    said: Tensor  # (cases, classes): the sum of the generalist's and the active specialists' probabilities
    dust: Tensor  # (cases, specialists): the dustbins' probabilities; 0 where a specialist is not active
    outside: Tensor  # (specialists, classes): 1 for the classes that a dustbin stands for
    nets: Tensor  # (cases, 1): how many models answer, the generalist among them

    def target(self, q: Tensor) -> Tensor:
        """Return the mean of the models' answers, each dustbin shared out in proportion to q, (cases, classes).

        The gradient of eq. 5 by z is nets · (q - target).
        """
        share = self.dust / (q @ self.outside.T).clamp(min=torch.finfo(q.dtype).tiny)
        return (self.said + q * (share @ self.outside)) / self.nets

    def of(self, cases: Tensor) -> "Answers":
        """Return those of some cases."""
        return Answers(self.generalist[cases], self.said[cases], self.dust[cases], self.outside, self.nets[cases])


def gather(generalist: Tensor, specialists: Sequence[Tensor], clusters: Clusters, awake: Tensor) -> Answers:
    """Gather the answers that eq. 5 joins; raise ValueError where their shapes do not belong together.

    generalist: (cases, classes) logits; specialists: for each, its logits on the same cases, corrected; awake: (cases,
    specialists) bool, which are active.
    """
    p = losses.softened(generalist, 1.0)
    (n, n_classes), m = p.shape, len(clusters)
    if len(specialists) != m or awake.shape != (n, m) or awake.dtype != torch.bool:
        raise ValueError(
            f"{n} cases and {m} clusters want {m} specialists' logits, and awake as bool of shape "
            f"{(n, m)}, got {len(specialists)} and {awake.dtype} of shape {tuple(awake.shape)}"
        )
    said, dust, outside = p.clone(), p.new_zeros(n, m), p.new_ones(m, n_classes)
    for i, (own, logits) in enumerate(zip(clusters, specialists, strict=True)):
        wanted = (n, len(own) + (len(own) < n_classes))
        if logits.shape != wanted:
            raise ValueError(
                f"specialist {i} has {len(own)} of {n_classes} classes, so its logits should be {wanted}, "
                f"the dustbin last, got {tuple(logits.shape)}"
            )
        mine = torch.where(awake[:, i, None], losses.softened(logits.to(p), 1.0), 0.0)
        said[:, list(own)] += mine[:, : len(own)]
        outside[i, list(own)] = 0
        if len(own) < n_classes:
            dust[:, i] = mine[:, -1]
    return Answers(p, said, dust, outside, 1 + awake.sum(dim=1, keepdim=True).to(p))


def objective(
    log_q: Tensor, generalist: Tensor, specialists: Sequence[Tensor], clusters: Clusters, awake: Tensor
) -> Tensor:
    """Return eq. 5 in nats, case by case: KL(p of the generalist, q) + the active specialists' KL(their p, q)."""
    log_q = log_q.double().log_softmax(dim=1)
    total = losses.kl(generalist.double().log_softmax(dim=1), log_q)
    for i, (own, logits) in enumerate(zip(clusters, specialists, strict=True)):
        rest = [c for c in range(log_q.shape[1]) if c not in set(own)]
        parts = [log_q[:, list(own)]] + ([log_q[:, rest].logsumexp(dim=1, keepdim=True)] if rest else [])
        said = losses.kl(logits.double().log_softmax(dim=1), torch.cat(parts, dim=1))
        total = total + torch.where(awake[:, i], said, 0.0)
    return total


def path(
    generalist: Tensor,
    specialists: Sequence[Tensor],
    clusters: Clusters,
    awake: Tensor,
    *,
    n_steps: int,
    rate: float | None = None,
) -> Tensor:
    """Return log q, the generalist's, before the first step and after each: (n_steps + 1, cases, classes).

    The rest as for `solve`.
    """
    answers = gather(generalist, specialists, clusters, awake)
    way = [_begin(answers)]
    for _ in range(n_steps):
        way.append(_step(answers, way[-1], rate)[0])
    return _log(torch.stack(way))


def solve(
    generalist: Tensor,
    specialists: Sequence[Tensor],
    clusters: Clusters,
    awake: Tensor,
    *,
    rate: float | None = None,
    tolerance: float = 1e-4,
    most: int = 2000,
) -> Tensor:
    """Return log q (cases, classes) that minimizes eq. 5; where no specialist is active, the generalist's.

    rate: of gradient descent on z, q = softmax(z), as in the paper, the gradient divided by the number of models; at a
    rate of at most SAFE no step makes eq. 5 larger. None: each z goes at once to where its gradient would vanish if
    the dustbins were shared out as they are, z = log(target). That is a gradient step scaled class by class; it needs
    no rate, never makes eq. 5 larger, and is far quicker where q is small. It is expectation–maximization (Dempster,
    Laird & Rubin 1977): the dustbins are counts known only for a group of classes.
    tolerance: a case is done when no class's gradient exceeds it. most: steps; a case may end sooner.
    Where every model has all classes, q is their arithmetic mean. Logits of -inf, probabilities of 0, are allowed.
    Computed in the generalist's precision: for a tolerance below 1e-6 give it double logits.
    """
    if rate is not None and not 0 < rate <= SAFE:
        raise ValueError(f"rate must be in (0, {SAFE:g}], where no step makes eq. 5 larger, or None, got {rate}")
    answers = gather(generalist, specialists, clusters, awake)
    with machine.threads():
        parts = torch.arange(len(generalist), device=generalist.device).split(CHUNK)
        return _log(torch.cat([_solved(answers.of(part), rate, tolerance, most) for part in parts]))


def _solved(answers: Answers, rate: float | None, tolerance: float, most: int) -> Tensor:
    q = _begin(answers)
    solved, going = q.clone(), torch.arange(len(q), device=q.device)
    for taken in range(most):
        before, (q, target) = q, _step(answers, q, rate)
        if taken % 8 == 7 or taken == most - 1:  # every eight steps the cases that are done leave
            solved[going] = q
            far = (before - target).abs().amax(dim=1) > tolerance
            if not far.any():
                break
            going, q, answers = going[far], q[far], answers.of(far)
    return solved


def _begin(answers: Answers) -> Tensor:
    """Return the generalist's probabilities, no class at 0."""
    q = answers.generalist + 1e-12 / answers.generalist.shape[1]
    return q / q.sum(dim=1, keepdim=True)


def _log(q: Tensor) -> Tensor:
    """Return log q; a probability below the smallest number is taken as that."""
    return q.clamp(min=torch.finfo(q.dtype).tiny).log()


def _step(answers: Answers, q: Tensor, rate: float | None) -> tuple[Tensor, Tensor]:
    """Return q after a step, and the target before it: a step of -rate · gradient on z multiplies q by its exp."""
    target = answers.target(q)
    if rate is None:
        return target, target
    moved = q * (-rate * (q - target)).exp()
    return moved / moved.sum(dim=1, keepdim=True), target
