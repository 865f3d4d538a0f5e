"""Named data sets as tensors, on the device, the whole set at once. None of the defaults needs a network."""

import difflib
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import disk, machine
from . import cifar, files, glyphs, idx, speech, texts
from .files import DataUnavailable, File
from .speech import Speech
from .tensors import digest, jitter, like_mnist, shift, subset, without
from .texts import Part, Texts

__all__ = [
    "DataUnavailable",
    "Dataset",
    "Part",
    "Speech",
    "Texts",
    "digest",
    "fetch",
    "jitter",
    "shift",
    "like_mnist",
    "load",
    "names",
    "subset",
    "where",
    "without",
]

# MNIST as packaged here: file → bytes, SHA-256.
_PACKAGED = {
    "train-images-idx3-ubyte.gz": (9_719_438, "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"),
    "train-labels-idx1-ubyte.gz": (28_857, "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"),
    "t10k-images-idx3-ubyte.gz": (1_616_508, "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"),
    "t10k-labels-idx1-ubyte.gz": (4_517, "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"),
}
# MNIST's home holds other .gz, which unpack to the same bytes: address and MD5s as in torchvision.datasets.MNIST.
_HOME = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_HOME_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_MNIST = tuple(
    File(name, "mnist", (f"sha256:{sha256}", f"md5:{_HOME_MD5[name]}"), (_HOME + name,), size)
    for name, (size, sha256) in _PACKAGED.items()
)
_SETTINGS = {
    "digits-speech": ("n_train", "n_test", "noise", "seed"),  # made here, to measure
    "glyphs": ("n_classes", "n_train", "n_test", "strength", "seed"),
}
_TORCHVISION = {"fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}  # name → class in torchvision.datasets
# Fashion-MNIST as in Debian's dataset-fashion-mnist: the home's files but for gzip's header. SHA-256.
_DEBIAN = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


class Dataset(NamedTuple):
    """x: (n, channels, height, width) float32 in [0, 1], mostly (n, 1, 28, 28); y: (n,) int64; classes[y[i]] is the
    name of case i's class."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """(x, y) to train on."""
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """(x, y) to test on."""
        return self.x_test, self.y_test


def names() -> list[str]:
    """The data sets that `load` knows."""
    return ["mnist", *_TORCHVISION, *_SETTINGS, "cifar100", "fsdd", "glosses", "sst2"]


def load(name: str = "mnist", device: str | torch.device | None = None, **settings) -> Dataset | Speech | Texts:
    """The data set `name` on `device` (default: `kdlab.machine.device()`).

    mnist and glosses are packaged with kdlab; glosses and sst2 are texts, which `kdlab.text` makes numbers of.
    digits-speech and glyphs are made here, to settings such as n_train (see
    `speech.synthesized`, `glyphs.load`). The others come from the cache, KDLAB_MIRROR or their homes; with Debian's
    package dataset-fashion-mnist, KDLAB_MIRROR=/usr/share/datasets is such a mirror.
    """
    place, paths = machine.device(device), fetch(name)
    if odd := set(settings) - set(known := _SETTINGS.get(name, ())):
        raise TypeError(f"{name} has no setting {odd.pop()!r}; it has {', '.join(known) or 'none'}")
    if name == "digits-speech":
        return speech.synthesized(place, **settings)
    if name == "fsdd":
        return speech.recorded(place, paths[0])
    if name in ("glosses", "sst2"):
        found = texts.glosses(paths[0]) if name == "glosses" else texts.sst2(paths)
        return Texts(*(part._replace(y=part.y.to(place)) for part in found[:3]), classes=found.classes)
    if name == "glyphs":
        *tensors, classes = glyphs.load(**settings)
        return Dataset(*(tensor.to(place) for tensor in tensors), classes)
    if name == "cifar100":
        *arrays, classes = cifar.read(paths[0])
    elif name == "mnist":
        arrays, classes = [idx.read(path) for path in paths], tuple("0123456789")
    else:
        arrays, classes = _by_torchvision(name, paths)
    x_train, y_train, x_test, y_test = arrays
    tensors = _images(x_train), _labels(y_train), _images(x_test), _labels(y_test)
    return Dataset(*(tensor.to(place) for tensor in tensors), classes)


def fetch(name: str) -> list[Path]:
    """Make sure that every file of `name` is on this machine and intact; return their paths."""
    return glyphs.paths() if name == "glyphs" else [files.find(file) for file in _files(name)]


def where(name: str) -> dict[str, str]:
    """File name → the path it would be read from, or the address it would be fetched from. Fetches nothing."""
    if name == "glyphs":
        return {path.name: str(path) for path in glyphs.paths()}
    return {file.name: files.locate(file) for file in _files(name)}


def _files(name: str) -> tuple[File, ...]:
    """The files of `name`: train images, train labels, test images, test labels."""
    if name not in names():
        near = difflib.get_close_matches(str(name).lower(), names(), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no data set is named {name!r}; there are {', '.join(names())}{hint}")
    if name in ("mnist", "fsdd", "glosses", *_SETTINGS):
        return {"mnist": _MNIST, "fsdd": (speech.FSDD,), "glosses": (texts.GLOSSES,)}.get(name, ())
    if name == "sst2":
        return texts.sst2_files()
    if name == "cifar100":
        return cifar.files()
    its, also = _class(name), _DEBIAN if name == "fashion-mnist" else {}
    return tuple(
        File(
            file,
            name,
            (f"md5:{md5}", *([f"sha256:{also[file]}"] if file in also else [])),
            tuple(home + file for home in its.mirrors),  # ty: ignore[missing-attribute]  (torchvision's)
            folder=f"{its.__name__}/raw",
        )
        for file, md5 in its.resources  # ty: ignore[missing-attribute]
    )


def _class(name: str) -> type:
    import torchvision.datasets

    return getattr(torchvision.datasets, _TORCHVISION[name])


def _by_torchvision(name: str, paths: list[Path]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """What torchvision's class reads from our cache. It believes any unpacked file, so those are compared first."""
    for path in paths:
        data, unpacked = gzip.decompress(path.read_bytes()), path.with_suffix("")
        if not unpacked.exists() or unpacked.read_bytes() != data:
            with files.writing(unpacked) as part:
                part.write_bytes(data)
    train, test = (_class(name)(disk.cache_dir(), train=train, download=False) for train in (True, False))
    return [t.numpy() for t in (train.data, train.targets, test.data, test.targets)], tuple(train.classes)


def _images(x: np.ndarray) -> Tensor:
    images = torch.from_numpy(np.divide(x, 255, dtype=np.float32))
    return images.unsqueeze(1) if images.dim() == 3 else images


def _labels(y: np.ndarray) -> Tensor:
    return torch.from_numpy(y.astype(np.int64))
