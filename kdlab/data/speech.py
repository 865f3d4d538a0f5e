"""Connected spoken digits as frames of sound, and the HMM state that each frame is in (Hinton et al. 2015, section 4).

`digits-speech` is spoken by espeak-ng in some 500 voices, in rooms and noise; `fsdd` are recordings of six people. As
in the paper a frame is 40 log-mel energies, 10 ms after the one before it; a net sees 26 of them and names the state of
the 21st.
"""

import functools
import io
import math
import re
import wave
import zipfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import machine
from . import files, hmm, voices

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTHS = (*(3 * sounds for sounds in (4, 3, 2, 3, 2, 3, 4, 5, 2, 3)), 1)  # states of each word; the last is silence
SILENCE = len(DIGITS)
WORD_OF_STATE = tuple(word for word, n in enumerate(LENGTHS) for _ in range(n))  # the word that each state belongs to
CLASSES = (*(f"{word} {i + 1}" for word, n in zip(DIGITS, LENGTHS, strict=False) for i in range(n)), "silence")
RATE = 8_000  # samples a second
HOP, WINDOW = 80, 200  # samples: 10 and 25 ms
BINS = 40  # mel filterbanks
BEFORE, AFTER = 20, 5  # frames of context around the one whose state is asked for
SPEAKERS = {
    "george": "train",
    "jackson": "train",
    "nicolas": "train",
    "lucas": "held out",
    "theo": "test",
    "yweweler": "test",
}  # of fsdd


class Utterance(NamedTuple):
    """What was said (numbers of DIGITS), by whom, in which frames of its part (from begin, before end), and its sound,
    int16, RATE samples a second."""

    words: tuple[int, ...]
    speaker: str
    begin: int
    end: int
    sound: np.ndarray


class Speech(NamedTuple):
    """Three parts by different speakers. x: (frames, 26, 40) float32, a view of overlapping windows; y: (frames,) int64
    numbers of `classes`; the utterances of each part follow one another along its frames."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    x_held_out: Tensor
    y_held_out: Tensor
    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    held_out: tuple[Utterance, ...]


Part = tuple[Tensor, Tensor, tuple[Utterance, ...]]  # frames (n, 40), states (n,), utterances


# ---- from sound to frames


def log_mel(sound: np.ndarray, rate: int) -> Tensor:
    """(frames, 40) log energies of `sound` (n,) in 40 mel bands from 0 to 4 kHz, each less its mean over the sound.

    Raises ValueError for another rate than 8,000 samples a second, for less than a frame, and for silence.
    """
    x = torch.from_numpy(np.array(sound, dtype=np.float64))  # double, which no autocast around us makes coarse
    if rate != RATE:
        raise ValueError(
            f"sound of {RATE:,} samples a second is wanted, got {rate:,}; "
            f"scipy.signal.resample_poly(sound, {RATE}, {rate}) makes it so"
        )
    if x.dim() != 1 or len(x) < WINDOW:
        raise ValueError(
            f"sound is one row (n,) of at least {WINDOW} samples, got {tuple(x.shape)}; "
            "of a stereo recording take one channel"
        )
    if not x.isfinite().all() or x.max() == x.min():
        raise ValueError("the recording is silent, or holds NaN, so nothing can be heard in it; was it muted?")
    x = x / x.abs().max()
    pieces = x.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    power = torch.fft.rfft(pieces, 512).abs().square()
    energies = (power @ _bands() + 1e-6).log()
    return (energies - energies.mean(dim=0)).float()


@functools.cache
def _bands() -> Tensor:
    """(257, 40): how much each frequency counts in each band; triangles of equal width on the mel scale."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BINS + 2, dtype=torch.float64) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = torch.linspace(0, RATE / 2, 257, dtype=torch.float64)[:, None]
    return torch.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)).clamp(min=0)


def windows(frames: Tensor) -> Tensor:
    """(n, 26, 40), a view: each frame of `frames` (n, 40) with the 20 before it and the 5 after it; nothing is copied.

    Hinton et al. 2015, section 4.
    """
    padded = torch.cat([frames[:1].expand(BEFORE, -1), frames, frames[-1:].expand(AFTER, -1)])
    return padded.unfold(0, BEFORE + 1 + AFTER, 1).transpose(1, 2)


def states(begins: Sequence[float], words: Sequence[int], digits: Sequence[int], n_frames: int) -> Tensor:
    """(frames,) the state of each frame, from the times of its sounds.

    begins: in samples, when each sound begins. words: the number of each sound's word in `digits`, -1 for a pause.
    A word's states divide its sounds evenly, three a sound where it has as many sounds as LENGTHS supposes.
    """
    begins, words, first = np.asarray(begins, dtype=float), np.asarray(words), hmm.starts(LENGTHS)
    times = np.arange(n_frames) * HOP + WINDOW / 2  # of the frames' middles
    path = np.full(n_frames, first[SILENCE])
    for place, digit in enumerate(digits):
        own = np.flatnonzero(words == place)
        edges = begins[own[0] : own[-1] + 2]
        inside = (edges[0] <= times) & (times < edges[-1])
        share = np.interp(times[inside], edges, np.linspace(0, 1, len(edges)))
        path[inside] = first[digit] + np.minimum((share * LENGTHS[digit]).astype(int), LENGTHS[digit] - 1)
    return torch.from_numpy(path)


def _part(
    sounds: list[np.ndarray], digits: list[tuple], speakers: list[str], frames: list[Tensor], paths: list[Tensor]
) -> Part:
    ends = list(accumulate(map(len, frames)))
    spans = zip(digits, speakers, [0, *ends], ends, sounds, strict=False)
    return torch.cat(frames), torch.cat(paths), tuple(Utterance(*each) for each in spans)


def _speech(parts: dict[str, Part], device: torch.device) -> Speech:
    """The data set of its three parts (frames, states, utterances), at one scale."""
    scale = parts["train"][0].std()
    (x_train, y_train, train), (x_test, y_test, test), (x_held_out, y_held_out, held_out) = (
        (windows((parts[name][0] / scale).to(device)), parts[name][1].to(device), parts[name][2])
        for name in ("train", "test", "held out")
    )
    return Speech(x_train, y_train, x_test, y_test, CLASSES, x_held_out, y_held_out, train, test, held_out)


# ---- digits-speech


@functools.lru_cache(maxsize=2)
def synthesized(
    device: torch.device, n_train: int = 400, n_test: int = 100, noise: float = 4.0, seed: int = 0
) -> Speech:
    """Digits spoken by espeak-ng: n_train utterances to learn from, n_test and as many held out.

    noise: how many dB the speech is above the noise, on average. 4 gives a plain net about the accuracy that the
    paper's has (chosen on the held-out part). No timbre of one part occurs in another. Made anew each time, some 5 ms
    an utterance.
    """
    if min(n_train, n_test) < 1:
        raise ValueError(f"n_train and n_test are numbers of utterances, at least 1, got {n_train} and {n_test}")
    timbres = np.random.default_rng(0).permutation(voices.TIMBRES)
    shared = {"train": timbres[:47], "test": timbres[47:59], "held out": timbres[59:]}
    sizes = {"train": n_train, "test": n_test, "held out": n_test}
    with machine.threads():
        parts = {name: _said(sizes[name], shared[name], noise, [seed, i]) for i, name in enumerate(sizes)}
    return _speech(parts, device)


def _said(n: int, timbres: Sequence[str], noise: float, seed: list[int]) -> Part:
    rng = np.random.default_rng(seed)
    digits = [tuple(rng.integers(0, 10, rng.integers(3, 7)).tolist()) for _ in range(n)]
    sentences = []
    for each in digits:
        speed, pitch, pause = int(rng.integers(130, 230)), int(rng.integers(25, 75)), str(rng.choice([" ", ", "]))
        voice = f"{rng.choice(voices.ACCENTS)}+{rng.choice(timbres)}"
        sentences.append(voices.Sentence([DIGITS[digit] for digit in each], voice, speed, pitch, pause))
    sounds, frames, paths = [], [], []
    for number, (each, said) in enumerate(zip(digits, voices.spoken(sentences), strict=True)):
        sound, begins = _recorded(said, noise, np.random.default_rng([*seed, number]))
        sounds.append(sound)
        frames.append(log_mel(sound, RATE))
        paths.append(states(begins, said.word, each, len(frames[-1])))
    return _part(sounds, digits, [one.voice for one in sentences], frames, paths)


def _recorded(said: voices.Said, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a microphone in a noisy room hears of it, int16 at RATE, and when each sound begins there, in samples."""
    from scipy.signal import fftconvolve, lfilter, resample_poly

    before, after = rng.integers(voices.RATE // 20, voices.RATE // 5, 2)
    dry = np.pad(said.sound[: said.begins[-2]] / 2**15, (before, after))  # the last two sounds are one long pause
    dry = resample_poly(dry, RATE, voices.RATE)
    seconds, share = rng.uniform(0.1, 0.5), rng.uniform(0.2, 1.0)  # until the echo is 60 dB down; its energy
    time = np.arange(int(seconds * RATE)) / RATE
    echo = rng.standard_normal(len(time)) * np.exp(-6.9 * time / seconds)
    wet = dry + fftconvolve(dry, echo * math.sqrt(share / (echo**2).sum()))[: len(dry)]
    hiss = lfilter([1], [1, -rng.uniform(0, 0.95)], rng.standard_normal(len(wet)))  # from white to brown
    level = noise + rng.normal(0, 4)
    wet += hiss * wet.std() / hiss.std() * 10 ** (-level / 20)
    return (wet / np.abs(wet).max() * 30_000).astype(np.int16), (said.begins + before) * RATE / voices.RATE


# ---- fsdd

FSDD = files.File(
    "recordings.zip",
    "fsdd",
    (
        "sha256:0453ec83c745f981c6a3a9531e72a11445e7c7f97c24bf6b54bb05acf74528f0",
        "members:6b1a8e30f4df78a933fe25cf1ca0140c8c6f169c0a83649a15b70a5ae7407014",
    ),
    ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip",),
    16_215_880,
)


@functools.lru_cache(maxsize=1)
def recorded(device: torch.device, path: Path, seed: int = 0) -> Speech:
    """The recordings of `fsdd`, three to six of one person after each other: 3 people to learn from, 2 to test, 1 held
    out. Which frame is in which state is found by `aligned`, each person by themselves.
    """
    parts = {name: ([], [], [], [], []) for name in ("train", "test", "held out")}
    with machine.threads():
        for speaker, recordings in _recordings(path).items():
            rng = np.random.default_rng([seed, *speaker.encode()])
            paths = aligned([log_mel(sound, RATE) for _, sound in recordings], [digit for digit, _ in recordings])
            order = rng.permutation(len(recordings))
            while len(order):
                some, order = np.split(order, [rng.integers(3, 7)])
                sound, states = _connected([recordings[i][1] for i in some], [paths[i] for i in some], rng)
                made = sound, tuple(recordings[i][0] for i in some), speaker, log_mel(sound, RATE), states
                for kept, one in zip(parts[SPEAKERS[speaker]], made, strict=True):
                    kept.append(one)
    return _speech({name: _part(*each) for name, each in parts.items()}, device)


def _recordings(path: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """By speaker: (digit, sound) of each recording in the archive, in the order of their names."""
    found = {speaker: [] for speaker in SPEAKERS}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if match := re.search(r"(\d)_([a-z]+)_\d+\.wav$", name):
                with wave.open(io.BytesIO(archive.read(name))) as opened:
                    sound = np.frombuffer(opened.readframes(opened.getnframes()), dtype="<i2")
                    log_mel(sound, opened.getframerate())  # raises for what cannot be used
                found[match[2]].append((int(match[1]), sound))
    return found


def aligned(frames: Sequence[Tensor], digits: Sequence[int], rounds: int = 6) -> list[Tensor]:
    """The state of each frame of recordings of one digit each, found from the recordings alone (forced alignment).

    frames: (n, 40) of each. To begin with, a word's states share its frames evenly; then, in turn, each state's
    Gaussian is fitted to its frames, and each recording's best path is found anew.
    """
    first = hmm.starts(LENGTHS)
    chains = [[first[SILENCE], *range(first[digit], first[digit] + LENGTHS[digit]), first[SILENCE]] for digit in digits]
    chains = [
        chain if len(each) + 2 >= len(chain) else _every_other(chain, len(each))
        for chain, each in zip(chains, frames, strict=True)
    ]
    paths = [
        torch.tensor(chain)[torch.linspace(0, len(chain) - 0.01, len(each)).long()]
        for chain, each in zip(chains, frames, strict=True)
    ]
    for _ in range(rounds):
        mean, deviation = _gaussians(torch.cat(list(frames)), torch.cat(paths))
        scores = [torch.distributions.Normal(mean, deviation).log_prob(each[:, None]).sum(dim=2) for each in frames]
        paths = hmm.align(scores, chains)
    return paths


def _every_other(chain: list[int], n: int) -> list[int]:
    """A chain thinned to `n` places, for a word said faster than one frame a state."""
    return [chain[i] for i in torch.linspace(0, len(chain) - 1, max(n, 3)).round().long().tolist()]


def _gaussians(frames: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n_states, 40) of the frames in each state; of all frames where a state has few."""
    mean, deviation = frames.mean(dim=0).repeat(len(CLASSES), 1), frames.std(dim=0).repeat(len(CLASSES), 1)
    for state in states.unique().tolist():
        own = frames[states == state]
        if len(own) >= 10:
            mean[state], deviation[state] = own.mean(dim=0), own.std(dim=0).clamp(min=0.3)
    return mean, deviation


def _connected(sounds: list[np.ndarray], paths: list[Tensor], rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """Recordings after each other with pauses between, as one sound, and its frames' states."""
    silence = hmm.starts(LENGTHS)[SILENCE]
    pieces, states = [], []
    for sound, path in zip(sounds, paths, strict=True):
        pause, whole = HOP * rng.integers(3, 20), HOP * -(-len(sound) // HOP)
        pieces.append(np.pad(sound.astype(float), (pause, whole - len(sound))))
        states.append(torch.full(((pause + whole) // HOP,), silence))
        states[-1][pause // HOP : pause // HOP + len(path)] = path
    sound, states = np.concatenate(pieces), torch.cat(states)
    sound += rng.standard_normal(len(sound)) * 1e-3 * np.abs(sound).max()
    return (sound / np.abs(sound).max() * 30_000).astype(np.int16), states[: (len(sound) - WINDOW) // HOP + 1]
