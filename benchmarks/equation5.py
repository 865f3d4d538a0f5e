"""Images a second of eq. 5, solved in a batch, one by one, and as it is written."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab import machine, specialists
from kdlab.specialists import equation5


class Problem(NamedTuple):
    """What a generalist and its specialists say of some images, as logits."""

    generalist: Tensor  # (images, classes)
    answers: list[Tensor]  # for each specialist (images, own classes + 1)
    clusters: list[list[int]]
    awake: Tensor  # (images, specialists) bool

    def of(self, i: int) -> "Problem":
        """Return the problem of image i alone, with none but the specialists who are awake for it."""
        who = self.awake[i].nonzero().flatten().tolist()
        return Problem(
            self.generalist[i : i + 1],
            [self.answers[m][i : i + 1] for m in who],
            [self.clusters[m] for m in who],
            torch.ones(1, len(who), dtype=torch.bool),
        )


def random_problem(n: int, n_classes: int, n_specialists: int, own: int) -> Problem:
    """Draw logits that look like models': a favorite class, doubt among a few, specialists who mostly agree."""
    rng = torch.Generator().manual_seed(0)
    generalist = 2 * torch.randn(n, n_classes, generator=rng)
    generalist[torch.arange(n), torch.randint(0, n_classes, (n,), generator=rng)] += 5
    clusters = [torch.randperm(n_classes, generator=rng)[:own].tolist() for _ in range(n_specialists)]
    answers = []
    for cluster in clusters:
        rest = [c for c in range(n_classes) if c not in set(cluster)]
        dustbin = generalist[:, rest].logsumexp(dim=1, keepdim=True)
        answers.append(torch.cat([generalist[:, cluster], dustbin], dim=1) + torch.randn(n, own + 1, generator=rng))
    return Problem(generalist, answers, clusters, specialists.awake(generalist, clusters))


def as_written(problem: Problem, steps: int = 2000, tolerance: float = 1e-4) -> Tensor:
    """Minimize eq. 5 for one image by plain gradient descent on z with autograd, and return log q (1, classes)."""
    z, p = problem.generalist[0].clone().requires_grad_(), problem.generalist[0].softmax(0)
    theirs = [(own, said[0].softmax(0)) for own, said in zip(problem.clusters, problem.answers, strict=True)]
    for _ in range(steps):
        q = z.softmax(0)
        loss = (p * (p / q).log()).sum()
        for own, said in theirs:
            loss = loss + (said * (said / torch.cat([q[own], 1 - q[own].sum(0, keepdim=True)])).log()).sum()
        (gradient,) = torch.autograd.grad(loss / (1 + len(theirs)), z)
        if gradient.abs().max() < tolerance:
            break
        z.data -= equation5.SAFE * gradient
    return z.detach().log_softmax(0)[None]


def joined(
    rounds: int, n: int = 2_000, n_classes: int = 300, n_specialists: int = 40, own: int = 25, alone: int = 100
) -> dict:
    """Return images a second of eq. 5: n in a batch; `alone` of them one by one; a tenth of those as it is written."""
    problem = random_problem(n, n_classes, n_specialists, own)
    ways = {
        "batched": (n, lambda: equation5.solve(*problem)),
        "one_by_one": (alone, lambda: one_by_one(lambda image: equation5.solve(*image), problem, alone)),
        "as_written": (alone // 10, lambda: one_by_one(as_written, problem, alone // 10)),
    }
    rates, answers = {name: [] for name in ways}, {}
    with machine.threads():
        for _ in range(rounds):
            for name, (images, way) in ways.items():
                begun = time.perf_counter()
                answers[name] = way().exp()
                rates[name].append(images / (time.perf_counter() - begun))
    awake = round(float(problem.awake.sum(dim=1).float().mean()), 1)
    row = {
        "images": n,
        "classes": n_classes,
        "specialists": n_specialists,
        "own": own,
        "awake": awake,
        "largest_difference_of_q": difference(answers["batched"], answers["one_by_one"]),
        "largest_difference_as_written": difference(answers["batched"], answers["as_written"]),
        **{name: float(f"{statistics.median(measured):.3g}") for name, measured in rates.items()},
    }
    print(
        f"eq. 5, {n_specialists} specialists of {own} of {n_classes} classes, {awake} awake an image: "
        f"{row['batched']:,.0f} images/s at once, {row['one_by_one']:,.0f} one by one by the same steps "
        f"({row['batched'] / row['one_by_one']:.0f} x), {row['as_written']:,.1f} one by one as it is written "
        f"({row['batched'] / row['as_written']:,.0f} x); the answers differ by at most "
        f"{row['largest_difference_of_q']:.0e} and {row['largest_difference_as_written']:.0e}"
    )
    return row


def one_by_one(solve: Callable[[Problem], Tensor], problem: Problem, n: int) -> Tensor:
    """Solve the first n images each alone, and return log q (n, classes)."""
    return torch.cat([solve(problem.of(i)) for i in range(n)])


def difference(batched: Tensor, others: Tensor) -> float:
    """Return the largest difference of a probability between the first answers in the batch and others."""
    return float((others - batched[: len(others)]).abs().max())
