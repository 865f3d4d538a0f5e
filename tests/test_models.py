"""The nets: the paper's sizes, seeded starts, the weight constraint, and functions on tensors for their data."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdlab import data, metrics, models, text


@pytest.mark.parametrize("hidden, expected", [((1200, 1200), 2_395_210), ((800, 800), 1_276_810), ((30, 30), 24_790)])
def test_parameters_of_the_papers_nets_by_hand(hidden, expected):
    sizes = [784, *hidden, 10]
    assert sum(a * b + b for a, b in itertools.pairwise(sizes)) == expected
    assert metrics.parameters(models.mlp(hidden)) == expected


def test_a_shared_layer_counts_once():
    layer = nn.Linear(3, 3)
    assert metrics.parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 12


def test_a_start_depends_on_its_seed_alone():
    torch.manual_seed(1)
    a = models.mlp((30,), seed=4)
    torch.manual_seed(2)
    b, c = models.mlp((30,), seed=4), models.mlp((30,), seed=5)
    assert torch.equal(a[1].weight, b[1].weight)
    assert not torch.equal(a[1].weight, c[1].weight)
    state = torch.get_rng_state()
    models.convnet()
    assert torch.equal(torch.get_rng_state(), state), "building a net draws nothing from the caller's random state"


def test_constrain_shortens_the_long_and_leaves_the_short():
    layer = models.MaxNormLinear(4, 2, max_norm=1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0, 0, 4.0], [0.1, 0.2, 0, 0]]))
    layer.constrain()
    torch.testing.assert_close(layer.weight.data, torch.tensor([[0.6, 0, 0, 0.8], [0.1, 0.2, 0, 0]]))


def test_dropout_must_be_a_share():
    with pytest.raises(ValueError, match="share left out"):
        models.mlp(dropout=(0.0, 1.0))


@pytest.mark.parametrize("size", [28, 9])
def test_convnet_takes_any_size_of_image(size):
    assert models.convnet(n_classes=7)(torch.rand(5, 1, size, size)).shape == (5, 7)


def test_jitter_is_what_moving_each_image_by_hand_gives():
    x = torch.rand(200, 2, 6, 5)
    moved = data.jitter(x, 2, torch.Generator().manual_seed(0))
    shifts = set()
    for before, after in zip(x, moved, strict=True):
        fits = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                by_hand = torch.zeros_like(before)
                for i in range(6):
                    for j in range(5):
                        if 0 <= i + down < 6 and 0 <= j + right < 5:
                            by_hand[:, i, j] = before[:, i + down, j + right]
                if torch.equal(by_hand, after):
                    fits.append((down, right))
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) == 25, "all 25 shifts occur, each image its own"
    assert torch.equal(data.jitter(x, 0), x)


def test_jitter_draws_from_its_generator_or_from_torchs_state():
    x = torch.rand(20, 1, 8, 8)
    a, b = (data.jitter(x, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    torch.manual_seed(0)
    c = data.jitter(x)
    torch.manual_seed(0)
    assert torch.equal(c, data.jitter(x))


def test_jitter_names_the_shape_it_wants():
    with pytest.raises(ValueError, match="batch, channels, height, width"):
        data.jitter(torch.rand(5, 784))
    with pytest.raises(ValueError, match="0 or more"):
        data.jitter(torch.rand(5, 1, 8, 8), -1)


def test_without_leaves_out_what_it_says_and_keeps_the_order():
    y = torch.tensor([3, 1, 3, 7, 0, 8])
    x = torch.arange(6).float()
    kept, labels = data.without(x, y, 3, 8)
    assert kept.tolist() == [1, 3, 4]
    assert labels.tolist() == [1, 7, 0]
    with pytest.raises(ValueError, match="no case at all"):
        data.without(x[:1], y[:1], 3)


@pytest.mark.parametrize("n", [10, 500, 997, 5000])
def test_a_subset_keeps_each_classs_share_to_within_one_case(n):
    counts = torch.tensor([600, 674, 596, 613, 584, 542, 592, 627, 585, 587])
    y = torch.repeat_interleave(torch.arange(10), counts)
    x = torch.arange(len(y))
    chosen, labels = data.subset(x, y, n, seed=1)
    assert len(chosen) == n == len(chosen.unique())
    assert torch.equal(y[chosen], labels)
    assert (labels.bincount(minlength=10) - counts * n / counts.sum()).abs().max() < 1
    again, _ = data.subset(x, y, n, seed=1)
    other, _ = data.subset(x, y, n, seed=2)
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, other)


def test_a_subset_larger_than_the_whole_is_refused():
    with pytest.raises(ValueError, match="between 1 and the 5 cases"):
        data.subset(torch.rand(5), torch.zeros(5).long(), 6)
    with pytest.raises(ValueError, match="belong together"):
        data.subset(torch.rand(5), torch.zeros(4).long(), 2)


def test_metrics_by_hand():
    a = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [0.0, 1.0]])
    b = torch.tensor([[2.0, 1.0], [4.0, 3.0], [5.0, 1.0], [0.0, 1.0]])
    assert metrics.errors(a, torch.tensor([0, 1, 1, 0])) == 2
    assert metrics.agreement(a, b) == 0.75
    rows = torch.tensor([[0.5, 0.5, 0, 0], [1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    assert metrics.entropy(rows).tolist() == [1, 0, 2]


def test_similarity_is_the_mean_soft_target_of_each_class():
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 3
    table = metrics.similarity(z, y, T=2.0)
    for c in range(3):
        torch.testing.assert_close(table[c], torch.softmax(z[y == c] / 2, 1).mean(0))
    assert table[3].tolist() == [0, 0, 0, 0]


def test_logits_are_those_of_eval_mode_and_the_modes_are_put_back():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model.train()
    model[2].eval()
    x = torch.rand(30, 4)
    together, apart = metrics.logits(model, x), metrics.logits(model, x, batch_size=7)
    torch.testing.assert_close(together, apart)
    assert [m.training for m in model] == [True, True, False, True]
    assert not together.requires_grad


def test_nearest_are_those_of_smallest_divergence_among_the_allowed():
    z = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    allowed = torch.arange(40) % 2 == 1
    p, q = torch.softmax(z[0] / 2, 0), torch.softmax(z / 2, 1)
    divergence = (p * (p / q).log()).sum(dim=1)
    by_hand = sorted((float(d), i) for i, d in enumerate(divergence) if allowed[i])
    assert metrics.nearest(z[0], z, T=2.0, among=allowed, n=3).tolist() == [i for _, i in by_hand[:3]]
    assert metrics.nearest(z[0], z, T=2.0, n=1).tolist() == [0]
    assert len(metrics.nearest(z[0], z, T=2.0, among=torch.arange(40) == 3, n=3)) == 1


def test_errors_and_agreement_refuse_what_they_cannot_count():
    z, y = torch.eye(3), torch.arange(3)
    assert metrics.errors(z, y) == 0
    for slip in (torch.eye(3), y[:, None], y[:2]):
        with pytest.raises(ValueError, match="must have the shapes"):
            metrics.errors(z, slip)
    with pytest.raises(ValueError, match="different cases"):
        metrics.agreement(z, z[:2])
    with pytest.raises(ValueError, match="with NaN"):
        metrics.errors(torch.full((3, 3), torch.nan), y)


def test_nearest_and_similarity_take_a_class_without_mass_and_refuse_a_temperature_of_zero():
    z = torch.tensor([[2.0, 0.0, -torch.inf], [2.1, 0.0, -torch.inf], [0.0, 2.0, -torch.inf]])
    assert metrics.nearest(z[0], z, T=1.0, n=3).tolist() == [0, 1, 2]
    for call in (lambda: metrics.nearest(z[0], z, T=0.0), lambda: metrics.similarity(z, torch.arange(3), T=0.0)):
        with pytest.raises(ValueError, match="temperature T"):
            call()


@pytest.mark.parametrize("slip", [torch.tensor([3, 5]), [3], 3.5, "3"])
def test_without_wants_class_numbers_one_by_one(slip):
    with pytest.raises(TypeError, match="one by one"):
        data.without(torch.zeros(4, 1), torch.arange(4), slip)
    assert data.without(torch.zeros(4, 1), torch.arange(4), torch.tensor(3))[1].tolist() == [0, 1, 2]


def test_a_bilstm_reads_both_ways_and_never_padding():
    net = models.bilstm(5, 4, n_words=30, n_classes=3)
    x = torch.tensor([[7, 9, 4, 0, 0, 0], [3, 8, 2, 5, 6, 1], [0, 0, 0, 0, 0, 0]])
    together = net(x)
    torch.testing.assert_close(net(x[:1, :3]), together[:1])
    torch.testing.assert_close(net(torch.nn.functional.pad(x, (0, 5))), together)
    read = net.words(x[:1, :3])  # by hand: torch's LSTM one direction at a time, without packing
    ends = []
    for suffix, sight in (("", read), ("_reverse", read.flip(1))):
        one_way = nn.LSTM(5, 4, batch_first=True)
        one_way.load_state_dict({k: getattr(net.lstm, k + suffix) for k in one_way.state_dict()})
        ends.append(one_way(sight)[0][:, -1])
    torch.testing.assert_close(net.classifier(torch.cat(ends, 1)), together[:1])


def test_a_bilstm_is_its_seeds_and_may_begin_with_given_words():
    words = torch.randn(30, 5)
    one, other, given = (
        models.bilstm(5, 4, n_words=30),
        models.bilstm(5, 4, n_words=30),
        models.bilstm(5, 4, n_words=30, words=words),
    )
    assert torch.equal(one.lstm.weight_ih_l0, other.lstm.weight_ih_l0)
    assert torch.equal(given.words.weight, words) and not torch.equal(one.words.weight, words)
    assert not torch.equal(models.bilstm(5, 4, n_words=30, seed=1).words.weight, one.words.weight)
    with pytest.raises(RuntimeError, match="size"):
        models.bilstm(6, 4, n_words=30, words=words)


DISTIL = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
ROBERTA = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def raw(kind, **config):
    """A small random model of transformers, as its users have it: not wrapped."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, num_labels=3, **config)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize(
    "kind, config",
    [
        ("DistilBert", DISTIL | {"initializer_range": 0.5}),
        ("Roberta", ROBERTA | {"initializer_range": 0.5}),
        ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0, "initializer_range": 0.5}),
    ],
)
def test_a_model_of_transformers_does_not_attend_to_padding(kind, config):
    """Padded, the logits are those of the text alone; an encoder that attends to the padding gives others."""
    model = raw(kind, **config)
    pad = model.config.pad_token_id
    alone = torch.tensor([[7, 8, 9, 10]])
    padded = torch.cat([alone, torch.full((1, 6), pad)], dim=1)
    wanted = model(input_ids=alone).logits
    torch.testing.assert_close(models.logits(model, padded), wanted, atol=1e-5, rtol=1e-4)
    if kind != "GPT2":  # which only looks back, and takes the last token that is not padding
        unmasked = model(input_ids=padded, attention_mask=torch.ones_like(padded)).logits
        assert not torch.allclose(unmasked, wanted, atol=1e-3)
    by_name = {"input_ids": padded, "attention_mask": padded.ne(pad).long()}
    torch.testing.assert_close(models.logits(model, by_name), models.logits(model, padded))


def test_what_a_model_returns_is_unwrapped_and_what_has_no_logits_is_named():
    z = torch.randn(2, 3)
    for output in (z, (z, None), [z], SimpleNamespace(logits=z), SimpleNamespace(logits=(z, None))):
        assert models.logits(lambda x, output=output: output, z) is z
    with pytest.raises(TypeError, match="got SimpleNamespace; a model of transformers needs a head"):
        models.logits(lambda x: SimpleNamespace(last_hidden_state=z), z)


def test_raw_students_and_teachers_learn_and_teach_with_their_mask():
    from kdlab import metrics, train

    student, teacher = (raw("DistilBert", **DISTIL) for _ in range(2))
    x = torch.randint(5, 50, (24, 6))
    x[::2, 4:] = 0  # padding
    y = torch.arange(24) % 3
    history = train.fit(student, (x, y), train.distilling(teacher, T=2.0), epochs=8, lr=1e-2, batch_size=8)
    assert history[-1]["ce"] < history[0]["ce"]
    together = metrics.logits(student, {"input_ids": x, "attention_mask": x.ne(0).long()}, batch_size=7)
    torch.testing.assert_close(together, metrics.logits(student, x))


@pytest.mark.parametrize("kind", ["bilstm", "bert"])
def test_tokens_of_another_vocabulary_are_named(kind):
    model = models.bilstm(4, 3, n_words=30) if kind == "bilstm" else text.untrained(3, layers=1, width=8)
    with pytest.raises(ValueError, match=r"token number 40,000 is not one of the [\d,]+ that .*tokenizer of another"):
        metrics.logits(model, torch.tensor([[1, 40_000]]))


def test_an_index_error_of_ones_own_stays_as_it_is():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return [][3]

    with pytest.raises(IndexError, match="list index"):
        metrics.logits(Odd(), torch.zeros(2, 3))
