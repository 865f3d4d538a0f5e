"""A notebook's numbers beside the source's and the full run's: three columns, and the verdict on the full run."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import claims, claims_page, records

HEAD = ("", "paper", "full run", "this run")


@dataclass(frozen=True)
class Comparison:
    """A table of claims. rows: what is measured, the source's number, the full run's with its verdict, this run's."""

    rows: list[tuple[str, str, str, str]]
    note: str = ""

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            looks = ("text-align: left", *["text-align: left; white-space: nowrap"] * (len(HEAD) - 1))
            pairs = zip(looks, map(html.escape, cells), strict=True)
            return "".join(["<tr>", *(f"<{tag} style='{look}'>{cell}</{tag}>" for look, cell in pairs), "</tr>"])

        lines = [line(HEAD, "th"), *(line(row, "td") for row in self.rows)]
        return f"<table>{''.join(lines)}</table><p><small>{html.escape(self.note)}</small></p>"

    def __str__(self) -> str:
        table = [HEAD, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
        return "\n".join([*(line.rstrip() for line in lines), *([self.note] if self.note else [])])


def compare(values: Mapping[str, Iterable[float]]) -> Comparison:
    """Set a run's values, one a seed, by the claim's id, beside the source's number and the packaged full run.

    Raises ValueError for an id that no claim has.
    """
    rows, judged = [], []
    for id, mine in values.items():
        claim, numbers = claims.claim(id), [float(value) for value in mine]
        whole = records.judge(claim, records.full(id))
        this = records.judge(claim, {"values": numbers} if numbers else None, compared=False)
        full = f"{claims_page.ours(whole)}: {claims_page.judgment(whole)}" if whole["n"] else whole["verdict"]
        rows.append((f"{claim.says} ({claim.unit})", claims_page.source(whole), full, claims_page.ours(this)))
        judged.append(whole)
    return Comparison(rows, _note(judged))


def _note(judged: list[dict]) -> str:
    """What the numbers are, and how long the full run takes."""
    found = [row["record"] for row in judged if row["record"]]
    if not found:
        return "Mean ± standard deviation over the seeds (how many)."
    legend = claims_page.legend(judged)
    return f"Mean ± standard deviation over the seeds (how many); the verdict is on the full run. {legend}".strip()
