"""Every claim of Hinton, Vinyals & Dean (2015, arXiv:1503.02531) and of a post on compressing BERT, what would confirm
it, and what we measured.

A notebook says what it measured by `record("teacher", [64, 66, 61], ...)`, one value a seed; `judged()` sets the
records beside the claims. A verdict is computed from them by `verdict`, never written by hand.
"""

import json
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from kdlab import machine, store

PROFILES = ["smoke", "own", "full"]  # by size: a larger one's record is never overwritten by a smaller one's
Range = tuple[float, float]
MORE, UP_TO_1, UP_TO_100 = math.inf, 1.0, 100.0


class Claim(NamedTuple):
    """One sentence of the paper or the post, in our words, and the ranges of our mean that confirm it or partly do.

    section: of the paper, or the way of compressing BERT. value: the source's number; None where it gives none.
    confirmed: None where the number belongs to data that no one else has, and ours can only be set beside it.
    """

    id: str
    section: str
    says: str
    value: float | None
    unit: str
    confirmed: Range | None = None
    partly: Range | None = None


def _few(errors: float, partly: float) -> dict[str, Range]:
    """At most so many errors, give or take the standard deviation of a count of that size."""
    return {"confirmed": (0, math.floor(errors + math.sqrt(errors))), "partly": (0, partly)}


_GAINS = {0: 0.0, 1: 3.4, 2: 7.4, 3: 8.8, 4: 10.5, 5: 11.1, 6: 11.3, 7: 12.8, 8: 13.6, 9: 16.6, 10: 14.1}  # table 4
_COUNTS = {1: "1 specialist covers", 10: "ten or more specialists cover"}
_ERRORS, _ACCURACY, _SHARE = "test errors of 10,000", "frame accuracy, per cent", "per cent of the gain"

HINTON = [
    Claim("gradient-slope", "2", "the soft targets' gradient shrinks as 1/T²", -2.0,
          "slope on logarithmic axes, T from 20 to 100", (-2.1, -1.9), (-2.3, -1.7)),
    Claim("low-label-weight", "2", "the labels' term wants a considerably lower weight than the soft targets'", None,
          "alpha that errs least", (0.6, UP_TO_1), (0.5, UP_TO_1)),
    Claim("hot-limit", "2.1", "at high temperatures distilling is matching logits", 0.0,
          "relative distance of the gradients at T = 1000", (0, 0.01), (0, 0.05)),
    Claim("teacher", "3", "two layers of 1200 units with dropout and jittered images", 67, _ERRORS, **_few(67, 90)),
    Claim("student-alone", "3", "two layers of 800 units without regularisation", 146, _ERRORS, (131, 161), (110, 182)),
    Claim("student-distilled", "3", "the same student from soft targets at T = 20, on images that never move", 74,
          _ERRORS, **_few(74, 110)),
    Claim("gap-closed", "3", "soft targets carry the teacher's knowledge of moved images over",
          100 * (146 - 74) / (146 - 67), "per cent of the gap between student and teacher", (80, MORE), (50, MORE)),
    Claim("wide-any-T", "3", "with 300 units or more a layer every T above 8 gives about the same", None,
          "most over fewest mean errors, T > 8", (1, 1.1), (1, 1.25)),
    Claim("narrow-best-T", "3", "with 30 units a layer T from 2.5 to 4 is best", None, "best T", (2.5, 4), (2, 6)),
    Claim("no-3s", "3", "distilled without a single 3", 206, _ERRORS, **_few(206, 400)),
    Claim("no-3s-on-3s", "3", "… of which on the 3s", 133, "errors of 1,010", **_few(133, 300)),
    Claim("no-3s-bias", "3", "with the bias of the 3 raised (chosen on the test set)", 109, _ERRORS, **_few(109, 206)),
    Claim("no-3s-bias-on-3s", "3", "… of which on the 3s", 14, "errors of 1,010", **_few(14, 50)),
    Claim("no-3s-known", "3", "the share of the 3s it knows without having seen one", 98.6, "per cent of 1,010",
          (98, UP_TO_100), (95, UP_TO_100)),
    Claim("only-7-8", "3", "distilled on 7s and 8s alone", 47.3, "per cent test errors", (0, 52), (0, 70)),
    Claim("only-7-8-bias", "3", "with the biases of 7 and 8 lowered (chosen on the test set)", 13.2,
          "per cent test errors", (0, 14.5), (0, 25)),
    Claim("speech-baseline", "4", "one acoustic model", 58.9, _ACCURACY),
    Claim("speech-ensemble", "4", "ten models that differ in their random start", 61.1, _ACCURACY),
    Claim("speech-distilled", "4", "the ten distilled into one", 60.8, _ACCURACY),
    Claim("speech-baseline-words", "4", "one acoustic model", 10.9, "word error rate, per cent"),
    Claim("speech-ensemble-words", "4", "the ten", 10.7, "word error rate, per cent"),
    Claim("speech-distilled-words", "4", "the ten distilled into one", 10.7, "word error rate, per cent"),
    Claim("speech-kept", "4", "one net keeps more than 80 % of the ensemble's gain in frame accuracy",
          100 * (60.8 - 58.9) / (61.1 - 58.9), _SHARE, (80, MORE), (50, MORE)),
    Claim("speech-words-kept", "4", "… and all of its gain in words", 100.0, _SHARE, (80, MORE), (50, MORE)),
    Claim("speech-best-T", "4", "of the temperatures 1, 2, 5 and 10 the best was 2", 2.0, "best T", (2, 2), (1, 5)),
    Claim("speech-people-baseline", "4", "on recordings of people: one model", None, _ACCURACY),
    Claim("speech-people-ensemble", "4", "… ten models", None, _ACCURACY),
    Claim("speech-people-distilled", "4", "… the ten distilled into one", None, _ACCURACY),
    Claim("specialists-gain", "5", "61 specialists beside a generalist", 4.4, "per cent more test accuracy",
          (2.2, MORE), (0.1, MORE)),
    Claim("specialists-conditional", "5", "… among a specialist's own classes, from 43.1 to 45.9 %", 2.8,
          "points of conditional accuracy", (1.4, MORE), (0.1, MORE)),
    Claim("specialists-test", "5", "… in all, from 25.0 to 26.1 %", 1.1, "points of test accuracy",
          (0.5, MORE), (0.1, MORE)),
    *[Claim(f"specialists-cover-{n}", "5",
            f"classes that {_COUNTS.get(n, f'{n} specialists cover')}", gain,
            "per cent more accuracy", (0.5 * gain, MORE) if n else (-1, 1), (0.1, MORE) if n else (-3, 3))
      for n, gain in _GAINS.items()],
    Claim("specialists-trend", "5", "the more specialists cover a class, the more it gains", 0.99,
          "rank correlation of gain and number covering", (0.5, UP_TO_1), (0, UP_TO_1)),
    Claim("soft-full-train", "6", "all of the data, labels: on the training data", 63.4, _ACCURACY),
    Claim("soft-full-test", "6", "all of the data, labels", 58.9, _ACCURACY),
    Claim("soft-hard-3-train", "6", "3 % of the data, labels, stopped early: on the training data", 67.3, _ACCURACY),
    Claim("soft-hard-3-test", "6", "3 % of the data, labels, stopped early", 44.5, _ACCURACY),
    Claim("soft-soft-3-train", "6", "3 % of the data, soft targets, never stopped: on the training data", 65.4,
          _ACCURACY),
    Claim("soft-soft-3-test", "6", "3 % of the data, soft targets, never stopped", 57.0, _ACCURACY),
    Claim("soft-recovered", "6", "soft targets on 3 % of the data recover almost all that the whole data knew",
          100 * (57.0 - 44.5) / (58.9 - 44.5), "per cent of the gap", (75, MORE), (50, MORE)),
    Claim("soft-hard-falls", "6", "labels on 3 % of the data: the accuracy falls sharply after its peak", None,
          "points of test accuracy from the peak to the end", (2, MORE), (0.5, MORE)),
    Claim("soft-no-stopping", "6", "soft targets need no early stopping: the end is about as good as the peak", None,
          "points of test accuracy from the peak to the end", (0, 0.5), (0, 1)),
    Claim("specialists-soft", "6.1", "specialists of every class, soft targets for the others', overfit less", None,
          "points of test accuracy above dustbin specialists", (0.5, MORE), (0.1, MORE)),
    Claim("specialists-distilled", "8", "distilled back into one net of the generalist's size", None, _SHARE,
          (80, MORE), (50, MORE)),
    Claim("specialists-distilled-wide", "8", "… into a wider net, against the same net taught by labels", None,
          "points of test accuracy above it", (0.5, MORE), (0.1, MORE)),
]  # fmt: skip

# M. Gordon, All The Ways You Can Compress BERT, 2019, with the numbers he takes from others' papers on BERT-base.
_SMALLER, _FASTER, _KEPT = "per cent fewer parameters", "times as fast", "per cent of the score kept"
BERT = [
    Claim("prune-weights", "prune", "about 30 % of the weights can be set to zero for nothing", 30,
          "per cent of the encoder's weights at zero, at most a point lost", (30, UP_TO_100), (20, UP_TO_100)),
    Claim("prune-heads", "prune", "half of the attention heads can go", None, _KEPT, (97, MORE), (94, MORE)),
    Claim("prune-heads-speed", "prune", "… which makes it faster", 1.2, _FASTER, (1.15, MORE), (1.05, MORE)),
    Claim("prune-layers", "prune", "half of the layers can go, trained with LayerDrop", None, _KEPT,
          (97, MORE), (94, MORE)),
    Claim("factorise-embeddings", "factorise", "factorised embeddings save disk, not time", 1.0, _FASTER,
          (0.95, 1.05), (0.9, 1.1)),
    Claim("factorise-layers", "factorise", "factorised layers save time", None, _FASTER, (1.1, MORE), (1.02, MORE)),
    Claim("distil-soft", "distil", "a small transformer learns from soft labels what it fails to learn from hard ones",
          None, "points of accuracy above hard labels", (1, MORE), (0.3, MORE)),
    Claim("distil-half-size", "distil", "half of the layers, taught by the whole (DistilBERT)", 40, _SMALLER),
    Claim("distil-half-speed", "distil", "…", 1.6, _FASTER, (1.6, MORE), (1.3, MORE)),
    Claim("distil-half-score", "distil", "…", 97, _KEPT, (97, MORE), (94, MORE)),
    Claim("distil-lstm-size", "distil", "BERT taught to a BiLSTM", 99, _SMALLER, (97, UP_TO_100), (90, UP_TO_100)),
    Claim("distil-lstm-speed", "distil", "…", 15, _FASTER, (10, MORE), (4, MORE)),
    Claim("distil-lstm-score", "distil", "…", None, _KEPT),
    Claim("distil-tiny-size", "distil", "hidden states and attention maps taught, too (TinyBERT)", 87, _SMALLER,
          (80, UP_TO_100), (60, UP_TO_100)),
    Claim("distil-tiny-speed", "distil", "…", 9.4, _FASTER, (7, MORE), (3, MORE)),
    Claim("distil-tiny-score", "distil", "…", 96, _KEPT, (96, MORE), (92, MORE)),
    Claim("share-size", "share", "one layer's weights used in every layer, embeddings factorised (ALBERT)", 90,
          _SMALLER, (85, UP_TO_100), (60, UP_TO_100)),
    Claim("share-operations", "share", "… and as many multiply-adds as before", 1.0, "multiply-adds over BERT's",
          (0.95, 1.05), (0.9, 1.1)),
    Claim("quantise-bits", "quantise", "8 bits a number (Q8BERT)", 75, "per cent fewer bytes on disk",
          (70, UP_TO_100), (30, UP_TO_100)),
    Claim("quantise-score", "quantise", "… for nothing", 0, "points of accuracy lost", (-1, 0.5), (-1, 1)),
    Claim("stack-sum", "together", "left open: do the losses of four ways on one net add up?", None,
          "points lost beyond the sum of what each loses alone"),
    Claim("stack-kept", "together", "left open: what is left of the score under all four?", None, _KEPT),
]  # fmt: skip
CLAIMS = HINTON + BERT


def claim(id: str) -> Claim:
    """The claim of this id. Raises ValueError for another."""
    found = {claim.id: claim for claim in CLAIMS}
    if id not in found:
        raise ValueError(f"there is no claim called {id!r}; there are {', '.join(found)}")
    return found[id]


def record(id: str, values: list[float], *, settings: dict[str, Any], profile: str = "own", notebook: str = "",
           seconds: float | None = None, machines: list | None = None, of_value: list | None = None,
           code: dict | None = None) -> Path | None:
    """Keep what was measured against a claim: one value a seed, in the claim's unit.

    A full run is kept in results/claims of the course, any other in the store. Where a larger profile's record is
    kept already, nothing is written, and None is returned.
    """
    told = claim(id)
    numbers = [float(value) for value in values]
    if not numbers or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"{id}: one finite number a seed is wanted ({told.unit}), got {values}")
    if profile not in PROFILES:
        raise ValueError(f"profile is one of {', '.join(PROFILES)}, got {profile!r}")
    path = folder(profile) / f"{id}.json"
    before = _read(path)
    if before and PROFILES.index(before["profile"]) > PROFILES.index(profile):
        return None
    if before and [before[key] for key in ("profile", "values")] == [profile, numbers]:
        return path  # read from the store again: the seconds and the machine of the first time stand
    made = {"claim": id, "unit": told.unit, "values": numbers, "profile": profile, "notebook": notebook,
            "settings": settings, "seconds": seconds, "made": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write(path, (json.dumps(made, indent=1, allow_nan=False) + "\n").encode())
    return path


def folder(profile: str) -> Path:
    """Where records of a profile are kept."""
    for root in (Path.cwd(), *Path.cwd().parents, Path(__file__).parent.parent.parent):
        if profile == "full" and (root / "notebooks").is_dir():
            return root / "results" / "claims"
    return store.folder() / "claims"


def records() -> dict[str, dict[str, Any]]:
    """The record of the largest profile for each claim that has one."""
    kept = {}
    for place in (folder("own"), folder("full")):
        for each in CLAIMS:
            if found := _read(place / f"{each.id}.json"):
                kept[each.id] = found
    return kept


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not a record ({error}); delete it and run its notebook again") from None


RULE = ("A verdict is computed from the mean over the seeds: *confirmed* where it lies in the range that the claim "
        "names beforehand, *partly* where it lies in the wider one, else *not*. Numbers of data that no one else has "
        "are shown, not judged.")  # fmt: skip


def verdict(told: Claim, values: list[float]) -> str:
    """confirmed, partly, not, not judged, or not yet run."""
    if not values:
        return "not yet run"
    if told.confirmed is None:
        return "not judged"
    mean = statistics.fmean(values)
    for word, within in (("confirmed", told.confirmed), ("partly", told.partly)):
        if within and within[0] <= mean <= within[1]:
            return word
    return "not"


def judged(kept: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a claim: claim, section, says, paper, unit, ours (mean), sd, n, verdict, and its record, if any."""
    rows = []
    for told in CLAIMS:
        values = kept.get(told.id, {}).get("values", [])
        rows.append({"claim": told.id, "section": told.section, "says": told.says,
                     "paper": None if told.value is None else round(told.value, 1), "unit": told.unit,
                     "ours": statistics.fmean(values) if values else None,
                     "sd": statistics.stdev(values) if len(values) > 1 else None, "n": len(values),
                     "verdict": verdict(told, values), "record": kept.get(told.id)})  # fmt: skip
    return rows
