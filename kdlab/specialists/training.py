"""Specialists: which classes each gets, how it learns, and which are asked. `joint` makes one answer of them all.

A specialist's logits are (n, own classes + 1): its classes in the order of its cluster, then its *dustbin*, which
stands for all others. A specialist whose cluster holds every class has no dustbin.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlab import data, losses, machine, metrics, randomness, train
from kdlab.train import batched

from . import equation5

IMAGES = 20_000  # asked at once, so that answers to many fit in memory

Clusters = equation5.Clusters


# ---- which classes


def covariance(logits: Tensor) -> Tensor:
    """Return the covariance of the classes' probabilities over cases, (classes, classes) in float64.

    logits: (n, classes). No label is needed: two classes that a model confuses have a positive covariance.
    """
    if logits.dim() != 2 or len(logits) < 2:
        raise ValueError(f"logits (n, classes) of at least two cases are wanted, got {tuple(logits.shape)}")
    return torch.cov(losses.softened(logits.double(), 1.0).T)


def clusters(logits: Tensor, n: int, size: int, seed: int = 0) -> list[list[int]]:
    """Return the classes of each of n specialists, `size` of them each, from a generalist's logits on unlabeled cases.

    Online k-means on the columns of `covariance` finds n centers. Each is a mean column: the covariances of every class
    with those of the cluster. Its specialist takes the `size` classes where that is greatest, so clusters overlap, some
    classes are covered several times and others not at all. The paper names k-means and the columns; the rest is ours.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    n_classes = logits.shape[1]
    if not 2 <= size < n_classes:
        raise ValueError(
            f"a specialist of {size} of {n_classes} classes makes no sense: with one it has nothing to "
            "tell apart, with all it is a generalist"
        )
    if not 1 <= n <= n_classes:
        raise ValueError(f"from 1 to {n_classes} clusters can be made of {n_classes} classes, got n = {n}")
    columns = covariance(logits).cpu().numpy()
    with threadpool_limits(machine.thread_count()):  # a busy machine's threads wait for one another: 100 times slower
        found = MiniBatchKMeans(n, random_state=seed, n_init=20, max_no_improvement=None).fit(columns)
    if empty := sorted(set(range(n)) - set(found.labels_.tolist())):
        raise ValueError(
            f"cluster {empty[0]} of {n} is empty: the generalist's predictions fall into fewer groups; "
            "ask for fewer specialists, or train the generalist further"
        )
    together = torch.from_numpy(found.cluster_centers_)
    return [sorted(row.topk(size).indices.tolist()) for row in together]


def coverage(clusters: Clusters, n_classes: int) -> Tensor:
    """Return how many specialists cover each class, (n_classes,)."""
    return torch.bincount(torch.tensor([c for own in clusters for c in own], dtype=torch.long), minlength=n_classes)


# ---- how a specialist learns


def start(generalist: nn.Sequential, own: Sequence[int]) -> nn.Sequential:
    """Return an untrained specialist: the generalist's weights, its last layer cut down to `own` and a dustbin.

    The dustbin begins as the mean of the other classes' rows, its bias raised by the log of their number.
    """
    last = generalist[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the generalist must end in a linear layer, one row a class, got {type(last).__name__}")
    rest = _rest(own, last.out_features)
    model = copy.deepcopy(generalist).requires_grad_(True)
    model[-1] = nn.Linear(last.in_features, len(own) + 1).to(last.weight)
    with torch.no_grad():
        for new, old, raised in ((model[-1].weight, last.weight, 0), (model[-1].bias, last.bias, math.log(len(rest)))):
            new.copy_(torch.cat([old[list(own)], old[rest].mean(dim=0, keepdim=True) + raised]))  # ty: ignore[not-callable]
    return model


def relabeled(y: Tensor, own: Sequence[int], n_classes: int) -> Tensor:
    """Return the labels as a specialist has them: the place of the class in `own`, or len(own), the dustbin."""
    places = torch.full((n_classes,), len(own), device=y.device)
    places[list(own)] = torch.arange(len(own), device=y.device)
    return places[y]


def sample(y: Tensor, own: Sequence[int], n: int, seed: int = 0) -> Tensor:
    """Draw n case numbers, half of the own classes, half of the rest: no case is drawn twice before all are once."""
    inside, rng = _inside(y, own).cpu(), torch.Generator().manual_seed(seed)

    def half(cases: Tensor) -> Tensor:
        rounds = [cases[torch.randperm(len(cases), generator=rng)] for _ in range(math.ceil(n / 2 / len(cases)))]
        return torch.cat(rounds)[: n // 2]

    return torch.cat([half(inside.nonzero().flatten()), half((~inside).nonzero().flatten())]).to(y.device)


def correction(y: Tensor, own: Sequence[int]) -> float:
    """Return what to add to the dustbin's logit of a specialist that learned from `sample`: log((1 - s) / s) nats.

    s: the own classes' share of the cases y. Half of the sample is their own, so their odds against the rest were
    raised from s : 1 - s to 1 : 1, and this takes it back exactly. The paper adds the log of "the proportion by which
    the specialist class is oversampled"; read as a share raised from s to 1/2, that is log(1 / (2s)), which is smaller
    by log(2(1 - s)).
    """
    share = _inside(y, own).double().mean().item()
    return math.log((1 - share) / share)


def learn(
    members: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    clusters: Clusters,
    *,
    epochs: int,
    pixels: int = 0,
    seed: int = 0,
    generalist: nn.Module | None = None,
    n_classes: int | None = None,
    **settings,
) -> list[dict[str, float]]:
    """Train specialists in place, side by side, each as it would be alone; return `train.fit`'s history.

    members: one for each of `clusters`, all of one shape. Each learns from a `sample` of its own; they share only the
    batched products (`train.batched`). epochs: how often a specialist sees each of its own cases, beside as many
    others. pixels: every image is shifted by up to so many. generalist: with it the members have the full softmax and
    no dustbin (section 6.1): labels for own cases, for the others the generalist's soft targets at T = 1.
    settings: as for `train.Training`.
    """
    inside = torch.stack([_inside(y, own) for own in clusters])  # (specialists, cases)
    places = torch.stack([relabeled(y, own, n_classes or int(y.max()) + 1) for own in clusters])
    n = 2 * epochs * int(inside.sum(dim=1).max())
    samples = [sample(y, own, n, randomness.mix(seed, i)) for i, own in enumerate(clusters)]
    ask = None if generalist is None else train.frozen(generalist)

    def objective(many: nn.Module, cases: Tensor) -> dict[str, Tensor]:
        cases = cases.T  # (specialists, batch)
        images = data.jitter(x[cases].flatten(0, 1), pixels)
        s = many.each(images.unflatten(0, cases.shape)).flatten(0, 1)  # ty: ignore[not-callable]
        if ask is None:
            return {"ce": len(cases) * losses.label(s, places.gather(1, cases).flatten())}
        own, n, terms = inside.gather(1, cases).flatten(), cases.shape[1], {"ce": 0 * s.sum(), "kd": 0 * s.sum()}
        if own.any():
            terms["ce"] = losses.label(s[own], y[cases].flatten()[own], reduction="none").sum() / n
        if not own.all():
            terms["kd"] = losses.soft_targets(s[~own], ask(images[~own]), T=1.0, reduction="none").sum() / n
        return terms

    many = batched.Many(members).to(x.device)
    history = train.fit(many, (torch.stack(samples, dim=1),), objective, epochs=1, seed=seed, **settings)
    many.give_back(members)
    return history


def team(
    generalist: nn.Sequential, clusters: Clusters, x: Tensor, y: Tensor, *, full: bool = False, **settings
) -> list[nn.Sequential]:
    """Train a specialist for each cluster, from the generalist's weights, side by side; return them.

    full: with the full softmax of section 6.1 instead of a dustbin. settings: epochs and the like, as for `learn`.
    """
    members = [copy.deepcopy(generalist).requires_grad_() if full else start(generalist, own) for own in clusters]
    learn(members, x, y, clusters, generalist=generalist if full else None, **settings)
    return members


def learn_all(
    members: Sequence[nn.Module], x: Tensor, y: Tensor, *, pixels: int = 0, seed: int = 0, **settings
) -> list[dict[str, float]]:
    """Train models for all classes in place, side by side, on the labels of x; return `train.fit`'s history.

    members: of one shape. All see the same minibatches and the same shifts, of up to so many pixels. settings: as for
    `train.Training`.
    """

    def objective(many: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        s = many(data.jitter(images, pixels))  # (models, batch, classes)
        return {"ce": len(s) * losses.label(s.flatten(0, 1), labels.repeat(len(s)))}

    many = batched.Many(members).to(x.device)
    history = train.fit(many, (x, y), objective, seed=seed, **settings)
    many.give_back(members)
    return history


# ---- which are asked


def awake(logits: Tensor, clusters: Clusters, n: int = 1) -> Tensor:
    """Return which specialists are active, (cases, specialists) bool: one of their classes is in the top n.

    logits: the generalist's, (cases, classes).

    Hinton, Vinyals & Dean 2015, section 5 (there n = 1).
    """
    top = logits.topk(n, dim=1).indices
    return torch.stack([torch.isin(top, torch.tensor(list(own), device=top.device)).any(dim=1) for own in clusters], 1)


def ask(
    members: Sequence[nn.Module], x: Tensor, awake: Tensor, dustbins: Sequence[float] | None = None
) -> list[Tensor]:
    """Return each specialist's logits for the images x for which it is active, and zeros for the others.

    awake: (images, specialists) bool. dustbins: what to add to each dustbin's logit, from `correction`.
    """
    answers = []
    for i, member in enumerate(members):
        logits = metrics.logits(member, x[awake[:, i]]) if awake[:, i].any() else metrics.logits(member, x[:1])[:0]
        if dustbins is not None:
            logits[:, -1] += dustbins[i]
        answers.append(logits.new_zeros(len(x), logits.shape[1]).index_put_((awake[:, i],), logits))
    return answers


def answer(
    generalist: nn.Module,
    members: Sequence[nn.Module],
    clusters: Clusters,
    x: Tensor,
    y_train: Tensor,
    **settings,
) -> Tensor:
    """Return log q (images, classes) for the images x, asking only the generalist and the active specialists.

    y_train: (cases,) the labels that the specialists learned from, for the dustbins' `correction`. settings: as for
    `equation5.solve`.
    """
    parts, dustbins = [], [correction(y_train, own) for own in clusters]
    for images in x.split(IMAGES):
        g = metrics.logits(generalist, images)
        active = awake(g, clusters)
        answers = ask(members, images, active, dustbins)
        parts.append(equation5.solve(g, answers, clusters, active, **settings).to(g))
    return torch.cat(parts)


def _inside(y: Tensor, own: Sequence[int]) -> Tensor:
    inside = torch.isin(y, torch.tensor(list(own), device=y.device))
    if inside.all() or not inside.any():
        raise ValueError(
            f"{int(inside.sum())} of the {len(y)} cases are of the specialist's classes "
            f"{list(own)[:5]} …; it learns from some that are and some that are not"
        )
    return inside


def _rest(own: Sequence[int], n_classes: int) -> list[int]:
    if len(set(own)) != len(own) or not 2 <= len(own) < n_classes or not all(0 <= c < n_classes for c in own):
        raise ValueError(
            f"a specialist has from 2 to {n_classes - 1} different classes of the {n_classes}, "
            f"got {list(own)}: with one it has nothing to tell apart, with all it is a generalist"
        )
    return [c for c in range(n_classes) if c not in set(own)]
