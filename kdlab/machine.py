"""The machine under the course: which device, how many CPU threads, and what to write beside a number.

Both choices are made here and nowhere else. Overrule them with KDLAB_DEVICE (cpu, cuda, cuda:1, mps) and
KDLAB_THREADS (a number), or by argument.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator

import torch


def device(wanted: str | int | torch.device | None = None) -> torch.device:
    """The device to train on: `wanted`, else KDLAB_DEVICE, else CUDA or MPS where there is one, else the CPU.

    Raises ValueError for a device that this machine does not have.
    """
    name = str(wanted if wanted is not None else os.environ.get("KDLAB_DEVICE") or _best())
    name = f"cuda:{name}" if name.isdecimal() else name  # torch, too, takes a bare number for a graphics card
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {name!r} is not known; use cpu, cuda, cuda:1 or mps (KDLAB_DEVICE)")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices here")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r} was asked for, but this machine has no MPS (Apple graphics)")
    return chosen


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def thread_count(n: int | None = None) -> int:
    """CPU threads for one training: `n`, else KDLAB_THREADS, else 1.

    One, because the nets here are small: two threads spin while they wait for each other and cost up to 20 times
    the time as soon as anything else runs, and one thread gives the same sums in the same order every time.
    Independent trainings run side by side in processes instead.
    """
    wanted = os.environ.get("KDLAB_THREADS") or "1" if n is None else n
    if not str(wanted).isdecimal() or int(wanted) < 1:
        raise ValueError(f"the number of CPU threads must be a whole number of at least 1, got {wanted!r}")
    return int(wanted)


@contextlib.contextmanager
def threads(n: int | None = None) -> Iterator[int]:
    """Run the block with `thread_count(n)` CPU threads in torch, and put back what was set before."""
    before, chosen = torch.get_num_threads(), thread_count(n)
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def bfloat16(wanted: bool = True) -> torch.autocast:
    """Matrix products inside the block in bfloat16, weights and sums in single precision, where `wanted`.

    Two to three times as fast where the processor knows the type, and far slower on one that does not.
    """
    # Without torch's cache of rounded weights, which would keep the first ones while the real ones learn.
    return torch.autocast(device().type, torch.bfloat16, enabled=wanted, cache_enabled=False)


def describe() -> dict[str, str | int]:
    """What a number should carry: processor, cores, threads, device and versions, as JSON values."""
    chosen = device()
    return {
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type,
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": thread_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def speed(size: int = 1024, seconds: float = 0.2) -> float:
    """Multiply-adds per second that a product of size × size matrices reaches on the chosen device and threads."""
    a, b = torch.rand(2, size, size, device=device())
    with threads():
        (a @ b).sum().item()
        start, n = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            (a @ b)[0, 0].item()
            n += 1
    return n * size**3 / elapsed


def check() -> None:
    """Say in plain words whether this machine can run the course, and what to do about it where it cannot."""
    facts = describe()
    print(f"kdlab will compute on {_said(facts)}.")
    print(f"It multiplies matrices at {speed() / 1e9:.0f} billion multiply-adds a second; the course wants 5 or more.")
    troubles = _troubles()
    for trouble in troubles:
        print(f"- {trouble}")
    print("Mend what is listed above first." if troubles else "Everything this course needs is here.")


def _said(facts: dict) -> str:
    if facts["device"] == "cpu":
        plural = "s" if facts["threads"] > 1 else ""
        return f"the processor ({facts['processor']}, {facts['cores']} cores; {facts['threads']} thread{plural} a net)"
    return f"{facts['device']} (a graphics processor)"


def _troubles() -> list[str]:
    """What would spoil the course on this machine, each with what to do."""
    found = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found.append(f"Python is {platform.python_version()}; kdlab is tested on 3.11 to 3.13")
    ipykernel = importlib.metadata.version("ipykernel")
    if ipykernel.startswith("7.0."):
        found.append(f"ipykernel {ipykernel} loses what sliders send: pip install -U 'ipykernel!=7.0.*'")
    free = shutil.disk_usage(os.path.expanduser("~")).free / 1e9
    if free < 1:
        found.append(f"the disk has {free:.1f} GB left; trained nets and data want 1 GB: make room")
    if speed(512, 0.05) < 5e9:
        found.append("this machine is slow just now: is something else running? Else expect several minutes a notebook")
    return found
