"""Texts with a class each: WordNet's definitions and their supersenses, and SST-2's sentences and their sentiment."""

import csv
import io
import lzma
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import files
from .files import File

GLOSSES = File(
    "glosses.tsv.xz",
    "glosses",
    ("sha256:003099831b1a293ec2adf79d7182ebee34306dc83c0f0fd74da316ca962e7cc2",),
    size=2_581_500,
)
# A mirror's two files with the columns label and text.
_TRAIN, _DEV = (
    File(
        "train.tsv",
        "sst2",
        ("sha256:e981ceb4fe6c9acd1c79851d0d091b9e78103f1f2a399ca83dda27915d41c56c",),
        size=3_806_081,
    ),
    File("dev.tsv", "sst2", ("sha256:84207e6be5873fb18db798cc6faec86871f5a426554650ff64a1c34e87665f6f",), size=94_414),
)
# Its home's archive, with the columns sentence and label; the checksum is torchtext's.
_SST2_HOME = File(
    "SST-2.zip",
    "sst2",
    ("md5:9f81648d4199384278b86e315dac217c",),
    ("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",),
)
_N_DEV = 2_000  # of SST-2's training sentences, to choose by: its test labels were never published
SUPERSENSES = tuple(  # in the order of their numbers
    f"{kind}.{name}"
    for kind, names in [
        ("adj", "all pert"),
        ("adv", "all"),
        (
            "noun",
            "Tops act animal artifact attribute body cognition communication event feeling food group location "
            "motive object person phenomenon plant possession process quantity relation shape state substance "
            "time",
        ),
        (
            "verb",
            "body change cognition communication competition consumption contact creation emotion motion "
            "perception possession social stative weather",
        ),
        ("adj", "ppl"),
    ]
    for name in names.split()
)


class Part(NamedTuple):
    """texts: n strings; y: (n,) int64 class numbers; words: what each text defines, empty where it defines nothing."""

    texts: list[str]
    y: Tensor
    words: list[str]


class Texts(NamedTuple):
    """A part to train on, one to choose by, one to test on; classes[y[i]] is the name of text i's class."""

    train: Part
    dev: Part
    test: Part
    classes: tuple[str, ...]


def glosses(path: Path) -> Texts:
    """WordNet 3.0's definitions. No word and no definition is in two parts (see data/glosses/README.md)."""
    rows = [line.split("\t") for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
    parts = {}
    for name in ("train", "dev", "test"):
        mine = [row for row in rows if row[0] == name]
        words = [row[2].replace("|", ", ").replace("_", " ") for row in mine]
        parts[name] = Part([row[3] for row in mine], torch.tensor([int(row[1]) for row in mine]), words)
    return Texts(**parts, classes=SUPERSENSES)


def sst2_files() -> tuple[File, ...]:
    """The files SST-2 is read from: those of a mirror or the cache where both are there, else its home's archive."""
    both = (_TRAIN, _DEV)
    return (_SST2_HOME,) if any("nowhere" in files.locate(file) for file in both) else both


def sst2(paths: list[Path]) -> Texts:
    """The Stanford Sentiment Treebank's two classes, as in GLUE: 65,349 phrases and sentences, 2,000 and 872.

    test is GLUE's dev part, because the labels of its test part are not public; dev is drawn from its training part,
    which holds phrases of sentences that are in it too, so dev is easier than test.
    """
    if len(paths) == 1:
        with zipfile.ZipFile(paths[0]) as archive:
            train, test = (_table(archive.read(f"SST-2/{name}.tsv")) for name in ("train", "dev"))
    else:
        train, test = (_table(path.read_bytes()) for path in paths)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    dev, train = [train[i] for i in order[:_N_DEV]], [train[i] for i in order[_N_DEV:]]
    return Texts(*(_part(rows) for rows in (train, dev, test)), classes=("negative", "positive"))


def _table(blob: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(blob.decode()), delimiter="\t", quoting=csv.QUOTE_NONE))


def _part(rows: list[dict[str, str]]) -> Part:
    """The text's column is called sentence, and in a mirror's dev.tsv content."""
    texts = [(row.get("sentence") or row.get("content", "")).strip() for row in rows]
    return Part(texts, torch.tensor([int(row["label"]) for row in rows]), [""] * len(rows))
