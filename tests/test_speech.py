"""Spoken digits: the sound, its frames and their states, made by espeak-ng or recorded."""

import itertools
import subprocess
import sys
import wave
import zipfile

import numpy as np
import pytest
import torch

from kdlab import data
from kdlab.data import files, hmm, speech, voices


@pytest.fixture(scope="module")
def small():
    return data.load("digits-speech", "cpu", n_train=30, n_test=10)


def tone(hertz, seconds=0.5, rate=8_000):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def test_a_tone_lights_the_band_of_its_frequency():
    """Mel (O'Shaughnessy 1987): 1000 Hz is 1000 mel, and 40 bands divide the 2146 mel to 4 kHz evenly."""
    for hertz in (250, 1000, 3000):
        sound = np.concatenate([np.zeros(4000), tone(hertz)])
        frames = speech.log_mel(sound, 8_000)
        mel = 2595 * np.log10(1 + hertz / 700)
        assert abs(int(frames[-1].argmax()) - (mel / (2146.1 / 41) - 1)) <= 1
    assert round(2595 * np.log10(1 + 1000 / 700)) == 1000


def test_frames_are_10_ms_apart_and_twice_as_loud_is_the_same():
    sound = np.random.default_rng(0).standard_normal(8_000)
    frames = speech.log_mel(sound, 8_000)
    assert frames.shape == (1 + (8_000 - 200) // 80, 40)
    torch.testing.assert_close(speech.log_mel(2 * sound, 8_000), frames)
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(40), atol=1e-5, rtol=0)


def test_the_energies_of_one_frame_by_hand():
    sound = np.random.default_rng(1).standard_normal(280)
    loud = sound / np.abs(sound).max()
    energies = []
    for start in (0, 80):
        piece = loud[start : start + 200] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200))
        power = np.abs(np.fft.rfft(piece, 512)) ** 2
        edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
        hertz = np.linspace(0, 4000, 257)
        bands = [np.interp(hertz, edges[b : b + 3], [0, 1, 0], left=0, right=0) for b in range(40)]
        energies.append(np.log(np.array(bands) @ power + 1e-6))
    energies = np.array(energies)
    torch.testing.assert_close(
        speech.log_mel(sound, 8_000).double(), torch.tensor(energies - energies.mean(axis=0)), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("sound", "rate", "said"),
    [
        (tone(440, rate=16_000), 16_000, r"8,000 samples a second is wanted, got 16,000; .*resample_poly"),
        (np.zeros(8_000), 8_000, "silent"),
        (np.full(8_000, 0.3), 8_000, "silent"),
        (np.array([np.nan] * 800), 8_000, "NaN"),
        (np.zeros((8_000, 2)), 8_000, "one channel"),
        (tone(440, 0.01), 8_000, "at least 200 samples"),
    ],
)
def test_sound_that_cannot_be_used_is_named(sound, rate, said):
    with pytest.raises(ValueError, match=said):
        speech.log_mel(sound, rate)


def test_a_window_is_a_frame_with_20_before_it_and_5_after():
    frames = torch.arange(80.0).view(40, 2)
    x = speech.windows(frames)
    assert x.shape == (40, 26, 2)
    assert torch.equal(x[25], frames[5:31]) and torch.equal(x[25][20], frames[25])
    assert torch.equal(x[0][:21], frames[:1].expand(21, 2)) and torch.equal(x[39][20:], frames[-1:].expand(6, 2))
    assert x.untyped_storage().nbytes() == 65 * 2 * 4, "nothing is copied"


def test_states_divide_a_words_sounds_evenly_in_order():
    begins = np.array([0, 800, 2400, 4000, 8000])  # pause, "two" in two sounds, pause
    path = speech.states(begins, [-1, 0, 0, -1, -1], [2], 100)
    first = hmm.starts(speech.LENGTHS)[2]
    middles = np.arange(100) * 80 + 100
    said = [first + min(int(6 * (t - 800) / 3200), 5) if 800 <= t < 4000 else 93 for t in middles]
    assert path.tolist() == said  # both sounds last equally long: sixths of the word
    uneven = speech.states(np.array([0, 800, 3200, 4000, 8000]), [-1, 0, 0, -1, -1], [2], 100)
    assert (uneven == first).sum() > 2 * (uneven == first + 5).sum()  # the longer sound, the longer its states


def test_the_corpus_is_made_of_whole_utterances_in_order(small):
    assert len(small.classes) == 94 and len(small.train) == 30 and len(small.test) == len(small.held_out) == 10
    for x, y, utterances in ((small.x_train, small.y_train, small.train), (small.x_test, small.y_test, small.test)):
        assert x.shape[1:] == (26, 40) and len(x) == len(y) == utterances[-1].end
        assert all(a.end == b.begin for a, b in itertools.pairwise(utterances))
        for each in utterances:
            assert words_of(y[each.begin : each.end]) == list(each.words)
            assert each.end - each.begin == 1 + (len(each.sound) - 200) // 80


def words_of(path):
    """The words of a path: each word begins with its first state."""
    first = {state: word for word, state in enumerate(hmm.starts(speech.LENGTHS)[:-1])}
    return [first[state] for state in path.unique_consecutive().tolist() if state in first]


def test_no_speaker_of_one_part_speaks_in_another(small):
    timbres = [{each.speaker.split("+")[1] for each in part} for part in (small.train, small.test, small.held_out)]
    assert not (timbres[0] & timbres[1] or timbres[0] & timbres[2] or timbres[1] & timbres[2])
    assert min(map(len, timbres)) > 5


def test_the_same_settings_make_the_same_corpus_in_another_process(small):
    code = (
        "from kdlab import data; d = data.load('digits-speech', 'cpu', n_train=30, n_test=10); "
        "print(data.digest(d), d.test[-1].sound[::50].sum())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert said == [data.digest(small), str(small.test[-1].sound[::50].sum())]
    other = speech.synthesized(torch.device("cpu"), 30, 10, seed=1)
    assert data.digest(other) != data.digest(small)


def test_states_are_where_the_sound_is():
    """Independent of how the labels were made: a Gaussian a state, fitted to them, tells the words of new speakers, and
    no longer does once the labels are moved by a third of a second."""
    quiet = speech.synthesized(torch.device("cpu"), 60, 10, noise=40.0)
    middle, words = quiet.x_train[:, 20], torch.tensor([w for w, n in enumerate(speech.LENGTHS) for _ in range(n)])

    def told(by):
        mean, deviation = speech._gaussians(middle, quiet.y_train.roll(by))
        normal = torch.distributions.Normal(mean, deviation)
        guess = torch.stack([normal.log_prob(x).sum(dim=1).argmax() for x in quiet.x_test[:, 20]])
        return (words[guess] == words[quiet.y_test]).float().mean().item()

    assert told(0) > 0.35 and told(0) > told(30) + 0.15


def test_more_noise_is_noisier():
    quiet, loud = (speech.synthesized(torch.device("cpu"), 2, 2, noise) for noise in (40.0, -10.0))
    rough = [(d.x_train[1:, 20] - d.x_train[:-1, 20]).std() / d.x_train[:, 20].std() for d in (quiet, loud)]
    assert rough[1] > 1.3 * rough[0]


def test_a_missing_espeak_and_a_voice_it_lacks_are_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no voice 'xx\\+m1'"):
        voices.spoken([voices.Sentence(["one"], "xx+m1")])
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        ModuleNotFoundError, match=r"notebooks 06 and 08.*pip install 'kdlab\[speech\]'.*GPL-3\.0-or-later"
    ):
        voices.spoken([voices.Sentence(["one"])])
    (tmp_path / "espeakng_loader.py").write_text(
        "def get_library_path(): return '/nowhere/libespeak.so'\ndef get_data_path(): return '/nowhere'"
    )
    with pytest.raises(RuntimeError, match="espeak-ng failed: OSError.*libespeak"):
        voices.spoken([voices.Sentence(["one"])])


def test_settings_it_does_not_have_are_refused():
    with pytest.raises(TypeError, match="digits-speech has no setting 'n'; it has n_train"):
        data.load("digits-speech", n=3)
    with pytest.raises(TypeError, match="mnist has no setting 'n_train'; it has none"):
        data.load("mnist", n_train=3)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        data.load("digits-speech", n_train=0)


# ---- fsdd: a made-up archive of the same layout


def digit_sound(digit, rng, rate=8_000):
    """A rise and a fall of two tones that belong to the digit, in faint noise."""
    parts = [np.zeros(400), tone(300 + 250 * digit, 0.12, rate), tone(3500 - 250 * digit, 0.12, rate), np.zeros(400)]
    sound = np.concatenate(parts)
    return (8_000 * (sound + 0.01 * rng.standard_normal(len(sound)))).astype("<i2")


def archive(path, rate=8_000):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as packed:
        for speaker in speech.SPEAKERS:
            for digit in range(10):
                for take in range(6):
                    with (
                        packed.open(f"some-folder/recordings/{digit}_{speaker}_{take}.wav", "w") as file,
                        wave.open(file, "wb") as sound,
                    ):
                        sound.setparams((1, 2, rate, 0, "NONE", ""))
                        sound.writeframes(digit_sound(digit, rng).tobytes())
    return path


@pytest.fixture
def fsdd(tmp_path, monkeypatch):
    (tmp_path / "fsdd").mkdir()
    path = archive(tmp_path / "fsdd" / "recordings.zip")
    known = speech.FSDD._replace(hashes=(files._digest(path, "members"),), urls=())
    monkeypatch.setattr(speech, "FSDD", known)
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    return path


def test_recordings_become_utterances_of_one_person_whose_states_were_found(fsdd):
    d = data.load("fsdd", "cpu")
    assert {each.speaker for each in d.test} == {"theo", "yweweler"} and len(d.train) >= 30
    assert sum(len(each.words) for each in d.train) == 180 and all(len(each.words) <= 6 for each in d.train)
    for each in d.test:
        path = d.y_test[each.begin : each.end]
        assert words_of(path) == list(each.words)
    first = hmm.starts(speech.LENGTHS)
    one = d.test[0]
    inside = (d.y_test[one.begin : one.end] != first[-1]).float().mean()
    loud = np.abs(one.sound[: 80 * (one.end - one.begin)].reshape(-1, 80)).max(axis=1) > 3_000
    assert abs(inside - loud.mean()) < 0.12, "silence is where nothing sounds"


def test_an_archive_packed_otherwise_is_the_same_and_a_damaged_one_is_not(fsdd, tmp_path):
    digest = files._digest(fsdd, "members")
    with zipfile.ZipFile(fsdd) as old, zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for name in reversed(old.namelist()):
            new.writestr(name.removeprefix("some-folder/"), old.read(name))
    assert files._digest(tmp_path / "other.zip", "members") == digest
    whole = fsdd.read_bytes()
    for broken in (whole[:-50], whole[:9000] + b"?" + whole[9001:], b"<html>not found</html>"):
        fsdd.write_bytes(broken)
        with pytest.raises(data.DataUnavailable, match=r"recordings\.zip of fsdd"):
            data.load("fsdd", "cpu")


def test_a_recording_at_another_rate_is_refused(tmp_path):
    path = archive(tmp_path / "fast.zip", rate=16_000)
    with pytest.raises(ValueError, match="got 16,000"):
        speech.recorded(torch.device("cpu"), path)
