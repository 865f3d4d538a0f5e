"""Results are kept under keys computed from what makes them: code, arguments, and the values that are read."""

import copy
import json
import linecache
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import compress, course, machine, metrics, models, store, values
from kdlab.course import experiment, fingerprint, parameters, sources

NUMBERS = count()


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("KDLAB_THREADS", "1")


def cell(source: str, **names) -> dict:
    """Run `source` as a notebook runs a cell: with source lines that inspect can find, in a namespace of its own."""
    file = f"<cell {next(NUMBERS)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = {"__name__": "__main__", "run": course.Experiment("00_test"), **names}
    exec(compile(source, file, "exec"), namespace)
    return namespace


BODY = '''
def helper(a):
    return 2 * a

@run.cached
def made(a, seed=0):
    """Return a number."""
    open(log, "a").write("x")
    return helper(a) + offset  # a comment
'''


def key_of(source=BODY, **names) -> str:
    return cell(source, **{"offset": 1, "log": "none"} | names)["made"].context()


def test_the_second_call_is_answered_by_the_store(tmp_path):
    log = tmp_path / "log"
    made = cell(BODY, offset=1, log=str(log))["made"]
    assert made(3) == 7 and made(a=3) == 7 and made(3.0, seed=0) == 7
    assert log.read_text() == "x"
    assert made(4) == 9 and log.read_text() == "xx"
    again = cell(BODY, offset=1, log=str(log))["made"]  # as another kernel, later
    assert again(4) == 9 and log.read_text() == "xx"


@pytest.mark.parametrize(
    "old, new",
    [
        ("helper(a) + offset", "helper(a) - offset"),  # a line of the body
        ("2 * a", "3 * a"),  # a line of a function that it calls
        ("seed=0", "seed=1"),  # a default
    ],
)
def test_a_changed_line_is_another_key(old, new):
    assert key_of(BODY.replace(old, new)) != key_of()


@pytest.mark.parametrize(
    "old, new",
    [
        ("  # a comment", "  # another"),
        ("Return a number.", "Return the number."),
        ("helper(a) + offset", "(helper(a) +\n            offset)"),
    ],
)
def test_comments_docstrings_and_line_breaks_are_no_other_key(old, new):
    assert key_of(BODY.replace(old, new)) == key_of()


def batch_norm(mean: float) -> nn.Module:
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(mean)
    return norm


def weights(value: float) -> nn.Module:
    layer = nn.Linear(500, 2)
    with torch.no_grad():
        layer.weight.fill_(1.0)[1, 499] = value
    return layer


def tensor(value: float) -> torch.Tensor:
    many = torch.zeros(3001)
    many[1234] = value
    return many


@pytest.mark.parametrize(
    "one, other",
    [
        (1, 2),
        ("a", "b"),
        (True, 1),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ({"a": {1, 2}}, {"a": {1, 3}}),
        (tensor(0), tensor(1e-30)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (np.zeros(3), np.array([0, 0, 1e-9])),
        (weights(1.0), weights(1.0001)),
        (batch_norm(0.0), batch_norm(0.1)),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())),
        (lambda a: a + 1, lambda a: a + 2),
        (nn.functional.relu, nn.functional.gelu),
        (metrics.errors, metrics.agreement),
        (Path("a"), Path("b")),
        (range(3), range(4)),
    ],
)
def test_another_value_of_a_global_is_another_key(one, other):
    if isinstance(one, nn.Sequential):
        other[0].load_state_dict(one[0].state_dict())
    assert key_of(offset=one) != key_of(offset=other)
    assert key_of(offset=one) == key_of(offset=one)


def test_one_number_is_one_key_whatever_its_type():
    assert key_of(offset=4) == key_of(offset=4.0) == key_of(offset=np.float32(4)) == key_of(offset=np.int64(4))


def test_a_changed_function_of_kdlab_is_another_key(monkeypatch):
    source = "@run.cached\ndef made(a):\n    return models.mlp((a,))"
    before = cell(source, models=models)["made"].context()
    assert cell(source, models=models)["made"].context() == before
    linear = models._linear

    def changed(*arguments, **named):
        return linear(*arguments, **named)

    changed.__module__ = "kdlab.models"
    monkeypatch.setattr(models, "_linear", changed)  # mlp() calls it: two steps from the notebook
    assert cell(source, models=models)["made"].context() != before


def test_neither_the_threads_nor_the_precision_nor_the_device_are_in_the_key(monkeypatch):
    before = key_of(offset=torch.device("cpu"))
    monkeypatch.setenv("KDLAB_THREADS", "2")
    monkeypatch.setenv("KDLAB_PRECISION", "bfloat16")
    assert key_of(offset=torch.device("meta")) == before


@pytest.mark.parametrize("odd", [threading.Lock(), (i for i in range(3)), {"deep": [object()]}])
def test_a_global_without_a_digest_is_named(odd):
    with pytest.raises(TypeError, match=r"made: offset.* is a .*no key can be computed"):
        key_of(offset=odd)


def test_an_argument_without_a_digest_is_named():
    with pytest.raises(TypeError, match=r"made's argument a is a .*lock"):
        cell(BODY, offset=1, log="/dev/null")["made"](threading.Lock())


RACE = """
import sys, time
from kdlab import course
run = course.Experiment("00_test")

@run.cached
def slow(a):
    with open(sys.argv[1], "a") as log:
        log.write("computed\\n")
    time.sleep(1.0)
    return a + 1

print(slow(1))
"""


def test_two_processes_that_ask_at_once_compute_once(tmp_path):
    script = tmp_path / "race.py"
    script.write_text(RACE)
    asking = [
        subprocess.Popen([sys.executable, script, tmp_path / "log"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [each.communicate()[0].split()[-1] for each in asking] == ["2", "2"]
    assert (tmp_path / "log").read_text() == "computed\n"


EACH = """
@run.cached
def power(a, b, seed=0):
    return float(a) ** b + torch.rand(()).item() * scale
"""


@pytest.mark.parametrize("threads", ["1", str(2 * (machine.os.cpu_count() or 1))])
def test_each_gives_what_one_call_after_another_gives(threads, monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_THREADS", threads)  # processes side by side, or this one alone
    power = cell(EACH, torch=torch, scale=1.0)["power"]
    grid = power.each(a=(2, 3), b=(1, 2), seed=(0, 1))
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "other"))
    by_hand = {(a, b, seed): power(a, b, seed) for a in (2, 3) for b in (1, 2) for seed in (0, 1)}
    assert dict(grid) == by_hand and len(set(by_hand.values())) == 8


def test_a_worker_has_the_functions_that_a_cached_one_calls():
    source = """
@run.cached
def inner(seed):
    return torch.rand(3)

@run.cached
def outer(T, seed):
    return T * inner(seed)
"""
    notebook = cell(source, torch=torch)
    grid = notebook["outer"].each(T=(1.0, 2.0), seed=(0, 1))
    assert torch.equal(grid[2.0, 1], 2 * notebook["inner"](1))
    assert len(notebook["run"].entries) == 6  # four of outer, two of inner


def test_a_grid_is_read_by_its_axes():
    grid = experiment.Grid({"T": [1, 2], "seed": [0, 1, 2]}, {(T, s): 10 * T + s for T in (1, 2) for s in range(3)})
    assert grid[2, 1] == 21 and grid.at(T=2)[1] == 21 and grid.at(T=1, seed=2)[()] == 12
    assert grid.list() == [10, 11, 12, 20, 21, 22]
    assert grid.map(lambda value: -value)[1, 2] == -12
    assert grid.mean("seed").tolist() == [11, 21] and grid.mean("T").tolist() == [15, 16, 17]
    assert grid.std("seed").tolist() == [1, 1] and grid.at(seed=0).std("T").item() == pytest.approx(50**0.5)
    assert experiment.Grid({"seed": [5]}, {(5,): 1.0}).std("seed").isnan()
    with pytest.raises(KeyError, match="no axis 'T' with the value 3"):
        grid.at(T=3)


def test_one_value_in_the_place_of_several_is_named():
    with pytest.raises(TypeError, match=r"write b=\(2,\)"):
        cell(EACH, torch=torch, scale=0)["power"].each(a=(1,), b=2)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.out.weight = self.words.weight
        self.norm = batch_norm(0.5)
        self.norm.weight.requires_grad_(False)


def test_what_comes_out_of_the_store_is_what_went_in():
    tied = Tied().eval()
    value = {"model": tied, 3: (1, [2.5, None]), "half": torch.ones(2, dtype=torch.bfloat16), "array": np.arange(3)}
    back = values.put_together(values.take_apart(value))
    model = back["model"]
    assert model.out.weight is model.words.weight and torch.equal(model.out.weight, tied.out.weight)
    assert isinstance(model.out.weight, nn.Parameter) and not model.norm.weight.requires_grad and not model.training
    assert torch.equal(model.norm.running_mean, tied.norm.running_mean)
    assert back[3] == (1, [2.5, None]) and isinstance(back[3], tuple) and back["half"].dtype == torch.bfloat16
    assert back["array"].tolist() == [0, 1, 2]


def test_a_model_of_a_class_from_the_notebook_is_kept():
    source = """
class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x

@run.cached
def model():
    return Twice()
"""
    notebook = cell(source, torch=torch)
    assert notebook["model"]()(3) == 6 and notebook["model"]()(4) == 8
    assert len(store.entries()) == 1
    other = cell(source.replace("2 * x", "3 * x"), torch=torch)
    assert other["model"]()(3) == 9


def test_what_cannot_be_kept_is_returned_all_the_same():
    source = "@run.cached\ndef made():\n    return (i for i in range(3))"
    with pytest.warns(UserWarning, match="returned but not kept"):
        assert list(cell(source)["made"]()) == [0, 1, 2]


def test_a_store_that_cannot_be_written_loses_no_result(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "file" / "store"))
    power = cell(EACH, torch=torch, scale=0)["power"]
    with pytest.warns(UserWarning):
        assert power.each(a=(2,), b=(3,)).list() == [8.0]


def test_a_damaged_entry_is_made_again():
    notebook = cell(BODY, offset=1, log="/dev/null")
    notebook["made"](3)
    path = store.entries()[0]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="damaged"):
        assert notebook["made"](3) == 7
    assert store.entries()[0]["damaged"] is None


def test_seconds_are_those_of_the_work_and_of_no_other_entry():
    source = """
@run.cached
def inner(seed):
    time.sleep(0.3)

@run.cached
def outer(seed):
    inner(seed)
    time.sleep(0.1)
"""
    notebook = cell(source, time=time)
    for _ in range(2):  # the second time all of it comes from the store, and the work is the same
        notebook["outer"](0)
        seconds = {each["function"]: each["seconds"] for each in notebook["run"].entries.values()}
        assert 0.3 <= seconds["inner"] < 0.4 and 0.1 <= seconds["outer"] < 0.2
        notebook["run"].entries.clear()


def test_a_value_is_of_the_machine_that_its_seed_ran_on():
    used = [
        {"seed": seed, "machine": {"processor": name}, "seconds": 1, "function": "f"}
        for seed, name in ((0, "old"), (1, "new"), (None, "new"))
    ]
    machines, of_value = experiment._machines(used, 2)
    assert machines == [{"processor": "old"}, {"processor": "new"}] and of_value == [[0, 1], [1]]
    assert experiment._machines(used, 3)[1] == [[0, 1]] * 3  # whose seed is whose is not known


NOTEBOOK = [
    ("parameters", "lr = 0.1\nseed = 0"),
    ("", "from kdlab import course, metrics, train\n%matplotlib inline\nrun = course.Experiment('77_made_up')"),
    ("", "scale = 2 * lr\nother = 5"),
    ("", "def helper(a):\n    return scale * a"),
    ("", "@run.cached\ndef made(seed):\n    train.fit(helper(seed))"),
    ("", "print(other, metrics.errors)"),
]


def write_notebook(folder: Path, **changes: str) -> None:
    cells = [
        {"cell_type": "code", "metadata": {"tags": [tag] if tag else []}, "source": changes.get(source, source)}
        for tag, source in NOTEBOOK
    ]
    (folder / "77_made_up.ipynb").write_text(json.dumps({"cells": cells}))


def test_a_run_with_values_of_no_profile_records_nothing(tmp_path, monkeypatch):
    """A reader who changes a parameter in an exercise leaves the course's records as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    write_notebook(tmp_path)
    (tmp_path / "profiles.yaml").write_text("smoke: {}\nfull: {}\n")
    own = {"lr": 0.1, "seed": 5, "course": course}
    exec("run = course.Experiment('77_made_up')", own)
    changed = {"lr": 0.2, "seed": 5, "course": course}
    exec("run = course.Experiment('77_made_up')", changed)
    assert own["run"].profile == "own" and changed["run"].profile == "other"
    assert own["run"].claim("teacher", [60]).exists() and changed["run"].claim("teacher", [61]) is None
    shown = changed["run"].compare({"teacher": [61], "gap-closed": []})
    assert shown.rows[0][3].startswith("61") and shown.rows[1][3] == "–"
    assert json.loads((tmp_path / "store" / "claims" / "teacher.json").read_text())["values"] == [60]


def test_the_code_of_a_record_is_what_its_functions_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path)
    assert parameters.names("77_made_up") == ["lr", "seed"]
    before = sources.digests("77_made_up", ["made"])
    assert (
        "kdlab.train.loop.fit" in before
        and "kdlab.train.loop.Training" in before
        and "kdlab.metrics.quality.errors" not in before
    )
    assert sources.current(before) == before

    def changed(old, new):
        write_notebook(tmp_path, **{source: source.replace(old, new) for _, source in NOTEBOOK})
        return [name for name, digest in sources.current(before).items() if digest != before[name]]

    assert changed("scale * a", "scale + a") == ["77_made_up:made"]
    assert changed("2 * lr", "3 * lr") == ["77_made_up:made"]
    assert changed("print(other", "print(other, other") == [] == changed("other = 5", "other = 6")
    assert changed("seed):\n    train", "seed):\n    # a comment\n    train") == []


def test_what_is_gone_has_no_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.digests("77_made_up") is None
    gone = sources.current(["kdlab.train.loop.fit", "kdlab.train.gone", "kdlab.gone.fit", "77_made_up:made"])
    assert [name for name, digest in gone.items() if digest is None] == list(gone)[1:]


def test_a_library_counts_by_the_names_that_are_used_of_it():
    tracer = fingerprint.Tracer()
    tracer.follow(lambda: (torch.float16, torch.cuda.default_generators, nn.Linear), "f")
    assert not [name for name in tracer.code if name != "f"]
    assert {"f: torch.float16", "f: nn.Linear"} <= set(tracer.values)
    assert isinstance(tracer.values["f: torch.cuda.default_generators"], str)


def test_overlapping_windows_are_digested_by_the_numbers_that_they_show():
    def digest(values: torch.Tensor, size: int) -> str:
        return fingerprint.Tracer().of_value(values.unfold(0, size, 1), "windows")

    values = torch.arange(1000.0)
    other = values.clone()
    other[-1] = 0.5
    assert digest(values, 100) == digest(values.clone(), 100) == digest(torch.cat([torch.ones(3), values])[3:], 100)
    assert len({digest(values, 100), digest(other, 100), digest(values, 99), digest(values[:-1], 100)}) == 4
    frames = torch.zeros(200_000, 40).unfold(0, 26, 1)  # 832 MB, were it copied
    assert sum(map(len, fingerprint._bytes_of_tensor(frames))) < 40_000_000
    assert fingerprint.Tracer().of_value(torch.zeros(0, 5), "empty")


def test_a_claim_names_the_code_of_what_made_its_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path)
    kept = {}
    monkeypatch.setattr(experiment.records, "keep", lambda id, values, **about: kept.update(about))
    made = cell("@run.cached\ndef made(seed):\n    return 1", run=course.Experiment("77_made_up"), lr=0.1)["made"]
    made(0)
    made.run.claim("teacher", [1.0])
    assert kept["seconds"] is not None and {"77_made_up:made", "kdlab.train.loop.fit"} <= set(kept["code"])
    key = kept["key"]
    made.run.claim("teacher", [1.0], by=made)
    assert kept["key"] == key
    made(1)
    made.run.claim("teacher", [1.0], by=made)
    assert kept["key"] != key
    made.run.claim("teacher", [1.0], by=metrics.errors)
    assert kept["seconds"] is None and "kdlab.metrics.quality.errors" in kept["code"]
    assert not [name for name in kept["code"] if name.startswith("77_made_up")]


def digest_of(model: nn.Module) -> str:
    return fingerprint.Tracer().of_value(model, "model")


class Holding(nn.Module):
    """A model that holds something which is no parameter."""

    def __init__(self, held):
        super().__init__()
        self.held = held


def test_int8_models_whose_weights_differ_have_different_digests():
    small = [compress.int8(nn.Sequential(nn.Linear(4, 4)).requires_grad_(False)) for _ in range(2)]
    weights = [model[0].weight().dequantize() for model in small]
    assert not torch.equal(*weights) and digest_of(small[0]) != digest_of(small[1])
    assert digest_of(small[0]) == digest_of(copy.deepcopy(small[0]))


@pytest.mark.parametrize("one, other", [([1, 2], [1, 3]), (torch.zeros(3), torch.ones(3)), (torch.relu, torch.tanh)])
def test_what_a_model_holds_beside_its_parameters_counts(one, other):
    assert digest_of(Holding(one)) == digest_of(Holding(one)) != digest_of(Holding(other))


def test_a_model_that_holds_what_cannot_be_digested_is_refused_by_name():
    with pytest.raises(TypeError, match=r"model\['held'\] is a .*Lock"):
        digest_of(Holding(threading.RLock()))


def test_named_arguments_without_a_place_in_the_signature_are_part_of_the_key():
    made = cell("@run.cached\ndef made(seed, **weights):\n    return [seed, weights]\n")["made"]
    grid = made.each(hidden=(0.0, 3.0), seed=(1,))
    assert grid[3.0, 1] == [1, {"hidden": 3.0}] == made(seed=1, hidden=3)
    assert made(1) == [1, {}] and made(1, b=2, a=1) == made(1, a=1, b=2)
    assert len(list(store.folder().glob("*made*.safetensors"))) == 4


@pytest.mark.parametrize("signature", ["*numbers", "number, /"])
def test_arguments_that_have_no_name_are_refused(signature):
    made = cell(f"@run.cached\ndef made({signature}):\n    return 1\n")["made"]
    with pytest.raises(TypeError, match="takes number.* without a name"):
        made(1)
