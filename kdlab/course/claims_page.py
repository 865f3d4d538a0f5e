"""The claims beside what we measured, as one page that needs nothing else: no script, no network, no file beside it."""

import html
import math
import re
from pathlib import Path
from typing import Any

from kdlab.metrics import round_to_spread

from . import claims, records

SECTIONS = {
    "2": "Distillation",
    "2.1": "Matching logits",
    "3": "MNIST",
    "4": "Speech: ten models into one",
    "5": "Specialists",
    "6": "Soft targets as regularizers",
    "6.1": "Specialists that keep every class",
    "8": "Specialists in one net",
}
POST = {
    "prune": "Pruning",
    "factorize": "Factorizing",
    "distill": "Distilling",
    "share": "Sharing weights",
    "quantize": "Quantizing",
    "together": "Together",
}
COLORS = {
    "confirmed": "#00795a",
    "partly": "#8a6100",
    "not": "#b03a00",
    "too noisy": "#6b4c9a",
    "one run only": "#6b4c9a",
    "not judged": "#555",
    "not yet run": "#555",
}
STALE = "†"
PAPER = (
    "<h2>The paper</h2><p>G. Hinton, O. Vinyals, J. Dean, <i>Distilling the Knowledge in a Neural Network</i>, 2015, "
    "arXiv:1503.02531.</p>"
)
SURVEY = (
    "<h2>Compressing BERT</h2><p>M. Gordon, <i>All The Ways You Can Compress BERT</i>, 2019, with the numbers he takes "
    "from papers on BERT-base; here on MiniLM.</p>"
)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .35rem .6rem; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } .number { text-align: right; white-space: nowrap; }
.unit, .how { color: #555; font-size: 13px; } .verdict { font-weight: 600; white-space: nowrap; }
h2 { margin-top: 2rem; } .wide { overflow-x: auto; }
"""


def of(rows: list[dict[str, Any]], notebooks: Path | None = None) -> str:
    """HTML of `records.judged()`'s rows. notebooks: the folder of executed notebooks' pages that rows can link to."""
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>kdlab: the paper, claim by claim</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>"
        f"<h1>The paper, claim by claim</h1>{body(rows, notebooks)}</html>\n"
    )


def body(rows: list[dict[str, Any]], notebooks: Path | None = None) -> str:
    """The page's HTML below its heading: the paper's claims, then those on compressing BERT."""
    rule = re.sub(r"\*(.+?)\*", r"<b>\1</b>", claims.RULE)
    parts = [f"<p>{rule}</p>"]
    for source, sections in ((PAPER, SECTIONS), (SURVEY, POST)):
        mine = [row for row in rows if row["section"] in sections]
        told = " ".join(filter(None, (counted(mine), legend(mine))))
        parts.append(f"{source}<p>{told}</p>")
        for section, title in sections.items():
            cells = "".join(_row(row, notebooks) for row in mine if row["section"] == section)
            parts.append(
                f"<h3>{title if section in POST else f'§ {section} {title}'}</h3>"
                "<div class='wide'><table class='claims'><thead><tr><th>claim</th><th class='number'>the source</th>"
                "<th class='number'>here</th><th>each seed, the source ▏, the range that confirms</th>"
                f"<th>verdict</th></tr></thead><tbody>{cells}</tbody></table></div>"
            )
    return "".join(parts)


def counted(rows: list[dict[str, Any]]) -> str:
    """How many claims got which verdict, in one sentence: the arithmetic apart from what was measured."""
    parts = []
    for kind, title in (("measured", "measured"), ("arithmetic", "true by arithmetic")):
        verdicts = [row["verdict"] for row in rows if row["kind"] == kind]
        numbers = ", ".join(f"{verdicts.count(word)} {word}" for word in claims.VERDICTS if word in verdicts)
        if verdicts:
            parts.append(f"{len(verdicts)} {title} ({numbers})")
    others = sum(row["kind"] == "another's data" for row in rows)
    if others:
        parts.append(f"{others} on other data than the paper's, not judged")
    return f"{len(rows)} claims: {'; '.join(parts)}."


def legend(rows: list[dict[str, Any]]) -> str:
    """What the dagger means and how many records have it; "" where none has."""
    stale = sum(bool(row["stale"]) for row in rows)
    if not stale:
        return ""
    return (
        f"{STALE} measured by an earlier version of the code or with other settings, and not yet again: {stale} of the "
        f"{sum(row['n'] > 0 for row in rows)} claims that were run."
    )


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| {row['section']} | {row['says']} ({row['unit']}) | {source(row)} | {ours(row)} | "
        f"{confirms(claims.claim(row['claim']))} | {judgment(row)} |"
        for row in rows
    ]
    return "\n".join(
        [
            "| § | claim | source | here: mean ± sd over the seeds (how many) | confirmed if | verdict |",
            "|---|---|---|---|---|---|",
            *lines,
        ]
    )


def confirms(claim: claims.Claim) -> str:
    """The range of our mean that confirms the claim, in words; a dash where it is not judged."""
    if claim.confirmed is None:
        return "–"
    low, high = (f"{end:.10g}" for end in claim.confirmed)
    if math.isinf(claim.confirmed[0]):
        return f"at most {high}"
    return f"at least {low}" if math.isinf(claim.confirmed[1]) else f"{low} to {high}"


def figure(rows: list[dict[str, Any]], row_height: int = 36) -> str:
    """The rows that were run and judged as one SVG: the claim, the source's number and ours, each seed, the verdict."""
    shown = [row for row in rows if row["n"] and row["verdict"] != "not judged"]
    height = row_height * (len(shown) + 1) + 34
    drawn = [_cells(20, "claim", "paper", "here", "verdict", "#555")]
    for i, row in enumerate(shown):
        y = row_height * (i + 1)
        claim = claims.claim(row["claim"])
        strip = _picture(claim, row["record"]["values"]).replace("<svg ", f"<svg x='746' y='{y + 3}' ", 1)
        drawn.append(
            _cells(
                y + 21,
                f"§{row['section']}  {row['says']}",
                row["source"] or "–",
                _rounded(row)[0],
                judgment(row),
                COLORS[row["verdict"]],
            )
            + strip
        )
    told = " ".join(filter(None, ("dots: seeds; line: the paper; bands: confirms, or in part.", legend(rows))))
    drawn.append(f"<text x='10' y='{height - 14}' fill='#555' font-size='12'>{told}</text>")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1190 {height}' font-family='sans-serif' "
        f"font-size='14'><rect width='1190' height='{height}' fill='white'/>{''.join(drawn)}</svg>\n"
    )


def _cells(y: int, says: str, printed: str, ours: str, verdict: str, color: str) -> str:
    return (
        f"<text x='10' y='{y}' fill='#1a1a1a'>{html.escape(says)}</text>"
        f"<text x='650' y='{y}' fill='#1a1a1a' text-anchor='end'>{printed}</text>"
        f"<text x='728' y='{y}' fill='#1a1a1a' text-anchor='end' font-weight='bold'>{ours}</text>"
        f"<text x='1060' y='{y}' fill='{color}' font-weight='bold'>{verdict}</text>"
    )


def source(row: dict[str, Any]) -> str:
    """The source's number as it prints it, and how it follows from others or what it is relative to."""
    note = claims.claim(row["claim"]).source_note
    return (row["source"] or "–") + (f" ({note})" if note else "")


def ours(row: dict[str, Any]) -> str:
    """Mean ± sd (n) of what was measured, rounded to its spread."""
    if not row["n"]:
        return "–"
    mean, spread = _rounded(row)
    return f"{mean} ± {spread} ({row['n']})" if row["n"] > 1 else f"{mean} (1)"


def _rounded(row: dict[str, Any]) -> tuple[str, str]:
    """Our mean and its spread: over the seeds or, of one, the test set's, where it has one."""
    spread = row["sd"] if row["n"] > 1 else claims.test_error(claims.claim(row["claim"]), row["ours"])
    return round_to_spread(row["ours"], spread)


def judgment(row: dict[str, Any]) -> str:
    """The verdict; whether it is one of arithmetic; a dagger where the record is stale."""
    judged = row["verdict"] not in ("not judged", "not yet run")
    by = " by arithmetic" if row["kind"] == "arithmetic" and judged else ""
    return f"{row['verdict']}{by}{' ' + STALE if row['stale'] else ''}"


def _row(row: dict[str, Any], notebooks: Path | None) -> str:
    claim, record = claims.claim(row["claim"]), row["record"] or {}
    name = record.get("notebook", "")
    linked = f"<a href='{name}.html'>{name}</a>" if notebooks and (notebooks / f"{name}.html").exists() else name
    facts = [
        linked,
        f"profile {record['profile']}" if record else "",
        _machines(record),
        _seconds(record),
        *(f"{STALE} {html.escape(reason)}" for reason in row["stale"]),
    ]
    return (
        f"<tr id='{row['claim']}'><td>{html.escape(row['says'])}<br>"
        f"<span class='unit'>{html.escape(row['unit'])}</span></td>"
        f"<td class='number'>{html.escape(row['source'] or '–')}<br><span class='unit'>"
        f"{html.escape(claim.source_note)}</span></td><td class='number'>{ours(row)}</td>"
        f"<td>{_picture(claim, record.get('values', []))}"
        f"<div class='how'>{' · '.join(filter(None, facts))}</div></td>"
        f"<td class='verdict' style='color: {COLORS[row['verdict']]}'>{judgment(row)}</td></tr>"
    )


def _machines(record: dict[str, Any]) -> str:
    """Each machine, and where there are several of which values it has made some."""
    machines, parts = record.get("machines", []), []
    for i, facts in enumerate(machines):
        those = [str(k + 1) for k, parts_of in enumerate(record["of_value"]) if i in parts_of]
        parts.append(records.describe_machine(facts) + (f" (seed {', '.join(those)})" if len(machines) > 1 else ""))
    return "; ".join(parts)


def _seconds(record: dict[str, Any]) -> str:
    """What the work took; without a key of the code that did it, the number may be the clock of any run."""
    seconds = record.get("seconds") if record.get("code") else None
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _picture(claim: claims.Claim, values: list[float], width: int = 300, height: int = 26) -> str:
    """Each seed as a dot, the paper as a line, the ranges as bands."""
    if not values:
        return ""
    marks = [*values, *([] if claim.value is None else [claim.value])]
    marks += [end for end in claim.confirmed or () if math.isfinite(end)]
    low, high = min(marks), max(marks)
    low, high = (low - 0.06 * (high - low), high + 0.06 * (high - low)) if high > low else (low - 1, high + 1)

    def at(value: float) -> float:
        return width * (min(max(value, low), high) - low) / (high - low)

    def plain(value: float) -> str:
        return round_to_spread(value)[0]

    bands = [(claim.partly, "#e3efe9"), (claim.confirmed, "#a9d6c4")]
    drawn = [
        f"<rect x='{at(band[0]):.1f}' width='{at(band[1]) - at(band[0]):.1f}' height='{height}' fill='{color}'/>"
        for band, color in bands
        if band
    ]
    if claim.value is not None:
        drawn.append(f"<rect x='{at(claim.value) - 1:.1f}' width='2' height='{height}' fill='#333'/>")
    drawn += [
        f"<circle cx='{at(value):.1f}' cy='{height / 2}' r='4' fill='#0072b2' fill-opacity='.8'/>" for value in values
    ]
    said = f"from {plain(low)} to {plain(high)}; seeds: {', '.join(map(plain, values))}"
    return (
        f"<svg width='{width}' height='{height}' role='img' aria-label='{said}'>"
        f"<title>{said}</title>{''.join(drawn)}</svg>"
    )
