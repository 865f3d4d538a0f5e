"""Voices that read digits aloud: espeak-ng, through its C interface, with the time of each sound.

espeak-ng's voice has a state of its own, which each word moves on; so only a process that has said nothing yet always
says the same. `spoken` therefore sends its sentences to such processes: this file, run as a program.
"""

import ctypes
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, c_char_p, c_int, c_short, c_uint, c_void_p
from typing import NamedTuple

import numpy as np

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
TIMBRES = (
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "klatt",
    "klatt2",
    "klatt3",
    "klatt4",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "Denis",
    "Diogo",
    "Gene",
    "Henrique",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mario",
    "Michael",
    "Mike",
    "Nguyen",
    "Reed",
    "adam",
    "anika",
    "announcer",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "ed",
    "edward",
    "grandma",
    "grandpa",
    "gustave",
    "ian",
    "iven",
    "john",
    "linda",
    "marcelo",
    "max",
    "michel",
    "miguel",
    "norbert",
    "pablo",
    "paul",
    "pedro",
    "quincy",
    "rob",
    "robert",
    "sandro",
    "shelby",
    "steph",
    "travis",
    "victor",
    "zac",
)
RATE = 22_050  # samples a second
A_PROCESS = 400  # sentences that one process says
_END, _PHONEME, _TO_US, _WITH_PHONEMES, _UTF8, _SPEED, _PITCH = 0, 7, 2, 1, 1, 1, 3  # of espeak's speak_lib.h


class Sentence(NamedTuple):
    """What to say and how: words, a voice such as "en-us+f3", words a minute, pitch (0 to 100), what parts the words
    (", " makes pauses)."""

    words: Sequence[str]
    voice: str = "en-us"
    speed: int = 170
    pitch: int = 50
    pause: str = " "


class Said(NamedTuple):
    """sound: (n,) int16, RATE samples a second. begins, word: (sounds,) the sample at which each sound begins, and the
    number of its word, -1 for a pause."""

    sound: np.ndarray
    begins: np.ndarray
    word: np.ndarray


def spoken(sentences: Sequence[Sentence]) -> list[Said]:
    """Every sentence said aloud: the same sound each time, on one machine and version of espeak-ng.

    Raises ModuleNotFoundError or RuntimeError where espeak-ng is missing or does not start, ValueError for a voice that
    it lacks.
    """
    parts = [sentences[i : i + A_PROCESS] for i in range(0, len(sentences), A_PROCESS)]
    with ThreadPoolExecutor(2) as pool:
        return [said for part in pool.map(_in_a_process, parts) for said in part]


def _in_a_process(sentences: Sequence[Sentence]) -> list[Said]:
    done = subprocess.run([sys.executable, "-P", __file__], input=json.dumps(sentences).encode(), capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        kind, _, what = said[-1].partition(": ")
        known = {"ModuleNotFoundError": ModuleNotFoundError, "ValueError": ValueError}
        raise known.get(kind, RuntimeError)(what if kind in known else f"espeak-ng failed: {said[-1]}")
    parts = np.load(io.BytesIO(done.stdout))
    samples, sounds = (np.cumsum(parts[name])[:-1] for name in ("samples", "sounds"))
    each = np.split(parts["sound"], samples), np.split(parts["begins"], sounds), np.split(parts["word"], sounds)
    return [Said(*one) for one in zip(*each, strict=True)]


# ---- what the process does


class _Id(ctypes.Union):
    _fields_ = [("number", c_int), ("name", c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", c_int),
        ("unique", c_uint),
        ("text", c_int),
        ("length", c_int),
        ("ms", c_int),
        ("sample", c_int),
        ("user", c_void_p),
        ("id", _Id),
    ]


_HEARD = ctypes.CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(_Event))


class _Espeak:
    """The synthesizer, and what it has said since it was last asked."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError:
            raise ModuleNotFoundError(
                "the data set digits-speech of notebooks 06 and 08 is spoken by espeak-ng, which is not installed "
                "here. `pip install 'kdlab[speech]'` installs it (in a checkout: pip install -e '.[speech]'). It is an "
                "extra because it is under GPL-3.0-or-later; all other notebooks run without it"
            ) from None
        self.library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        folder = str(espeakng_loader.get_data_path())
        rate = self.library.espeak_Initialize(_TO_US, 500, folder.encode(), _WITH_PHONEMES)
        if rate != RATE:
            raise RuntimeError(
                f"it gave a rate of {rate} with its data in {folder}; "
                "`pip install --force-reinstall espeakng-loader` may mend it"
            )
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self.waves, self.sounds = [], []
        self.callback = _HEARD(self.hear)  # kept, so that it lives as long as the library may call it
        self.library.espeak_SetSynthCallback(self.callback)

    def hear(self, wave, n, events) -> int:
        if wave and n > 0:
            self.waves.append(np.ctypeslib.as_array(wave, (n,)).copy())
        i = 0
        while events[i].type != _END:
            if events[i].type == _PHONEME:
                self.sounds.append((events[i].sample, events[i].text, events[i].id.string))
            i += 1
        return 0

    def say(self, words: list[str], voice: str, speed: int, pitch: int, pause: str) -> Said:
        self.waves, self.sounds, text = [], [], pause.join(words)
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}; it is an accent and a timbre, such as 'en-us+f3'")
        self.library.espeak_SetParameter(_SPEED, speed, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        self.library.espeak_Synth(text.encode(), len(text) + 1, 0, 1, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        letters = np.cumsum([1, *(len(word) + len(pause) for word in words[:-1])])  # where words begin, from 1
        begins = np.array([sample for sample, _, _ in self.sounds])
        word = [
            -1 if name.startswith(b"_") else int(np.searchsorted(letters, at, "right")) - 1
            for _, at, name in self.sounds
        ]
        return Said(np.concatenate(self.waves), begins, np.array(word))


def _main() -> None:
    espeak = _Espeak()
    said = [espeak.say(*sentence) for sentence in json.load(sys.stdin)]
    together = {name: np.concatenate([getattr(one, name) for one in said]) for name in Said._fields}
    together["samples"] = np.array([len(one.sound) for one in said])
    together["sounds"] = np.array([len(one.word) for one in said])
    np.savez(sys.stdout.buffer, **together)  # ty: ignore[invalid-argument-type]  (no array is called allow_pickle)


if __name__ == "__main__":
    _main()
