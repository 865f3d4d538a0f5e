"""One map over independent jobs: trainings of an ensemble, specialists, sweeps. Here, in processes, or on a cluster."""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterable
from numbers import Integral
from typing import Any

from kdlab import disk, machine

ATTEMPTS = 3  # a worker that dies takes its job with it; the job is given to another this often
BACKENDS = ("loky", "dask", "ray")
_NOTHING = object()


def map(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    *,
    n_jobs: int | None = None,
    backend: str | None = None,
    progress: str = "",
) -> list[Any]:
    """[function(*job) for job in jobs], in order, side by side in `n_jobs` processes.

    n_jobs: default `worker_count()`; 1 means in this process.
    backend: of joblib: "loky" (processes on this machine), "dask" (the workers of the scheduler at KDLAB_SCHEDULER
    or else of the dask.distributed Client open here) or "ray"; the last two need their library. Default KDLAB_BACKEND,
    else "loky". progress: a name to show beside a bar of the jobs done. Workers of a cluster keep their own KDLAB_CACHE
    and KDLAB_STORE: what they are to give you, they return.
    A job draws no random number but from its own seed, so it gives the same wherever it runs. A job that raises ends
    the map with its error; one whose worker died is given to another worker. Let jobs keep what they make in
    `kdlab.store`: then a map that was interrupted goes on where it stopped.
    """
    from tqdm.auto import tqdm

    if backend is None:
        backend = "loky" if n_jobs == 1 else chosen_backend()
    jobs = [tuple(job) for job in jobs]
    n_jobs = min(worker_count(n_jobs), max(1, len(jobs)))
    if n_jobs == 1 and backend == "loky":
        return [function(*job) for job in tqdm(jobs, desc=progress, disable=not progress, leave=False)]
    results = [_NOTHING] * len(jobs)
    with tqdm(total=len(jobs), desc=progress, disable=not progress, leave=False) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped")  # loky renews a worker that has grown, as nets make it
        for attempt in range(ATTEMPTS):
            open_jobs = [i for i, result in enumerate(results) if result is _NOTHING]
            try:
                for i, result in _spread(function, jobs, open_jobs, n_jobs, backend):
                    results[i] = result
                    bar.update()
                return results
            except _died() as error:
                if attempt == ATTEMPTS - 1:
                    raise RuntimeError(
                        f"workers died {ATTEMPTS} times, most often of too little memory: {error}; "
                        "try fewer (n_jobs=1) or smaller jobs"
                    ) from error
    return results


def _spread(function: Callable, jobs: list[tuple], open_jobs: list[int], n_jobs: int, backend: str):
    """(number, result) of each open job, as it comes."""
    from joblib import Parallel, delayed, parallel_config

    disk.make_settings_absolute()  # a worker may stand in another folder
    here = {name: value for name, value in os.environ.items() if name.startswith("KDLAB_")}
    if backend != "loky":  # a worker of a cluster has folders of its own, and spreads its own jobs no further
        here = {name: value for name, value in here.items() if name not in (*disk.SETTINGS, "KDLAB_SCHEDULER")}
        here |= {"KDLAB_BACKEND": "loky", "KDLAB_SCHEDULER": "", "KDLAB_WORKERS": "1"}
    if backend == "ray":  # its backend for joblib gives no result before all are there
        with _connected(backend):
            yield from _by_ray(function, jobs, open_jobs, here)
        return
    with _connected(backend), parallel_config(backend=backend, n_jobs=n_jobs):
        work = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        yield from work(delayed(_one)(function, i, jobs[i], here) for i in open_jobs)


def _by_ray(function: Callable, jobs: list[tuple], open_jobs: list[int], environment: dict[str, str]):
    """(number, result) of each open job, as it comes; ray itself begins again what a lost worker had."""
    import ray

    task = ray.remote(_one)
    waiting = [task.remote(function, i, jobs[i], environment) for i in open_jobs]
    while waiting:
        (done, *_), waiting = ray.wait(waiting)
        yield ray.get(done)


def _one(function: Callable, number: int, job: tuple, environment: dict[str, str]) -> tuple[int, Any]:
    os.environ.update(environment)  # a worker may be older than a setting
    return number, function(*job)


def chosen_backend() -> str:
    """Return the backend that KDLAB_BACKEND names, else "loky"."""
    backend = os.environ.get("KDLAB_BACKEND") or "loky"
    if backend not in BACKENDS:
        raise ValueError(f"KDLAB_BACKEND is 'loky', 'dask' or 'ray', got {backend!r}; not set, it is 'loky'")
    if backend == "loky" and (address := os.environ.get("KDLAB_SCHEDULER")):
        raise ValueError(
            f"KDLAB_SCHEDULER={address} names a cluster, but KDLAB_BACKEND is 'loky', which uses processes of this "
            "machine; set KDLAB_BACKEND=dask (or ray), or unset KDLAB_SCHEDULER"
        )
    return backend


def worker_count(n_jobs: int | None = None) -> int:
    """Return how many processes a map may use: `n_jobs`, else KDLAB_WORKERS, else one a core.

    The cores are divided by the threads of a training (KDLAB_THREADS); on a graphics processor it is 1.
    """
    wanted = os.environ.get("KDLAB_WORKERS") or _one_a_core() if n_jobs is None else n_jobs
    number = int(wanted) if str(wanted).isdecimal() else wanted
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"n_jobs (KDLAB_WORKERS) is the number of processes, at least 1, got {wanted!r}")
    return int(number)


def _one_a_core() -> int:
    return 1 if machine.device().type != "cpu" else max(1, (os.cpu_count() or 1) // machine.thread_count())


@contextlib.contextmanager
def _connected(backend: str) -> Generator[None]:
    """Connect to the cluster at KDLAB_SCHEDULER for the block, if one is set, and make the backend ready."""
    address = os.environ.get("KDLAB_SCHEDULER", "") if backend != "loky" else ""
    with contextlib.ExitStack() as stack:
        try:
            if address and backend == "dask":
                from distributed import Client

                stack.enter_context(Client(address, timeout="10s"))
            elif address and backend == "ray":
                import ray

                ray.init(address=address, ignore_reinit_error=True)
        except ImportError:
            pass  # _register says what is missing
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"KDLAB_SCHEDULER is the address of a running {backend} scheduler, such as tcp://10.0.0.5:8786, got "
                f"{address!r}, where none answered ({error}). `dask scheduler` prints its address; see that it runs"
            ) from error
        _register(backend)
        yield


def _register(backend: str) -> None:
    """Make the backend ready, or say what is missing."""
    try:
        if backend == "dask":
            import distributed

            distributed.get_client()
        elif backend == "ray":
            import ray

            ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
        elif backend != "loky":
            raise ValueError(
                f"backend is 'loky', 'dask' or 'ray', got {backend!r}; threads would share torch's random state"
            )
    except ImportError:
        wanted = {"dask": "dask distributed", "ray": "ray"}[backend]
        raise ModuleNotFoundError(f"backend {backend!r} is not installed here: pip install {wanted}") from None
    except ValueError as error:
        if backend != "dask":
            raise
        raise ValueError(
            "backend 'dask' wants an open client or KDLAB_SCHEDULER=address: from dask.distributed import Client; "
            f"client = Client() makes one of this machine ({error})"
        ) from None


def _died() -> tuple[type[BaseException], ...]:
    """What a lost worker looks like."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        from distributed import KilledWorker
    except ImportError:
        return (TerminatedWorkerError,)
    return (TerminatedWorkerError, KilledWorker)
