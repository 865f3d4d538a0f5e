"""A net as a file that runs without kdlab and without torch: ONNX, in floats or in bytes.

to_onnx(net, task.x_test[:4], "bert.onnx")
onnx_int8("bert.onnx", "bert-int8.onnx")
metrics.logits(OnnxNet("bert-int8.onnx"), task.x_test)
"""

import importlib
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import machine, models

from .quantize import bake

Name = str | os.PathLike


def to_onnx(model: nn.Module, x: Tensor | Mapping[str, Tensor], path: Name) -> Path:
    """Write the model to an ONNX file and return its path. The output is called "logits".

    x: an example of what it is given, at least two of them; any number may be given to the file. Where it is token
    numbers (batch, tokens), of any length, too. A tensor becomes the input "x"; a `text.Bert` and a model of
    transformers then make their mask inside, from the padding. A mapping, as a tokenizer of transformers returns it,
    becomes inputs of its names, so that the mask is one of them.
    Raises ValueError where x is too small or the model holds layers of torch.ao, which ONNX does not know.
    """
    for library in ("onnx", "onnxscript"):
        _library(library)
    inputs = {name: part.cpu() for name, part in (x if isinstance(x, Mapping) else {"x": x}).items()}
    sizes = [_sizes(part) for part in inputs.values()]
    for name, layer in model.named_modules():
        if hasattr(layer, "_weight_bias"):
            raise ValueError(
                f"{name} is a layer of torch.ao in bytes, which ONNX does not know; export the net as it "
                "was before, and give that file to onnx_int8"
            )
    model = bake(model).cpu()
    named = tuple(inputs) if isinstance(x, Mapping) else ()
    with _quiet():
        torch.onnx.export(
            _Answering(model, named).eval(),
            tuple(inputs.values()),
            Path(path),
            dynamo=True,
            dynamic_shapes=(tuple(sizes),),
            external_data=False,
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
    return Path(path)


def _sizes(x: Tensor) -> dict[int, str]:
    """The dimensions of an input that vary, by name."""
    words = not x.is_floating_point()
    if x.dim() < 1 + words or len(x) < 2 or (words and x.shape[1] < 2):
        raise ValueError(
            f"x must be an example of at least 2 cases{' of at least 2 tokens' if words else ''}, got the "
            f"shape {tuple(x.shape)}; of one alone the file would learn that there is never more"
        )
    return {0: "batch", 1: "tokens"} if words else {0: "batch"}


class _Answering(nn.Module):
    """A model that returns its logits as a tensor. names: of its inputs, or () where it takes one tensor."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        x = dict(zip(self.names, inputs, strict=True)) if self.names else inputs[0]
        return models.logits(self.model, x, group=None)


def onnx_int8(path: Name, out: Name, *, per: str = "channel") -> Path:
    """Write an ONNX file's net in bytes, embeddings too, by onnxruntime's quantize_dynamic; returns the path of it.

    Activations are rounded as they come. per: "channel" gives each output its own step, "tensor" one to each matrix.
    """
    if per not in ("channel", "tensor"):
        raise ValueError(f"per is channel or tensor, got {per!r}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {path}; to_onnx writes one")
    _library("onnx")
    quantization = _library("onnxruntime.quantization")
    with _quiet():
        quantization.quantize_dynamic(
            Path(path), Path(out), weight_type=quantization.QuantType.QInt8, per_channel=per == "channel"
        )
    return Path(out)


class OnnxNet(nn.Module):
    """An ONNX file as a model: (batch, …) → (batch, classes), computed by onnxruntime.

    A file of one input takes a tensor; one of several takes them by name, or a mapping through `metrics.logits`.
    threads: default as `machine.thread_count`, set once and for all. It has no weights for torch and no gradient;
    a copy reads the same file.
    """

    def __init__(self, path: Name, threads: int | None = None):
        super().__init__()
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no {path}; to_onnx writes one")
        self.path, self.threads = Path(path), machine.thread_count(threads)
        self._open()

    def _open(self) -> None:
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        self._session = runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self._session.get_inputs()]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._open()

    def forward(self, x: Tensor | None = None, **named: Tensor) -> Tensor:
        given = named if x is None else {self.inputs[0]: x, **named}
        if given.keys() != set(self.inputs):
            raise ValueError(f"{self.path.name} takes the inputs {', '.join(self.inputs)}; got {', '.join(given)}")
        (logits,) = self._session.run(None, {name: part.cpu().numpy() for name, part in given.items()})
        return torch.from_numpy(logits).to(next(iter(given.values())).device)

    def costs(self) -> dict[str, int | None]:
        """What `metrics.measure` asks a net's own word for: bytes and weights of the file. Nobody counts its products
        or its memory from outside: None."""
        onnx = _library("onnx")
        kept = [onnx.numpy_helper.to_array(each) for each in onnx.load(self.path).graph.initializer]
        weights = [each for each in kept if each.ndim and each.dtype.name in ("float32", "int8", "uint8")]
        return {
            "parameters": sum(each.size for each in weights),
            "bytes": self.path.stat().st_size,
            "nonzero": sum(int((each != 0).sum()) for each in weights),
            "multiply_adds": None,
            "peak": None,
        }


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModuleNotFoundError(f"ONNX files want {name}: pip install 'kdlab[deploy]'") from None


class _quiet:
    """Without the exporters' own reports, which are many lines of no use to the reader."""

    def __enter__(self):
        self._warned = warnings.catch_warnings()
        self._warned.__enter__()
        warnings.simplefilter("ignore")
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error):
        logging.disable(self._before)
        self._warned.__exit__(*error)
