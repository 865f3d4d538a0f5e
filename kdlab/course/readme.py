"""From what was measured to what the pages say: results/ and the packaged teacher's record in, Markdown out."""

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path

from kdlab import store
from kdlab.metrics import Row, Table
from kdlab.metrics.table import PLUS_MINUS

from . import claims, claims_page, contents, records, summary

PAGES = ("README.md", "results/README.md", "docs/judging.md")  # those that `kdlab report` fills
BLOCK = re.compile(r"(<!-- results: (?P<name>\w+) -->\n)(?:.*?\n)??(<!-- end -->)", re.S)


def fill(text: str, results: Path) -> str:
    """`text` with each block from `<!-- results: NAME -->` to `<!-- end -->` made anew from the files in results."""
    makers = {
        "teacher": _teacher,
        "minutes": minutes,
        "speed": _speed,
        "sliders": _sliders,
        "live": _live,
        "claims": _claims,
        "bert": _bert,
        "rule": lambda results: claims.RULE,
        "summary": lambda results: summary.summary(judged(results), _compressed(results)),
    }

    def made(match: re.Match) -> str:
        if match["name"] not in makers:
            raise ValueError(f"the text has a block {match['name']!r}; there are {', '.join(makers)}")
        return f"{match[1]}{makers[match['name']](results)}\n{match[3]}"

    return BLOCK.sub(made, text)


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _machines(found: Iterable[dict]) -> str:
    """Each machine once, from what `machine.describe()` returned on it."""
    return "; ".join(sorted({records.describe_machine(facts) for facts in found}))


def _teacher(results: Path) -> str:
    _, record = store.packaged("mnist-2x1200")
    measures, settings = record["measures"], record["settings"]
    return (
        f"The packaged teacher (2 × 1200 units, {settings['epochs']} epochs, seed {settings['seed']}) makes "
        f"**{measures['test_errors']} errors** on MNIST's 10,000 test images; the paper's makes 67. It took "
        f"{measures['seconds'] / 60:.0f} minutes on one thread ({records.describe_machine(record['machine'])}); "
        "`python scripts/train_teacher.py` makes it anew."
    )


def minutes(results: Path) -> str:
    """The course as a table: a notebook's question, the minutes it runs and is read, and what it builds on."""
    timed = [row for row in _read(results / "notebooks.json") if row["profile"] == "own"]
    seconds = {row["notebook"]: contents.duration(row["seconds"]) for row in timed}
    lines = ["| notebook | the question it answers | to run | to read | builds on |", "|---|---|---|---|---|"]
    for part, numbers in contents.PARTS.items():
        lines.append(f"| **{part}** | | | | |")
        for entry in (entry for entry in contents.COURSE if entry.number in numbers):
            name, file = f"{entry.number} {entry.title}", f"notebooks/{entry.file}.ipynb"
            read = f"{contents.minutes_to_read(results.parent / file)} min"
            run, before = seconds.get(entry.file, "not timed"), ", ".join(entry.before)
            lines.append(f"| [{name}]({file}) | {entry.question} | {run} | {read} | {before} |")
    pace = f"{contents.WORDS_A_MINUTE} words or {contents.CODE_LINES_A_MINUTE} lines of code a minute"
    machines = _machines(row["machine"] for row in timed)
    return "\n".join([*lines, f"\nTimes to run are measured, on: {machines}. To read: {pace}."])


def _speed(results: Path) -> str:
    record = _read(results / "bench.json")
    rows = "\n".join(
        f"| 2 × {row['units']} | {row['kdlab']:,} | {row['kdlab_two_threads']:,} | {row['tutorial']:,} | "
        f"{row['tutorial_one_thread']:,} | {row['kdlab'] / row['tutorial']:.1f} × | "
        f"{row['share_of_matrix_rate']:.0%} |"
        for row in record["training"]
    )
    return (
        "| student | kdlab | … with two threads | tutorial loop | … with one thread | kdlab / tutorial | "
        "of the matrix rate |\n"
        f"|---|---|---|---|---|---|---|\n{rows}\n\n"
        f"{_in_words(record)}"
    )


def _in_words(record: dict) -> str:
    """What was measured beside the table, in sentences; after those of one machine, which it was."""
    facts = {"training": f"Each number is the median of {record['rounds']} rounds."}
    facts |= {name: said(record[name]) for name, said in _SENTENCES.items() if record.get(name)}
    by_machine = itertools.groupby(facts, key=lambda name: records.describe_machine(record["machines"][name]))
    return " ".join(f"{' '.join(facts[name] for name in names)} ({machine}.)" for machine, names in by_machine)


def _many(row: dict) -> str:
    return (
        f"{row['students']} students of 2 × {row['units']} at once learn "
        f"{row['one_by_one'] / row['at_once']:.1f} times as fast as one after the other, in two processes "
        f"{row['one_by_one'] / row['in_two_processes']:.1f} times; their final losses differ by "
        f"{row['largest_difference_of_losses']:.0e} of themselves at the most."
    )


def _speech(row: dict) -> str:
    return (
        f"An acoustic model of 2 × {row['units']} learns from {row['one']:,} frames a second; ten at once "
        f"from {row['ten_at_once']:,}, one after the other from {row['ten_one_by_one']:,}."
    )


def _eq5(row: dict) -> str:
    return (
        f"Eq. 5 answers {row['batched']:,.0f} images a second in a batch, {row['one_by_one']:,.0f} one by one "
        f"by the same steps, {row['as_written']:,.1f} as it is written, by plain gradient descent."
    )


def _import(row: dict) -> str:
    return (
        f"Importing kdlab's data, losses, metrics, models, teachers and train takes {row['kdlab']} s, torch alone "
        f"{row['torch']} s."
    )


def _in_page(row: dict) -> str:
    return (
        f"In the page (Chromium, {row['bytes'] / 1e6:.1f} MB, ready after {row['ready_s']} s) a student of "
        f"2 × {row['units']} learns from {row['page']:,} images a second, where kdlab's loop takes "
        f"{row['kdlab']:,} and the tutorial loop {row['tutorial']:,}, each on one thread; one of 1 × 30 from "
        f"{row['page_1_x_30']:,}; two of these, drawn and tested while they learn, from {row['played']:,} together. A "
        f"turned slider reaches a step after {row['turn_median_ms']} ms (95th percentile {row['turn_p95_ms']} ms)."
    )


_SENTENCES = {"import": _import, "many": _many, "speech": _speech, "eq5": _eq5, "in_page": _in_page}


def _sliders(results: Path) -> str:
    record = _read(results / "bench.json")
    rows = record["sliders"]
    worst = max(row["p95_ms"] for row in rows)
    median = sorted(row["median_ms"] for row in rows)[len(rows) // 2]
    return (
        f"From key press to changed picture, over the {len(rows)} temperature sliders of the notebooks, "
        f"{rows[0]['presses']} presses each: median {median} ms, slowest slider's 95th percentile {worst} ms "
        f"({records.describe_machine(record['machines']['sliders'])})."
    )


def _live(results: Path) -> str:
    record = _read(results / "live.json")
    rows = record["by_minute"]
    pressed, turned = (sum(row[key] for row in rows) for key in ("presses", "turns"))
    first, last = rows[0], rows[-1]
    return (
        f"{record['minutes']:.0f} minutes of play in Chromium, the temperature turned {pressed} times: {turned} of "
        f"the turns were used by a minibatch. From key press to the new value in the panel's line: median "
        f"{_median(rows, 'echo_ms', 'median'):.0f} ms, 95th percentile of the slowest minute "
        f"{max(row['echo_ms']['p95'] for row in rows):.0f} ms; to the first minibatch that used it: "
        f"{_median(rows, 'obeyed_ms', 'median'):.0f} and {max(row['obeyed_ms']['p95'] for row in rows):.0f} ms. "
        f"With the panel open a student trains at {record['share']:.0%} of the bare loop's speed. The kernel held "
        f"{first['kernel_mb']:,} MB after the first minute and {last['kernel_mb']:,} MB after the last. "
        f"{records.describe_machine(record['machine'])}."
    )


def _claims(results: Path) -> str:
    rows = [row for row in judged(results) if row["section"] in claims_page.SECTIONS]
    machines = _machines(facts for row in rows if row["record"] for facts in row["record"]["machines"])
    return f"{_table(rows)} {claims.RULE} {machines}."


def _table(rows: list[dict]) -> str:
    """The claims' rows, and the sentences below them."""
    sentences = filter(None, (claims_page.counted(rows), claims_page.legend(rows)))
    return f"{claims_page.table(rows)}\n\n{' '.join(sentences)}"


def _bert(results: Path) -> str:
    """The teacher's record, the ruler's rows of all notebooks, and the post's claims."""
    _, record = store.packaged("glosses-minilm")
    right, minutes = 100 - record["measures"]["test_errors"] / 100, record["measures"]["seconds"] / 60
    rows = [row for row in judged(results) if row["section"] in claims_page.POST]
    return (
        f"The packaged BERT (MiniLM, fine-tuned for {minutes:.0f} minutes on one thread) names **{right:.1f} %** "
        f"of the 10,000 test definitions right.\n\n{_ruler(results)}{_table(rows)}"
    )


def _ruler(results: Path) -> str:
    """The rows of all notebooks, once notebook 09 has measured the first, of which the others are shares."""
    files, found = ruler_files(results), _compressed(results)
    if not found or found[0].name != "BERT":
        return ""
    return (
        f"{markdown(Table(found))}\n\nIn brackets: percent of the first row. A score is of {found[0].n_test:,} test "
        f"texts where no other number stands beside it; points beside BERT are on the same texts. {PLUS_MINUS} "
        f"{_machines(file['machine'] for file in files)}; {found[0].threads} thread(s).\n\n"
    )


def markdown(table: Table) -> str:
    """The table as Markdown, without the columns that no row has a value for."""
    head, *lines = table.cells()
    kept = [i for i in range(len(head)) if any(line[i] not in ("", "–") for line in lines)]
    return "\n".join(f"| {' | '.join(line[i] for i in kept)} |" for line in (head, ["---"] * len(head), *lines))


def ruler_files(results: Path) -> list[dict]:
    return [_read(path) for path in sorted((results / "ruler").glob("*.json"))]


def _compressed(results: Path) -> list[Row]:
    """The rows of all notebooks."""
    return [Row.from_plain(row) for file in ruler_files(results) for row in file["rows"]]


def figure(results: Path) -> str:
    """The README's picture of the claims, as SVG."""
    return claims_page.figure([row for row in judged(results) if row["section"] in claims_page.SECTIONS])


def judged(results: Path) -> list[dict]:
    """The claims beside what the full runs measured."""
    return records.judged({path.stem: _read(path) for path in sorted((results / "claims").glob("*.json"))})


def _median(rows: list[dict], key: str, what: str) -> float:
    return sorted(row[key][what] for row in rows)[len(rows) // 2]
