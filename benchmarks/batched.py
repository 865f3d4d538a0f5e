"""What many small models gain by training at once, with `batched.fit`, over one after the other."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from kdlab import data, metrics, models, teachers, train
from kdlab.train import batched


def students(rounds: int, n: int = 16, units: int = 30, cases: int = 20_000) -> dict:
    """Return seconds for n students of one shape, each at its own T: one by one, at once, at once in two processes."""
    mnist = data.load("mnist", "cpu")
    x, y = mnist.x_train[:cases], mnist.y_train[:cases]
    xyt = x, y, metrics.logits(teachers.mnist("cpu"), x)
    settings = {"epochs": 1, "lr": 1e-3, "batch_size": 128}
    Ts = [1.0 + i for i in range(n)]

    def one_by_one(models):
        for model, T in zip(models, Ts, strict=True):
            train.fit(model, xyt, train.distilling(T=T), **settings)

    ways = {
        "one_by_one": one_by_one,
        "at_once": lambda models: batched.fit(models, xyt, T=Ts, **settings),
        "in_two_processes": lambda models: batched.fit(models, xyt, T=Ts, n_jobs=2, **settings),
    }
    ways["in_two_processes"](perceptrons(n, units))  # warm: the processes import torch
    seconds, trained = timed(ways, rounds, lambda way: perceptrons(n, units))
    losses = {way: [final_loss(model, xyt, T) for model, T in zip(trained[way], Ts, strict=True)] for way in ways}
    pairs = [zip(losses["one_by_one"], losses[way], strict=True) for way in ("at_once", "in_two_processes")]
    row = {
        "students": n,
        "units": units,
        "images": cases,
        **{way: round(s, 2) for way, s in seconds.items()},
        "largest_difference_of_losses": max(abs(a - b) / a for pair in pairs for a, b in pair),
    }
    print(
        f"{n} students of 2 x {units}: one by one {seconds['one_by_one']:.2f} s, at once {seconds['at_once']:.2f} s "
        f"({seconds['one_by_one'] / seconds['at_once']:.1f} x), in two processes {seconds['in_two_processes']:.2f} s "
        f"({seconds['one_by_one'] / seconds['in_two_processes']:.1f} x); final losses differ by at most "
        f"{row['largest_difference_of_losses']:.1e} of themselves"
    )
    return row


def acoustic_models(rounds: int, n: int = 10, utterances: int = 100, units: int = 256) -> dict:
    """Return frames a second of acoustic models in training: one, n one after the other, n at once."""
    corpus = data.load("digits-speech", "cpu", n_train=utterances, n_test=1)
    x, y, classes = corpus.x_train, corpus.y_train, len(corpus.classes)
    xyt = x, y, torch.zeros(1, classes).expand(len(x), -1)
    settings = {"epochs": 1, "lr": 1e-3, "batch_size": 256}

    def one_by_one(models):
        for model in models:
            train.fit(model, xyt, train.labels(), **settings)

    ways = {
        "one": one_by_one,
        "ten_one_by_one": one_by_one,
        "ten_at_once": lambda models: batched.fit(models, xyt, T=1.0, alpha=0.0, **settings),
    }
    seconds, trained = timed(
        ways, rounds, lambda way: perceptrons(1 if way == "one" else n, units, n_in=x[0].numel(), n_classes=classes)
    )
    row = {"frames": len(x), "units": units, **{way: round(len(trained[way]) * len(x) / seconds[way]) for way in ways}}
    print(
        f"acoustic models of 2 x {units}: one {row['one']:,} frames/s; {n} one by one {row['ten_one_by_one']:,}, "
        f"at once {row['ten_at_once']:,} ({row['ten_at_once'] / row['ten_one_by_one']:.1f} x)"
    )
    return row


def perceptrons(n: int, units: int, **shape: int) -> list[nn.Module]:
    """Return n untrained models of two layers of `units`, each from its own seed."""
    return [models.mlp((units, units), seed=i, **shape) for i in range(n)]


def timed(ways: dict[str, Callable], rounds: int, start: Callable) -> tuple[dict, dict]:
    """Train fresh models by each way in turn, and return (the median seconds, the last models) of each way."""
    seconds, trained = {way: [] for way in ways}, {}
    for _ in range(rounds):
        for way, fit in ways.items():
            trained[way] = start(way)
            begun = time.perf_counter()
            fit(trained[way])
            seconds[way].append(time.perf_counter() - begun)
    return {way: statistics.median(measured) for way, measured in seconds.items()}, trained


def final_loss(model: nn.Module, xyt: tuple, T: float) -> float:
    """Return what the objective of distillation gives for all cases."""
    with torch.no_grad():
        return sum(term.item() for term in train.distilling(T=T)(model, *xyt).values())
