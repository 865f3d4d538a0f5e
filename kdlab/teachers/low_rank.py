"""Fine-tuning by low-rank updates: the pretrained weights stay, and each layer learns a small product beside them.

So a fine-tuned net ships as its updates alone, one hundredth of its size; once merged it is a net like any other.
Hu et al. 2021, arXiv:2106.09685, section 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Updated(nn.Module):
    """A linear layer W x + b that is kept, beside up (down x), which learns. up begins as zeros: nothing is changed."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        self.linear.weight += self.up @ self.down
        return self.linear


def add(net: nn.Module, inside: nn.Module, rank: int) -> nn.Module:
    """Freeze `net`, and give every linear layer in its part `inside` an update that learns. In place; returns `net`."""
    net.requires_grad_(False)
    for name, layer in list(inside.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, own = name.rpartition(".")
            setattr(inside.get_submodule(parent), own, Updated(layer, rank))
    return net


def merge(net: nn.Module) -> nn.Module:
    """Every update added into its layer's weights, in place: the net has its first shape again. Returns it."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, Updated):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, layer.merged())
    return net.requires_grad_(True)
