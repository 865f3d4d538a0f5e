"""Run a notebook's experiments: cached by what makes them, side by side, and set against the claims.

    run = course.Experiment("06_speech")

    @run.cached
    def student(T, seed): ...

    students = student.each(T=(1, 2, 5, 10), seed=range(3))
    run.claim("speech-kept", values)

What a cached function returns is kept in `kdlab.store`. Its key is computed from the function's code and that of the
notebook's functions it calls, its arguments, the values of the globals it reads, and the kdlab code it uses; never
from the device, the precision, the number of workers, or the version of another library.
"""

import contextlib
import functools
import inspect
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle

import kdlab
from kdlab import machine, parallel, store

from . import comparison, parameters, records, sources
from .fingerprint import Tracer
from .functions import shorten
from .grid import Grid


class Experiment:
    """What a notebook computes, under one name: its cached functions, its parameters, its records.

    name: the notebook's, such as "06_speech". parameters: the values of the parameters cell, read from the caller's
    globals. profile: whose values these are: "own", "smoke" or "full", or "other", whose numbers are not recorded.
    """

    def __init__(self, name: str):
        namespace = sys._getframe(1).f_globals
        declared = parameters.names(name) or [key for key, value in namespace.items() if _is_setting(key, value)]
        self.name, self.parameters = name, {key: namespace[key] for key in declared if key in namespace}
        self.profile = parameters.profile_of(parameters.path_of(name), self.parameters)
        self.entries: dict[str, dict] = {}  # what was used so far: seconds of the work, machine, function, seed
        self._working: list[dict] = []  # the cached functions that are at work just now, the innermost last
        self._begun = time.perf_counter()

    def cached(self, function: Callable) -> "Cached":
        """Keep what `function` returns: asked again, it answers from the store, in this process or another."""
        return Cached(self, function)

    def compare(
        self, values: Mapping[str, Iterable[float]], by: Iterable[Callable] | Callable = ()
    ) -> comparison.Comparison:
        """Show what was measured beside the source's number and the full run's, and record it against the claims.

        values: by the claim's id, one value for each seed, in the claim's unit; by: see `claim`.
        """
        lists = {id: [float(value) for value in each] for id, each in values.items()}
        shown = comparison.compare(lists)
        for id, each in lists.items():
            if each:
                self.claim(id, each, by)
        return shown

    def claim(self, id: str, values: Iterable[float], by: Iterable[Callable] | Callable = ()) -> Path | None:
        """Record what was measured against a claim of claims.toml: one value for each seed, in the claim's unit.

        by: the functions that made the values, cached ones or kdlab's own; default all cached ones that were used.
        Their seconds, machines and code go into the record with the parameters. Returns the record's path, or None
        where a larger profile's one stands, or the parameters are no profile's.
        """
        if self.profile == "other":
            return None
        numbers = [float(value) for value in values]
        made_by = [by] if callable(by) else [*by]
        names = [each.__name__ for each in made_by if isinstance(each, Cached)]
        keys = [key for key, entry in self.entries.items() if not made_by or entry["function"] in names]
        used = [self.entries[key] for key in keys]
        machines, of_value = _machines(used, len(numbers))
        seconds = round(sum(entry["seconds"] for entry in used), 1) if used else None
        code = sources.digests(
            self.name,
            names or {entry["function"] for entry in used},
            [each for each in made_by if not isinstance(each, Cached)],
        )
        return records.keep(
            id,
            numbers,
            settings=self.parameters,
            profile=self.profile,
            notebook=self.name,
            seconds=seconds,
            machines=machines,
            of_value=of_value,
            code=code,
            key=shorten(repr(sorted(keys)), 16) if keys else None,
        )

    def elapsed(self) -> float:
        """Return the seconds since this experiment was made."""
        return round(time.perf_counter() - self._begun, 1)

    def checkpoint(self) -> Path:
        """Return where a long training inside a cached function may keep itself, for `train.fit(checkpoint=…)`."""
        if not self._working:
            raise RuntimeError("run.checkpoint() belongs inside a cached function: its key names the file")
        return store.folder() / f"{self._working[-1]['name']}.checkpoint"

    def __getstate__(self) -> dict:
        return {
            "name": self.name,
            "profile": self.profile,
            "parameters": self.parameters,
            "entries": {},
            "_working": [],
            "_begun": time.perf_counter(),
        }


def _is_setting(key: str, value: Any) -> bool:
    return not key.startswith("_") and isinstance(value, bool | int | float | str)


class Cached:
    """A function whose results are kept. Call it, or call it for each of many arguments with `each`."""

    def __init__(self, run: Experiment, function: Callable):
        functools.update_wrapper(self, function)
        self.run, self._context = run, ""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._kept(self._bound(arguments, named), self.context())

    def each(self, **axes: Iterable) -> Grid:
        """Return the results for every combination of the axes' values, computed side by side where they are new.

        Example: `student.each(T=(1, 2), seed=range(3))[2, 0]` is student(T=2, seed=0).
        """
        for name, values in axes.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(
                    f"each() takes several values for every name, got {name}={values!r}; write {name}=({values!r},)"
                )
        axes = {name: list(values) for name, values in axes.items()}
        points = itertools.product(*axes.values())
        jobs = {point: self._bound((), dict(zip(axes, point, strict=True))) for point in points}
        context = self.context()
        unkept = self._make(jobs, context)
        return Grid(
            axes,
            {point: unkept[point] if point in unkept else self._kept(bound, context) for point, bound in jobs.items()},
        )

    def context(self) -> str:
        """Return the digest of the code and of the values that the function reads now."""
        if self._context:  # computed before it was sent to a worker, which has no source
            return self._context
        tracer = Tracer()
        tracer.follow(self.__wrapped__, self.__name__)
        return tracer.digest()

    def _bound(self, arguments: tuple, named: dict) -> dict[str, Any]:
        signature = inspect.signature(self.__wrapped__)
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind == parameter.VAR_KEYWORD:
                found |= sorted(found.pop(name).items())
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise TypeError(
                    f"{self.__name__}{signature} takes {name} without a name, and what a cached function "
                    "is given is in its key by name; leave out * and /, or give it a list"
                )
        return found

    def _settings(self, bound: dict[str, Any], context: str) -> dict:
        """The key of these arguments, as plain values; the seed apart, from which random numbers are drawn."""
        tracer = Tracer()
        digests = {name: tracer.of_value(value, f"{self.__name__}'s argument {name}") for name, value in bound.items()}
        seed = bound.get("seed")
        return {
            "notebook": self.run.name,
            "function": self.__name__,
            "arguments": digests,
            "code": context + tracer.digest(),
            "kdlab": kdlab.__version__,
            **({"seed": int(seed)} if isinstance(seed, int) else {}),
        }

    def _kept(self, bound: dict[str, Any], context: str) -> Any:
        settings, name = self._settings(bound, context), f"{self.run.name}-{self.__name__}"
        work = {"name": f"{name}.{store.entry_key(name, settings)}", "nested": 0.0, "uses": {}}
        started = time.perf_counter()

        def compute() -> Any:
            self.run._working.append(work)
            try:
                return self.__wrapped__(**bound)
            finally:
                self.run._working.pop()

        def about() -> dict:
            own = time.perf_counter() - started - work["nested"]
            shown = {key: each for key, each in bound.items() if isinstance(each, bool | int | float | str)}
            return {"called": shown, "own_seconds": round(own, 3), "uses": work["uses"]}

        value, record = store.value(name, settings, compute, about)
        self._note(record, time.perf_counter() - started)
        return value

    def _note(self, record: dict, took: float) -> None:
        """Write down that an entry was used, here and in the cached function at work, if one is."""
        entry = {
            "function": self.__name__,
            "seconds": record["value"]["own_seconds"],
            "machine": record["machine"],
            "seed": record["settings"].get("seed"),
        }
        used = {**record["value"]["uses"], record["entry"]: entry}
        self.run.entries |= used
        if self.run._working:
            self.run._working[-1]["nested"] += took
            self.run._working[-1]["uses"] |= used

    def _make(self, jobs: dict[tuple, dict[str, Any]], context: str) -> dict[tuple, Any]:
        """Compute those jobs that the store lacks, side by side; return what could not be kept there."""
        name = f"{self.run.name}-{self.__name__}"
        new = {point: bound for point, bound in jobs.items() if not store.has(name, self._settings(bound, context))}
        backend = parallel.chosen_backend()
        if len(new) < 2 or (backend == "loky" and parallel.worker_count() == 1):  # a single one is left to this process
            return {}
        if backend != "loky":
            return self._make_on_cluster(name, new, context)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            shipped = Path(folder) / "function.pickle"
            shipped.write_bytes(cloudpickle.dumps(self))
            found = parallel.map(_work, [(str(shipped), bound) for bound in new.values()], progress=self.__name__)
        return {point: made[0] for point, made in zip(new, found, strict=True) if made}

    def _make_on_cluster(self, name: str, new: dict[tuple, dict[str, Any]], context: str) -> dict[tuple, Any]:
        """Compute jobs on machines with stores of their own, and keep here what they return."""
        shipped, unkept = cloudpickle.dumps(self), {}
        found = parallel.map(_work_away, [(shipped, bound) for bound in new.values()], progress=self.__name__)
        for (point, bound), (blob, made) in zip(new.items(), found, strict=True):
            if blob is None:
                unkept[point] = made
                continue
            with contextlib.suppress(OSError):  # a store that cannot be written: the call computes it here, and warns
                store.copy_in(name, self._settings(bound, context), blob)
        return unkept

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_context": self.context()}


@functools.lru_cache(maxsize=1)  # what it reads may be large
def _shipped(path: str) -> Cached:
    return cloudpickle.loads(Path(path).read_bytes())


def _work(path: str, bound: dict[str, Any]) -> tuple:
    """In a worker: compute one result and keep it; return it where it cannot be kept.

    The function was shipped once, with all that it reads.
    """
    cached = _shipped(path)
    made = cached(**bound)
    settings = cached._settings(bound, cached.context())
    return () if store.has(f"{cached.run.name}-{cached.__name__}", settings) else (made,)


@functools.lru_cache(maxsize=1)
def _shipped_bytes(shipped: bytes) -> Cached:
    return cloudpickle.loads(shipped)


def _work_away(shipped: bytes, bound: dict[str, Any]) -> tuple[bytes | None, Any]:
    """In a worker of a cluster: compute one result; return the store's file of it, or itself where it was not kept."""
    cached = _shipped_bytes(shipped)
    made = cached(**bound)
    blob = store.copy_out(f"{cached.run.name}-{cached.__name__}", cached._settings(bound, cached.context()))
    return (None, made) if blob is None else (blob, None)


def _machines(used: list[dict], n: int) -> tuple[list[dict], list[list[int]]]:
    """The distinct machines of these entries, and for each of n values the numbers of those that made it.

    Where there is one seed for each value, in order, a value is its seed's; else it is everyone's.
    """
    described = [use["machine"] for use in used] or [machine.describe()]
    machines = [one for i, one in enumerate(described) if one not in described[:i]]
    seeds = list(dict.fromkeys(use["seed"] for use in used if use["seed"] is not None))
    if len(seeds) != n:
        return machines, [list(range(len(machines)))] * n
    return machines, [
        sorted({machines.index(use["machine"]) for use in used if use["seed"] in (None, seed)}) for seed in seeds
    ]
