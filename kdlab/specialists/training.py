"""A generalist and its specialists: which classes each gets, how it learns, who is asked. `joint` makes one answer.

A specialist's logits are (n, own classes + 1): its classes in the order of its cluster, then its *dustbin*, which
stands for all others. One that has every class, in its cluster all of their numbers, has no dustbin.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlab import data, losses, machine, metrics, train

from . import equation5

IMAGES = 20_000  # asked at once, so that answers to many fit in memory

Clusters = equation5.Clusters


# ---- which classes


def covariance(logits: Tensor) -> Tensor:
    """(classes, classes), float64: how the probabilities of each two classes vary together over the cases (n, classes).

    No label is asked for: classes that a net takes for one another are positive here.
    """
    if logits.dim() != 2 or len(logits) < 2:
        raise ValueError(f"logits (n, classes) of at least two cases are wanted, got {tuple(logits.shape)}")
    return torch.cov(losses.softened(logits.double(), 1.0).T)


def clusters(logits: Tensor, n: int, size: int, seed: int = 0) -> list[list[int]]:
    """The classes of each of n specialists, `size` of them each, from a generalist's logits on unlabeled cases.

    Online k-means on the columns of `covariance` finds n centers; each is a mean column, which says of every class how
    much it varies with that cluster's, and its specialist takes the `size` greatest. So clusters overlap, some classes
    are covered several times and others not at all. The paper names k-means and the columns; the rest is ours.
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
    """(n_classes,) how many specialists cover each class."""
    return torch.bincount(torch.tensor([c for own in clusters for c in own], dtype=torch.long), minlength=n_classes)


# ---- how a specialist learns


def start(generalist: nn.Sequential, own: Sequence[int]) -> nn.Sequential:
    """A specialist before it learns: the generalist's weights, its last layer cut down to `own` and a dustbin.

    The dustbin begins as the mean of the other classes' rows, its bias raised by the log of their number.
    """
    last = generalist[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the generalist must end in a linear layer, one row a class, got {type(last).__name__}")
    rest = _rest(own, last.out_features)
    net = copy.deepcopy(generalist).requires_grad_(True)
    net[-1] = nn.Linear(last.in_features, len(own) + 1).to(last.weight)
    with torch.no_grad():
        for mine, theirs, raised in ((net[-1].weight, last.weight, 0), (net[-1].bias, last.bias, math.log(len(rest)))):
            mine.copy_(torch.cat([theirs[list(own)], theirs[rest].mean(dim=0, keepdim=True) + raised]))  # ty: ignore[not-callable]
    return net


def relabeled(y: Tensor, own: Sequence[int], n_classes: int) -> Tensor:
    """Labels as a specialist has them: the place of the class in `own`, or len(own), the dustbin."""
    places = torch.full((n_classes,), len(own), device=y.device)
    places[list(own)] = torch.arange(len(own), device=y.device)
    return places[y]


def sample(y: Tensor, own: Sequence[int], n: int, seed: int = 0) -> Tensor:
    """n case numbers, half of them of the own classes, half at random from the rest: no case twice before all once."""
    inside, rng = _inside(y, own).cpu(), torch.Generator().manual_seed(seed)

    def half(cases: Tensor) -> Tensor:
        rounds = [cases[torch.randperm(len(cases), generator=rng)] for _ in range(math.ceil(n / 2 / len(cases)))]
        return torch.cat(rounds)[: n // 2]

    return torch.cat([half(inside.nonzero().flatten()), half((~inside).nonzero().flatten())]).to(y.device)


def correction(y: Tensor, own: Sequence[int]) -> float:
    """What to add to the dustbin's logit of a specialist that learned from `sample`: log((1 - s) / s).

    s: the own classes' share of the cases y. Half of the sample is their own, so their odds against the rest were
    raised from s : 1 - s to 1 : 1, and this takes it back exactly. The paper adds the log of "the proportion by which
    the specialist class is oversampled"; read as a share raised from s to 1/2, that is log(1 / 2s): log(2 - 2s) less.
    """
    share = _inside(y, own).double().mean().item()
    return math.log((1 - share) / share)


def learn(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    own: Sequence[int],
    *,
    epochs: int,
    pixels: int = 0,
    seed: int = 0,
    generalist: nn.Module | None = None,
    n_classes: int | None = None,
    **settings,
) -> list[dict[str, float]]:
    """Train a specialist in place; returns `train.fit`'s history.

    epochs: how often it sees each of its own cases, beside as many others. pixels: images are moved by up to so many.
    generalist: with it the net has the full softmax and no dustbin (section 6.1): labels for its own cases, for the
    others the generalist's soft targets. settings: as for `train.Training`.
    """
    cases = sample(y, own, 2 * epochs * int(_inside(y, own).sum()), seed)
    n_classes = n_classes or int(y.max()) + 1
    targets = relabeled(y, own, n_classes)

    def dustbin(net: nn.Module, i: Tensor) -> dict[str, Tensor]:
        return {"ce": losses.label(net(data.jitter(x[i], pixels)), targets[i])}

    def full(net: nn.Module, i: Tensor) -> dict[str, Tensor]:
        images, inside = data.jitter(x[i], pixels), targets[i] < len(own)
        s, t, share = net(images), ask(images), inside.float().mean()  # ty: ignore[not-callable]
        terms = {"ce": 0 * s.sum(), "kd": 0 * s.sum()}
        if inside.any():
            terms["ce"] = share * losses.label(s[inside], y[i][inside])
        if not inside.all():
            terms["kd"] = (1 - share) * losses.soft_targets(s[~inside], t[~inside], T=1.0)
        return terms

    ask = None if generalist is None else train.frozen(generalist)
    return train.fit(net, (cases,), dustbin if ask is None else full, epochs=1, seed=seed, **settings)


# ---- who is asked


def awake(logits: Tensor, clusters: Clusters, n: int = 1) -> Tensor:
    """(cases, specialists) bool: whose classes are among the generalist's top n. logits: the generalist's."""
    top = logits.topk(n, dim=1).indices
    return torch.stack([torch.isin(top, torch.tensor(list(own), device=top.device)).any(dim=1) for own in clusters], 1)


def ask(nets: Sequence[nn.Module], x: Tensor, awake: Tensor, dustbins: Sequence[float] | None = None) -> list[Tensor]:
    """Each specialist's logits for the images x it is awake for, and zeros for the others, which nobody will read.

    awake: (images, specialists) bool. dustbins: what to add to each dustbin's logit, from `correction`.
    """
    said = []
    for i, net in enumerate(nets):
        mine = metrics.logits(net, x[awake[:, i]]) if awake[:, i].any() else metrics.logits(net, x[:1])[:0]
        if dustbins is not None:
            mine[:, -1] += dustbins[i]
        said.append(mine.new_zeros(len(x), mine.shape[1]).index_put_((awake[:, i],), mine))
    return said


def answer(
    generalist: nn.Module,
    nets: Sequence[nn.Module],
    clusters: Clusters,
    x: Tensor,
    dustbins: Sequence[float] | None = None,
    **settings,
) -> Tensor:
    """log q (images, classes) for the images x, from the nets themselves: the generalist, those it wakes, eq. 5.

    settings: as for `equation5.solve`.
    """
    parts = []
    for images in x.split(IMAGES):
        g = metrics.logits(generalist, images)
        who = awake(g, clusters)
        parts.append(equation5.solve(g, ask(nets, images, who, dustbins), clusters, who, **settings).to(g))
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
