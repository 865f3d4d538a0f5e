"""Digest what a result depends on: a function's code, the values it reads, and the kdlab code that it uses.

Code counts by its syntax tree without docstrings: a changed comment or line break changes no digest, a changed
statement does. Of other libraries only the names of what is called count, of the machine nothing.
"""

import enum
import functools
import hashlib
import itertools
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .functions import label, methods_of, place_of, reads, shorten, source_digest

# What these rooms hold decides where and how fast something is computed, kept or drawn, not what comes out.
WITHOUT_EFFECT = (
    *("kdlab.machine", "kdlab.parallel", "kdlab.store", "kdlab.disk", "kdlab.place", "kdlab.train.checkpoints"),
    *("kdlab.plots", "kdlab.widgets", "kdlab.course"),
)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class Tracer:
    """Follow what a function reads, and what the functions that it calls read.

    code: the digest of each function's and class's own source, by name. values: a digest of each value read, by name.
    """

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self._seen: dict[int, Any] = {}  # by id, and held, so that no other object gets it

    def digest(self) -> str:
        """One digest of all that was followed."""
        return shorten(repr((sorted(self.code.items()), sorted(self.values.items()))), 16)

    def follow(self, found: Any, name: str, strict: bool = True) -> None:
        """Follow `found`, which code calls `name`. strict: raise TypeError for a value that cannot be digested."""
        found = getattr(found, "__wrapped__", found)
        if isinstance(found, types.ModuleType):
            self.values[name] = found.__name__
        elif isinstance(found, types.FunctionType | type):
            self._code(found, name)
        elif type(found).__module__.startswith(WITHOUT_EFFECT) and not isinstance(found, dict):
            self.values[name] = label(type(found))
        else:
            try:
                self.values[name] = self.of_value(found, name)
            except TypeError:
                if strict:
                    raise
                self.values[name] = label(type(found))

    def of_value(self, value: Any, name: str) -> str:
        """The digest of a value: plain ones, tensors by all their bytes, models, functions, and what holds them."""
        digest = hashlib.sha256()
        for part in self._parts(value, name):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()[:16]

    def _code(self, found: Any, name: str) -> None:
        """Follow a function or class: its source, and what it reads."""
        if id(found) in self._seen:
            return
        self._seen[id(found)] = found
        place = place_of(found)
        if place == "library" or found.__module__.startswith(WITHOUT_EFFECT):
            self.values[name] = label(found)
            return
        called = name if getattr(found, "__name__", "") == "<lambda>" else label(found)
        self.code[_free(called, self.code)] = source_digest(found)
        for member in methods_of(found) if isinstance(found, type) else [found]:
            for read, value in reads(member):
                self.follow(value, f"{called}: {read}", strict=place == "user")

    def _parts(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        """The bytes that stand for a value."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 4 and 4.0 are one setting
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | Path | range):
            yield f"{type(value).__name__} {value!r}".encode()
        elif isinstance(value, torch.device):
            yield b"device"
        elif isinstance(value, Tensor):
            yield from _bytes_of_tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield f"array {value.dtype} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, nn.Module):
            yield from self._parts_of_model(value, name)
        elif callable(value) and not hasattr(value, "_fields"):
            yield from self._parts_of_callable(value, name)
        else:
            yield from self._parts_of_many(value, name)

    def _parts_of_many(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        if isinstance(value, dict):
            items = [(repr(key), each) for key, each in value.items()]
        elif isinstance(value, set | frozenset):
            items = sorted((self.of_value(each, name), None) for each in value)
        elif isinstance(value, list | tuple):
            items = [("", each) for each in value]
        elif is_dataclass(value):
            items = [(field.name, getattr(value, field.name)) for field in fields(value)]
        elif isinstance(value, enum.Enum):
            items = [(value.name, None)]
        elif isinstance(value, slice):
            items = [(repr(value), None)]
        else:
            raise TypeError(
                f"{name} is a {label(type(value))}, from which no key can be computed; make it inside the "
                "function, or use plain values, tensors, models, functions, or lists and dicts of them"
            )
        kind = "list" if type(value) in (list, tuple) else label(type(value))
        yield f"{kind} of {len(items)}".encode()
        for key, each in items:
            yield key.encode()
            yield from self._parts(each, f"{name}[{key}]" if key else name)

    def _parts_of_model(self, model: nn.Module, name: str) -> Iterator[bytes | memoryview]:
        yield repr(model).encode()
        for module_name, module in model.named_modules():
            self._code(type(module), label(type(module)))
            yield f"{module_name} {label(type(module))}".encode()
            yield from self._parts_of_many(_attributes(module), f"{name}.{module_name}" if module_name else name)
        for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            yield f"{key} {tensor.requires_grad}".encode()
            yield from _bytes_of_tensor(tensor)
        tensors = {
            key
            for key, _ in itertools.chain(
                model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
            )
        }
        packed = {key: value for key, value in model.state_dict().items() if key not in tensors}
        yield from self._parts_of_many(packed, name)  # such as the int8 weights of torch.ao's layers

    def _parts_of_callable(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        if isinstance(value, functools.partial):
            yield from self._parts_of_many([value.func, list(value.args), value.keywords], name)
        elif isinstance(value, types.MethodType):
            yield from self._parts_of_many([value.__func__, value.__self__], name)
        elif isinstance(getattr(value, "__wrapped__", value), types.FunctionType | type):
            value = getattr(value, "__wrapped__", value)
            self._code(value, name)
            yield label(value).encode()
        elif isinstance(value, types.BuiltinFunctionType) or place_of(type(value)) == "library":
            yield label(value).encode()
        else:
            yield from self._parts_of_many(getattr(value, "__dict__", None) or value, name)


def _free(name: str, taken: dict[str, str]) -> str:
    numbered = (f"{name}~{i}" for i in itertools.count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds beside its weights and its parts; of a library's module, the plain values."""
    own = {key: value for key, value in sorted(vars(module).items()) if key not in _OF_EVERY_MODULE}
    if place_of(type(module)) == "library":
        own = {key: value for key, value in own.items() if isinstance(value, bool | int | float | str)}
    return own | {"training": module.training}


def _bytes_of_tensor(tensor: Tensor) -> Iterator[bytes | memoryview]:
    flat = tensor.detach()
    yield f"tensor {flat.dtype} {tuple(flat.shape)}".encode()
    if flat.is_quantized:
        per_channel = flat.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        yield repr(
            (flat.q_per_channel_scales().tolist(), flat.q_per_channel_zero_points().tolist())
            if per_channel
            else (flat.q_scale(), flat.q_zero_point())
        ).encode()
        flat = flat.int_repr()
    reach = 1 + sum((n - 1) * step for n, step in zip(flat.shape, flat.stride(), strict=True))
    if flat.numel() > reach > 0:  # overlapping windows: each number that they show is read once
        yield f"windows {flat.stride()}".encode()
        flat = flat.as_strided((reach,), (1,))
    if flat.numel():
        yield memoryview(flat.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
