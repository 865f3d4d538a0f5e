"""Take any Python value apart into its tensors and the rest, and put it together again; keep plain ones as JSON.

The rest is pickled (functions and classes of a notebook too, by cloudpickle), so take only files that you trust. What
is one tensor in two places, such as tied weights, is one tensor again.
"""

import io
import math
import pickle
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn

from kdlab import machine


def take_apart(value: Any) -> dict[str, Tensor]:
    """Return `value` as tensors: those in it by number ("0", "1", …), what they are, and the pickled rest as bytes.

    Raises TypeError for a value that cannot be pickled, such as an open file.
    """
    taken: list[Tensor] = []
    known: dict[int, int] = {}

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, part: Any) -> int | None:
            if not isinstance(part, Tensor):
                return None
            if id(part) not in known:
                known[id(part)] = len(taken)
                taken.append(part)
            return known[id(part)]

    written = io.BytesIO()
    try:
        Pickler(written).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"a {type(value).__name__} was returned that cannot be kept: {error}; return numbers, texts, "
            "tensors, models, or lists and dicts of them"
        ) from error
    home = machine.device().type
    kinds = [[isinstance(part, nn.Parameter), part.requires_grad, part.device.type == home] for part in taken]
    rest = {
        "pickle": torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8),
        "kinds": torch.tensor(kinds, dtype=torch.bool).view(-1, 3),
    }
    return {**{str(i): part.detach() for i, part in enumerate(taken)}, **rest}


def put_together(tensors: dict[str, Tensor]) -> Any:
    """Return the value that `take_apart` took apart; what was on the chosen device is on this machine's chosen one.

    Raises ValueError where the rest cannot be read here, such as for a class that no longer exists.
    """
    made = []
    for i, (is_parameter, learns, at_home) in enumerate(tensors["kinds"].tolist()):
        part = tensors[str(i)].to(machine.device() if at_home else "cpu")
        made.append(nn.Parameter(part, requires_grad=learns) if is_parameter else part.requires_grad_(learns))

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: int) -> Tensor:
            return made[number]

    try:
        return Unpickler(io.BytesIO(tensors["pickle"].numpy().tobytes())).load()
    except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, IndexError) as error:
        raise ValueError(f"its value cannot be read: {error}") from error


def plain(value: Any, where: str, as_key: bool = False) -> Any:
    """Return `value` as JSON gives it back, or raise TypeError for what JSON cannot hold.

    where: what errors call it. as_key: 4.0 becomes 4, and NaN and infinities are refused.
    """
    value = value.item() if isinstance(value, np.generic) else value  # a number of numpy's is a number
    if as_key and isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which is not a setting to find anything by; use a number or None")
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]", as_key) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        raise TypeError(
            f"{where} is a {type(value).__name__}; only numbers, texts, None, lists and dicts of them can be kept: "
            "use float(), int(), str() or .tolist()"
        )
    if odd := [k for k in value if not isinstance(k, str)]:
        raise TypeError(f"{where} has the key {odd[0]!r}; the keys of what is kept are texts: use str()")
    return {k: plain(v, f"{where}[{k!r}]", as_key) for k, v in value.items()}
