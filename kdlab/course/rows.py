"""Rows of the table of compressed models, kept by one notebook for the next, so that they share a table."""

import json
from collections.abc import Iterable
from pathlib import Path

from kdlab import disk, machine, place
from kdlab.metrics import Row


def keep(rows: Iterable[Row], *, profile: str = "own", notebook: str) -> Path:
    """Keep a notebook's rows beside those of the others: a full run's in results/ruler, any other in the store.

    They take the place of the rows which that notebook kept before.
    """
    path = folder(profile) / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [row.plain() for row in rows]
    made = {"notebook": notebook, "profile": profile, "machine": machine.describe(), "rows": plain}
    disk.write(path, (json.dumps(made, indent=1, allow_nan=False) + "\n").encode())
    return path


def kept(profile: str = "own") -> list[Row]:
    """Return the rows of all notebooks at this profile, in the order of the notebooks.

    Where notebook 09 has measured BERT, a row of as many texts has it as its reference.
    """
    files = sorted(folder(profile).glob("*.json"))
    found = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return with_first(Row.from_plain(row) for row in found)


def with_first(rows: Iterable[Row]) -> list[Row]:
    """Return the rows, those of as many texts as the first, BERT's, with it as their reference where they have none."""
    rows = list(rows)
    if rows and rows[0].name == "BERT":
        first = rows[0]
        alike = [row.reference is None and (row.n_test, row.cases) == (first.n_test, first.cases) for row in rows]
        pairs = zip(rows[1:], alike[1:], strict=True)
        rows[1:] = [row.replace(reference=first.as_reference()) if same else row for row, same in pairs]
    return rows


def folder(profile: str) -> Path:
    """Return the folder where rows of a profile are kept."""
    rows_folder = place.results(profile) / "ruler"
    return rows_folder if profile == "full" else rows_folder / profile
