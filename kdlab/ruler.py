"""One ruler for every compressed net: a row of what it costs and what it can, kept, so that notebooks share a table."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import disk, machine, metrics, place, text

TOKENS = 16  # of the texts that are timed: about the mean of the glosses, so nothing is padded
COLUMNS = {
    "parameters": ("parameters, M", 1e-6, 1),
    "nonzero": ("not zero, M", 1e-6, 1),
    "bytes": ("on disk, MB", 1e-6, 1),
    "multiply_adds": ("multiply-adds, M", 1e-6, 0),
    "ms_1": ("1 text, ms", 1, 1),
    "ms_32": ("32 texts, ms", 1, 0),
    "memory": ("memory, MB", 1e-6, 1),
}
PLUS_MINUS = "±: the standard error of the score, from its test texts and its seeds."


def measure(
    name: str,
    net: nn.Module,
    task: text.Task,
    *,
    repeats: int = 20,
    threads: int | None = None,
    scores: Sequence[float] | None = None,
    reference: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A row: what `net` costs, each thing by itself, and the per cent of the test texts that it gets right.

    net: (batch, tokens) token numbers → logits. scores: on these test texts, where they are known, of one net or of
    several seeds' nets; `net` is then the one whose costs are measured, and is not asked again. A net that does not
    compute in torch may have its own word on its costs, net.costs(), with None for what nobody counts. reference: the
    row of what it is compared with, asked for the same texts: needed where a table's other rows are of other texts.
    """
    one, many = sample(task, 1), sample(task, 32)
    times = [metrics.latency(net, x, repeats=repeats, threads=threads) for x in (one, many)]
    if scores is None:
        scores = [float(metrics.accuracy(metrics.logits(net, task.x_test, 64), task.y_test))]
    return {
        "name": name,
        "parameters": metrics.parameters(net),
        "nonzero": metrics.nonzero(net),
        "bytes": metrics.disk_bytes(net),
        "multiply_adds": metrics.multiply_adds(net, one),
        "ms_1": times[0].median,
        "ms_32": times[1].median,
        "memory": metrics.memory(net, many),
        "scores": [float(score) for score in scores],
        "n_test": len(task.y_test),
        "threads": times[0].threads,
        **({"reference": as_reference(reference)} if reference else {}),
        **(net.costs() if hasattr(net, "costs") else {}),
    }


def as_reference(row: dict[str, Any]) -> dict[str, Any]:
    """What a row that was asked for the same texts keeps of this one, to be compared with it."""
    return {"name": row["name"], "score": statistics.fmean(row["scores"])}


def sample(task: text.Task, n: int, tokens: int = TOKENS) -> Tensor:
    """(n, tokens) of the test texts that have at least so many tokens, cut to as many: real words, no padding."""
    long = task.x_test[text.lengths(task.x_test, task.pad) >= tokens][:, :tokens]
    if not len(long):
        raise ValueError(f"none of the {len(task.x_test)} test texts has {tokens} tokens; read more of them (n_test)")
    return long[torch.arange(n, device=long.device) % len(long)]


def keep(rows: list[dict[str, Any]], *, profile: str = "own", notebook: str) -> Path:
    """Keep a notebook's rows beside those of the others: a full run's in results/ruler, any other in the store.

    They take the place of the rows which that notebook kept before.
    """
    path = folder(profile) / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"notebook": notebook, "profile": profile, "machine": machine.describe(), "rows": rows}
    disk.write(path, (json.dumps(made, indent=1, allow_nan=False) + "\n").encode())
    return path


def kept(profile: str = "own") -> list[dict[str, Any]]:
    """The rows of all notebooks at this profile, in the order of the notebooks.

    Where notebook 09 has measured BERT, a row of as many texts has it as its reference.
    """
    files = sorted(folder(profile).glob("*.json"))
    rows = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    if rows and rows[0]["name"] == "BERT":
        first = {"n_test": rows[0]["n_test"], "reference": as_reference(rows[0])}
        rows[1:] = [first | row if row["n_test"] == first["n_test"] else row for row in rows[1:]]
    return rows


def folder(profile: str) -> Path:
    """Where rows of a profile are kept."""
    rows_folder = place.results(profile) / "ruler"
    return rows_folder if profile == "full" else rows_folder / profile


class Table:
    """Rows as a table: in a notebook as HTML, elsewhere as text. The first row is what the others are shares of.

    Scores are compared on the same texts alone: a row of other texts than the first's brings its reference's score on
    them (`measure`'s reference). Raises ValueError for one that does not.
    """

    def __init__(self, rows: list[dict[str, Any]]):
        if not rows:
            raise ValueError("no rows to show; notebook 09 measures the first")
        self.rows, first = rows, rows[0]
        for row in rows:
            if "reference" not in row and row["n_test"] != first["n_test"]:
                raise ValueError(
                    f"rows of one table are scored on the same test texts: {row['name']!r} has "
                    f"{row['n_test']:,} of them, {first['name']!r} {first['n_test']:,}. Measure both with "
                    f"one n_test, or give ruler.measure the row of {first['name']!r} on those "
                    f"{row['n_test']:,} texts: reference=row"
                )
        self.references = [row.get("reference") or as_reference(first) for row in rows]

    def cells(self) -> list[list[str]]:
        """The heading, then a line a row: its name, each cost with its share of the first row's, and its score."""
        names = " or ".join(dict.fromkeys(each["name"] for each in self.references))
        lines = [["", *(title for title, _, _ in COLUMNS.values()), "right, %", f"beside {names}, points", "seeds"]]
        for row, reference in zip(self.rows, self.references, strict=True):
            costs = [
                "–" if row[key] is None else f"{row[key] * unit:,.{digits}f}{self._share(row, key)}"
                for key, (_, unit, digits) in COLUMNS.items()
            ]
            texts = "" if row["n_test"] == self.rows[0]["n_test"] else f" ({row['n_test']:,} texts)"
            lines.append([row["name"], *costs, score(row) + texts, _beside(row, reference), str(len(row["scores"]))])
        return lines

    def _share(self, row: dict[str, Any], key: str) -> str:
        share = row[key] / self.rows[0][key]
        return "" if row is self.rows[0] else f" ({100 * share:.{0 if share > 0.1 else 1}f} %)"

    def _repr_html_(self) -> str:
        head, *lines = self.cells()
        body = "".join(_html(line, "td") for line in lines)
        return (
            f"<table><thead>{_html(head, 'th')}</thead><tbody>{body}</tbody></table>"
            f"<small>Operations of one text of {TOKENS} tokens; memory for 32 of them, beside the weights; below "
            f"each number its share of the first row's; {self.rows[0]['threads']} thread(s). {PLUS_MINUS}</small>"
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


def score(row: dict[str, Any]) -> str:
    """The mean of a row's scores ± its `error`, rounded to that."""
    return " ± ".join(metrics.round_to_spread(statistics.fmean(row["scores"]), error(row)))


def _beside(row: dict[str, Any], reference: dict[str, Any]) -> str:
    """Points above the reference on the same texts, to the place of the score; "" for the reference itself."""
    if row["name"] == reference["name"]:
        return ""
    points = metrics.round_to_spread(statistics.fmean(row["scores"]) - reference["score"], error(row))[0]
    return points if points.startswith("-") else f"+{points}"


def error(row: dict[str, Any]) -> float:
    """The standard error of a row's score, in points: of its test texts and, with several seeds, of their mean."""
    scores = row["scores"]
    right = statistics.fmean(scores) / 100
    of_seeds = statistics.variance(scores) / len(scores) if len(scores) > 1 else 0.0
    return (100**2 * right * (1 - right) / row["n_test"] + of_seeds) ** 0.5
