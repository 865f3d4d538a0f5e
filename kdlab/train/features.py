"""What goes on inside a net, caught by the names of its modules from outside: the nets stay plain.

with features.capture(net, ["model.bert.encoder.layer.1"]) as seen:
    logits = net(x)
seen["model.bert.encoder.layer.1"]    # (batch, tokens, width), with its gradient where the net has one
"""

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor, nn


@contextlib.contextmanager
def capture(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What the modules of these names return at the latest pass of `net` inside the block, by name.

    names: as in net.named_modules(). Of a module that returns several things, the first is kept.
    Raises ValueError for a name that is not there, and RuntimeError where a module is called twice in one pass, for
    then its output is only a part of the batch, or one of several layers'.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, output) -> None:
        if name in seen:
            raise RuntimeError(
                f"{name} was called twice in one pass, so that none of its outputs is that of the whole batch; the "
                "usual cause is that several layers share this module"
            )
        seen[name] = output[0] if isinstance(output, tuple | list) else output

    with contextlib.ExitStack() as hooks:
        hooks.callback(net.register_forward_pre_hook(lambda *_: seen.clear()).remove)
        for name in names:
            hook = _module(net, name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            hooks.callback(hook.remove)
        yield seen


def _module(net: nn.Module, name: str) -> nn.Module:
    there = dict(net.named_modules())
    if name not in there:
        near = [each for each in there if each.count(".") == name.count(".")][:4] or list(there)[1:5]
        raise ValueError(
            f"this {type(net).__name__} has no module called {name!r}; it has such as {', '.join(near)} "
            "(all of them: dict(net.named_modules()))"
        )
    return there[name]
