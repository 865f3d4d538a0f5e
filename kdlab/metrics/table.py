"""One row a model: what it costs and what it gets right, side by side in a table.

    first = metrics.measure("teacher", teacher, (x, y))
    row = metrics.measure("student", student, (x, y), reference=("teacher", teacher))
    metrics.Table([first, row])

Any model and any data: images, numbers, or texts as token numbers that are padded at the end.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.data.tensors import digest

from . import cost
from .quality import chosen, logits
from .rounding import round_to_spread

COLUMNS = {
    "parameters": ("parameters, M", 1e-6, 1),
    "nonzero": ("not zero, M", 1e-6, 1),
    "bytes": ("on disk, MB", 1e-6, 1),
    "multiply_adds": ("multiply-adds, M", 1e-6, 0),
    "ms_1": ("1 case, ms", 1, 1),
    "ms_32": ("32 cases, ms", 1, 0),
    "peak": ("in memory, MB", 1e-6, 1),
}
OF_CASES = ("multiply_adds", "ms_1", "ms_32", "peak")  # the costs that depend on the cases: longer texts cost more
PLUS_MINUS = "±: the standard error of the score, from its test cases and its seeds."
SINGLES = 8  # cases, each of which is timed alone


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a row is compared with, on the same cases: its score, and its times, taken in turns with the row's.

    error: the standard error of the difference of the two scores, case by case, in points, where both were asked.
    multiply_adds, peak: as the row's, of the same cases.
    """

    name: str
    score: float
    ms_1: float | None = None
    ms_32: float | None = None
    error: float | None = None
    multiply_adds: float | None = None
    peak: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """What a model costs, each thing by itself, and the percent of the test cases that it gets right.

    A cost that nobody counts is None. scores: one a seed. peak: bytes of the weights and, at their peak, of the
    activations of 32 cases. ms_1, ms_32: milliseconds for one case and for 32. multiply_adds: of one case. cases: a
    digest of (x, y), by which rows of other cases are told apart.
    """

    name: str
    scores: tuple[float, ...]
    n_test: int
    parameters: int | None = None
    nonzero: int | None = None
    bytes: int | None = None
    multiply_adds: float | None = None
    ms_1: float | None = None
    ms_32: float | None = None
    peak: int | None = None
    threads: int | None = None
    cases: str | None = None
    reference: Reference | None = None

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def error(self) -> float:
        """The standard error of the score, in points: of its test cases and, with several seeds, of their mean."""
        right = self.score / 100
        of_seeds = statistics.variance(self.scores) / len(self.scores) if len(self.scores) > 1 else 0.0
        return (100**2 * right * (1 - right) / self.n_test + of_seeds) ** 0.5

    def replace(self, **changes: Any) -> "Row":
        """Return this row with other values, such as another name, or the scores of several seeds."""
        return dataclasses.replace(self, **changes)

    def as_reference(self) -> Reference:
        """Return what a row that was asked for the same cases keeps of this one."""
        return Reference(self.name, self.score, multiply_adds=self.multiply_adds, peak=self.peak)

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON can hold it; `from_plain` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Row":
        """Return the row that `plain` wrote; a value that this version does not know is left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {key: value for key, value in values.items() if key in known}
        reference = values.get("reference")
        values |= {"reference": Reference(**reference) if reference else None, "scores": tuple(values["scores"])}
        return cls(**values)


def measure(
    name: str,
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    reference: tuple[str, nn.Module] | Row | None = None,
    scores: Iterable[float] | None = None,
    repeats: int = 20,
    threads: int | None = None,
    batch_size: int = 64,
    pad: int | None = None,
    seed: int = 0,
) -> Row:
    """Measure what `model` costs, and which percent of `data` = (x, y) it gets right.

    reference: the name and the model that it is compared with, which is timed in turns with it and asked for the same
    cases; or the row of one that was asked for these cases before. scores: where they are known, of one model or of
    several seeds'; `model` is then the one whose costs are measured, and is not asked again unless it is compared case
    by case with a reference model. repeats, threads: of the
    timings, see `latency`. pad: the number that fills up texts, where the model does not know it. seed: draws the cases
    that are timed, see `sample`. A model that does not compute in torch may have its own word on its costs,
    `model.costs()`.
    """
    x, y = data
    pad, how = pad_of(model, pad), dict[str, Any](repeats=repeats, warm=min(5, repeats), threads=threads)
    few = sample(x, min(SINGLES, len(x)), pad=pad, seed=seed)
    singles = [sample(each[None], 1, pad=pad) for each in few]
    batch = sample(x, 32, pad=pad, seed=seed)
    rival = reference[1] if isinstance(reference, tuple) else None
    timed = [model] if rival is None else [model, rival]
    one, many = (cost.in_turns(timed, inputs, **how) for inputs in (singles, [batch]))
    scores = None if scores is None else tuple(float(each) for each in scores)
    ask = scores is None or (rival is not None and len(scores) == 1)  # several seeds are not one model, case by case
    right = _right(model, data, batch_size) if ask else None
    return Row(
        name,
        (_mean(right),) if scores is None else scores,
        len(y),
        **_costs(model, singles, batch),
        ms_1=one[0].median,
        ms_32=many[0].median,
        threads=one[0].threads,
        cases=digest((x, y)),
        reference=_compared(reference, data, batch_size, right, (singles, batch), (one[-1].median, many[-1].median)),
    )


def _compared(
    reference: tuple[str, nn.Module] | Row | None,
    data: tuple[Tensor, Tensor],
    batch_size: int,
    right: Tensor | None,
    inputs: tuple[list[Tensor], Tensor],
    ms: tuple[float, float],
) -> Reference | None:
    """What the row is compared with; the times are those of a reference that was timed in turns with it."""
    if not isinstance(reference, tuple):
        return reference.as_reference() if reference else None
    name, model = reference
    theirs, counted = _right(model, data, batch_size), _of_cases(model, *inputs)
    error = None if right is None else _error(right - theirs)
    return Reference(name, _mean(theirs), *ms, error, **counted)


def _costs(model: nn.Module, singles: list[Tensor], batch: Tensor) -> dict[str, Any]:
    """What is counted, not timed."""
    own = getattr(model, "costs", None)
    if own is not None:
        return own()
    of_weights = {"parameters": cost.parameters(model), "nonzero": cost.nonzero(model), "bytes": cost.disk_bytes(model)}
    return of_weights | _of_cases(model, singles, batch)


def _of_cases(model: nn.Module, singles: list[Tensor], batch: Tensor) -> dict[str, Any]:
    """What is counted and depends on the cases; {} where torch does not compute the model."""
    if hasattr(model, "costs"):
        return {}
    peak = cost.weight_bytes(model) + cost.memory(model, batch)
    return {"multiply_adds": _multiply_adds(model, singles), "peak": peak}


def _multiply_adds(model: nn.Module, singles: list[Tensor]) -> float:
    """The mean over the cases; those of one shape are counted once."""
    found = {shape: cost.multiply_adds(model, each) for shape, each in {each.shape: each for each in singles}.items()}
    return statistics.fmean(found[each.shape] for each in singles)


def _right(model: nn.Module, data: tuple[Tensor, Tensor], batch_size: int) -> Tensor:
    """(n,) 100 for a case that is right, 0 for one that is wrong."""
    x, y = data
    return 100.0 * (chosen(logits(model, x, batch_size)) == y).double()


def _mean(right: Tensor | None) -> float:
    return float(right.mean()) if right is not None else float("nan")


def _error(difference: Tensor) -> float:
    return float(difference.std() / len(difference) ** 0.5) if len(difference) > 1 else 0.0


def pad_of(model: nn.Module, pad: int | None = None) -> int:
    """Return the number that fills up the texts of a model: `pad` if given, else what its config or it says, else 0."""
    if pad is not None:
        return pad
    inner = getattr(model, "model", model)
    said = getattr(getattr(inner, "config", None), "pad_token_id", None)
    said = getattr(model, "pad", None) if said is None else said
    return said if isinstance(said, int) else 0


def sample(x: Tensor, n: int, *, tokens: int | None = None, pad: int = 0, seed: int = 0) -> Tensor:
    """Draw n cases of x by `seed`, as they would come: of texts, (n, tokens) int64 numbers, as long as the longest.

    tokens: of texts that have at least so many, cut to as many: nothing is padded. Where x has fewer than n, some come
    twice. Raises ValueError where no text is long enough.
    """
    texts = x.dim() == 2 and x.dtype == torch.int64
    if texts and tokens is not None:
        x = x[x.ne(pad).sum(dim=1) >= tokens][:, :tokens]
        if not len(x):
            raise ValueError(
                f"none of the test texts has {tokens} tokens; read more of them (n_test), or ask for fewer"
            )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    drawn = x[order[torch.arange(n, device=x.device) % len(x)]]
    if texts:
        drawn = drawn[:, : max(1, int(drawn.ne(pad).sum(dim=1).max()))]
    return drawn


class Table:
    """Rows as a table: in a notebook as HTML, elsewhere as text. The first row is what the others are shares of.

    Times are shares of the reference that was timed in turns with the row, where there is one. Scores are compared on
    the same cases alone: a row of other cases than the first's brings its reference's score on them (`measure`'s
    reference). Raises ValueError for one that does not, and for rows that are none.
    """

    def __init__(self, rows: Sequence[Row]):
        if not rows:
            raise ValueError("no rows to show; metrics.measure makes one")
        if odd := [type(row).__name__ for row in rows if not isinstance(row, Row)]:
            raise TypeError(f"a table is made of metrics.Row, as metrics.measure returns them, got a {odd[0]}")
        self.rows, first = list(rows), rows[0]
        for row in rows:
            other = row.n_test != first.n_test or (row.cases and first.cases and row.cases != first.cases)
            if row.reference is None and other:
                raise ValueError(
                    f"rows of one table are scored on the same test cases: {row.name!r} has {row.n_test:,} of them, "
                    f"{first.name!r} {first.n_test:,}{' others' if row.n_test == first.n_test else ''}. Measure both "
                    f"on the same (x, y), or give metrics.measure the model of {first.name!r}, or its row on those "
                    f"cases of {row.name!r}: reference=…"
                )
        self.references = [row.reference or first.as_reference() for row in rows]

    def cells(self) -> list[list[str]]:
        """The heading, then a line a row: its name, each cost with its share of the first row's, and its score."""
        names = " or ".join(dict.fromkeys(each.name for each in self.references))
        lines = [["", *(title for title, _, _ in COLUMNS.values()), "right, %", f"beside {names}, points", "seeds"]]
        for row, reference in zip(self.rows, self.references, strict=True):
            costs = [self._cost(row, key) for key in COLUMNS]
            cases = "" if row.n_test == self.rows[0].n_test else f" ({row.n_test:,} cases)"
            score = " ± ".join(round_to_spread(row.score, row.error))
            lines.append([row.name, *costs, score + cases, _beside(row, reference), str(len(row.scores))])
        return lines

    def share(self, row: Row, key: str) -> float | None:
        """Return a cost of `row` as a share of its reference's on the same cases, else of the first row's.

        key: such as "bytes" or "ms_32". None where either is not known, and where the first row's depends on its cases
        and was measured on others.
        """
        value, whole = getattr(row, key), getattr(row.reference, key, None)
        first = self.rows[0]
        if whole is None and (key not in OF_CASES or not row.cases or not first.cases or row.cases == first.cases):
            whole = getattr(first, key)
        return value / whole if value is not None and whole else None

    def _cost(self, row: Row, key: str) -> str:
        value, (_, unit, digits) = getattr(row, key), COLUMNS[key]
        if value is None:
            return "–"
        share = self.share(row, key)
        percent = f" ({100 * share:.{0 if share > 0.1 else 1}f} %)" if share is not None else ""
        return f"{value * unit:,.{digits}f}{'' if row is self.rows[0] else percent}"

    def _repr_html_(self) -> str:
        head, *lines = self.cells()
        body = "".join(_html(line, "td") for line in lines)
        return (
            f"<table><thead>{_html(head, 'th')}</thead><tbody>{body}</tbody></table>"
            f"<small>Times and multiply-adds: of test cases drawn at random, one at a time at its own length, or 32 at "
            f"once; memory with the weights. Below each number its share of the first row's; of a time, that of the "
            f"reference where it was timed in turns with it. {self.rows[0].threads} thread(s). {PLUS_MINUS}</small>"
        )

    def __repr__(self) -> str:
        lines = self.cells()
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def _html(line: list[str], tag: str) -> str:
    """A line of the table, narrow enough for a notebook: a unit stands below its title, what is in brackets small
    below its number, and a long name may break."""
    name, *cells = line
    split = (", ", ",<br>") if tag == "th" else (" (", "<br><small style='color:#777'>")
    cells = [cell.replace(*split).replace(")", "</small>") for cell in cells]
    right = "".join(
        f"<{tag} style='text-align:right; white-space:nowrap; padding:4px 7px'>{cell}</{tag}>" for cell in cells
    )
    return f"<tr><{tag} style='text-align:left; white-space:normal; padding:4px 7px'>{name}</{tag}>{right}</tr>"


def _beside(row: Row, reference: Reference) -> str:
    """Points above the reference on the same cases, to the place of their error; "" for the reference itself."""
    if row.name == reference.name:
        return ""
    points = round_to_spread(row.score - reference.score, reference.error or row.error)[0]
    return points if points.startswith("-") else f"+{points}"


def front(points: Mapping[Any, tuple[float, float]]) -> list:
    """Return the names of those points (cost, score) that no other beats at no higher cost; the cheapest first."""
    names, most = [], float("-inf")
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if points[name][1] > most:
            names.append(name)
            most = points[name][1]
    return names
