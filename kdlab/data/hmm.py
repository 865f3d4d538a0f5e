"""Words as chains of states along time: which frame belongs to which state, and which words a row of frames says.

A frame is 10 ms of sound. A word is a chain of states, each of which lasts a frame or more; silence is a word of one
state. A net scores each state at each frame, and dynamic programming (Viterbi 1967) finds the best path: `align` where
the words are known, `decode` where they are not. Both take many utterances at once.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdlab import machine

NEVER = -1e30  # the score of what no path may do; finite, so that differences stay numbers


def starts(lengths: Sequence[int]) -> list[int]:
    """The number of each word's first state. lengths: how many states each word has."""
    return [0, *accumulate(lengths)][:-1]


def segments(path: Tensor) -> list[tuple[int, int, int]]:
    """Return (state, first frame, last frame + 1) for each run of equal states along a path.

    path: (frames,) the number of a state, or of a word, at each frame.
    """
    states, lasting = path.unique_consecutive(return_counts=True)
    ends = list(accumulate(lasting.tolist()))
    return list(zip(states.tolist(), [0, *ends[:-1]], ends, strict=True))


def log_priors(states: Tensor, n_states: int) -> Tensor:
    """(n_states,) log of the share of the frames that is in each state. states: (frames,).

    A net's log-probabilities less these are the scores that a path adds up (Bourlard & Morgan 1993).
    """
    counts = torch.bincount(states, minlength=n_states).double() + 1  # one that never occurs is rare, not impossible
    return (counts / counts.sum()).log().float()


def stays(states: Tensor, n_states: int) -> Tensor:
    """(n_states,) the probability that the next frame is in the same state. states: (frames,), in order of time."""
    same = torch.bincount(states[:-1][states[:-1] == states[1:]], minlength=n_states).float()
    return (same + 1) / (torch.bincount(states, minlength=n_states).float() + 2)


@machine.threads()
def align(scores: Sequence[Tensor], chains: Sequence[Sequence[int]]) -> list[Tensor]:
    """(frames,) for each utterance: the state of each frame on the best path along the utterance's chain of states.

    scores: (frames, n_states) of each utterance. chains: the states of each in order, three or more; the first and the
    last may be passed over (the silence around a word).
    Raises ValueError where an utterance has fewer frames than its chain has states.
    """
    for number, (score, chain) in enumerate(zip(scores, chains, strict=True)):
        if not 3 <= len(chain) <= len(score) + 2:
            raise ValueError(
                f"utterance {number} has {len(score)} frames for a chain of {len(chain)} states, which "
                "last a frame or more each; is the recording cut off, or the text another one's?"
            )
    chosen = [score[:, list(chain)] for score, chain in zip(scores, chains, strict=True)]
    longest = max(map(len, chains))
    padded = [F.pad(each, (0, longest - each.shape[1]), value=NEVER) for each in chosen]
    now, frames = pad_sequence(padded, batch_first=True).transpose(0, 1), torch.tensor([len(each) for each in chosen])
    best = torch.full_like(now[0], NEVER)
    best[:, :2] = now[0][:, :2]  # begins in the first place of the chain, or the second
    moved = []
    for time in range(1, len(now)):
        going = (time < frames)[:, None]
        before = F.pad(best, (1, -1), value=NEVER)
        moved.append((before > best) & going)
        best = torch.where(going, torch.maximum(best, before) + now[time], best)
    every, last = torch.arange(len(chains)), torch.tensor([len(chain) - 1 for chain in chains])
    place = last - (best[every, last - 1] > best[every, last]).long()  # ends in the last place, or the last but one
    path = [place]
    for turn in reversed(moved):
        place = place - turn[every, place].long()
        path.append(place)
    places = torch.stack(path[::-1], dim=1)
    return [torch.tensor([*chain])[row[:n]] for row, chain, n in zip(places, chains, frames.tolist(), strict=True)]


@machine.threads()
def decode(scores: Sequence[Tensor], lengths: Sequence[int], stay: Tensor, word: float = 0.0) -> list[list[int]]:
    """The words that each utterance most probably says, any word after any, the last one of `lengths` (silence) left
    out.

    scores: (frames, n_states) of each utterance, log-probabilities less `log_priors`. lengths: states of each word.
    stay: (n_states,) as from `stays`. word: added to a path's score for each word; less than 0 makes fewer words.
    """
    first = torch.tensor(starts(lengths))
    last = first + torch.tensor(list(lengths)) - 1
    if scores[0].shape[1] != len(stay) or len(stay) != sum(lengths):
        raise ValueError(
            f"{sum(lengths)} states in words of {list(lengths)}, but scores {tuple(scores[0].shape)} and "
            f"{len(stay)} probabilities to stay; was the net trained on other states?"
        )
    now, frames = pad_sequence(list(scores), batch_first=True).transpose(0, 1), torch.tensor([len(s) for s in scores])
    go, stay = torch.log1p(-stay), stay.log()
    best = torch.full_like(now[0], NEVER)
    best[:, first] = now[0][:, first]
    moved, ended = [], []
    for time in range(1, len(now)):
        going = (time < frames)[:, None]
        left, from_word = (best[:, last] + go[last] + word).max(dim=1)  # the best end of a word so far
        before = F.pad(best + go, (1, -1), value=NEVER)
        before[:, first] = left[:, None]
        moved.append((before > best + stay) & going)
        ended.append(from_word)
        best = torch.where(going, torch.maximum(best + stay, before) + now[time], best)
    return _words(best[:, last].argmax(dim=1), moved, ended, first, last, silence=len(lengths) - 1)


def _words(
    word: Tensor, moved: list[Tensor], ended: list[Tensor], first: Tensor, last: Tensor, silence: int
) -> list[list[int]]:
    """The words along the path that ends in `word`, of each utterance, read backwards."""
    every, place, said = torch.arange(len(word)), last[word], [[w] for w in word.tolist()]
    for turn, before in zip(reversed(moved), reversed(ended), strict=True):
        turned = turn[every, place]
        new_word = turned & (place == first[word])
        for i in new_word.nonzero().flatten().tolist():
            said[i].append(int(before[i]))
        word = torch.where(new_word, before, word)
        place = torch.where(new_word, last[word], place - turned.long())
    return [[w for w in reversed(words) if w != silence] for words in said]


def word_error_rate(said: Sequence[Sequence[int]], meant: Sequence[Sequence[int]]) -> float:
    """Word errors of all utterances for each word that was meant: 0 is perfect, and more than 1 is possible."""
    if not any(map(len, meant)):
        raise ValueError("no word was meant in any utterance, so there is no rate of errors")
    return sum(map(word_errors, said, meant)) / sum(map(len, meant))


def word_errors(said: Sequence[int], meant: Sequence[int]) -> int:
    """The fewest words to insert, leave out or change to make `meant` of `said` (Levenshtein 1966)."""
    row = list(range(len(meant) + 1))
    for i, one in enumerate(said, 1):
        before, row = row, [i]
        for j, other in enumerate(meant, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other)))
    return row[-1]
