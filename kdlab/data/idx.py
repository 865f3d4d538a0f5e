"""The IDX format of MNIST and its kin."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np


def read(path: str | Path) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file, read-only.

    Unpacked: 0, 0, 8 (unsigned byte), the number of dimensions; each dimension as a big-endian uint32; the values.
    """
    packed = Path(path).read_bytes()
    size = int.from_bytes(packed[-4:], "little")  # gzip's own note of it: one allocation instead of dozens
    try:
        data = zlib.decompress(packed, wbits=31, bufsize=max(size, 1))
    except zlib.error as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); was it cut off, or unpacked already?") from None
    start = 4 + 4 * data[3] if len(data) > 3 else 0
    shape = struct.unpack_from(f">{data[3]}I", data, 4) if 4 < start <= len(data) else ()
    if data[:3] != b"\0\0\x08" or not shape or len(data) != start + math.prod(shape):
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes: {len(data):,} bytes, the first {data[:4].hex(' ')}; wanted "
            "00 00 08, the number of dimensions, their sizes and as many values. Is it another format, or cut off?"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
