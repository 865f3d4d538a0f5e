"""Make kdlab/data/glosses from Debian's package wordnet-base: definitions, their words, supersenses and fixed parts.

    apt-get install wordnet-base && python scripts/make_glosses.py

No word and no definition is in two of the parts: synsets that share a word, or the same definition, hang together, and
what hangs together goes to one part. The largest such cluster, common words with their many senses, is for training.
"""

import lzma
import random
import re
from collections import defaultdict
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
TARGET = Path(__file__).parents[1] / "kdlab/data/glosses"
SIZES = {"test": 10_000, "dev": 5_000}  # the rest is for training


def synsets() -> list[tuple[int, list[str], str]]:
    """(supersense, words, definition) of each synset. Format: WordNet's manual, wndb(5WN)."""
    found = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text().splitlines():
            if not line.startswith("  "):  # the license stands above the data
                fields, gloss = line.split(" | ", 1)
                fields = fields.split()
                words = [fields[4 + 2 * i] for i in range(int(fields[3], 16))]
                words = [re.sub(r"\((a|p|ip)\)$", "", word) for word in words]  # where an adjective may stand
                found.append((int(fields[1]), words, gloss.split('; "')[0].strip()))
    return found


def clusters(rows: list[tuple[int, list[str], str]]) -> list[list[int]]:
    """The numbers of the synsets that hang together by a word or by a definition, the largest cluster first."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, (_, words, definition) in enumerate(rows):
        for key in (*(word.lower() for word in words), f"= {definition.lower()}"):
            parent[root(i)] = root(first.setdefault(key, i))
    together = defaultdict(list)
    for i in range(len(rows)):
        together[root(i)].append(i)
    return sorted(together.values(), key=lambda cluster: (-len(cluster), cluster[0]))


def parts(rows: list[tuple[int, list[str], str]]) -> list[str]:
    """Of each synset, the part it belongs to."""
    others = clusters(rows)[1:]
    random.Random(0).shuffle(others)
    of, left = ["train"] * len(rows), dict(SIZES)
    for cluster in others:
        part = next((part for part in left if len(cluster) <= left[part]), None)
        if part:
            left[part] -= len(cluster)
            for i in cluster:
                of[i] = part
    return of


def main() -> None:
    rows = synsets()
    lines = [
        f"{part}\t{sense}\t{'|'.join(words)}\t{definition}"
        for part, (sense, words, definition) in zip(parts(rows), rows, strict=True)
    ]
    TARGET.mkdir(exist_ok=True)
    packed = lzma.compress(("\n".join(lines) + "\n").encode(), preset=9 | lzma.PRESET_EXTREME)
    (TARGET / "glosses.tsv.xz").write_bytes(packed)
    notice = (line for line in (WORDNET / "data.noun").read_text().splitlines() if line.startswith("  "))
    (TARGET / "LICENSE").write_text("".join(re.sub(r"^ *\d+ ?", "", line).rstrip() + "\n" for line in notice))
    print(f"{len(lines):,} synsets, {len(packed):,} bytes")


if __name__ == "__main__":
    main()
