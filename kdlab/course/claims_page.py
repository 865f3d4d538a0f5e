"""The claims beside what we measured, as one page that needs nothing else: no script, no network, no file beside it."""

import html
import math
from pathlib import Path
from typing import Any

from . import claims

SECTIONS = {"2": "Distillation", "2.1": "Matching logits", "3": "MNIST", "4": "Speech: ten models into one",
            "5": "Specialists", "6": "Soft targets as regularisers",
            "6.1": "Specialists that keep every class", "8": "Specialists in one net"}  # fmt: skip
POST = {"prune": "Pruning", "factorise": "Factorising", "distil": "Distilling", "share": "Sharing weights",
        "quantise": "Quantising", "together": "Together"}  # fmt: skip
COLOURS = {"confirmed": "#00795a", "partly": "#8a6100", "not": "#b03a00", "not judged": "#555", "not yet run": "#555"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .35rem .6rem; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } .number { text-align: right; white-space: nowrap; }
.unit, .how { color: #555; font-size: 13px; } .verdict { font-weight: 600; white-space: nowrap; }
h2 { margin-top: 2rem; }
"""


def of(rows: list[dict[str, Any]], notebooks: Path | None = None) -> str:
    """HTML of `claims.judged()`'s rows. notebooks: the folder of executed notebooks' pages that rows can link to."""
    parts = []
    for section, title in (SECTIONS | POST).items():
        cells = "".join(_row(row, notebooks) for row in rows if row["section"] == section)
        heading = title if section in POST else f"§ {section} {title}"
        if section == next(iter(POST)):
            parts.append("<h1>Compressing BERT, claim by claim</h1><p>M. Gordon, <i>All The Ways You Can Compress "
                         "BERT</i>, 2019, with the numbers he takes from papers on BERT-base; here on MiniLM.</p>")
        parts.append(f"<h2>{heading}</h2><table><thead><tr><th>claim</th><th class='number'>the source</th>"
                     "<th class='number'>here</th><th>each seed, the source ▏, the range that confirms</th>"
                     f"<th>verdict</th></tr></thead><tbody>{cells}</tbody></table>")  # fmt: skip
    rule = claims.RULE.replace("*confirmed*", "<b>confirmed</b>").replace("*partly*", "<b>partly</b>")
    rule = rule.replace("*not*", "<b>not</b>")
    return ("<!doctype html><html lang='en'><meta charset='utf-8'><title>kdlab: the paper, claim by claim</title>"
            f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>"
            "<h1>The paper, claim by claim</h1>"
            "<p>G. Hinton, O. Vinyals, J. Dean, <i>Distilling the Knowledge in a Neural Network</i>, 2015, "
            f"arXiv:1503.02531.</p><p>{counted(rows)}</p><p>{rule}</p>{''.join(parts)}</html>\n")


def counted(rows: list[dict[str, Any]]) -> str:
    """How many claims got which verdict, in one sentence."""
    words = [(word, sum(row["verdict"] == word for row in rows)) for word in COLOURS]
    return f"{len(rows)} claims: " + ", ".join(f"{n} {word}" for word, n in words if n) + "."


def table(rows: list[dict[str, Any]]) -> str:
    """The rows that were run, as Markdown."""
    lines = [f"| {row['section']} | {row['says']} ({row['unit']}) | {number(row['paper'])} | {ours(row)} | "
             f"{row['verdict']} |" for row in rows if row["n"]]  # fmt: skip
    return "\n".join(["| § | claim | source | here, mean ± sd (seeds) | verdict |", "|---|---|---|---|---|", *lines])


def figure(rows: list[dict[str, Any]], row_height: int = 36) -> str:
    """The rows that were run and judged as one SVG: the claim, the paper's number and ours, each seed, the verdict."""
    shown = [row for row in rows if row["n"] and row["verdict"] != "not judged"]
    height = row_height * (len(shown) + 1) + 34
    drawn = [_cells(20, "claim", "paper", "here", "verdict", "#555")]
    for i, row in enumerate(shown):
        y = row_height * (i + 1)
        told = claims.claim(row["claim"])
        strip = _picture(told, row["record"]["values"]).replace("<svg ", f"<svg x='746' y='{y + 3}' ", 1)
        colour = COLOURS[row["verdict"]]
        drawn.append(_cells(y + 21, f"§{row['section']}  {row['says']}", number(row["paper"]), f"{row['ours']:.3g}",
                            row["verdict"], colour) + strip)  # fmt: skip
    legend = "dots: seeds; line: the paper; bands: confirms, or in part"
    drawn.append(f"<text x='746' y='{height - 14}' fill='#555' font-size='12'>{legend}</text>")
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1150 {height}' font-family='sans-serif' "
            f"font-size='14'><rect width='1150' height='{height}' fill='white'/>{''.join(drawn)}</svg>\n")  # fmt: skip


def _cells(y: int, says: str, printed: str, ours: str, verdict: str, colour: str) -> str:
    return (f"<text x='10' y='{y}' fill='#1a1a1a'>{html.escape(says)}</text>"
            f"<text x='650' y='{y}' fill='#1a1a1a' text-anchor='end'>{printed}</text>"
            f"<text x='728' y='{y}' fill='#1a1a1a' text-anchor='end' font-weight='bold'>{ours}</text>"
            f"<text x='1060' y='{y}' fill='{colour}' font-weight='bold'>{verdict}</text>")  # fmt: skip


def number(value: float | None) -> str:
    """Four digits of it; a dash for none."""
    return "–" if value is None else f"{value:.4g}"


def ours(row: dict[str, Any]) -> str:
    """Mean ± sd (n) of what was measured."""
    if not row["n"]:
        return "–"
    spread = f" ± {row['sd']:.2g}" if row["sd"] is not None else ""
    return f"{number(row['ours'])}{spread} ({row['n']})"


def _row(row: dict[str, Any], notebooks: Path | None) -> str:
    told, record = claims.claim(row["claim"]), row["record"] or {}
    name = record.get("notebook", "")
    linked = f"<a href='{name}.html'>{name}</a>" if notebooks and (notebooks / f"{name}.html").exists() else name
    how = [linked, f"profile {record['profile']}" if record else "", _machine(record), _seconds(record)]
    return (f"<tr id='{row['claim']}'><td>{html.escape(row['says'])}<br>"
            f"<span class='unit'>{html.escape(row['unit'])}</span></td>"
            f"<td class='number'>{number(row['paper'])}</td><td class='number'>{ours(row)}</td>"
            f"<td>{_picture(told, record.get('values', []))}<div class='how'>{' · '.join(filter(None, how))}</div></td>"
            f"<td class='verdict' style='color: {COLOURS[row['verdict']]}'>{row['verdict']}</td></tr>")  # fmt: skip


def _machine(record: dict[str, Any]) -> str:
    facts = record.get("machine")
    return f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}" if facts else ""


def _seconds(record: dict[str, Any]) -> str:
    seconds = record.get("seconds")
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _picture(told: claims.Claim, values: list[float], width: int = 300, height: int = 26) -> str:
    """Each seed as a dot, the paper as a line, the ranges as bands."""
    if not values:
        return ""
    marks = [*values, *([] if told.value is None else [told.value])]
    marks += [end for end in told.confirmed or () if math.isfinite(end)]
    low, high = min(marks), max(marks)
    low, high = (low - 0.06 * (high - low), high + 0.06 * (high - low)) if high > low else (low - 1, high + 1)

    def at(value: float) -> float:
        return width * (min(max(value, low), high) - low) / (high - low)

    bands = [(told.partly, "#e3efe9"), (told.confirmed, "#a9d6c4")]
    drawn = [f"<rect x='{at(band[0]):.1f}' width='{at(band[1]) - at(band[0]):.1f}' height='{height}' fill='{colour}'/>"
             for band, colour in bands if band]  # fmt: skip
    if told.value is not None:
        drawn.append(f"<rect x='{at(told.value) - 1:.1f}' width='2' height='{height}' fill='#333'/>")
    drawn += [f"<circle cx='{at(value):.1f}' cy='{height / 2}' r='4' fill='#0072b2' fill-opacity='.8'/>"
              for value in values]  # fmt: skip
    said = f"from {number(low)} to {number(high)}; seeds: {', '.join(map(number, values))}"
    return (f"<svg width='{width}' height='{height}' role='img' aria-label='{said}'>"
            f"<title>{said}</title>{''.join(drawn)}</svg>")  # fmt: skip
