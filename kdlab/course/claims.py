"""The claims that the course sets its own numbers against, and the verdict on each.

They are data, in claims.toml. A verdict is computed from what was measured by `verdict`, never written by hand.
"""

import math
import statistics
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

Range = tuple[float, float]
KINDS = ["measured", "arithmetic", "another's data"]
SCALES = ["count", "percent"]
VERDICTS = ["confirmed", "partly", "not", "too noisy", "one run only", "not judged", "not yet run"]


class Claim(NamedTuple):
    """One sentence of a source, in our words, and the ranges of our mean that confirm it or partly do.

    section: of the paper, or the way of compressing BERT. kind: measured; arithmetic (true by construction: of sizes
    that we chose); another's data (shown beside ours, never judged). source: its number as it prints it, "" for none;
    source_note: how it follows from printed numbers, or what it is relative to; value: the same as a number.
    scale, test_size: one value is a count of, or a percent of, so many test cases, and has their standard error.
    """

    id: str
    section: str
    says: str
    unit: str
    kind: str
    source: str = ""
    source_note: str = ""
    value: float | None = None
    confirmed: Range | None = None
    partly: Range | None = None
    scale: str = ""
    test_size: int | None = None


def read(path: Path) -> list[Claim]:
    """Read the claims of a file such as claims.toml. Raises ValueError for one that makes no sense."""
    return [_claim(table) for table in tomllib.loads(path.read_text(encoding="utf-8"))["claim"]]


def _claim(table: dict[str, Any]) -> Claim:
    try:
        claim = Claim(
            **{key: tuple(map(float, value)) if isinstance(value, list) else value for key, value in table.items()}
        )
    except TypeError as error:  # a key is missing or unknown
        raise ValueError(f"claim {table.get('id')}: {error}") from None
    if claim.kind not in KINDS:
        raise ValueError(f"claim {claim.id}: kind is one of {', '.join(KINDS)}, got {claim.kind!r}")
    if claim.scale and (claim.scale not in SCALES or not claim.test_size):
        raise ValueError(f"claim {claim.id}: scale is one of {', '.join(SCALES)} and comes with test_size")
    if bool(claim.confirmed) != bool(claim.partly) or (claim.confirmed and claim.kind == "another's data"):
        raise ValueError(f"claim {claim.id}: both ranges or neither, and none for another's data")
    if claim.confirmed and not _inside(claim.confirmed, claim.partly):
        raise ValueError(f"claim {claim.id}: {claim.confirmed} is not inside {claim.partly}")
    if claim.value is None:
        claim = claim._replace(value=_number(claim.source))
    return claim


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _inside(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


CLAIMS = read(Path(__file__).with_name("claims.toml"))


def claim(id: str) -> Claim:
    """Return the claim of this id. Raises ValueError for an unknown one."""
    found = {claim.id: claim for claim in CLAIMS}
    if id not in found:
        raise ValueError(f"there is no claim called {id!r}; there are {', '.join(found)}")
    return found[id]


RULE = (
    "A verdict is computed from the interval of the mean ± 2 standard errors over the seeds; with one seed, of the "
    "value ± 2 standard errors of the test set where it is a share of counted test cases, else the verdict is *one "
    "run only*. *Confirmed*: the interval lies in the range that the claim names beforehand; *partly*: in a wider "
    "range, also named beforehand; *not*: wholly outside the wider range; *too noisy*: anything else, or an "
    "interval wider than the range that confirms. What is true *by arithmetic* follows from sizes that we chose "
    "and could hardly fail. Numbers of another's data are shown, not judged."
)


def verdict(claim: Claim, values: list[float]) -> str:
    """Judge the values of a claim, one a seed, by `RULE`. Returns one of `VERDICTS`."""
    if not values:
        return "not yet run"
    if claim.kind == "another's data" or claim.confirmed is None:
        return "not judged"
    error = standard_error(claim, values)
    if error is None:
        return "one run only"
    mean = statistics.fmean(values)
    low, high = mean - 2 * error, mean + 2 * error
    if high < claim.partly[0] or low > claim.partly[1]:
        return "not"
    if high - low > claim.confirmed[1] - claim.confirmed[0]:
        return "too noisy"
    if _inside((low, high), claim.confirmed):
        return "confirmed"
    return "partly" if _inside((low, high), claim.partly) else "too noisy"


def standard_error(claim: Claim, values: list[float]) -> float | None:
    """Return the standard error of the mean of `values`, one a seed; None where nothing tells it."""
    if len(values) > 1:
        return statistics.stdev(values) / math.sqrt(len(values))
    return 0.0 if claim.kind == "arithmetic" else test_error(claim, values[0])


def test_error(claim: Claim, value: float) -> float | None:
    """Return the standard error of one value that comes from the size of its test set, in its own unit."""
    if not claim.scale:
        return None
    unit = claim.test_size if claim.scale == "count" else 100.0  # what a share of 1 is called
    share = value / unit
    return unit * math.sqrt(share * (1 - share) / claim.test_size)
