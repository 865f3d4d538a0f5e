"""What the notebooks measured against each claim: kept as JSON, one value a seed, with all that it came from.

A full run's records are kept in results/claims of the course, any other's in the store. None is edited by hand.
"""

import functools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

from kdlab import disk, machine, place

from . import claims, parameters, sources

PROFILES = ["smoke", "own", "full"]  # by size: a larger one's record is never overwritten by a smaller one's
_FREE = {"seed", "profile"}  # of a record's settings: may differ from a notebook's without making it stale


def keep(
    id: str,
    values: list[float],
    *,
    settings: dict[str, Any],
    profile: str,
    notebook: str,
    seconds: float | None = None,
    machines: list[dict] | None = None,
    of_value: list[list[int]] | None = None,
    code: dict[str, str] | None = None,
    key: str | None = None,
) -> Path | None:
    """Keep what was measured against a claim: one value a seed, in the claim's unit.

    settings: the values of the notebook's parameters. seconds: that the work took. machines: `machine.describe()` of
    each machine that had a part in it, by default this one. of_value: for each value the indices of its machines.
    code: by name, a digest of the source of each function that made the values; None where it is not known.
    key: one digest of the keys of all entries of the store that the values come from.

    Where a larger profile's record is kept already, nothing is written, and None is returned. The same values of the
    same settings and code leave the record as it is.
    """
    claim, numbers = claims.claim(id), [float(value) for value in values]
    _check(claim, numbers, profile)
    machines = machines or [machine.describe()]
    of_value = of_value or [list(range(len(machines)))] * len(numbers)
    _check_machines(id, len(numbers), of_value, len(machines))
    made = {
        "claim": id,
        "unit": claim.unit,
        "values": numbers,
        "profile": profile,
        "notebook": notebook,
        "settings": json.loads(json.dumps(settings)),
        "seconds": seconds,
        "made": time.strftime("%Y-%m-%d"),
        "machines": machines,
        "of_value": of_value,
    }
    made |= {name: value for name, value in (("code", code), ("key", key)) if value}
    path = folder(profile) / f"{id}.json"
    before = _read(path)
    if before and PROFILES.index(before["profile"]) > PROFILES.index(profile):
        return None
    same = before and all(before[key] == made[key] for key in ("values", "profile", "settings"))
    if same and (not code or code == before.get("code")):
        return path  # read from the store again: the machines and the date of the first time stand
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, (json.dumps(made, indent=1, allow_nan=False) + "\n").encode())
    return path


def _check_machines(id: str, n_values: int, of_value: list[list[int]], n_machines: int) -> None:
    if len(of_value) != n_values or not all(each and set(each) <= set(range(n_machines)) for each in of_value):
        raise ValueError(
            f"{id}: of_value names for each of {n_values} values some of {n_machines} machines by their index, got "
            f"{of_value}"
        )


def _check(claim: claims.Claim, numbers: list[float], profile: str) -> None:
    if not numbers or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"{claim.id}: expected one finite number a seed ({claim.unit}), got {numbers}")
    most = {"count": claim.test_size, "percent": 100.0}.get(claim.scale, math.inf)
    if claim.scale and not all(0 <= value <= most for value in numbers):
        raise ValueError(f"{claim.id}: expected numbers from 0 to {most:g} ({claim.unit}), got {numbers}")
    if profile not in PROFILES:
        raise ValueError(f"profile is one of {', '.join(PROFILES)}, got {profile!r}")


def folder(profile: str) -> Path:
    """Where records of a profile are kept."""
    return place.results(profile) / "claims"


def full(id: str) -> dict[str, Any] | None:
    """Return a claim's record of the full run: the course's own, or the one that the package carries."""
    found = (_read(there / "claims" / f"{id}.json") for there in (place.results("full"), place.PACKAGE / "results"))
    return next(filter(None, found), None)


def kept() -> dict[str, dict[str, Any]]:
    """Return the record of the largest profile for each claim that has one, by the claim's id."""
    found = {}
    for there in (folder("own"), folder("full")):
        for claim in claims.CLAIMS:
            if record := _read(there / f"{claim.id}.json"):
                found[claim.id] = record
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none, or one of the first kind, which did not list the machine of each value."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not a record ({error}); delete it and run its notebook again") from None
    return record if "machines" in record else None


def judged(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Set records, by their claims' ids, beside the claims: one row a claim, in the order of the claims.

    A row holds the claim's id, section, says, kind, source, value (of the source), unit, ours (our mean), sd (over the
    seeds), n, verdict, stale (see `stale`) and the record, if any.
    """
    return [judge(claim, records.get(claim.id)) for claim in claims.CLAIMS]


def judge(claim: claims.Claim, record: dict[str, Any] | None, compared: bool = True) -> dict[str, Any]:
    """Set one record beside its claim: a row as `judged` returns. compared: also say whether the record is stale."""
    values = record["values"] if record else []
    return {
        "claim": claim.id,
        "section": claim.section,
        "says": claim.says,
        "kind": claim.kind,
        "source": claim.source,
        "value": claim.value,
        "unit": claim.unit,
        "ours": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "verdict": claims.verdict(claim, values),
        "stale": stale(record) if record and compared else [],
        "record": record,
    }


def stale(record: dict[str, Any]) -> list[str]:
    """Say why a record is not what its notebook would measure now; an empty list for a fresh one.

    The code of everything that made its values is compared and, for a full run, the notebook's settings.
    """
    if not record.get("code"):
        return ["made before records kept a digest of their code"]
    if parameters.path_of(record["notebook"]) is None:
        return [f"there is no notebook {record['notebook']} any more"]
    reasons = []
    if record["profile"] == "full":
        reasons += _changed_settings(record["settings"], _full_settings(record["notebook"]))
    now = sources.current(record["code"])
    changed = sorted(name for name, digest in record["code"].items() if now.get(name) != digest)
    return reasons + ([f"changed since: {', '.join(changed)}"] if changed else [])


def _changed_settings(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = [name for name in then | now if name not in _FREE]
    pairs = [(name, *(values.get(name, "none") for values in (then, now))) for name in names]
    return [f"settings: {name} {before} then, {after} now" for name, before, after in pairs if before != after]


def _full_settings(notebook: str) -> dict[str, Any]:
    """The values of a notebook's parameters in a full run, as JSON values."""
    path = parameters.path_of(notebook)
    files = (path, path.with_name("profiles.yaml"))
    return json.loads(_full_settings_of(notebook, *(file.stat().st_mtime_ns for file in files)))


@functools.lru_cache
def _full_settings_of(notebook: str, *changed: int) -> str:
    return json.dumps(parameters.values(notebook) | parameters.profile(parameters.path_of(notebook), "full"))


def describe_machine(facts: dict[str, Any]) -> str:
    """Say in a line what a number was measured on, from what `machine.describe()` returned there."""
    device = "" if facts["device"] == "cpu" else facts["device"]
    parts = [
        device,
        facts["processor"],
        facts.get("instructions"),
        f"{facts['cores']} cores",
        facts.get("precision"),
        f"Python {facts['python']}",
        f"torch {facts['torch']}",
    ]
    return ", ".join(filter(None, parts))  # records of before have neither instructions nor precision
