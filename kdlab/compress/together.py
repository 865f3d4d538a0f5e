"""Several ways of compressing on one net, one after another; and whether what they lose adds up.

ways = {"layers": lambda net: prune.layers(net, [0, 1, 4, 5]), "bytes": quantize.int8}
small = stack(net, ways, ["layers", "bytes"], recover=learn_again)
excess(right, ["layers", "bytes"])                      # what the two lose beyond the sum of what each loses
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import surgery

Way = Callable[[nn.Module], nn.Module]
Right = Mapping[frozenset[str], Tensor]  # the ways of a stack → (texts,) how right it names each, in [0, 1]
LAST = ("bytes",)  # ways whose nets hold whole numbers, and no matrix that could learn or be cut


def stack(
    model: nn.Module,
    ways: Mapping[str, Way],
    order: Sequence[str],
    recover: Callable[[nn.Module], object] | None = None,
    last: Collection[str] = LAST,
) -> nn.Module:
    """A copy of `model` with the ways of `order` done to it, one after another; the one given stays as it is.

    ways: by name, each takes a model and returns a new one. order: names of ways, each at most once.
    recover: trains a net in place. It is called once, when all is cut and nothing is in bytes yet, if there was a cut:
    the parts that are left learn together to do without those that are gone.
    last: the ways after which a net can neither learn nor be cut.
    Raises ValueError for an order that cannot be, and says why.
    """
    possible(order, ways, last)
    cuts, ends = ([name for name in order if (name in last) is at_the_end] for at_the_end in (False, True))
    net = surgery.copied(model)
    for name in cuts:
        net = ways[name](net)
    if cuts and recover is not None:
        recover(net)
    for name in ends:
        net = ways[name](net)
    return net.eval()


def possible(order: Sequence[str], ways: Collection[str], last: Collection[str] = LAST) -> None:
    """Raises ValueError, and says why, where these ways cannot follow each other."""
    for name in order:
        if name not in ways:
            raise ValueError(f"there is no way called {name!r}; there are {', '.join(ways)}")
        if list(order).count(name) > 1:
            raise ValueError(f"{name} comes twice in {' → '.join(order)}; a stack has each way once")
    for before, after in itertools.pairwise(order):
        if before in last and after not in last:
            raise ValueError(
                f"{after} cannot come after {before}: then a layer holds whole numbers, packed for the "
                f"processor, which can neither be cut nor learn again; let {before} be the last"
            )


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Every choice of these names, each in their order: none first, all last."""
    names = list(names)
    return [each for n in range(len(names) + 1) for each in itertools.combinations(names, n)]


class Estimate(NamedTuple):
    """A number and its standard error over the texts that were asked."""

    value: float
    error: float

    @property
    def told_apart(self) -> bool:
        """Whether it is further from 0 than two standard errors."""
        return abs(self.value) > 2 * self.error


def loss(right: Right, names: Iterable[str]) -> Estimate:
    """Points (percent of the texts) that a stack of these ways loses. right: as for `excess`."""
    return _mean(100 * (_of(right, ()) - _of(right, names)))


def excess(right: Right, names: Iterable[str]) -> Estimate:
    """Points that the ways lose together beyond the sum of what each loses alone: loss(all) - Σ loss(each).

    right: the ways of a stack → (texts,) whether it names each text right, 0 or 1, or the share of the seeds that do;
    the same texts for every stack, so that the standard error is that of a difference text by text. Wanted are the
    stacks of none, of each way and of all of them. Above 0 they get in each other's way; below 0 they lose what
    another had lost already. Of two ways it is what statistics call their interaction.
    """
    names = list(names)
    alone = sum(_of(right, ()) - _of(right, [name]) for name in names)
    return _mean(100 * (_of(right, ()) - _of(right, names) - alone))


def ratio_excess(right: Right, names: Iterable[str]) -> Estimate:
    """The same where losses are factors: ln of the share of the score that all keep, over the product of each one's
    share. 0: the stack keeps the product of the shares; -0.1: a tenth less. right: as for `excess`.

    The standard error is to first order (the delta method).
    """
    names = list(names)
    signs = [(names, 1.0), *(([name], -1.0) for name in names), ((), len(names) - 1.0)]
    means = [float(_of(right, stack).mean()) for stack, _ in signs]
    if min(means) <= 0:
        raise ValueError(f"a stack of {names} names no text right, and 0 is no share to multiply by; use excess()")
    moved = sum(sign * _of(right, stack) / mean for (stack, sign), mean in zip(signs, means, strict=True))
    value = sum(sign * math.log(mean) for (_, sign), mean in zip(signs, means, strict=True))
    return Estimate(value, _mean(moved).error)


def _of(right: Right, names: Iterable[str]) -> Tensor:
    stack = frozenset(names)
    if stack not in right:
        raise ValueError(
            f"the stack of {', '.join(sorted(stack)) or 'no way at all'} was not measured; "
            f"there are {len(right)} others"
        )
    if right[stack].shape != right[frozenset()].shape:
        raise ValueError(
            f"the same texts are wanted of every stack, got {tuple(right[stack].shape)} for "
            f"{', '.join(sorted(stack))} and {tuple(right[frozenset()].shape)} for none"
        )
    return torch.as_tensor(right[stack], dtype=torch.float64)


def _mean(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5))
