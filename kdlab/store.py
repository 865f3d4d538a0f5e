"""Trained models and results, kept by their settings, so that nothing is trained twice.

An entry is one safetensors file: the weights, if any, and the record as JSON in its metadata. It carries the SHA-256
of all its own bytes, because safetensors loads a flipped byte without a word. It is written under another name and
then renamed, so it is there whole or not at all; a damaged one is noticed and made again.

Settings are everything that changes the numbers (seed, epochs, T, how much data, a version of your own code) and
nothing else: not the device, not the number of workers. The names, shapes and types of the weights count by themselves.
"""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from kdlab import machine, randomness, values
from kdlab.disk import store_dir as folder
from kdlab.disk import write

FORMAT = 1
_ENTRY = re.compile(r"[\w-]{1,100}\.[0-9a-f]{16}\.([0-9a-f]{8}|[a-z]+)\.safetensors")
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_UNSEALED = "0" * 64
_MAKE_ROOM = "free some space there, or set KDLAB_STORE to a folder that you may write to"


class Damaged(ValueError):
    """An entry that is there but is not, byte for byte, what was saved."""


def model(
    name: str, settings: dict, build: Callable[[], nn.Module], train: Callable[[nn.Module], Any]
) -> tuple[nn.Module, dict]:
    """The net of these settings, in eval mode on the device build() put it on, and its record: loaded or else trained.

    settings: plain values. The order of keys, tuple or list, 4 or 4.0 make no difference; NaN is refused.
    build: returns the untrained net. train: trains it in place; the measures it returns are record["value"].
    Both start from torch.manual_seed(settings["seed"]), or from a seed made of the settings if they name none; the
    caller's random numbers go on as if nothing had happened, whether the net was trained or loaded.
    """
    key = entry_key(name, settings)
    with randomness.for_a_while(_seed(settings, key)):
        net = build()
        shapes, home = _shapes(net), next((t.device for t in net.state_dict().values()), "cpu")

        def work() -> Any:
            value = train(net)
            net.to(home)
            return value

        def weights() -> dict[str, Tensor]:
            if _shapes(net) != shapes:
                raise ValueError("train() changed the names, types or shapes of the weights; let build() do that")
            return net.state_dict()

        about = {"entry": f"{name}.{key}.{shapes}", "name": name, "settings": settings}
        record = _kept(about, work, weights, net.load_state_dict)
    return net.eval(), record


def result(name: str, settings: dict, compute: Callable[[], Any]) -> Any:
    """What compute() returns for these settings, any JSON value (a tuple comes back as a list): read or else computed.

    Settings and random numbers are treated as by `model`.
    """
    key = entry_key(name, settings)
    about = {"entry": f"{name}.{key}.result", "name": name, "settings": settings}
    with randomness.for_a_while(_seed(settings, key)):
        return _kept(about, compute, dict, lambda state: None)["value"]


def tensors(name: str, settings: dict, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What compute() returns for these settings, tensors by name, such as a teacher's logits: read or else computed.

    They come on the device that `machine.device()` names. Settings and random numbers are treated as by `model`.
    """
    key, found = entry_key(name, settings), {}
    about = {"entry": f"{name}.{key}.tensors", "name": name, "settings": settings}
    with randomness.for_a_while(_seed(settings, key)):
        _kept(about, lambda: found.update(compute()), lambda: found, found.update)
    return {each: tensor.to(machine.device()) for each, tensor in found.items()}


def value(name: str, settings: dict, compute: Callable[[], Any], about: Callable[[], dict] = dict) -> tuple[Any, dict]:
    """What compute() returns for these settings, and its record: read or else computed.

    It may be anything that can be pickled: models and tensors, alone or in tuples, lists and dicts. about: is asked
    after compute() for plain values that go into the record as record["value"]. Settings and random numbers are
    treated as by `model`.
    """
    made: list = []
    entry = {"entry": f"{name}.{entry_key(name, settings)}.value", "name": name, "settings": settings}

    def work() -> dict:
        made.append(compute())
        return about()

    def use(tensors: dict[str, Tensor]) -> None:
        try:
            made.append(values.put_together(tensors))
        except ValueError as error:
            raise Damaged(f"{entry['entry']}: {error}") from error

    with randomness.for_a_while(_seed(settings, entry_key(name, settings))):
        record = _kept(entry, work, lambda: values.take_apart(made[0]), use)
    return made[0], record


def has(name: str, settings: dict) -> bool:
    """Return whether `value` has an entry of these settings."""
    return (folder() / f"{name}.{entry_key(name, settings)}.value.safetensors").exists()


def copy_out(name: str, settings: dict) -> bytes | None:
    """Return the file of this entry of `value` as bytes, for `copy_in` on another machine; None where there is none."""
    path = folder() / f"{name}.{entry_key(name, settings)}.value.safetensors"
    return path.read_bytes() if path.exists() else None


def copy_in(name: str, settings: dict, blob: bytes) -> None:
    """Keep an entry that `copy_out` returned elsewhere; it is checked when it is read."""
    folder().mkdir(parents=True, exist_ok=True)
    write(folder() / f"{name}.{entry_key(name, settings)}.value.safetensors", blob)


def checkpoint(name: str, settings: dict) -> Path:
    """Where a training of these settings may keep itself while it runs, for `train.fit(…, checkpoint=…)`."""
    return folder() / f"{name}.{entry_key(name, settings)}.checkpoint"


def packaged(name: str) -> tuple[dict[str, Tensor], dict]:
    """Weights and record of a net that comes with kdlab, verified."""
    return load(Path(__file__).with_name("teachers") / f"{name}.safetensors")


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights, as in a state_dict, and record, as `save` was given them. Raises Damaged, or FileNotFoundError."""
    blob, record = _read(Path(path))
    state = safetensors.torch.load(blob)
    for name, dtype in record["stored"]["types"].items():
        state[name] = state[name].to(getattr(torch, dtype))
    return {**state, **{name: state[first] for name, first in record["stored"]["ties"].items()}}, record


def save(path: Path, state: dict[str, Tensor], record: dict, dtype: torch.dtype | None = None) -> dict:
    """Write weights and record to `path`, whole or not at all; returns the record as `load` will.

    dtype: keeps floating-point weights in this type, such as torch.float16; `load` gives them back in their own.
    """
    tensors, stored = _storable(state, dtype)
    record = {**values.plain(record, "record"), "format": FORMAT, "stored": stored}
    blob = safetensors.torch.save(tensors, {"sha256": _UNSEALED, "kdlab": json.dumps(record)})
    write(Path(path), _sealed(blob))
    return record


def entries() -> list[dict]:
    """What is in the store, every byte of it checked: name, settings, when, seconds, bytes, path, what is damaged."""
    rows = []
    for path in _entry_paths("*"):
        row = {"name": path.name.split(".")[0], "path": path, "damaged": None}
        try:
            row["bytes"] = path.stat().st_size
            record = _read(path)[1]
        except FileNotFoundError:
            continue  # forgotten by another process since the folder was listed
        except Damaged as error:
            record, row["damaged"] = {}, str(error)
        rows.append({**row, **{key: record.get(key) for key in ("settings", "when", "seconds")}})
    return rows


def forget(name: str, settings: dict | None = None) -> int:
    """Delete the models and results of this name, or only those of these settings; returns how many there were.

    What a training of theirs that was interrupted had kept is deleted, too, and no other file.
    """
    key = "*" if settings is None else entry_key(name, settings)
    entry_key(name, {})  # refuses what is not a name
    doomed = _entry_paths(name, key)
    for path in [*doomed, *unfinished(name, key)]:
        path.unlink(missing_ok=True)
    return len(doomed)


def unfinished(name: str = "*", key: str = "*") -> list[Path]:
    """List what interrupted trainings have kept to go on from, as `checkpoint` names it."""
    return [
        path
        for path in sorted(folder().glob(f"{name}.{key}.checkpoint"))
        if re.fullmatch(r"[\w-]+\.[0-9a-f]{16}\.checkpoint", path.name)
    ]


def _entry_paths(name: str, key: str = "*") -> list[Path]:
    """List the store's own files, by the form of their names: a folder of yours may hold others beside them."""
    return [path for path in sorted(folder().glob(f"{name}.{key}.*.safetensors")) if _ENTRY.fullmatch(path.name)]


# ---- settings, and what else must be equal


def entry_key(name: str, settings: dict) -> str:
    """Return the digest of a name and its settings, under which an entry is kept. Raises for what is not plain."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise ValueError(f"a name is 1 to 100 letters, digits, '_' or '-', got {name!r}; put the rest into settings")
    if not isinstance(settings, dict):
        raise TypeError(f"settings must be a dict of plain values, got {type(settings).__name__}")
    return _digest([name, values.plain(settings, "settings", as_key=True)], 16)


def _shapes(net: nn.Module) -> str:
    """Stands for the names, types and shapes of the weights: a net built otherwise is another entry."""
    state = net.state_dict()
    if odd := [k for k, v in state.items() if not isinstance(v, Tensor)]:
        raise TypeError(f"only tensors can be kept; {odd[0]!r} in the state_dict is a {type(state[odd[0]]).__name__}")
    return _digest(sorted((k, str(v.dtype), tuple(v.shape)) for k, v in state.items()), 8)


def _digest(value: Any, digits: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def _seed(settings: dict, key: str) -> int:
    """Where the random numbers start: they depend on the settings alone."""
    seed = settings.get("seed")
    return int(seed) if isinstance(seed, Real) else int(key[1:], 16)


# ---- one maker at a time


def _kept(about: dict, work: Callable, weights: Callable, use: Callable) -> dict:
    """The record of an entry, its weights given to use(state), or else one of work(), kept with weights() as state."""
    path = folder() / f"{about['entry']}.safetensors"
    with suppress(FileNotFoundError, Damaged):
        return _found(path, use)
    with _sole_maker(path):
        try:
            return _found(path, use)
        except Damaged as error:
            warnings.warn(f"{error}; it is made again", stacklevel=3)
        except FileNotFoundError:
            pass
        start, made = time.perf_counter(), {"when": datetime.now(UTC).isoformat(timespec="seconds")}
        record = {**values.plain(about, "record"), **made, "machine": machine.describe(), "value": work()}
        record["seconds"] = round(time.perf_counter() - start, 3)
        try:
            return save(path, weights(), record)
        except Exception as error:  # whatever it is: what was just made must not be lost
            what = f"{about['name']}, {record['seconds']} s of work, is returned but not kept in {path}: {error}"
            todo = f"; {_MAKE_ROOM}" if isinstance(error, OSError) else ""
            warnings.warn(what + todo, stacklevel=3)
            return record


def _found(path: Path, use: Callable[[dict[str, Tensor]], Any]) -> dict:
    state, record = load(path)
    if record.get("entry") != path.stem:
        raise Damaged(f"{path} holds {record.get('entry')}; was the file renamed?")
    use(state)
    return record


@contextmanager
def _sole_maker(path: Path) -> Iterator[None]:
    """Hold the entry's lock, which the system frees if we die, and sweep up after one who died; or warn and go on."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is making {path.name}; waiting for it", flush=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        warnings.warn(f"what is made now cannot be kept: {error}; {_MAKE_ROOM}", stacklevel=5)
    try:
        for temp in path.parent.glob("*.tmp") if lock.is_locked else []:
            with suppress(OSError):
                if temp.name.startswith(f"{path.name}.") or time.time() - temp.stat().st_mtime > 86_400:  # a day
                    temp.unlink()
        yield
    finally:
        lock.release()


# ---- bytes


def _read(path: Path) -> tuple[bytes, dict]:
    """The bytes of an entry, checked against their seal, and the record among them."""
    try:
        blob = path.read_bytes()
        if _sealed(blob) != blob:
            raise ValueError("its SHA-256 is not the one it carries")
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        record = json.loads(header["__metadata__"]["kdlab"])
        if record["format"] != FORMAT:
            raise ValueError(f"it has format {record['format']}, and this version of kdlab reads {FORMAT}")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no {path}") from None
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{path} is damaged or foreign: {error}") from error
    return blob, record


def _sealed(blob: bytes) -> bytes:
    """`blob` carrying, in its "sha256" field, the SHA-256 of itself with zeros in that field."""
    if not (field := _SEAL.search(blob)):
        raise ValueError("it carries no SHA-256")
    start, end = field.span(1)
    digest = hashlib.sha256(blob[:start] + _UNSEALED.encode() + blob[end:]).hexdigest()
    return blob[:start] + digest.encode() + blob[end:]


def _storable(state: dict[str, Tensor], dtype: torch.dtype | None) -> tuple[dict[str, Tensor], dict]:
    """Tensors as safetensors takes them, and what `load` needs besides: names of the same tensor, types changed."""
    tensors, ties, types, first = {}, {}, {}, {}
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if first.setdefault(place, name) != name:
            ties[name] = first[place]
            continue
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if dtype and tensor.is_floating_point() and tensor.dtype != dtype:
            types[name] = str(tensor.dtype).removeprefix("torch.")
            full, tensors[name] = tensors[name], tensors[name].to(dtype)
            if not torch.equal(full.isfinite(), tensors[name].isfinite()):
                raise ValueError(f"{name} has values up to {full.abs().max():g}, too large for {dtype}")
    return tensors, {"ties": ties, "types": types}
