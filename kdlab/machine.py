"""Choose the device, the number of CPU threads and the precision, and describe the machine beside a number.

These choices are made here and nowhere else. Overrule them with KDLAB_DEVICE (cpu, cuda, cuda:1, mps), KDLAB_THREADS
(a number) and KDLAB_PRECISION (auto, float32, bfloat16), or by argument.
"""

import contextlib
import functools
import importlib.metadata
import itertools
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


def precision(wanted: str | None = None) -> torch.dtype:
    """Return the type in which `autocast` multiplies matrices: torch.bfloat16 or torch.float32.

    wanted: "auto", "float32" or "bfloat16"; default KDLAB_PRECISION, else "auto": bfloat16 where the device multiplies
    it natively and a measurement of at most 0.1 s, made once in a process, finds it faster. Elsewhere bfloat16 is
    emulated, six times slower than float32 on a processor with AVX2.
    """
    name = wanted or os.environ.get("KDLAB_PRECISION") or "auto"
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be auto, float32 or bfloat16, got {name!r} (KDLAB_PRECISION)")
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if _bfloat16_pays(str(device())) else torch.float32


def autocast(wanted: str | None = None) -> torch.autocast:
    """Multiply matrices inside the block in `precision(wanted)`; weights and sums stay in float32."""
    # Without torch's cache of rounded weights, which would keep the first ones while the real ones learn.
    enabled = precision(wanted) == torch.bfloat16
    return torch.autocast(device().type, torch.bfloat16, enabled=enabled, cache_enabled=False)


@functools.cache
def _bfloat16_pays(name: str) -> bool:
    """Whether the device has bfloat16 products of its own, and they are faster than float32's."""
    chosen = torch.device(name)
    if chosen.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = chosen.type == "cpu" and _has_native_bfloat16()
    return native and _milliseconds(torch.bfloat16, chosen) < _milliseconds(torch.float32, chosen)


def _has_native_bfloat16() -> bool:
    """Whether the processor, as torch uses it, multiplies bfloat16 by instructions of its own.

    oneDNN calls bfloat16 supported on every AVX-512 processor, also where it emulates it.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    on_intel = platform.machine().lower() in ("x86_64", "amd64")
    return not on_intel or bool({"avx512_bf16", "amx_bf16"} & set(instructions()))


def _milliseconds(dtype: torch.dtype, chosen: torch.device, budget: float = 0.04) -> float:
    """The least time of a product of 512 rows with a matrix of 384 × 1536, in at most `budget` seconds."""
    rows, matrix = torch.ones(512, 384, device=chosen), torch.ones(384, 1536, device=chosen)  # no random draw
    times, begun = [], time.perf_counter()
    with threads(), torch.no_grad(), torch.autocast(chosen.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        while len(times) < 2 or time.perf_counter() - begun < budget:
            start = time.perf_counter()
            (rows @ matrix)[0, 0].item()  # the number is waited for
            times.append(time.perf_counter() - start)
            if times[-1] > budget:
                break
    return 1000 * min(times)


# Where results/notebooks.json was measured: notebooks 09 to 16 take so long at this rate of products.
REFERENCE_MINUTES, REFERENCE_SPEED = 1.9, 32e9
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@functools.cache
def instructions() -> tuple[str, ...]:
    """Return the instruction sets that torch uses here, of those that a time depends on; off Linux torch's own word.

    ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA can make it use less than the processor has.
    """
    capability = torch.backends.cpu.get_cpu_capability().lower()
    flags = _cpuinfo().get("flags", "").split()
    limit = f"{capability} {os.environ.get('ONEDNN_MAX_CPU_ISA', '')}".lower()
    if not flags or capability == "default":
        return (capability,)
    if "avx512" in capability and "avx2" not in limit:
        return tuple(each for each in INSTRUCTIONS if each in flags)
    return tuple(each for each in ("avx2", "avx_vnni")[: 1 if "avx2" in limit.split()[1:] else 2] if each in flags)


def describe() -> dict[str, str | int]:
    """Return what a number should carry: processor, cores, threads, precision, device and versions, as JSON values."""
    chosen = device()
    return {
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type,
        "processor": _processor(),
        "instructions": " ".join(instructions()),
        "cores": os.cpu_count() or 1,
        "threads": thread_count(),
        "precision": str(precision()).removeprefix("torch."),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name, with its family and model where its name alone does not tell it from others."""
    facts = _cpuinfo()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            lines = itertools.takewhile(str.strip, info)
            return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return {}


def speed(size: int = 1024, seconds: float = 0.2) -> float:
    """Multiply-adds per second that a product of size × size matrices reaches as the course computes it."""
    a, b = torch.ones(2, size, size, device=device())
    with threads(), autocast():
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
    reached = speed()
    print(
        f"It multiplies matrices in {facts['precision']} at {reached / 1e9:.0f} billion multiply-adds a second: "
        f"notebooks 09–16 take about {_minutes(reached):.0f} minutes each on this machine."
    )
    troubles = _troubles()
    for trouble in troubles:
        print(f"- {trouble}")
    print("Fix the problems listed above first." if troubles else "Everything this course needs is here.")


def _minutes(reached: float) -> float:
    """Minutes that a notebook of part III takes where products reach this rate: some of its work is no product."""
    return max(1.0, REFERENCE_MINUTES * (0.5 + 0.5 * REFERENCE_SPEED / reached))


def _said(facts: dict) -> str:
    if facts["device"] == "cpu":
        threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''} per model"
        return f"the processor ({facts['processor']}, {facts['cores']} cores; {threads})"
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
