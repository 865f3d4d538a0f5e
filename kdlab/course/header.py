"""What stands at the top of each notebook: how long it takes, and where it is in the course."""

import json
import re
from pathlib import Path

from . import contents

HEADER = re.compile(r"(<!-- header -->\n)(?:.*?\n)??(<!-- end -->)", re.S)


def header(entry: contents.Entry, seconds: float | None, minutes: int) -> str:
    """Return two lines of Markdown. seconds: to run, None where they were not measured; minutes: to read."""
    parts = []
    for name, numbers in contents.PARTS.items():
        listed = (_named(each, entry) for each in contents.COURSE if each.number in numbers)
        parts.append(f"{name}: {' '.join(listed)}")
    run = "" if seconds is None else f"{contents.duration(seconds)} to run on two cores, "
    return f"*{run}{minutes} min to read*\n\nYou are here: {' · '.join(parts)}"


def _named(entry: contents.Entry, here: contents.Entry) -> str:
    return f"**{entry.number}**" if entry == here else f"[{entry.number}]({entry.file}.ipynb)"


def fill(notebook: Path, results: Path) -> str:
    """Return the notebook's text with the block from `<!-- header -->` to `<!-- end -->` made anew."""
    text = notebook.read_text(encoding="utf-8")
    entry = next(entry for entry in contents.COURSE if entry.file == notebook.stem)
    timed = json.loads((results / "notebooks.json").read_text(encoding="utf-8"))
    own = [row["seconds"] for row in timed if (row["notebook"], row["profile"]) == (entry.file, "own")]
    made = header(entry, own[0] if own else None, contents.minutes_to_read(notebook))
    plain = json.loads(text)
    for cell in plain["cells"]:
        source = "".join(cell["source"])
        filled = HEADER.sub(lambda block: f"{block[1]}{made}\n{block[2]}", source)
        if filled != source:
            cell["source"] = filled.splitlines(keepends=True)
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
