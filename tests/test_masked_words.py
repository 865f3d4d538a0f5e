"""Guessing hidden words: what is hidden and how often, that only hidden places count, and that a net learns by it."""

import copy

import pytest
import torch
import torch.nn.functional as F

from kdlab import compress, text, train
from kdlab.text import CLS, MASK, PAD, SEP
from kdlab.train import masked_words


def small(**settings):
    return text.untrained(3, layers=2, width=16, heads=2, **settings)


def texts(n: int = 200, longest: int = 12, seed: int = 0) -> torch.Tensor:
    """[CLS], words from 1000 to 1049 drawn evenly, [SEP], padding."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(1000, 1050, (n, longest), generator=rng)
    ends = torch.randint(3, longest, (n, 1), generator=rng)
    place = torch.arange(longest)
    x = torch.where(place < ends, x, torch.where(place == ends, SEP, PAD))
    x[:, 0] = CLS
    return x


def test_the_vocabulary_is_what_occurs_often_enough_and_no_token_of_berts_own():
    x = torch.tensor([[CLS, 2000, 1500, SEP, PAD], [CLS, 2000, 100, MASK, SEP]])
    assert masked_words.vocabulary(x).tolist() == [1500, 2000]
    assert masked_words.vocabulary(x, least=2).tolist() == [2000]
    with pytest.raises(ValueError, match="no word occurs 3 times"):
        masked_words.vocabulary(x, least=3)


ROBERTA = text.Marks(pad=1, cls=0, sep=2, mask=49, all=(0, 1, 2, 3, 49))


def test_texts_of_another_tokenizer_are_hidden_with_its_own_marks_or_refused():
    x = torch.tensor([[0, 20, 21, 22, 2, 1], [0, 22, 23, 2, 1, 1]]).repeat(300, 1)
    with pytest.raises(ValueError, match=r"begins with the token 0, and by these marks it begins with 101.*text.marks"):
        masked_words.vocabulary(x)
    words = masked_words.vocabulary(x, marks=ROBERTA)
    assert words.tolist() == [20, 21, 22, 23]
    inputs, _ = masked_words.masked(x, words, share=0.5, marks=ROBERTA)
    assert set(inputs.unique().tolist()) <= {*x.unique().tolist(), 49} and (inputs == 49).any()
    assert (inputs[x < 20] == x[x < 20]).all()
    net = small(vocab_size=60, pad_token_id=1)
    learner = masked_words.MaskedWords(net, x, marks=ROBERTA)
    (row,) = train.fit(learner, (x,), masked_words.guessing(), steps=5, lr=1e-2)
    assert row["words"] > 0
    where = x == 22
    with torch.no_grad():
        wider = F.pad(x, (0, 4), value=1)
        torch.testing.assert_close(learner(x, where), learner(wider, F.pad(where, (0, 4))), rtol=1e-4, atol=1e-5)


def test_the_shares_are_berts():
    """15 % are asked for; of these 80 % are masks, 10 % other words (one in 50 the same by chance), 10 % unchanged."""
    x = texts(40_000)
    inputs, targets = masked_words.masked(x, masked_words.vocabulary(x), generator=torch.Generator().manual_seed(1))
    asked = targets != masked_words.NOT_ASKED
    n = int(asked.sum())
    assert n / int((x >= 1000).sum()) == pytest.approx(0.15, abs=0.003)
    hidden, same = inputs[asked] == MASK, inputs[asked] == x[asked]
    assert int(hidden.sum()) / n == pytest.approx(0.8, abs=0.01)
    assert int(same.sum()) / n == pytest.approx(0.1 + 0.1 / 50, abs=0.01)
    assert torch.equal(targets[asked], x[asked]) and torch.equal(inputs[~asked], x[~asked])


def test_berts_own_tokens_and_words_outside_the_vocabulary_are_never_asked_for():
    x = texts()
    inputs, targets = masked_words.masked(x, torch.arange(1000, 1010), share=0.9)
    assert set(targets.unique().tolist()) == {masked_words.NOT_ASKED, *range(1000, 1010)}
    own = (x == CLS) | (x == SEP) | (x == PAD) | (x >= 1010)
    assert torch.equal(inputs[own], x[own])


def test_the_same_generator_hides_the_same_words_and_the_texts_stay_as_they_are():
    x = texts()
    before, words = x.clone(), masked_words.vocabulary(x)
    a, b, c = (masked_words.masked(x, words, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[1], c[1])
    assert torch.equal(x, before)


@pytest.mark.parametrize("share", [0, 1, 15])
def test_a_share_in_per_cent_is_refused(share):
    with pytest.raises(ValueError, match=r"BERT's is 0\.15"):
        masked_words.masked(texts(), torch.tensor([1000]), share=share)


@pytest.mark.parametrize("group", [100, 7])
def test_the_loss_is_transformers_masked_language_model_s(group):
    """The same encoder and output layer as a BertForMaskedLM, whose loss is over all words; here over ours."""
    import transformers

    x, net = texts(20), small(vocab_size=1050)
    learner = masked_words.MaskedWords(net, x, group=group)
    inputs, targets = masked_words.masked(x, learner.words, generator=torch.Generator().manual_seed(1))
    theirs = transformers.BertForMaskedLM(net.model.config).eval()
    theirs.bert.load_state_dict(net.model.bert.state_dict(), strict=False)
    output = theirs.cls.predictions
    output.transform.dense.load_state_dict(learner.head[0].state_dict())
    output.transform.LayerNorm.load_state_dict(learner.head[2].state_dict())
    with torch.no_grad():
        output.decoder.bias.fill_(-torch.inf)[learner.words] = learner.bias
        wanted = theirs(input_ids=inputs, attention_mask=(x != PAD).long(), labels=targets).loss
        torch.testing.assert_close(masked_words.loss(learner, inputs, targets), wanted, rtol=1e-4, atol=1e-5)


def test_it_begins_by_guessing_each_word_as_often_as_it_occurs():
    x = texts()
    learner = masked_words.MaskedWords(small(), x)
    torch.nn.init.zeros_(learner.head[2].weight)
    p = learner(x, x == 1003).softmax(dim=1)
    assert torch.allclose(p[0], torch.bincount(x[x >= 1000] - 1000) / (x >= 1000).sum(), atol=1e-6)


def test_places_that_are_not_asked_for_do_not_count():
    x = texts(20)
    learner = masked_words.MaskedWords(small(), x)
    inputs, targets = masked_words.masked(x, learner.words, share=0.5, generator=torch.Generator().manual_seed(1))
    fewer = targets.clone()
    fewer[10:] = masked_words.NOT_ASKED
    with torch.no_grad():
        torch.testing.assert_close(
            masked_words.loss(learner, inputs, fewer),
            masked_words.loss(learner, inputs[:10], targets[:10]),
            rtol=1e-4,
            atol=1e-5,
        )
        assert masked_words.loss(learner, x, torch.full_like(x, masked_words.NOT_ASKED)) == 0


def test_the_word_vectors_learn_from_both_of_their_uses():
    """A word that is asked for and stands nowhere in the inputs has a gradient, from the output layer."""
    x = texts()
    learner = masked_words.MaskedWords(small(), x)
    inputs, targets = torch.where(x == 1003, MASK, x), torch.where(x == 1003, x, masked_words.NOT_ASKED)
    masked_words.loss(learner, inputs, targets).backward()
    gradient = learner.net.model.get_input_embeddings().weight.grad.abs().sum(dim=1)
    assert gradient[1003] > 0 and gradient[MASK] > 0 and gradient[999] == 0


def test_a_net_learns_what_word_follows_another_and_keeps_it_without_the_learner():
    x = torch.randint(1000, 1020, (256, 8), generator=torch.Generator().manual_seed(0))
    x[:, 1::2] = x[:, ::2] + 20  # each second word is told by the one before it, and the other way round
    x = F.pad(x, (1, 0), value=CLS)
    net = small(initializer_range=0.2, vocab_size=1050)
    learner, before = masked_words.MaskedWords(net, x), copy.deepcopy(net.state_dict())
    inputs, targets = masked_words.masked(x, learner.words, generator=torch.Generator().manual_seed(1))
    begun = masked_words.loss(learner, inputs, targets).item()
    train.fit(learner, (x,), masked_words.guessing(), epochs=60, lr=1e-2, batch_size=64)
    assert masked_words.loss(learner, inputs, targets).item() < 0.6 * begun
    after = net.state_dict()
    assert not torch.equal(*(state["model.bert.embeddings.word_embeddings.weight"] for state in (before, after)))
    assert torch.equal(*(state["model.classifier.weight"] for state in (before, after)))


def test_a_compressed_net_takes_the_place_of_the_whole():
    x = texts()
    learner = masked_words.MaskedWords(small(), x)
    for net in (compress.layers(learner.net, keep=[0]), compress.factorize(learner.net, 4, "*word_embeddings")):
        other = learner.around(net)
        (row,) = train.fit(other, (x,), masked_words.guessing(), epochs=1, lr=1e-3)
        assert row["words"] > 0 and other.net is net
        assert torch.equal(other.words, learner.words) and not torch.equal(other.bias, learner.bias)


def test_the_net_is_masked_and_guesses_alike_in_a_batch_and_alone():
    x = texts(9)
    learner = masked_words.MaskedWords(small(), x)
    where = (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4) & (x != PAD)
    learner.group = 4
    with torch.no_grad():
        together = learner(x, where)
        alone = torch.cat([learner(x[[i]], where[[i]]) for i in range(9)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (int(where.sum()), len(learner.words))
    assert F.softmax(together, dim=1).isfinite().all()
