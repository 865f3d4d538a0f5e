"""The course's contents: each notebook with its question, what to read before it, and how long reading takes."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

WORDS_A_MINUTE, CODE_LINES_A_MINUTE = 200, 15


@dataclass(frozen=True)
class Entry:
    """One notebook. number: "04". file: its name without .ipynb. before: the numbers of those it builds on."""

    number: str
    title: str
    file: str
    question: str
    before: tuple[str, ...] = ()


PARTS = {
    "The idea": ("00", "01", "02", "03"),
    "The paper": ("04", "05", "06", "07", "08"),
    "Compressing BERT": ("09", "10", "11", "12", "13", "14", "15", "16"),
    "Your own": ("22",),
}
COURSE = [
    Entry("00", "Start here", "00_start_here", "What is distillation, and does it run on this machine?"),
    Entry("01", "Soft targets", "01_soft_targets", "What does a soft target show that a label hides?", ("00",)),
    Entry("02", "The loss", "02_the_loss", "Why T², how much of each term, and what happens at a high T?", ("01",)),
    Entry("03", "Live distillation", "03_live_distillation", "What happens if T changes during training?", ("02",)),
    Entry("04", "MNIST", "04_mnist", "How many errors do soft targets save, and at which T? (§3)", ("02",)),
    Entry("05", "Missing digits", "05_missing_digits", "Can a student know a 3 that it has never seen? (§3)", ("02",)),
    Entry("06", "Speech", "06_speech", "Can one acoustic model replace ten? (§4)", ("02",)),
    Entry("07", "Specialists", "07_specialists", "What do models for confusable classes add? (§5–§8)", ("02",)),
    Entry("08", "Regularizers", "08_regularizers", "Is 3 % of the data enough with soft targets? (§6)", ("06",)),
    Entry("09", "The ruler", "09_the_ruler", "How are size, speed and accuracy of a model measured?", ("02",)),
    Entry("10", "Prune", "10_prune", "What can be removed from BERT, and does that make it faster?", ("09",)),
    Entry("11", "Factorize", "11_factorize", "What does a product of two small matrices save?", ("09",)),
    Entry("12", "Distill", "12_distill", "Does a small model learn more from logits or hidden states?", ("09",)),
    Entry("13", "Share", "13_share", "Can all six layers share one layer's weights?", ("09",)),
    Entry("14", "Quantize", "14_quantize", "How many bits does a weight need, and when are fewer faster?", ("09",)),
    Entry(
        "15",
        "Pre-train or downstream",
        "15_pretrain_or_downstream",
        "Should a model be compressed before fine-tuning or after it?",
        ("12",),
    ),
    Entry("16", "Together", "16_together", "Do the gains of several methods add up?", ("10", "11", "14")),
    Entry("22", "Bring your own", "22_bring_your_own", "How do I distill and compress my own model?", ("03", "09")),
]


def minutes_to_read(notebook: Path) -> int:
    """Estimate how long a notebook takes to read: 200 words of text, or 15 lines of code, a minute."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text, code = ([_source(cell) for cell in cells if cell["cell_type"] == kind] for kind in ("markdown", "code"))
    text = [re.sub(r"<!-- header -->.*?<!-- end -->", "", each, flags=re.S) for each in text]
    words = sum(len(each.split()) for each in text)
    lines = sum(bool(line.strip()) for each in code for line in each.splitlines())
    return math.ceil(words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE)


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def duration(seconds: float) -> str:
    """Return seconds as a reader wants them: "50 s", "3 min"."""
    return f"{round(seconds, -1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
