"""Minibatches in an order that a seed decides: of tensors that are in memory, or of a torch Dataset or DataLoader.

Both give the same minibatch for the same seed, epoch and position, so that a training can be resumed at any step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdlab.data.tensors import digest
from kdlab.randomness import for_a_step, mix

Data = tuple[Tensor, ...] | Dataset | DataLoader  # (x, y), (x, y, teacher's logits); or what gives such batches


def batches(n: int, size: int, seed: int | Sequence[int], epoch: int) -> list[Tensor]:
    """Return the case numbers of each shuffled minibatch of an epoch; the last one may be short.

    They depend on the seed and the epoch alone. Several seeds, one for each of the models that `train.batched` trains
    at once, give (seeds, size) case numbers.
    """
    if isinstance(seed, Sequence):
        return [torch.stack(each) for each in zip(*(batches(n, size, one, epoch) for one in seed), strict=True)]
    rng = torch.Generator().manual_seed(mix(seed, epoch))
    return list(torch.randperm(n, generator=rng).split(size))


class Minibatches:
    """The minibatches of `data`, by epoch and position.

    data: a tuple of tensors of one length, or a Dataset or DataLoader whose batches are tuples, lists, or mappings
    with "labels". A DataLoader keeps its own batch size, sampler and workers; a Dataset is shuffled.
    """

    def __init__(self, data: Data, batch_size: int, seed: int | list[int]):
        if isinstance(data, Dataset):
            data = DataLoader(data, batch_size, shuffle=True)
        self.data, self.size, self.seed = data, batch_size, seed
        self.loads = isinstance(data, DataLoader)
        self.an_epoch: int | None = None if self.loads else -(-len(data[0]) // batch_size)
        if self.loads:
            try:
                self.an_epoch = len(data)
            except TypeError:  # an iterable data set has no length
                self.an_epoch = None
        self._epoch, self._numbers = -1, []  # of tensors: the epoch at hand and its case numbers
        self._at, self._loader, self._last = (-1, -1), iter(()), ()  # of a loader: the batch that came last

    def get(self, epoch: int, position: int, device: torch.device) -> tuple:
        """Return the minibatch, on `device`."""
        if self.loads:
            return self._load(epoch, position, device)
        if epoch != self._epoch:
            numbers = batches(len(self.data[0]), self.size, self.seed, epoch)
            self._numbers, self._epoch = [each.to(self.data[0].device) for each in numbers], epoch
        return tuple(tensor[self._numbers[position]] for tensor in self.data)

    def _load(self, epoch: int, position: int, device: torch.device) -> tuple:
        """The loader's batch; those before it are loaded and dropped where a training is resumed in the middle."""
        if self._at[0] != epoch or self._at[1] > position:
            with for_a_step(mix(self._one_seed, epoch)):
                if getattr(self.data, "generator", None) is not None:
                    self.data.generator.manual_seed(mix(self._one_seed, epoch))
                self._loader, self._at = iter(self.data), (epoch, -1)
        while self._at[1] < position:
            with for_a_step(mix(self._one_seed, epoch, self._at[1] + 1)):
                self._last = self._next(position)
            self._at = (epoch, self._at[1] + 1)
        return _parts(_moved(self._last, device))

    def _next(self, position: int) -> Any:
        try:
            return next(self._loader)
        except StopIteration:
            raise ValueError(
                f"the loader ended after {self._at[1] + 1} batches, before batch {position}: its data have changed, or "
                "it does not know its length and gives fewer batches than steps"
            ) from None

    @property
    def _one_seed(self) -> int:
        return mix(*self.seed) if isinstance(self.seed, list) else self.seed

    def settings(self) -> dict[str, Any]:
        """Return what a resumed training must share: the number of cases and a digest, or the loader's sizes."""
        if not self.loads:
            return {"cases": len(self.data[0]), "data": digest(self.data)}
        return {
            "cases": self.an_epoch,
            "data": f"{type(self.data.dataset).__name__}, batches of {self.data.batch_size}",
        }


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_moved(part, device) for part in batch)
    return batch


def _parts(batch: Any) -> tuple:
    """A batch as (x, y, …): of a mapping, x is all but its "labels"."""
    if isinstance(batch, Mapping):
        x = {name: part for name, part in batch.items() if name != "labels"}
        return (x, batch["labels"]) if "labels" in batch else (x,)
    return batch if isinstance(batch, tuple) else (batch,)
