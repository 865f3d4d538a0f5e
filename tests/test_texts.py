"""The texts: what is packaged is WordNet's, its parts share nothing, and SST-2 is read from whichever form is there."""

import hashlib
import lzma
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from kdlab import data
from kdlab.data import texts

PACKAGED = Path(data.__file__).parent / "glosses" / "glosses.tsv.xz"
ROWS = ["label\tsentence", '0\ta "bad" film', "1\ta good film", "1\tgood"]


@pytest.fixture(scope="module")
def glosses():
    return data.load("glosses")


def test_glosses_are_all_of_wordnet_in_three_parts(glosses):
    assert [len(part.texts) for part in glosses[:3]] == [102_659, 5_000, 10_000]
    for part in glosses[:3]:
        assert len(part.texts) == len(part.y) == len(part.words)
        assert (int(part.y.min()), int(part.y.max())) == (0, 44)
        assert all(part.texts)


def test_a_gloss_has_its_word_and_its_supersense(glosses):
    where = glosses.train.words.index("dog, domestic dog, Canis familiaris")
    assert glosses.classes[glosses.train.y[where]] == "noun.animal"
    assert glosses.train.texts[where].startswith("a member of the genus Canis")


def test_supersenses_stand_in_wordnets_order():
    """Of WordNet's lexnames file: the number of a few."""
    names = {
        0: "adj.all",
        2: "adv.all",
        3: "noun.Tops",
        5: "noun.animal",
        18: "noun.person",
        28: "noun.time",
        29: "verb.body",
        38: "verb.motion",
        43: "verb.weather",
        44: "adj.ppl",
    }
    assert {i: texts.SUPERSENSES[i] for i in names} == names and len(texts.SUPERSENSES) == 45


def test_no_word_and_no_definition_is_in_two_parts(glosses):
    words = [{word.lower() for line in part.words for word in line.split(", ")} for part in glosses[:3]]
    definitions = [{text.lower() for text in part.texts} for part in glosses[:3]]
    for kind in (words, definitions):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not kind[a] & kind[b]


def test_the_test_part_has_more_plants_animals_and_persons_than_the_whole(glosses):
    """As the data's README says."""
    whole = Counter(int(y) for part in glosses[:3] for y in part.y)
    test = Counter(glosses.test.y.tolist())
    for name in ("noun.plant", "noun.animal", "noun.person"):
        kind = glosses.classes.index(name)
        assert test[kind] / test.total() > whole[kind] / whole.total()


def test_examples_of_use_are_left_out(glosses):
    with_quotes = sum(text.endswith('"') and text.startswith('"') for part in glosses[:3] for text in part.texts)
    assert with_quotes == 0


def test_the_packaged_file_is_the_one_described_and_has_its_licence():
    described = (PACKAGED.parent / "README.md").read_text()
    assert hashlib.sha256(PACKAGED.read_bytes()).hexdigest() in described
    assert str(PACKAGED.stat().st_size) in described
    assert "Princeton University" in (PACKAGED.parent / "LICENSE").read_text()


@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").exists(), reason="Debian's wordnet-base is not here")
def test_the_packaged_definitions_are_those_of_wordnet(glosses):
    """Read again in another way: number, supersense and gloss by one expression."""
    line = re.compile(r"^\d{8} (\d\d) [nvasr] .* \| (.*)$")
    theirs = Counter()
    for part in ("noun", "verb", "adj", "adv"):
        for each in Path(f"/usr/share/wordnet/data.{part}").read_text().splitlines():
            if found := line.match(each):
                theirs[int(found[1]), found[2].split('; "')[0].strip()] += 1
    ours = Counter((int(y), text) for part in glosses[:3] for y, text in zip(part.y, part.texts, strict=True))
    assert ours == theirs


def a_mirror(folder: Path, monkeypatch) -> None:
    """SST-2 in small, with checksums to match."""
    (folder / "sst2").mkdir(parents=True)
    made = {"train.tsv": "\n".join(ROWS), "dev.tsv": "label\tcontent\n0\tdull"}
    for name, rows in made.items():
        (folder / "sst2" / name).write_text(rows)
    both = [
        file._replace(hashes=(f"sha256:{hashlib.sha256(made[file.name].encode()).hexdigest()}",))
        for file in (texts._TRAIN, texts._DEV)
    ]
    monkeypatch.setattr(texts, "_TRAIN", both[0])
    monkeypatch.setattr(texts, "_DEV", both[1])
    monkeypatch.setattr(texts, "_N_DEV", 1)
    monkeypatch.setenv("KDLAB_CACHE", str(folder / "cache"))


def test_sst2_is_read_from_a_mirror(tmp_path, monkeypatch):
    a_mirror(tmp_path, monkeypatch)
    monkeypatch.setenv("KDLAB_MIRROR", str(tmp_path))
    found = data.load("sst2")
    assert found.classes == ("negative", "positive")
    assert sorted(found.train.texts + found.dev.texts) == ['a "bad" film', "a good film", "good"]
    assert found.test.texts == ["dull"] and found.test.y.tolist() == [0]
    assert all(y == ("good" in text) for part in found[:2] for text, y in zip(part.texts, part.y, strict=True))


def test_sst2_is_read_from_its_homes_archive_and_gives_the_same(tmp_path, monkeypatch):
    a_mirror(tmp_path, monkeypatch)
    cache = tmp_path / "cache" / "sst2"
    cache.mkdir(parents=True)
    other = [f"{row.split(chr(9))[1]}\t{row.split(chr(9))[0]}" for row in ROWS]  # the home's columns: sentence, label
    with zipfile.ZipFile(cache / "SST-2.zip", "w") as archive:
        archive.writestr("SST-2/train.tsv", "\n".join(other))
        archive.writestr("SST-2/dev.tsv", "sentence\tlabel\ndull\t0")
    md5 = hashlib.md5((cache / "SST-2.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(texts, "_SST2_HOME", texts._SST2_HOME._replace(hashes=(f"md5:{md5}",)))
    monkeypatch.delenv("KDLAB_MIRROR", raising=False)
    by_home = data.load("sst2")
    monkeypatch.setenv("KDLAB_MIRROR", str(tmp_path))
    by_mirror = data.load("sst2")
    for a, b in zip(by_home[:3], by_mirror[:3], strict=True):
        assert a.texts == b.texts and torch.equal(a.y, b.y)


def test_sst2_that_is_nowhere_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    monkeypatch.delenv("KDLAB_MIRROR", raising=False)
    monkeypatch.setattr(texts, "_SST2_HOME", texts._SST2_HOME._replace(urls=("http://127.0.0.1:9/SST-2.zip",)))
    with pytest.raises(data.DataUnavailable, match=r"sst2[\s\S]*put the file by hand"):
        data.load("sst2")


def test_a_damaged_copy_of_the_glosses_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(data.files, "PACKAGED", tmp_path)
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDLAB_MIRROR", raising=False)
    (tmp_path / "glosses").mkdir()
    shutil.copy(PACKAGED, tmp_path / "glosses")
    blob = bytearray(PACKAGED.read_bytes())
    blob[len(blob) // 2] ^= 1
    (tmp_path / "glosses" / PACKAGED.name).write_bytes(blob)
    with pytest.raises(data.DataUnavailable, match="damaged"):
        data.load("glosses")
    assert len(lzma.decompress(PACKAGED.read_bytes()).splitlines()) == 117_659
