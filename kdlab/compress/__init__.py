"""The six ways of compressing a trained net. Each is one function: a model in, a new model out.

They take any nn.Module: your own, one of transformers, or a `kdlab.text.Bert`. The one given stays as it is.
"""

from .factorize import break_even, factorised, input_moments, spectrum

__all__ = ["break_even", "factorised", "input_moments", "spectrum"]
