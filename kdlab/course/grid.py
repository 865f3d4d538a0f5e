"""What a cached function returned, by its arguments: a grid with an axis for each of them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Grid(dict):
    """Results by the arguments that made them: grid[T, seed], or grid[T] where there is one axis.

    axes: name → values, in the order of the key.
    """

    def __init__(self, axes: dict[str, list], results: dict[tuple, Any]):
        super().__init__(results)
        self.axes = axes

    def __getitem__(self, point: Any) -> Any:
        return super().__getitem__(point if isinstance(point, tuple) and len(point) == len(self.axes) else (point,))

    def map(self, function: Callable[[Any], Any]) -> "Grid":
        """Return a grid of function(result)."""
        return Grid(self.axes, {point: function(result) for point, result in self.items()})

    def at(self, **values: Any) -> "Grid":
        """Return the part of the grid where these axes have these values, without them."""
        names = list(self.axes)
        if odd := [name for name in values if values[name] not in self.axes.get(name, [])]:
            raise KeyError(f"no axis {odd[0]!r} with the value {values[odd[0]]!r}; the axes are {self.axes}")
        kept = [i for i, name in enumerate(names) if name not in values]
        part = {
            tuple(point[i] for i in kept): result
            for point, result in self.items()
            if all(point[names.index(name)] == value for name, value in values.items())
        }
        return Grid({names[i]: self.axes[names[i]] for i in kept}, part)

    def list(self) -> list:
        """Return the results in the order of the axes, the last one fastest."""
        return [*self.values()]

    def tensor(self) -> Tensor:
        """Return the results, numbers or lists of numbers, as a float64 tensor with one dimension an axis."""
        flat = torch.tensor(self.list(), dtype=torch.float64)
        return flat.view(*map(len, self.axes.values()), *flat.shape[1:])

    def mean(self, axis: str) -> Tensor:
        """Return the mean over one axis, as a tensor over the others."""
        return self.tensor().mean(dim=list(self.axes).index(axis))

    def std(self, axis: str) -> Tensor:
        """Return the standard deviation over one axis, NaN where it has one value, as a tensor over the others."""
        if len(self.axes[axis]) < 2:
            return torch.full_like(self.mean(axis), math.nan)
        return self.tensor().std(dim=list(self.axes).index(axis))
