"""One map: in order, the same anywhere, and nothing lost when a worker dies."""

import functools
import os
import signal
import sys
import time
import types

import numpy as np
import pytest
import torch
from test_experiment import cell

from kdlab import parallel, store

pytestmark = pytest.mark.xdist_group("processes")  # the tests that want them share them


def test_the_results_come_in_the_order_of_the_jobs(monkeypatch):
    def late(i):
        time.sleep(0.2 if i == 0 else 0)
        return i, os.getpid()

    numbers, processes = zip(*parallel.map(late, [(i,) for i in range(6)], n_jobs=2), strict=True)
    assert numbers == tuple(range(6))
    assert os.getpid() not in processes
    assert parallel.map(late, [(1,)], n_jobs=1) == [(1, os.getpid())]
    assert parallel.map(late, [], n_jobs=2) == []


def test_a_worker_computes_with_one_thread_and_our_settings(monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", "/somewhere/else")
    told = parallel.map(lambda i: (torch.get_num_threads(), os.environ["KDLAB_STORE"]), [(0,), (1,)], n_jobs=2)
    assert told == [(1, "/somewhere/else")] * 2


def test_a_relative_setting_means_the_same_folder_in_a_worker(monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", "results")
    here = str(store.folder())
    assert os.path.isabs(here)
    assert parallel.map(lambda i: (os.chdir("/"), str(store.folder()))[1], [(0,), (1,)], n_jobs=2) == [here] * 2


def test_a_number_of_jobs_may_be_numpys():
    assert parallel.map(abs, [(-1,), (-2,)], n_jobs=np.int64(1)) == [1, 2]


def test_how_many_processes_can_be_set_for_all_maps(monkeypatch):
    monkeypatch.setenv("KDLAB_WORKERS", "1")
    assert parallel.map(lambda i: os.getpid(), [(0,), (1,)]) == [os.getpid()] * 2
    monkeypatch.setenv("KDLAB_WORKERS", "3")
    assert parallel.worker_count() == 3 and parallel.worker_count(2) == 2
    monkeypatch.setenv("KDLAB_WORKERS", "many")
    with pytest.raises(ValueError, match=r"n_jobs \(KDLAB_WORKERS\) is the number of processes.*'many'"):
        parallel.worker_count()


def test_an_error_in_a_job_is_the_maps():
    def fails(i):
        raise KeyError(f"job {i}") if i == 1 else ZeroDivisionError

    with pytest.raises((KeyError, ZeroDivisionError)):
        parallel.map(fails, [(0,), (1,)], n_jobs=2)


def dies_once(i, folder):
    """Writes that it ran; the first time, job 2 kills its process."""
    first = not (folder / f"{i}.ran").exists()
    with open(folder / f"{i}.ran", "a") as file:
        file.write("x")
    if i == 2 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return i * i


def test_a_killed_process_loses_nothing(tmp_path):
    assert parallel.map(dies_once, [(i, tmp_path) for i in range(6)], n_jobs=2) == [i * i for i in range(6)]
    assert (tmp_path / "2.ran").read_text() == "xx"


def test_workers_that_always_die_end_the_map(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)died 3 times.*n_jobs=1"):
        parallel.map(lambda i: os.kill(os.getpid(), signal.SIGKILL), [(0,), (1,)], n_jobs=2)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"n_jobs": 0}, ValueError, "is the number of processes, at least 1, got 0"),
        ({"backend": "threading", "n_jobs": 2}, ValueError, "'loky', 'dask' or 'ray', got 'threading'"),
        ({"backend": "dask", "n_jobs": 2}, ValueError, "wants an open client"),
    ],
)
def test_what_cannot_be_spread_is_said(settings, error, said):
    with pytest.raises(error, match=said):
        parallel.map(abs, [(1,), (2,)], **settings)


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ray"):
        parallel.map(abs, [(1,), (2,)], backend="ray", n_jobs=2)


def test_jobs_go_to_ray_as_its_tasks_and_come_back_in_order(monkeypatch):
    """A stand-in for ray, whose tasks end last to first: what kdlab asks of it, without its 70 MB."""
    began = []

    class Ray:
        init = staticmethod(lambda **settings: began.append(settings))
        get = staticmethod(lambda task: task())
        wait = staticmethod(lambda tasks: (tasks[-1:], tasks[:-1]))

        @staticmethod
        def remote(function):
            return types.SimpleNamespace(remote=lambda *given: functools.partial(function, *given))

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setattr(parallel.os, "environ", dict(os.environ))  # a worker's settings would stay in this process
    assert parallel.map(abs, [(-1,), (2,), (-3,)], backend="ray", n_jobs=2) == [1, 2, 3]
    assert began and began[0]["ignore_reinit_error"]


def test_a_dask_cluster_whose_worker_is_killed_in_mid_run_loses_nothing(tmp_path):
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        squares = parallel.map(dies_once, [(i, tmp_path) for i in range(8)], n_jobs=2, backend="dask")
    assert squares == [i * i for i in range(8)]
    assert (tmp_path / "2.ran").read_text() == "xx"


@pytest.mark.parametrize(
    ("environment", "error", "said"),
    [
        ({"KDLAB_BACKEND": "threads"}, ValueError, "KDLAB_BACKEND is 'loky', 'dask' or 'ray', got 'threads'"),
        ({"KDLAB_SCHEDULER": "tcp://127.0.0.1:1"}, ValueError, "set KDLAB_BACKEND=dask"),
        (
            {"KDLAB_BACKEND": "dask", "KDLAB_SCHEDULER": "nowhere://x"},
            ConnectionError,
            "address of a running dask scheduler.*'nowhere://x'",
        ),
    ],
)
def test_a_backend_setting_that_cannot_be_used_is_named(environment, error, said, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=said):
        parallel.map(abs, [(-1,), (-2,)], n_jobs=2)
    assert parallel.map(abs, [(-1,)], n_jobs=1) == [1]  # asked for here, it needs no cluster


ON_A_CLUSTER = """
@run.cached
def square(i, folder, seed=0):
    first = not os.path.exists(f"{folder}/{i}.ran")
    with open(f"{folder}/{i}.ran", "a") as file:
        file.write("x")
    if i == 2 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return {"square": torch.tensor(i * i), "process": os.getpid(), "cache": os.environ["KDLAB_CACHE"]}
"""


def test_an_experiment_on_a_cluster_with_folders_of_its_own_loses_nothing_and_keeps_all_here(tmp_path, monkeypatch):
    """Two workers with separate caches, one of them killed: the results, and their entries, are this process's."""
    from distributed import Nanny, Scheduler, SpecCluster

    def worker(i: int) -> dict:
        environment = {"KDLAB_CACHE": str(tmp_path / f"worker-{i}"), "KDLAB_STORE": "", "KDLAB_BACKEND": "dask"}
        return {"cls": Nanny, "options": {"nthreads": 1, "env": environment}}

    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("KDLAB_STORE", "")
    monkeypatch.setenv("KDLAB_BACKEND", "dask")
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0, "host": "127.0.0.1"}}
    names = cell(ON_A_CLUSTER, os=os, signal=signal, time=time, torch=torch)
    settings = {"i": range(6), "folder": [str(tmp_path)]}
    with SpecCluster(workers={i: worker(i) for i in range(2)}, scheduler=scheduler) as cluster:
        monkeypatch.setenv("KDLAB_SCHEDULER", cluster.scheduler_address)
        there = names["square"].each(**settings)
    found = [there[i, str(tmp_path)] for i in range(6)]
    assert [int(each["square"]) for each in found] == [i * i for i in range(6)]
    assert {each["cache"] for each in found} <= {str(tmp_path / f"worker-{i}") for i in range(2)}
    assert os.getpid() not in {each["process"] for each in found}
    assert len([row for row in store.entries() if row["damaged"] is None]) == 6
    assert (tmp_path / "2.ran").read_text() == "xx"
    monkeypatch.delenv("KDLAB_BACKEND")
    monkeypatch.delenv("KDLAB_SCHEDULER")
    again = names["square"].each(**settings)  # the cluster is gone: all come from the store here
    assert [again[key]["process"] for key in there] == [there[key]["process"] for key in there]
