"""Texts made of texts, and the words a narrow net begins with."""

import pytest
import torch

from kdlab import text

RNG = torch.Generator().manual_seed(0)
X = torch.randint(1000, 1050, (400, 12), generator=RNG)
N = torch.randint(3, 13, (400,), generator=RNG)
X = X.masked_fill(torch.arange(12) >= N[:, None], text.PAD)
X[:, 0] = text.CLS
X[torch.arange(400), N - 1] = text.SEP
WORD = X >= 1000


def test_the_shares_are_as_asked_and_frames_stay():
    made = text.augment(X, mask=0.2, swap=0.3, ngram=0.0)
    assert made.shape == X.shape
    assert (made[~WORD] == X[~WORD]).all(), "[CLS], [SEP] and padding are no words"
    assert (made[WORD] == text.MASK).float().mean().item() == pytest.approx(0.2, abs=0.03)
    swapped = (made != X) & (made != text.MASK)
    assert swapped[WORD].float().mean().item() == pytest.approx(0.3 * 49 / 50, abs=0.03)  # some draw their own word
    assert set(made[swapped].tolist()) <= set(X[WORD].tolist())


def test_texts_of_another_tokenizer_get_its_own_marks_or_are_refused():
    marks = text.Marks(pad=1, cls=0, sep=2, mask=49, all=(0, 1, 2, 3, 49))
    x = torch.tensor([[0, 20, 21, 22, 23, 24, 2, 1], [0, 25, 26, 2, 1, 1, 1, 1]]).repeat(200, 1)
    made = text.augment(x, mask=0.3, swap=0.2, marks=marks).cpu()
    assert set(made.unique().tolist()) == {*x.unique().tolist(), 49}
    assert (made[:, 0] == 0).all() and ((made == 2).sum(dim=1) == 1).all()
    after = made.eq(2).cumsum(dim=1).roll(1, dims=1)[:, 1:].bool()
    assert (made[:, 1:][after] == 1).all(), "behind the end is padding"
    with pytest.raises(ValueError, match=r"begins with the token 0, .* begins with 101.*marks=text.marks"):
        text.augment(x)


def test_the_marks_of_a_tokenizer_are_its_own():
    marks = text.marks(text.tokenizer())
    assert marks[:4] == text.BERT[:4] and set(marks.all) <= set(text.BERT.all)

    class Decoders:
        pad_token_id, cls_token_id = 0, None

    with pytest.raises(ValueError, match="Decoders has no cls_token"):
        text.marks(Decoders())


def test_words_are_drawn_as_often_as_they_occur():
    x = X.clone()
    x[WORD & (torch.rand(X.shape, generator=RNG) < 0.9)] = 7777
    made = text.augment(x, swap=1.0, mask=0.0, ngram=0.0)
    shares = [(each[WORD] == 7777).float().mean().item() for each in (made, x)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_an_ngram_is_one_to_five_words_that_stood_in_a_row():
    made = text.augment(X, mask=0.0, swap=0.0, ngram=1.0)
    seen = set()
    for whole, part in zip(X.tolist(), made.tolist(), strict=True):
        words = [token for token in part if token]
        run = words[1:-1]
        assert words[0] == text.CLS and words[-1] == text.SEP and part[len(words) :] == [0] * (12 - len(words))
        assert any(whole[i : i + len(run)] == run for i in range(12))
        seen.add(len(run))
    assert seen == {1, 2, 3, 4, 5}
    first = torch.tensor([made[i, 1] == X[i, 1] for i in range(400)])
    assert 0.1 < first.float().mean() < 0.9, "runs begin anywhere"


def test_copies_part_seeds_repeat_and_the_texts_stay_as_they_are():
    before = X.clone()
    made = text.augment(X, 2, seed=3)
    assert made.shape == (800, 12) and (made[:400] != made[400:]).any()
    assert (made == text.augment(X, 2, seed=3)).all() and (made != text.augment(X, 2, seed=4)).any()
    assert torch.equal(before, X)
    assert (text.augment(X, mask=0.0, swap=0.0, ngram=0.0) == X).all()


@pytest.mark.parametrize("shares", [{"mask": 0.6, "swap": 0.6}, {"mask": -0.1}, {"ngram": 1.5}])
def test_shares_outside_0_to_1_are_refused(shares):
    with pytest.raises(ValueError, match="shares in"):
        text.augment(X, **shares)


def test_narrow_words_are_the_principal_components():
    net = text.untrained(layers=1, width=8, heads=2, vocab_size=50)
    vectors = net.model.get_input_embeddings().weight.detach()
    narrow = text.narrow_words(net, 3)
    left, size, _ = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    own = left[:, :3] * size[:3]
    torch.testing.assert_close(narrow.abs(), (own / own.std()).abs(), rtol=1e-3, atol=1e-4)
    assert narrow.std().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="between 1 and the 8"):
        text.narrow_words(net, 9)
