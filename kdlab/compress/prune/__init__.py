"""Pruning: what of a trained net can go. Weights at zero, whole attention heads, whole layers.

sparse = prune.magnitude(net, 0.5, "*encoder*")         # half of the weights are zeros: as large, as slow as before
with prune.hold_zeros(sparse):                                # which stay zeros while the rest learns
    train.fit(sparse, …)
importance = prune.head_importance(net, x, y)
small = prune.heads(net, prune.least_important(importance, 0.5))  # the matrices themselves get smaller
half = prune.layers(net, keep=[0, 2, 4])
"""

from .attention import head_importance, heads, least_important
from .depth import layer_drop, layers
from .weights import cubic, gradually, hold_zeros, magnitude, zeros

__all__ = [
    "cubic",
    "gradually",
    "head_importance",
    "heads",
    "hold_zeros",
    "layer_drop",
    "layers",
    "least_important",
    "magnitude",
    "zeros",
]
