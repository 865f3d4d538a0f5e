"""What a way of compressing changed: counted from the two models, whichever way it was."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab.metrics import cost

from . import surgery
from .prune import attention


class Touched(NamedTuple):
    """What differs between two models. Weights are counted as `metrics.parameters` counts them; print it to read it."""

    parameters: tuple[int, int]  # before, after
    bytes: tuple[int, int]  # of those parameters in memory: before, after
    matrices: tuple[int, int]  # of the matrices before: how many changed, how many there are; embeddings are left out
    share: float  # of the numbers in those matrices, the part that is in changed ones
    embeddings: tuple[int, int]  # of the embeddings before: how many changed, how many there are
    heads: tuple[int, int] | None  # attention heads, before and after; None where they cannot be counted
    layers: dict[str, tuple[int, int]]  # lists of layers with fewer different layers than before: before, after

    def __str__(self) -> str:
        lines = [
            f"{name}: {before:,} to {after:,} ({after / max(before, 1) - 1:+.0%})"
            for name, (before, after) in (("parameters", self.parameters), ("their bytes", self.bytes))
        ]
        lines += [f"layers: {new} of {old} are left in {name}" for name, (old, new) in self.layers.items()]
        if self.heads and self.heads[0] != self.heads[1]:
            lines.append(f"heads: {self.heads[1]} of {self.heads[0]} are left")
        changed, every = self.matrices
        lines.append(f"matrices: {changed} of {every} changed, with {self.share:.0%} of their numbers")
        changed, every = self.embeddings
        return "\n".join([*lines, f"embeddings: {changed} of {every} changed"])


def touched(before: nn.Module, after: nn.Module) -> Touched:
    """Return what differs between a model and the one that a way of compressing made of it.

    A matrix counts as changed where the weight of its name in `after` is missing, or of other type, shape or values.
    Where whole layers went, the others moved up, and are compared with what stood in their places.
    """
    words = {name for name, module in before.named_modules() if isinstance(module, nn.Embedding)}
    old, new = dict(before.named_parameters()), cost.weights(after)
    new |= dict(after.named_parameters(remove_duplicate=False))
    matrices = {id(weight) for weight in surgery.matrices(before).values()}
    numbers, counts = {True: 0, False: 0}, {True: 0, False: 0}
    embeddings = {True: 0, False: 0}
    for name, weight in old.items():
        changed = not _same(weight, new.get(name))
        if id(weight) in matrices:
            counts[changed] += 1
            numbers[changed] += weight.numel()
        elif name.rpartition(".")[0] in words:
            embeddings[changed] += 1
    return Touched(
        (cost.parameters(before), cost.parameters(after)),
        (cost.weight_bytes(before), cost.weight_bytes(after)),
        (counts[True], sum(counts.values())),
        numbers[True] / max(1, sum(numbers.values())),
        (embeddings[True], sum(embeddings.values())),
        _heads(before, after),
        _layers(before, after),
    )


def _same(weight: Tensor, other: Tensor | None) -> bool:
    plain = other is not None and not other.is_quantized and other.dtype == weight.dtype
    return plain and other.shape == weight.shape and torch.equal(weight.detach(), other.detach().to(weight.device))


def _heads(*models: nn.Module) -> tuple[int, int] | None:
    found = []
    for model in models:
        try:
            found.append(sum(each.n_heads for each in attention.attentions(model)))
        except ValueError:
            return None
    return tuple(found)


def _layers(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    there, found = dict(after.named_modules()), {}
    for name, held in before.named_modules():
        if isinstance(held, (nn.ModuleList, nn.Sequential)) and isinstance(
            there.get(name), (nn.ModuleList, nn.Sequential)
        ):
            counts = _different(held), _different(there[name])
            if counts[1] < counts[0]:
                found[name] = counts
    return found


def _different(held: nn.Module) -> int:
    """How many layers of a list have weights of their own."""
    return len({tuple(id(weight) for weight in layer.parameters()) or id(layer) for layer in held})
