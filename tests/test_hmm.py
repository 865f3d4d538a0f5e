"""Paths through states: against every path tried by hand, limits, and what must be refused."""

import itertools

import pytest
import torch

from kdlab.data import hmm

LENGTHS = (2, 1, 1)  # two words of two states and one, and silence


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def every_path(scores, lengths, stay, word):
    """The words of the best path, found by trying all paths there are."""
    first = hmm.starts(lengths)
    last = [a + n - 1 for a, n in zip(first, lengths, strict=True)]
    best, said = -float("inf"), None
    for path in itertools.product(range(sum(lengths)), repeat=len(scores)):
        if path[0] not in first or path[-1] not in last:
            continue
        for breaks in itertools.product([False, True], repeat=len(path) - 1):  # does a word end between two frames?
            total, words = scores[0, path[0]].item(), [first.index(path[0])]
            for (a, b), broken, frame in zip(itertools.pairwise(path), breaks, scores[1:], strict=True):
                if broken and a in last and b in first:
                    total += torch.log1p(-stay[a]).item() + word
                    words.append(first.index(b))
                elif not broken and a == b:
                    total += stay[a].log().item()
                elif not broken and b == a + 1 and b not in first:
                    total += torch.log1p(-stay[a]).item()
                else:
                    break
                total += frame[b].item()
            else:
                if total > best:
                    best, said = total, words
    return [w for w in said if w != len(lengths) - 1]


@pytest.mark.parametrize("word", [0.0, -3.0])
def test_decoding_finds_the_best_of_all_paths(word):
    stay = torch.tensor([0.6, 0.3, 0.5, 0.7])
    scores = 3 * torch.randn(12, 5, 4, generator=rng())
    expected = [every_path(each, LENGTHS, stay, word) for each in scores]
    assert hmm.decode(list(scores), LENGTHS, stay, word) == expected
    assert len({tuple(each) for each in expected}) > 3


def test_utterances_of_unequal_length_are_decoded_as_if_alone():
    scores = [torch.randn(n, 4, generator=rng(n)) for n in (3, 9, 6, 1)]
    scores[3][0] = torch.tensor([0.0, 0.0, 9.0, 0.0])
    stay = torch.full((4,), 0.5)
    assert hmm.decode(scores, LENGTHS, stay) == [hmm.decode([each], LENGTHS, stay)[0] for each in scores]


def test_a_dear_word_makes_fewer_words():
    scores = list(torch.randn(6, 40, 4, generator=rng()))
    stay = torch.full((4,), 0.5)
    counts = [sum(map(len, hmm.decode(scores, LENGTHS, stay, word))) for word in (5.0, 0.0, -5.0)]
    assert counts[0] > counts[1] > counts[2]


def test_perfect_scores_give_the_path_and_the_words_back():
    states = torch.tensor([3, 3, 0, 0, 1, 2, 2, 3, 0, 1, 1, 3])
    scores = torch.full((12, 4), -20.0).scatter(1, states[:, None], 0.0)
    assert hmm.decode([scores], LENGTHS, torch.full((4,), 0.5)) == [[0, 1, 0]]
    assert hmm.align([scores], [[3, 0, 1, 2, 3, 0, 1, 3]])[0].tolist() == states.tolist()


def best_alignment(score, chain):
    """By trying every place to move on."""
    found = {}
    for start, end in itertools.product((0, 1), (len(chain) - 1, len(chain) - 2)):
        inner = range(start, end + 1)
        for cuts in itertools.combinations(range(1, len(score)), len(inner) - 1):
            place = [inner[sum(t >= cut for cut in cuts)] for t in range(len(score))]
            path = tuple(chain[p] for p in place)
            found[path] = sum(score[t, s].item() for t, s in enumerate(path))
    return list(max(found, key=found.get))


def test_alignment_finds_the_best_of_all_and_may_pass_over_its_ends():
    scores = [torch.randn(n, 4, generator=rng(n)) for n in (7, 5, 6, 3)]
    chains = [[3, 0, 1, 3], [3, 2, 3], [3, 0, 1, 2, 3], [3, 0, 1, 2, 3]]
    paths = hmm.align(scores, chains)
    expected = [best_alignment(*each) for each in zip(scores, chains, strict=True)]
    assert [path.tolist() for path in paths] == expected
    assert any(path[0] != 3 for path in expected) and any(path[0] == 3 for path in expected)


def test_what_cannot_be_aligned_or_decoded_is_named():
    with pytest.raises(ValueError, match="utterance 1 has 2 frames for a chain of 5 states"):
        hmm.align([torch.zeros(9, 4), torch.zeros(2, 4)], [[3, 0, 1, 3], [3, 0, 1, 2, 3]])
    with pytest.raises(ValueError, match=r"4 states in words of \[2, 1, 1\], but scores \(9, 5\)"):
        hmm.decode([torch.zeros(9, 5)], LENGTHS, torch.full((4,), 0.5))


def test_priors_and_times_to_stay_are_shares():
    states = torch.tensor([0] * 8 + [1] * 2 + [0] * 8 + [2] * 90)
    assert hmm.log_priors(states, 4).exp().tolist() == pytest.approx([17 / 112, 3 / 112, 91 / 112, 1 / 112])
    stay = hmm.stays(states, 4)
    assert stay[0] == pytest.approx((14 + 1) / (16 + 2)) and stay[2] > 0.95 and stay[3] == 0.5


def test_the_rate_is_of_all_words_together():
    assert hmm.word_error_rate([[1, 2], [3]], [[1, 2, 2], [4]]) == 2 / 4
    assert hmm.word_error_rate([[1, 1, 1]], [[2]]) == 3.0
    with pytest.raises(ValueError, match="no word was meant"):
        hmm.word_error_rate([[1]], [[]])


@pytest.mark.parametrize(
    ("said", "meant", "errors"),
    [
        ([], [], 0),
        ([1, 2, 3], [1, 2, 3], 0),
        ([], [1, 2], 2),
        ([1, 2], [], 2),
        ([1, 3], [1, 2, 3], 1),
        ([1, 2, 2, 3], [1, 2, 3], 1),
        ([3, 2, 1], [1, 2, 3], 2),
        ([5, 1, 2], [1, 2, 5], 2),
    ],
)
def test_word_errors_are_the_fewest_changes(said, meant, errors):
    assert hmm.word_errors(said, meant) == errors


def test_segments_are_the_runs_of_a_path():
    path = torch.tensor([3, 3, 0, 0, 1, 3])
    assert hmm.segments(path) == [(3, 0, 2), (0, 2, 4), (1, 4, 5), (3, 5, 6)]
    assert sum(end - begin for _, begin, end in hmm.segments(path)) == len(path)
