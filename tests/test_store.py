"""What is kept comes back bit for bit, is made once, and survives kills, full disks and flipped bits."""

import contextlib
import errno
import io
import itertools
import json
import math
import multiprocessing
import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from torch import nn

from kdlab import disk, store

POSIX = hasattr(os, "fork")
PROCESSES = multiprocessing.get_context("forkserver" if POSIX else "spawn")
if POSIX:
    PROCESSES.set_forkserver_preload(["torch", "pytest", "kdlab.store"])  # so that a child costs no import


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty store of this test's own; any warning that a test does not expect is a failure."""
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tmp_path / "store"


def build():
    return nn.Linear(3, 2)


def train(net):
    """Stands for a training: draws random numbers and sets the weights."""
    with torch.no_grad():
        net.weight.copy_(torch.randn(2, 3))
    return {"error": 0.25, "curve": [2, 1.5]}


class Counted:
    """A training, or a computation, that counts how often it is asked for."""

    def __init__(self, work=train):
        self.work, self.times = work, 0

    def __call__(self, *args):
        self.times += 1
        return self.work(*args)


def only(folder, pattern="*.safetensors"):
    (path,) = folder.glob(pattern)
    return path


def names(folder):
    """The files in the store, without the empty lock files, which stay."""
    return sorted(p.name for p in folder.glob("*") if p.suffix != ".lock")


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


# ---- what is kept


class Awkward(nn.Module):
    """Everything a state_dict may hold: ties, views, transposes, 0-dim, empty, half, bfloat16, bool, whole numbers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)  # num_batches_tracked is 0-dim
        self.turned = nn.Parameter(torch.randn(3, 2).t())
        whole = torch.randn(6)
        for name, value in {
            "left": whole[:4],
            "right": whole[2:],
            "same": whole[:4],
            "start": whole[:3],
            "apart": whole[::2],
            "whole": whole[:4].view(torch.int32),
            "empty": torch.zeros(0, 3),
            "half_": torch.randn(3).half(),
            "brain": torch.randn(3).bfloat16(),
            "mask": torch.tensor([True, False]),
            "scale": torch.tensor(0.1, dtype=torch.float64),
            "odd": torch.tensor([-0.0, math.nan, math.inf]),
        }.items():
            self.register_buffer(name, value)


def test_every_kind_of_weight_comes_back_bit_for_bit_and_tied_weights_stay_tied():
    kept = {}

    def shake(net):
        net.train()
        net.norm(torch.randn(8, 4))
        nn.init.normal_(net.turned)
        nn.init.normal_(net.embed.weight)
        kept.update({k: v.clone() for k, v in net.state_dict().items()})

    first, made = store.model("awkward", {"seed": 3}, Awkward, shake)
    again, read = store.model("awkward", {"seed": 3}, Awkward, None)
    assert kept["norm.num_batches_tracked"] == 1
    for net in first, again:
        assert not net.training
        assert {k: bits(v) for k, v in net.state_dict().items()} == {k: bits(v) for k, v in kept.items()}
        assert net.head.weight is net.embed.weight
    assert read == made


def test_a_tied_weight_is_stored_once_and_any_safetensors_reader_finds_the_rest(home):
    net, _ = store.model("awkward", {}, Awkward, lambda net: None)
    with safetensors.safe_open(only(home), framework="pt") as file:
        there = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = net.state_dict()
    assert set(state) - set(there) == {"head.weight", "same"}
    assert {k: bits(v) for k, v in there.items()} == {k: bits(state[k]) for k in there}


def test_the_record_says_what_was_asked_what_came_out_and_on_which_machine(home):
    _, record = store.model("teacher", {"widths": (3, 2), "T": 4.0}, build, train)
    assert record["settings"] == {"widths": [3, 2], "T": 4.0}
    assert record["value"] == {"error": 0.25, "curve": [2, 1.5]}
    assert record["machine"]["torch"] == torch.__version__
    assert 0 <= record["seconds"] < 60
    assert store.load(only(home))[1] == record


def test_half_precision_halves_the_file_and_is_loaded_as_float32(tmp_path):
    state = {"w": torch.randn(100, 100), "n": torch.tensor(7), "d": torch.randn(3).double()}
    store.save(tmp_path / "full.safetensors", state, {"name": "t"})
    store.save(tmp_path / "half.safetensors", state, {"name": "t"}, dtype=torch.float16)
    loaded, record = store.load(tmp_path / "half.safetensors")
    assert bits(loaded["w"]) == bits(state["w"].half().float())
    assert bits(loaded["n"]) == bits(state["n"])
    assert loaded["d"].dtype == torch.float64
    assert record["name"] == "t"
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[0] - sizes[1] == pytest.approx(20_000, abs=200)


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"w has values up to 70000, too large for torch\.float16"):
        store.save(tmp_path / "half.safetensors", {"w": torch.tensor([7e4])}, {}, dtype=torch.float16)
    assert names(tmp_path) == []


def test_a_packaged_net_is_verified_and_one_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "__file__", str(tmp_path / "store.py"))
    path = tmp_path / "teachers" / "tiny.safetensors"
    path.parent.mkdir()
    store.save(path, {"w": torch.ones(2)}, {"errors": 67}, dtype=torch.float16)
    weights, record = store.packaged("tiny")
    assert bits(weights["w"]) == bits(torch.ones(2)) and record["errors"] == 67
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(store.Damaged, match="tiny"):
        store.packaged("tiny")
    with pytest.raises(FileNotFoundError, match=r"teachers.no-such-net\.safetensors"):
        store.packaged("no-such-net")


@pytest.mark.parametrize("value", [None, 0, [], {"a": [1, 2.0, "é\ud800", None, True]}, 1e-300, math.inf])
def test_a_result_is_computed_once_and_comes_back_equal(value):
    compute = Counted(lambda: value)
    assert [store.result("r", {"n": 1}, compute) for _ in range(2)] == [value, value]
    assert compute.times == 1


def test_a_result_is_the_same_the_first_time_as_the_second():
    assert [store.result("r", {}, lambda: ((1, 2), 3.0)) for _ in range(2)] == [[[1, 2], 3.0]] * 2
    assert all(math.isnan(store.result("diverged", {}, lambda: math.nan)) for _ in range(2))


# ---- what is the same, and what is another


SAME = [
    ({"T": 4, "seed": 0}, {"seed": 0, "T": 4}),
    ({"T": 4}, {"T": 4.0}),
    ({"lr": 0.0}, {"lr": -0.0}),
    ({"widths": (8, 8), "o": {"a": 1, "b": 2}}, {"widths": [8.0, 8], "o": {"b": 2, "a": 1}}),
    ({"T": np.float64(4), "seed": np.int64(3)}, {"T": 4, "seed": 3}),
    ({"on": np.bool_(True), "widths": [np.int32(8), np.float32(0.5)]}, {"on": True, "widths": [8, 0.5]}),
]
OTHER = [
    ({"T": 4}, {"T": 4.5}),
    ({"T": 4}, {"T": "4"}),
    ({"T": 1}, {"T": True}),
    ({"T": None}, {}),
    ({"digits": [3, 7]}, {"digits": [7, 3]}),
    ({"o": {"a": 1}}, {"o": {"b": 1}}),
]


@pytest.mark.parametrize(("one", "two", "trainings"), [(*s, 1) for s in SAME] + [(*s, 2) for s in OTHER])
def test_a_net_is_trained_once_for_equal_settings_and_again_for_others(one, two, trainings):
    training = Counted()
    for settings in (one, two, one, two):
        store.model("net", settings, build, training)
    assert training.times == trainings


def test_name_kind_and_architecture_keep_entries_apart():
    training = Counted(lambda net: None)
    for name, width in [("a", 2), ("b", 2), ("a", 3)] * 2:
        net, _ = store.model(name, {}, lambda width=width: nn.Linear(3, width), training)
        assert net.out_features == width
    assert training.times == 3
    assert store.result("a", {}, lambda: 1) == 1


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"o": {"lr": torch.tensor(1.0)}}, TypeError, r"settings\['o'\]\['lr'\] is a Tensor"),
        ({"widths": [1, {2}]}, TypeError, r"settings\['widths'\]\[1\] is a set"),
        ({"where": Path("x")}, TypeError, r"settings\['where'\] is a \w*Path"),
        ({"drop": {3: True}}, TypeError, r"settings\['drop'\] has the key 3"),
        ({"T": math.nan}, ValueError, r"settings\['T'\] is nan"),
        ({"T": [math.inf]}, ValueError, r"settings\['T'\]\[0\] is inf"),
        (["T", 4], TypeError, "settings must be a dict"),
    ],
)
def test_settings_that_no_file_can_hold_are_refused_by_name_before_any_work(settings, error, said):
    for ask in (lambda: store.model("net", settings, None, None), lambda: store.result("net", settings, None)):
        with pytest.raises(error, match=said):
            ask()


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "a\\b", "-a", "é", "a b", "a" * 101, "a\n"])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(ValueError, match="a name is 1 to 100 letters"):
        store.result(name, {}, None)


def test_random_numbers_inside_depend_on_the_settings_and_those_outside_do_not_notice():
    torch.manual_seed(1)
    outside = []
    for _ in range(2):  # trained, then loaded
        torch.manual_seed(1)
        store.model("net", {"seed": 5}, build, train)
        outside.append(torch.rand(3).tolist())
    torch.manual_seed(1)
    assert outside == [torch.rand(3).tolist()] * 2

    torch.manual_seed(5)
    by_hand = build()
    train(by_hand)
    assert torch.equal(store.model("net", {"seed": 5}, build, None)[0].weight, by_hand.weight)
    torch.manual_seed(1)
    unseeded = [store.model("net", {"member": i}, build, train)[0].weight for i in range(2)]
    assert not torch.equal(*unseeded), "members of an ensemble that name no seed must not be twins"


def test_entries_and_forget_see_only_the_stores_own_files(home):
    store.result("net", {"n": 1}, lambda: 1)
    store.checkpoint("net", {"n": 1}).write_bytes(b"half")
    theirs = [home / name for name in ("net.v1.final.safetensors", "net.safetensors", "net.best.checkpoint")]
    for path in theirs:
        path.write_bytes(b"a file of yours")
    assert [row["name"] for row in store.entries()] == ["net"] and len(store.unfinished()) == 1
    assert store.forget("net", {"n": 2}) == 0 and len(store.unfinished()) == 1
    assert store.forget("net") == 1 and store.unfinished() == []
    assert all(path.exists() for path in theirs)


def test_entries_lists_and_forget_deletes():
    for seed in (0, 1):
        store.model("net", {"seed": seed}, build, train)
    store.result("net", {"seed": 1}, lambda: 3)
    store.result("net-2", {}, lambda: 4)
    rows = store.entries()
    assert sorted((r["name"], json.dumps(r["settings"])) for r in rows) == [
        ("net", '{"seed": 0}'),
        ("net", '{"seed": 1}'),
        ("net", '{"seed": 1}'),
        ("net-2", "{}"),
    ]
    assert all(r["bytes"] == r["path"].stat().st_size and r["when"] and r["damaged"] is None for r in rows)
    assert [store.forget("net", {"seed": 1}), store.forget("net", {"seed": 1})] == [2, 0]
    assert [store.forget("net"), [r["name"] for r in store.entries()]] == [1, ["net-2"]]


def test_the_folder_is_chosen_by_the_environment(monkeypatch, tmp_path):
    assert store.folder() == tmp_path / "store"
    monkeypatch.delenv("KDLAB_STORE")
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    assert store.folder() == tmp_path / "cache" / "store"
    monkeypatch.delenv("KDLAB_CACHE")
    assert store.folder().name == "store" and "kdlab" in store.folder().parts


def test_a_net_comes_back_on_the_device_that_build_put_it_on():
    """torch's "meta" device is everywhere; it holds no numbers, so this net cannot be kept."""
    with pytest.warns(UserWarning, match="not kept"):
        net, _ = store.model("net", {}, lambda: build().to("meta"), lambda net: net.to_empty(device="cpu") and None)
    assert net.weight.device.type == "meta"


# ---- damage


def test_every_flipped_bit_is_noticed(home):
    store.model("net", {"seed": 0}, build, train)
    path = only(home)
    sound = path.read_bytes()
    weights = store.load(path)[0]
    for place, bit in itertools.product(range(len(sound)), range(8)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
        with pytest.raises(store.Damaged):
            store.load(path)
    path.write_bytes(sound)
    assert torch.equal(store.load(path)[0]["weight"], weights["weight"])


def test_a_damaged_entry_is_named_and_made_again(home):
    net, _ = store.model("net", {"seed": 0}, build, train)
    path = only(home)
    sound = path.read_bytes()
    broken = [sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :] for place in range(0, len(sound), 97)]
    broken += [sound[:n] for n in range(0, len(sound), 97)] + [sound[:-1], sound + b"\0", b"{}", bytes(len(sound))]
    for blob in broken:
        path.write_bytes(blob)
        assert str(path) in store.entries()[0]["damaged"]
        training = Counted()
        with pytest.warns(UserWarning, match=r"net\.[0-9a-f.]+safetensors is damaged.*; it is made again") as said:
            again, _ = store.model("net", {"seed": 0}, build, training)
        assert said[0].filename == __file__, "the warning must point at the line that asked"
        assert training.times == 1 and torch.equal(again.weight, net.weight)
        assert torch.equal(store.model("net", {"seed": 0}, build, None)[0].weight, net.weight)


def test_every_truncation_is_noticed(home):
    store.result("r", {}, lambda: [1, 2, 3])
    path = only(home)
    sound = path.read_bytes()
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(store.Damaged):
            store.load(path)


def test_an_entry_of_another_version_or_under_anothers_name_is_made_again(home, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", 2)
    store.result("r", {"n": 1}, lambda: "of version 2")
    monkeypatch.undo()
    monkeypatch.setenv("KDLAB_STORE", str(home))
    with pytest.warns(UserWarning, match="format 2, and this version of kdlab reads 1; it is made again"):
        assert store.result("r", {"n": 1}, lambda: "of version 1") == "of version 1"
    first = only(home)
    store.result("r", {"n": 2}, lambda: "two")
    second = next(p for p in home.glob("*.safetensors") if p != first)
    second.write_bytes(first.read_bytes())
    with pytest.warns(UserWarning, match="was the file renamed"):
        assert store.result("r", {"n": 2}, lambda: "two again") == "two again"


# ---- what was just made must not be lost, and nothing half-made may stay


def no_space(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_with_a_full_disk_the_net_is_returned_with_a_warning_and_no_debris(home, monkeypatch, call):
    with monkeypatch.context() as full:
        full.setattr(os, call, no_space)
        with pytest.warns(UserWarning, match=r"net, [\d.]+ s of work, is returned but not kept in .*No space") as said:
            net, record = store.model("net", {"seed": 0}, build, train)
    assert said[0].filename == __file__
    torch.manual_seed(0)
    by_hand = build()
    assert train(by_hand) == record["value"]
    assert torch.equal(net.weight, by_hand.weight) and not net.training
    assert names(home) == []


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    store.save(path, {"w": torch.ones(2)}, {})
    for call in ("fsync", "replace"):
        with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
            full.setattr(os, call, no_space)
            store.save(path, {"w": torch.zeros(2)}, {})
    assert store.load(path)[0]["w"].tolist() == [1, 1]
    assert names(tmp_path) == [path.name]


def test_where_no_folder_can_be_made_that_is_said_before_the_work_and_the_result_is_returned(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "file" / "store"))  # also stops root, whom no permission stops
    said_before = []
    with pytest.warns(UserWarning) as said:
        assert store.result("r", {}, lambda: said_before.extend(str(w.message) for w in said) or 5) == 5
    assert "cannot be kept" in said_before[0] and "KDLAB_STORE" in said_before[0]
    assert {w.filename for w in said} == {__file__}


@pytest.mark.parametrize("value", [{"error": torch.tensor(0.5)}, {7: 0.98}, {"x": {1}}])
def test_measures_that_cannot_be_kept_do_not_cost_the_net(home, value):
    with pytest.warns(UserWarning, match=r"is returned but not kept in .*record\['value'\]"):
        net, record = store.model("net", {}, build, lambda net: value)
    assert isinstance(net, nn.Linear) and record["value"] is value
    assert names(home) == []


def test_a_training_that_changes_the_architecture_is_returned_but_not_kept(home):
    with pytest.warns(UserWarning, match=r"train\(\) changed the names, types or shapes"):
        net, _ = store.model("net", {}, build, lambda net: net.half() and None)
    assert net.weight.dtype == torch.float16
    assert names(home) == []


def test_a_state_that_is_no_tensor_is_refused_before_training():
    class WithExtra(nn.Linear):
        def get_extra_state(self):
            return {"step": 3}

    with pytest.raises(TypeError, match="only tensors can be kept; '_extra_state' in the state_dict is a dict"):
        store.model("net", {}, lambda: WithExtra(3, 2), None)


def test_interrupted_training_leaves_nothing_and_frees_the_lock(home):
    def interrupted(net):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.model("net", {}, build, interrupted)
    assert names(home) == []
    training = Counted()
    store.model("net", {}, build, training)
    assert training.times == 1


def test_interrupted_saving_leaves_nothing(home, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
        now.setattr(os, "replace", interrupted)
        store.model("net", {}, build, train)
    assert names(home) == []


def test_what_the_dead_left_is_swept_up_but_not_what_another_may_be_writing(home):
    store.result("r", {}, lambda: 1)
    of = only(home).name, "b.safetensors", "c.safetensors"
    own, others, ancient = (home / f"{entry}.0a1b2c3d.tmp" for entry in of)
    for temp in (own, others, ancient):
        temp.write_bytes(b"half")
    os.utime(ancient, (time.time() - 2 * 86_400,) * 2)
    store.forget("r")
    store.result("r", {}, lambda: 1)
    assert [p.exists() for p in (own, others, ancient)] == [False, True, False]


# ---- other processes


def start(target, *args):
    """Run target(pipe, *args) in a process; returns the process and our end of the pipe."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def ask(pipe, folder, log, seconds):
    """When told to, ask for a net whose training takes `seconds` and leaves a line in `log`; send what came of it."""
    os.environ["KDLAB_STORE"] = str(folder)
    torch.set_num_threads(1)

    def slowly(net):
        with open(log, "a") as file:
            file.write("training\n")
        time.sleep(seconds)
        return train(net)

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pipe.send("ready")
        pipe.recv()
        net, record = store.model("net", {"seed": 0}, build, slowly)
    pipe.send((net.weight.tolist(), record, printed.getvalue()))


def test_processes_that_ask_at_once_train_once_and_the_others_say_that_they_wait(home, tmp_path):
    asked = [start(ask, home, tmp_path / "log", 0.5) for _ in range(3)]
    for say in (lambda pipe: pipe.recv(), lambda pipe: pipe.send("go")):
        for _, pipe in asked:
            say(pipe)
    answers = [pipe.recv() for _, pipe in asked]
    assert (tmp_path / "log").read_text() == "training\n"
    assert all(answer[:2] == answers[0][:2] for answer in answers)
    assert sum("another process is making net." in printed for _, _, printed in answers) == 2
    assert len(names(home)) == 1


def test_if_the_one_that_trains_is_killed_one_that_waits_takes_over(home, tmp_path):
    log = tmp_path / "log"
    trainer, to_trainer = start(ask, home, log, 60)
    to_trainer.send("go")
    until(log.exists)
    _, pipe = start(ask, home, log, 0)
    assert pipe.recv() == "ready"
    pipe.send("go")
    assert not pipe.poll(0.4), "it did not wait"
    assert log.read_text() == "training\n"
    trainer.kill()
    assert pipe.poll(20), "it waits for the dead"
    weights, _, printed = pipe.recv()
    assert log.read_text() == "training\n" * 2 and "waiting" in printed
    assert store.model("net", {"seed": 0}, build, None)[0].weight.tolist() == weights


def until(true, seconds=20):
    end = time.time() + seconds
    while not true():
        assert time.time() < end, "it never came"
        time.sleep(0.01)


def number(n):
    """Weights that say which number they belong to."""
    return torch.randn(64, 256, generator=torch.Generator().manual_seed(n))


def numbered(n):
    """A net whose training makes it number n, kept under n."""

    def fill(net):
        net.load_state_dict({"weight": number(n)})

    return store.model("net", {"n": n}, lambda: nn.Linear(256, 64, bias=False), fill)[0].weight


class Slow(io.FileIO):
    """A file on a disk so slow that a kill is likely to hit a write."""

    def write(self, blob):
        for part in range(0, len(blob), 8192):
            super().write(blob[part : part + 8192])
            time.sleep(0.0005)


def save_for_ever(pipe, folder, first):
    """Until killed: replace one file again and again, and delete and make again the four entries of a store."""
    os.environ["KDLAB_STORE"] = str(folder / "store")
    torch.set_num_threads(1)
    disk.open = lambda path, mode: Slow(path, mode)
    for n in itertools.count(first):
        store.save(folder / "one.safetensors", {"w": number(n)}, {"n": n})
        pipe.send(n)
        store.forget("net", {"n": n % 4})
        numbered(n % 4)


@pytest.mark.skipif(not POSIX, reason="without a fork server each of the 50 processes would import torch anew: minutes")
def test_killed_at_any_moment_every_entry_is_absent_or_exactly_right(home, tmp_path):
    """SIGKILL at 50 random moments: nothing is torn, nothing saved is lost, and nothing piles up."""
    moments, n, torn = random.Random(0), -1, set()
    for _ in range(50):
        process, pipe = start(save_for_ever, tmp_path, n + 1)
        pipe.recv()
        begun, n = time.monotonic(), pipe.recv()
        time.sleep(moments.uniform(0, time.monotonic() - begun))  # within a round, however busy the machine is
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                n = pipe.recv()
        weights, record = store.load(tmp_path / "one.safetensors")
        assert record["n"] in (n, n + 1), "what was saved is lost"
        assert torch.equal(weights["w"], number(record["n"]))
        for path in home.glob("*.safetensors"):
            weights, record = store.load(path)
            assert torch.equal(weights["weight"], number(record["settings"]["n"]))
        assert len(list(home.glob("*.tmp"))) <= 4, "temporary files pile up"
        torn.update(tmp_path.rglob("*.tmp"))
    assert len(torn) > 5, "the kills hit no write, so this shows nothing"
    assert all(torch.equal(numbered(n), number(n)) for n in range(4))
    assert all(store.forget("net", {"n": n}) and torch.equal(numbered(n), number(n)) for n in range(4))
    assert len(names(home)) == 4, "temporary files of the dead are left"


def save_with_small_files_only(pipe, folder):
    import resource

    os.environ["KDLAB_STORE"] = str(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with warnings.catch_warnings(record=True) as said:
        net, _ = store.model("net", {"seed": 0}, build, train)
    pipe.send((net.weight.tolist(), [str(w.message) for w in said]))


@pytest.mark.skipif(not POSIX, reason="Windows has no RLIMIT_FSIZE")
def test_when_the_system_stops_a_write_half_way_the_net_is_returned_and_no_debris_is_left(home):
    _, pipe = start(save_with_small_files_only, home)
    weights, (said,) = pipe.recv()
    torch.manual_seed(0)
    by_hand = build()
    train(by_hand)
    assert weights == by_hand.weight.tolist()
    assert "not kept" in said and "File too large" in said
    assert names(home) == []


def test_tensors_are_computed_once_and_come_back_the_same():
    calls = []

    def compute():
        calls.append(1)
        return {"t": torch.randn(4, 3), "states": torch.randn(4, 2).bfloat16()}

    first, again = (store.tensors("answers", {"seed": 1}, compute) for _ in range(2))
    assert len(calls) == 1 and set(again) == {"t", "states"}
    for name, value in first.items():
        assert torch.equal(again[name], value) and again[name].dtype == value.dtype
    assert not torch.equal(store.tensors("answers", {"seed": 2}, compute)["t"], first["t"])
    assert {row["name"] for row in store.entries()} == {"answers"}
