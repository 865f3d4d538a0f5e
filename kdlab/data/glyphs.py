"""Hundreds of characters that look alike, rendered from the fonts that matplotlib ships and then distorted.

The stand-in for the paper's JFT: many classes, in families (e, é, ê, ë, є, ε) that a net confuses among themselves.
"""

import functools
import importlib.util
import unicodedata
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import machine
from ..randomness import mix
from .files import DataUnavailable

SIDE, SHEET, POINTS = 28, 56, 34  # pixels of an image, of a clean rendering; size of the font there
SCRIPTS = ((0x41, 0x17F), (0x370, 0x3FF), (0x400, 0x52F))  # Latin with accents, Greek, Cyrillic
FONTS = tuple(
    f"DejaVu{family}{cut}.ttf"
    for family, leaning in (("Sans", "Oblique"), ("Serif", "Italic"), ("SansMono", "Oblique"))
    for cut in ("", "-Bold", f"-{leaning}", f"-Bold{leaning}")
)
CHUNK = 4096  # images distorted at once


def load(
    n_classes: int = 300, n_train: int = 200, n_test: int = 20, strength: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[str, ...]]:
    """x_train, y_train, x_test, y_test and the characters; images (n, 1, 28, 28) float32 in [0, 1], shuffled.

    n_classes: the first so many of the characters, Latin before Greek before Cyrillic. n_train, n_test: images of
    each, every font among them as often, every image distorted in its own way; none is in both.
    strength: of the distortions; 0 leaves the clean letters. seed: of the distortions.
    """
    characters = sheets()[1]
    if not 2 <= n_classes <= len(characters):
        raise ValueError(f"n_classes must be from 2 to the {len(characters)} characters there are, got {n_classes}")
    if n_train < 1 or n_test < 1 or strength < 0:
        raise ValueError(
            "n_train and n_test are images a class, at least 1, and strength is at least 0; got "
            f"{n_train}, {n_test} and {strength}"
        )
    parts = [_part(n_classes, n, float(strength), mix(seed, part)) for part, n in enumerate((n_train, n_test))]
    return (*(tensor.clone() for part in parts for tensor in part), characters[:n_classes])  # ty: ignore[invalid-explicit-return]  (four tensors)


@functools.lru_cache(maxsize=2)  # the two parts of the set in use: jobs in one process ask for the same again and again
def _part(n_classes: int, n: int, strength: float, seed: int) -> tuple[Tensor, Tensor]:
    clean, rng = sheets()[0], torch.Generator().manual_seed(seed)
    case = torch.randperm(n_classes * n, generator=rng)
    y = case % n_classes
    font = (case // n_classes + y) % len(FONTS)
    with machine.threads():
        parts = [distorted(clean[y[i], font[i]], strength, rng) for i in torch.arange(len(y)).split(CHUNK)]
    return torch.cat(parts), y


@functools.cache
def sheets() -> tuple[Tensor, tuple[str, ...]]:
    """Clean renderings (characters, fonts, 56, 56) uint8, and the characters: letters that every font has, and of
    those that look the same in some font only the first."""
    fonts, kept, seen = _fonts(), {}, [set() for _ in FONTS]
    missing = [_drawn(font, "\uffff") for font in fonts]
    for character in (chr(code) for first, last in SCRIPTS for code in range(first, last + 1)):
        if unicodedata.category(character)[0] != "L":
            continue
        drawn = [_drawn(font, character) for font in fonts]
        taken = any(one == gap or one in others for one, gap, others in zip(drawn, missing, seen, strict=True))
        if not taken:
            kept[character] = drawn
            for one, others in zip(drawn, seen, strict=True):
                others.add(one)
    pixels = np.frombuffer(b"".join(b"".join(drawn) for drawn in kept.values()), dtype=np.uint8)
    return torch.from_numpy(pixels.reshape(-1, len(FONTS), SHEET, SHEET).copy()), tuple(kept)


def paths() -> list[Path]:
    """The font files, all there. Raises DataUnavailable where one is not."""
    found = importlib.util.find_spec("matplotlib")  # found, not imported
    folder = (
        Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
        if found and found.origin
        else Path("matplotlib (not installed)")
    )
    if gone := [name for name in FONTS if not (folder / name).is_file()]:
        raise DataUnavailable(
            f"the font {gone[0]} is not in {folder}, where matplotlib keeps it; glyphs are rendered "
            "from it: reinstall matplotlib (pip install --force-reinstall matplotlib)"
        )
    return [folder / name for name in FONTS]


def _fonts() -> list:
    from PIL import ImageFont

    return [ImageFont.truetype(str(path), POINTS) for path in paths()]


def _drawn(font, character: str) -> bytes:
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (SHEET, SHEET))
    ImageDraw.Draw(sheet).text((SHEET / 2, 0.72 * SHEET), character, font=font, fill=255, anchor="ms")
    return sheet.tobytes()


def distorted(clean: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Clean sheets (n, 56, 56) uint8 as images (n, 1, 28, 28): turned, sheared, sized, moved, warped; the ink thicker
    or thinner, blurred and noisy."""
    n = len(clean)

    def draw(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=rng).clamp(-2, 2) * strength

    angle, shear, size = 0.14 * draw(), 0.10 * draw(), torch.exp(0.09 * draw(2))
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([torch.stack([cos, shear - sin], 1), torch.stack([sin, cos], 1)], 1) * size[:, None]
    grid = F.affine_grid(torch.cat([rows, 0.08 * draw(2, 1)], 2), [n, 1, SIDE, SIDE], align_corners=False)
    warp = F.interpolate(0.047 * draw(2, 5, 5), size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    x = F.grid_sample(clean[:, None] / 255, grid + warp.permute(0, 2, 3, 1), align_corners=False)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1)
    x = torch.lerp(x, soft, (0.43 * draw(1, 1, 1).abs()).clamp(max=1))  # out of focus
    x = x.clamp(1e-6, 1) ** torch.exp(0.38 * draw(1, 1, 1))  # thicker or thinner
    return (x + 0.085 * draw(1, SIDE, SIDE)).clamp(0, 1)
