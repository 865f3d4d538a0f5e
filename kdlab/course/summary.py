"""What came out, in a few sentences and six rows: the README's summary of results/."""

from collections.abc import Sequence
from typing import Any

from kdlab.metrics import Row, Table

from . import claims_page

# Of the models that notebooks 09 to 16 made: one a way that is worth its cost. A name that is not there is left out.
ROWS = (
    "BERT",
    "half the heads",
    "layers at ½, fine-tuned",
    "int8 and its words",
    "ONNX, bytes",
    "stack: layers + factors + bytes",
)
COLUMNS = ("", "on disk, MB", "multiply-adds, M", "32 cases, ms", "right, %", "beside BERT, points")
SENTENCES = (  # the claims whose numbers a sentence shows: ours, and the source's in brackets
    (
        "On MNIST's 10,000 test images the teacher makes {} errors, a student alone {}, one distilled {}.",
        ("teacher", "student-alone", "student-distilled"),
    ),
    ("A student that never saw a 3 classifies {} % of them correctly once one bias is raised.", ("no-3s-known",)),
    ("One acoustic model keeps {} % of what ten gain together in frame accuracy.", ("speech-kept",)),
    ("Soft targets on 3 % of the speech recover {} % of what all of it gives.", ("soft-recovered",)),
)


def summary(rows: list[dict[str, Any]], found: Sequence[Row]) -> str:
    """Return the sentences and the table, as Markdown. rows: the judged claims; found: those of compressed models."""
    papers = [row for row in rows if row["section"] in claims_page.SECTIONS]
    by_claim = {row["claim"]: row for row in papers if row["n"]}
    said = [
        text.format(*(_number(by_claim[claim]) for claim in ids))
        for text, ids in SENTENCES
        if all(claim in by_claim for claim in ids)
    ]
    counts = (
        claims_page.counted(papers),
        claims_page.legend(papers).replace(f"{claims_page.STALE} measured", "Measured"),
    )
    brackets = "In brackets the paper's own numbers; those on speech are of another corpus."
    return f"{' '.join([*said, *filter(None, counts), brackets])}\n\n{_table(found)}"


def _number(row: dict[str, Any]) -> str:
    source = str(row["source"] or "–").split(" (")[0]
    return f"**{claims_page.ours(row).split(' (')[0]}** ({source})"


def _table(found: Sequence[Row]) -> str:
    """Six of the models, and of each the columns that decide."""
    chosen = [row for name in ROWS for row in found if row.name == name]
    if not chosen or chosen[0].name != "BERT":
        return ""
    head, *lines = Table(chosen).cells()
    places = [head.index(name) for name in COLUMNS]
    kept = [[line[i] for i in places] for line in (head, *lines)]
    kept.insert(1, ["---"] * len(places))
    table = "\n".join(f"| {' | '.join(line)} |" for line in kept)
    return f"Notebooks 09 to 16, one BERT (MiniLM) compressed; in brackets percent of its row:\n\n{table}"
