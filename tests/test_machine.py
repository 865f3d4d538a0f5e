"""What the course decides for a machine: the precision of its products, and the words it says of it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdlab import machine

AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
on_x86 = pytest.mark.skipif(not machine.instructions()[0].startswith("avx2"), reason="not an x86 processor with AVX2")


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("KDLAB_PRECISION", raising=False)
    forget = machine._bfloat16_pays.cache_clear
    forget()
    yield
    forget()


def asked(code: str, **environ) -> str:
    run = [sys.executable, "-c", f"from kdlab import machine; {code}"]
    return subprocess.run(run, env=os.environ | environ, capture_output=True, text=True, check=True).stdout.strip()


@on_x86
def test_a_processor_with_avx2_alone_multiplies_in_float32():
    assert asked("print(machine.precision())", **AVX2_ONLY) == "torch.float32"
    facts = eval(asked("print(machine.describe())", **AVX2_ONLY))
    assert facts["precision"] == "float32" and facts["instructions"] == "avx2"


@pytest.mark.parametrize(
    "native, times, chosen",
    [
        (True, {torch.bfloat16: 1.0, torch.float32: 2.0}, torch.bfloat16),
        (True, {torch.bfloat16: 2.0, torch.float32: 1.0}, torch.float32),
        (False, {torch.bfloat16: 1.0, torch.float32: 2.0}, torch.float32),
    ],
)
def test_bfloat16_is_chosen_where_it_is_native_and_measured_to_be_faster(native, times, chosen, monkeypatch):
    monkeypatch.setattr(machine, "_has_native_bfloat16", lambda: native)
    monkeypatch.setattr(machine, "_milliseconds", lambda dtype, device: times[dtype])
    assert machine.precision() == chosen


def test_the_precision_is_measured_once_in_a_tenth_of_a_second_and_draws_no_random_number(monkeypatch):
    monkeypatch.setattr(machine, "_has_native_bfloat16", lambda: True)
    before, start = torch.get_rng_state(), time.perf_counter()
    first = machine.precision()
    took = time.perf_counter() - start
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(machine, "_milliseconds", lambda *_: pytest.fail("measured twice"))
    assert machine.precision() == first
    assert took < 3  # two products of a busy machine; 0.1 of a quiet one


def test_a_person_overrules_the_measurement(monkeypatch):
    monkeypatch.setattr(machine, "_bfloat16_pays", lambda _: pytest.fail("measured though it was named"))
    for name in ("bfloat16", "float32"):
        monkeypatch.setenv("KDLAB_PRECISION", name)
        assert machine.precision() == getattr(torch, name)
    assert machine.precision("float32") == torch.float32
    monkeypatch.setenv("KDLAB_PRECISION", "float16")
    with pytest.raises(ValueError, match=r"auto, float32 or bfloat16, got 'float16' \(KDLAB_PRECISION\)"):
        machine.precision()


def test_autocast_rounds_products_and_nothing_else():
    a, b = torch.full((2, 2), 1 + 2**-10), torch.eye(2)  # bfloat16 has 8 binary digits
    with machine.autocast("bfloat16"):
        assert (a @ b)[0, 0] == 1 and (a + 0)[0, 0] == 1 + 2**-10
    with machine.autocast("float32"):
        assert (a @ b)[0, 0] == 1 + 2**-10


def test_a_number_carries_what_its_time_depends_on():
    facts = machine.describe()
    assert facts["precision"] == str(machine.precision()).removeprefix("torch.") and facts["torch"] == torch.__version__
    if os.path.exists("/proc/cpuinfo"):
        lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        listed = {key.strip(): value.strip() for key, value, *_ in lines}
        assert f"family {listed['cpu family']}, model {listed['model']}" in facts["processor"]
        assert set(facts["instructions"].split()) <= set(listed["flags"].split()) | {"default"}


def test_the_check_says_what_the_machine_means_for_the_course(capsys, monkeypatch):
    monkeypatch.setattr(machine, "speed", lambda *_: machine.REFERENCE_SPEED / 3)
    machine.check()
    said = capsys.readouterr().out
    assert f"in {machine.describe()['precision']} at" in said
    assert f"take about {2 * machine.REFERENCE_MINUTES:.0f} minutes each" in said  # half of a notebook is products
