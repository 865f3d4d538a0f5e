"""Torch's random state, of which a process has one: lent to a block, and put back as it was.

Threads of one process share that state, so a lock says whose turn it is: a live training in one thread and a net
built in another give what each gives alone.
"""

import contextlib
import threading
from collections.abc import Iterator

import torch

_TURN = threading.RLock()


def mix(*numbers: int) -> int:
    """One random seed from several whole numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + int(number)) % 2**63
    return mixed


@contextlib.contextmanager
def for_a_step(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draw from `seed` inside the block, for as long as one step takes: other threads' steps wait their turn.

    On the generators themselves: torch.manual_seed() also queues a call for every kind of device, 0.1 ms a step.
    """
    device = torch.device(device)
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    with _TURN:
        before = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(mix(seed))
        try:
            yield
        finally:
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)


@contextlib.contextmanager
def for_a_while(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block, for minutes if need be: other threads' steps go on in between.

    A step puts back what it found, so they do not show here; only numbers drawn here outside any step, at the very
    moment of another thread's step, would come from that step's seed.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    forked = torch.random.fork_rng(devices=gpus)
    with _TURN:
        forked.__enter__()
        torch.manual_seed(mix(seed))
    try:
        yield
    finally:
        with _TURN:
            forked.__exit__(None, None, None)
