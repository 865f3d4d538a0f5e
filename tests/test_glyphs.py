"""Characters as a data set: which, from which fonts, how distorted; the same again for the same seed."""

import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from conftest import ROOT

from kdlab import data
from kdlab.data import cifar, glyphs

SMALL = {"n_classes": 30, "n_train": 24, "n_test": 6}


@pytest.fixture(scope="module")
def small():
    return data.load("glyphs", "cpu", **SMALL)


def test_shapes_ranges_and_names(small):
    assert small.x_train.shape == (720, 1, 28, 28) and small.x_test.shape == (180, 1, 28, 28)
    assert small.x_train.dtype == torch.float32 and small.y_train.dtype == torch.int64
    assert small.x_train.min() == 0 and small.x_train.max() <= 1
    assert small.y_train.bincount().tolist() == [24] * 30 and small.y_test.bincount().tolist() == [6] * 30
    assert small.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZabcd")


def test_every_character_is_in_every_font_and_no_two_look_the_same_in_any():
    sheets, characters = glyphs.sheets()
    assert sheets.shape == (len(characters), len(glyphs.FONTS), 56, 56) and sheets.dtype == torch.uint8
    assert len(characters) >= 400 and len(set(characters)) == len(characters)
    assert {"e", "é", "ж", "λ"} <= set(characters)
    assert "А" not in characters, "the Cyrillic А is the Latin one in these fonts"
    for font in sheets.unbind(dim=1):
        assert len({drawn.numpy().tobytes() for drawn in font}) == len(characters)
    assert (sheets.flatten(2).amax(dim=2) == 255).float().mean() > 0.9, "hardly any is empty or cut to nothing"


def test_no_character_touches_the_edge_of_its_sheet():
    sheets = glyphs.sheets()[0]
    rim = torch.ones(56, 56, dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    assert sheets[:, :, rim].amax() < 128


def test_every_font_is_drawn_about_as_often(small, monkeypatch):
    """Counted where the fonts are chosen, with distortions switched off."""
    drawn = []
    monkeypatch.setattr(glyphs, "distorted", lambda clean, *_: drawn.append(clean) or clean[:, None, :28, :28] / 255)
    glyphs._part.__wrapped__(5, 24, 1.0, 0)
    sheets, clean = glyphs.sheets()[0][:5].flatten(0, 1), torch.cat(drawn)
    which = [int((sheets == image).flatten(1).all(dim=1).nonzero()[0, 0]) for image in clean]
    assert np.bincount(which, minlength=60).tolist() == [2] * 60


def test_the_same_seed_draws_the_same_and_another_seed_others(small):
    glyphs._part.cache_clear()
    again, other = data.load("glyphs", "cpu", **SMALL), data.load("glyphs", "cpu", **SMALL, seed=1)
    for a, b in zip(small[:4], again[:4], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(small.x_train, other.x_train)


def test_what_a_caller_does_to_its_images_stays_there(small):
    mine = data.load("glyphs", "cpu", **SMALL)
    mine.x_train.zero_()
    assert torch.equal(data.load("glyphs", "cpu", **SMALL).x_train, small.x_train)


def test_the_callers_random_numbers_go_on():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    data.load("glyphs", "cpu", n_classes=5, n_train=13, n_test=2)
    assert torch.equal(torch.rand(1), expected)


def test_training_and_test_images_are_distorted_apart(small):
    train = {image.numpy().tobytes() for image in small.x_train}
    assert len(train) == len(small.x_train)
    assert not train & {image.numpy().tobytes() for image in small.x_test}


def test_without_strength_a_letter_is_its_sheet_at_half_the_size():
    clean = glyphs.sheets()[0][:4, 0]
    x = glyphs.distorted(clean, 0.0, torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(clean[:, None] / 255, 2)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)


def test_more_strength_moves_images_further_from_their_sheets():
    clean = glyphs.sheets()[0][:200, 0]
    still = glyphs.distorted(clean, 0.0, torch.Generator().manual_seed(0))
    moved = [glyphs.distorted(clean, s, torch.Generator().manual_seed(0)) for s in (0.25, 0.5, 1)]
    apart = [(x - still).abs().mean() for x in moved]
    assert 0 < apart[0] < apart[1] < apart[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_classes": 1}, "from 2 to the"),
        ({"n_classes": 10_000}, "characters there are, got 10000"),
        ({"n_train": 0}, "at least 1"),
        ({"n_test": 0}, "at least 1"),
        ({"strength": -1.0}, "strength"),
    ],
)
def test_what_makes_no_sense_is_said(options, said):
    with pytest.raises(ValueError, match=said):
        data.load("glyphs", **options)


def test_options_are_the_glyphs_own():
    with pytest.raises(TypeError, match=r"mnist has no setting .n_classes.; it has none"):
        data.load("mnist", n_classes=5)


def test_a_missing_font_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(glyphs, "FONTS", (*glyphs.FONTS, "DejaVuScript.ttf"))
    for call in (data.fetch, data.where):
        with pytest.raises(data.DataUnavailable, match=r"DejaVuScript\.ttf is not in .*reinstall matplotlib"):
            call("glyphs")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(data.DataUnavailable, match="not installed"):
        data.fetch("glyphs")


def test_the_files_are_matplotlibs_fonts():
    assert [path.name for path in data.fetch("glyphs")] == list(glyphs.FONTS) == list(data.where("glyphs"))


def test_matplotlib_is_found_and_not_imported():
    import subprocess
    import sys

    code = "import sys; from kdlab.data import glyphs; glyphs.load(3, 1, 1); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "PIL" in said.split() and "matplotlib" not in said.split()


# CIFAR-100: an archive of the same layout, made here


def archive(parts: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in parts.items():
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """Five and three images in the place of the real archive, in a mirror; the arrays."""
    import torchvision.datasets

    rng = np.random.default_rng(0)
    sets = [(rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 100, n).tolist()) for n in (5, 3)]
    parts = {
        name: pickle.dumps({"data": x, "fine_labels": y, "coarse_labels": [0] * len(y)}, protocol=2)
        for name, (x, y) in zip(("train", "test"), sets, strict=True)
    }
    parts["meta"] = pickle.dumps({"fine_label_names": [f"thing {i}" for i in range(100)]}, protocol=2)
    content = archive(parts)
    place = tmp_path / "mirror" / "cifar100" / torchvision.datasets.CIFAR100.filename
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", hashlib.md5(content).hexdigest())
    monkeypatch.setenv("KDLAB_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    return sets


def test_cifar100_is_read_as_torchvision_reads_it(tiny_cifar, tmp_path, monkeypatch):
    import torchvision.datasets

    dataset = data.load("cifar100", "cpu")
    assert dataset.x_train.shape == (5, 3, 32, 32) and dataset.x_test.shape == (3, 3, 32, 32)
    assert dataset.y_train.tolist() == tiny_cifar[0][1] and dataset.classes[99] == "thing 99"
    place = data.fetch("cifar100")[0]
    with tarfile.open(place) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_load_meta", lambda self: None)
    for train, x in ((True, dataset.x_train), (False, dataset.x_test)):
        theirs = torchvision.datasets.CIFAR100(tmp_path / "unpacked", train=train)
        np.testing.assert_allclose(theirs.data.transpose(0, 3, 1, 2) / 255, x.numpy(), atol=1e-6)


def test_a_cifar_archive_that_would_run_code_is_refused(tmp_path):
    class Bad:
        def __reduce__(self):
            return print, ("run",)

    place = tmp_path / "bad.tar.gz"
    place.write_bytes(archive({name: pickle.dumps({"data": Bad()}) for name in ("train", "test", "meta")}))
    with pytest.raises(pickle.UnpicklingError, match=r"holds arrays, and this one asks for builtins\.print"):
        cifar.read(place)


def test_cifar100_comes_from_torchvisions_address():
    (file,) = cifar.files()
    assert file.urls == ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",)
    assert file.hashes == ("md5:eb9058c3a382ffc7106e4002c42a8d85",)
