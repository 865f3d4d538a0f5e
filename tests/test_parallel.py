"""One map: in order, the same anywhere, and nothing lost when a worker dies."""

import os
import signal
import time

import numpy as np
import pytest
import torch

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


def test_a_dask_cluster_whose_worker_is_killed_in_mid_run_loses_nothing(tmp_path):
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        squares = parallel.map(dies_once, [(i, tmp_path) for i in range(8)], n_jobs=2, backend="dask")
    assert squares == [i * i for i in range(8)]
    assert (tmp_path / "2.ran").read_text() == "xx"
