"""The six ways of compressing a trained net. Each is one function: a model in, a new model out.

They take any nn.Module: your own, one of transformers, or a `kdlab.text.Bert`. The one given stays as it is. What a way
cannot do to a model it refuses by a ValueError, before anything is changed; weights that layers share stay shared.
A copy of a model that is frozen as a whole learns; where only some weights are frozen, they are frozen in the copy.
`touched` counts what differs between a model and its copy; `save` keeps one, `load` brings it back.
"""

from .changes import Touched, touched
from .export import OnnxNet, onnx_int8, to_onnx
from .low_rank import break_even, factorize, input_moments, lower_rank, spectrum
from .prune import (
    cubic,
    gradually,
    head_importance,
    heads,
    hold_zeros,
    layer_drop,
    layers,
    least_important,
    magnitude,
    zeros,
)
from .quantize import bake, fake_quantize, int8, int8_embeddings, prepare_qat
from .saved import load, save
from .share import share_layers
from .together import excess, loss, ratio_excess, stack, subsets

__all__ = [
    "break_even",
    "factorize",
    "input_moments",
    "lower_rank",
    "spectrum",
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
    "bake",
    "fake_quantize",
    "int8",
    "int8_embeddings",
    "prepare_qat",
    "OnnxNet",
    "onnx_int8",
    "to_onnx",
    "load",
    "save",
    "share_layers",
    "excess",
    "loss",
    "ratio_excess",
    "stack",
    "subsets",
    "Touched",
    "touched",
]
