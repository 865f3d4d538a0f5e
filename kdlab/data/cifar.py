"""CIFAR-100 as torchvision has it: one archive, two pickles in it, each a flat row of 3072 bytes an image.

Read straight from the archive, so that nothing unpacked can be something else than what was checked.
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from .files import File


def files() -> tuple[File, ...]:
    """The archive, with torchvision's address and checksum."""
    from torchvision.datasets import CIFAR100

    return (File(CIFAR100.filename, "cifar100", (f"md5:{CIFAR100.tgz_md5}",), (CIFAR100.url,), folder="."),)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Train images (n, 3, 32, 32) uint8, their fine labels, test images, labels, and the hundred names."""
    from torchvision.datasets import CIFAR100

    with tarfile.open(path) as archive:
        train, test, meta = (_unpickled(archive, f"{CIFAR100.base_folder}/{it}") for it in ("train", "test", "meta"))
    arrays = [(part["data"].reshape(-1, 3, 32, 32), np.asarray(part["fine_labels"])) for part in (train, test)]
    return (*arrays[0], *arrays[1], tuple(meta["fine_label_names"]))


def _unpickled(archive: tarfile.TarFile, name: str) -> dict:
    file = archive.extractfile(name)
    if file is None:  # a folder or a link of that name
        raise KeyError(f"{name} is not a file in the archive")
    return _Plain(io.BytesIO(file.read()), encoding="latin1").load()


class _Plain(pickle.Unpickler):
    """Makes arrays and nothing else: a pickle could otherwise run any code."""

    def find_class(self, module: str, name: str):
        array = module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "_frombuffer")
        if array or (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a CIFAR archive holds arrays, and this one asks for {module}.{name}")
