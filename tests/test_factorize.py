"""Factorizing against numpy's SVD, brute force, regression and limits; on small nets of the reader's own kinds."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import compress, metrics, text
from kdlab.compress import low_rank

QUERY, FEED, WORDS = "*.query", "*.intermediate.dense", "*word_embeddings"


@pytest.fixture(scope="module")
def bert():
    return text.untrained(5, layers=2, width=16, heads=2, vocab_size=60)


@pytest.fixture(scope="module")
def tokens():
    x = torch.randint(1, 60, (40, 9), generator=torch.Generator().manual_seed(1))
    return x * (torch.arange(9) < torch.arange(40)[:, None] % 8 + 2)  # padded with 0


def linear(n_in=12, n_out=20, seed=0, **how):
    torch.manual_seed(seed)
    return nn.Linear(n_in, n_out, dtype=torch.float64, **how)


def correlated(n=400, n_in=12, seed=2):
    """Inputs that vary in a few directions and hardly in the others, around a mean."""
    rng = torch.Generator().manual_seed(seed)
    scales = 3.0 ** -torch.arange(n_in, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(n_in, n_in, dtype=torch.float64, generator=rng)).Q
    return (torch.randn(n, n_in, dtype=torch.float64, generator=rng) * scales + 0.3) @ turned


def distance(layer, other, x):
    return (layer(x) - other(x)).square().sum().item()


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_plain_product_is_numpys_truncated_svd(shape, rank):
    layer = linear(*shape)
    u, s, v = np.linalg.svd(layer.weight.detach().numpy())
    by_numpy = u[:, :rank] * s[:rank] @ v[:rank]
    made = low_rank.product(layer, rank)
    np.testing.assert_allclose(made.weight.detach().numpy(), by_numpy, atol=1e-12)
    assert torch.equal(made.bias, layer.bias)
    left = np.linalg.norm(layer.weight.detach().numpy() - made.weight.detach().numpy()) ** 2
    assert left == pytest.approx((s[rank:] ** 2).sum())  # Eckart & Young
    np.testing.assert_allclose(compress.spectrum(layer).numpy(), s, atol=1e-12)


def test_no_product_of_the_rank_comes_nearer_to_the_outputs_than_the_weighted_one():
    """The least there is, of the outputs themselves by numpy; and the plain product and random steps do worse."""
    layer, x, rank = linear(bias=False), correlated(), 3
    made = low_rank.product(layer, rank, x.T @ x / len(x))
    y = layer(x).detach().numpy()
    s = np.linalg.svd(y, compute_uv=False)
    assert distance(layer, made, x) == pytest.approx((s[rank:] ** 2).sum(), rel=1e-3)
    assert distance(layer, made, x) < 0.5 * distance(layer, low_rank.product(layer, rank), x)
    for _ in range(20):
        other = copy.deepcopy(made)
        for part in other:
            part.weight.data += 1e-2 * torch.randn_like(part.weight)
        assert distance(layer, made, x) < distance(layer, other, x)


def test_white_inputs_make_the_weighted_product_the_plain_one():
    layer = linear()
    white = low_rank.product(layer, 4, 5.0 * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(white.weight, low_rank.product(layer, 4).weight)


def test_the_weighted_spectrum_squared_is_the_mean_square_of_the_outputs():
    layer, x = linear(bias=False), correlated()
    values = compress.spectrum(layer, x.T @ x / len(x))
    assert values.square().sum().item() == pytest.approx(layer(x).square().sum(dim=1).mean().item(), rel=1e-4)


def test_directions_that_no_input_used_are_kept_in_the_order_of_their_weights():
    """Two inputs out of twelve were ever other than 0: with more rank than that, the plain spectrum decides."""
    layer, x = linear(), torch.zeros(50, 12, dtype=torch.float64)
    x[:, :2] = torch.randn(50, 2, dtype=torch.float64)
    made = low_rank.product(layer, 5, x.T @ x / 50)
    assert distance(layer, made, x) < 1e-4 * layer(x).square().sum()
    assert (made.weight - layer.weight).norm() < layer.weight[:, 2:].norm()


@pytest.mark.parametrize("weighted", [False, True])
def test_an_embedding_is_a_shorter_one_and_a_linear_map(weighted):
    """By numpy: the rows times the square root of how often they come, cut."""
    torch.manual_seed(0)
    words = nn.Embedding(50, 8, padding_idx=0, dtype=torch.float64)
    often = torch.rand(50, dtype=torch.float64) if weighted else torch.ones(50, dtype=torch.float64)
    made = low_rank.product(words, 3, often if weighted else None)
    table = words.weight.detach().numpy()
    v = np.linalg.svd(np.sqrt(often.numpy())[:, None] * table)[2][:3]
    np.testing.assert_allclose(made.weight.detach().numpy(), table @ v.T @ v, atol=1e-5)
    x = torch.tensor([[4, 0, 7], [1, 49, 0]])
    torch.testing.assert_close(made(x), words(x) @ torch.tensor(v.T @ v), atol=1e-5, rtol=0)
    assert made[0].padding_idx == 0 and made[0].weight.shape == (50, 3) and made[1].bias is None


def test_at_full_rank_nothing_changes_and_the_model_given_never_does(bert, tokens):
    before = {name: value.clone() for name, value in bert.state_dict().items()}
    with pytest.warns(UserWarning, match="query and 12 more layers grow"):  # all but the classifier: its 5 of 16
        made = compress.factorize(bert, 16, but="*classifier")
    torch.testing.assert_close(metrics.logits(made, tokens), metrics.logits(bert, tokens))
    made = compress.factorize(bert, 2, (QUERY, WORDS))
    assert not torch.allclose(metrics.logits(made, tokens), metrics.logits(bert, tokens))
    assert all(torch.equal(value, before[name]) for name, value in bert.state_dict().items())
    assert all(weight.requires_grad for weight in made.parameters()) and not made.training


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("names, high, low", [([QUERY, FEED], 8, 3), ([QUERY, FEED], 1.0, 0.5), (WORDS, 12, 5)])
def test_a_lower_rank_is_what_factorizing_at_that_rank_gives(bert, tokens, names, high, low, weighted):
    moments = compress.input_moments(bert, tokens, names, pad=0) if weighted else None
    thin = compress.factorize(bert, high, names, moments=moments)
    before = metrics.logits(thin, tokens)
    lower, anew = compress.lower_rank(thin, low), compress.factorize(bert, low, names, moments=moments)
    torch.testing.assert_close(metrics.logits(lower, tokens), metrics.logits(anew, tokens))
    for cost in (metrics.parameters, metrics.disk_bytes, lambda net: metrics.multiply_adds(net, tokens)):
        assert cost(lower) == cost(anew) < cost(thin)
    assert torch.equal(metrics.logits(thin, tokens), before), "the one given stays as it is"
    again = compress.lower_rank(compress.lower_rank(thin, high), low)
    assert torch.equal(metrics.logits(again, tokens), metrics.logits(lower, tokens))


def test_a_lower_rank_keeps_what_is_frozen_and_refuses_what_it_cannot_do(bert):
    thin = compress.factorize(bert, {QUERY: 6, WORDS: 8})
    thin.get_submodule("model.bert.embeddings.word_embeddings").requires_grad_(False)
    lower = compress.lower_rank(thin, 4, QUERY)
    words = lower.get_submodule("model.bert.embeddings.word_embeddings")
    assert not any(weight.requires_grad for weight in words.parameters()) and words[0].embedding_dim == 8
    query = lower.get_submodule("model.bert.encoder.layer.0.attention.self.query")
    assert query[0].weight.requires_grad and query[0].out_features == query[1].in_features == 4
    with pytest.raises(ValueError, match="query has the rank 6, and 7 is more; factorize the model it is of"):
        compress.lower_rank(thin, 7)
    with pytest.raises(ValueError, match="no Product of this model is called"):
        compress.lower_rank(bert, 2)
    with pytest.raises(ValueError, match="was changed after it was factorized, as by int8; lower its rank before that"):
        compress.lower_rank(compress.int8(thin), 2)


def test_no_random_number_is_drawn(bert):
    torch.manual_seed(3)
    compress.factorize(bert, 2, (QUERY, WORDS))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_below_break_even_parameters_and_multiply_adds_fall_in_the_same_proportion():
    net, x = nn.Sequential(nn.Linear(96, 192, bias=False)), torch.zeros(1, 96)
    assert compress.break_even(96, 192) == 64
    for rank in (16, 32, 64):
        made = compress.factorize(net, rank)
        for cost in (metrics.parameters, lambda net: metrics.multiply_adds(net, x)):
            assert cost(made) * 64 == cost(net) * rank
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.parameters(compress.factorize(net, 1.0)) == metrics.parameters(net)


def test_a_factorized_embedding_is_smaller_and_multiplies_more(bert, tokens):
    made = compress.factorize(bert, 4, WORDS)
    assert metrics.parameters(bert) - metrics.parameters(made) == 60 * 16 - (60 + 16) * 4
    assert metrics.multiply_adds(made, tokens[:1]) - metrics.multiply_adds(bert, tokens[:1]) == 9 * 4 * 16


def test_a_share_is_of_each_layers_own_break_even_and_ranks_may_go_by_name(bert):
    made = compress.factorize(bert, 0.5, (QUERY, FEED))
    layer = made.model.bert.encoder.layer[0]
    assert layer.attention.self.query[0].out_features == 4  # half of 16 · 16 / 32
    assert layer.intermediate.dense[0].out_features == 6  # half of 16 · 64 / 80, cut to whole
    made = compress.factorize(bert, {"*layer.0.*query": 3, QUERY: 5, FEED: 0.25})
    first, second = made.model.bert.encoder.layer
    assert (first.attention.self.query[0].out_features, second.attention.self.query[0].out_features) == (3, 5)
    assert first.intermediate.dense[0].out_features == 3 and isinstance(first.output.dense, nn.Linear)


@pytest.mark.parametrize("rank", [0, -1, 17, 1.5, 0.0, True, "4", 4.0])
def test_a_rank_that_cannot_be_names_the_layer_and_what_it_may_be(bert, rank):
    with pytest.raises(ValueError, match=r"layer\.0\.attention\.self\.query has 16 inputs.*from 1 to 16, or a share"):
        compress.factorize(bert, rank, QUERY)


def test_names_that_fit_nothing_or_come_twice_are_told(bert):
    with pytest.raises(ValueError, match=r"no Linear or Embedding.*'\*\.querry'"):
        compress.factorize(bert, 2, "*.querry")
    with pytest.raises(ValueError, match="leave `names` out"):
        compress.factorize(bert, {QUERY: 2}, QUERY)


def test_moments_are_the_mean_outer_products_of_what_the_layers_met_without_the_padding(bert, tokens):
    """By hand: one text after another, cut to its own length, the layers' inputs kept by hooks of our own."""
    layer, met = bert.model.bert.encoder.layer[1].intermediate.dense, []
    hook = layer.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].flatten(0, 1)))
    for row in tokens:
        bert(row[row != 0][None])
    hook.remove()
    met = torch.cat(met).double().detach()
    moments = compress.input_moments(bert, tokens, (FEED, WORDS, "*pooler.dense"), pad=0)
    torch.testing.assert_close(
        moments["model.bert.encoder.layer.1.intermediate.dense"], met.T @ met / len(met), rtol=1e-4, atol=1e-5
    )
    share = torch.bincount(tokens[tokens != 0], minlength=60).double() / (tokens != 0).sum()
    torch.testing.assert_close(moments["model.bert.embeddings.word_embeddings"], share)
    assert moments["model.bert.pooler.dense"].shape == (16, 16)  # one input a text
    assert not any(module._forward_pre_hooks for module in bert.modules())


def test_moments_make_the_nets_outputs_nearer(bert, tokens):
    named = (QUERY, FEED, "*.output.dense", WORDS)
    moments = compress.input_moments(bert, tokens, named, pad=0)
    away = [
        (metrics.logits(compress.factorize(bert, 5, named, moments=m), tokens) - metrics.logits(bert, tokens)).norm()
        for m in (None, moments)
    ]
    assert away[1] < away[0]


def test_moments_of_other_layers_are_refused(bert, tokens):
    moments = compress.input_moments(bert, tokens, QUERY, pad=0)
    with pytest.raises(ValueError, match="know nothing of model.bert.encoder.layer.0.intermediate.dense"):
        compress.factorize(bert, 2, FEED, moments=moments)
    with pytest.raises(ValueError, match=r"\(12,\) or \(12, 12\), got \(16, 16\)"):
        compress.spectrum(linear(), torch.eye(16))


def test_a_tied_weight_is_refused_by_both_names():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.decoder = nn.Embedding(30, 8), nn.Linear(8, 30, bias=False)
            self.decoder.weight = self.words.weight

    for name in ("words", "decoder"):
        with pytest.raises(ValueError, match="(words and decoder|decoder and words) share one weight.*clone"):
            compress.factorize(Model(), 2, name)
    with pytest.raises(ValueError, match="share one weight"):
        compress.factorize(Model(), 2)


def test_a_layer_that_is_used_in_several_places_is_still_one_afterwards():
    shared = nn.Linear(8, 8)
    made = compress.factorize(nn.Sequential(shared, nn.ReLU(), shared), 2)
    assert made[0] is made[2] and made[0][0].out_features == 2


@pytest.mark.parametrize("training", [False, True])
def test_torchs_own_transformer_gives_what_its_dense_products_give(training):
    """Its fast path and its attention read weights by themselves: they find the product."""
    torch.manual_seed(0)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2)
    made, dense, x = compress.factorize(net, 4), copy.deepcopy(net).eval(), torch.randn(3, 5, 16)
    for name, layer in made.named_modules():
        if isinstance(layer, low_rank.Product):
            dense.get_submodule(name).weight.data = layer.weight.detach()
    made.train(training)
    dense.train(training)
    padded = torch.tensor([[False] * (5 - n) + [True] * n for n in (0, 1, 2)])
    with torch.no_grad():
        given, wanted = (each(x, src_key_padding_mask=padded) for each in (made, dense))
    torch.testing.assert_close(given[~padded[:, : given.shape[1]]], wanted[~padded[:, : wanted.shape[1]]])


def test_it_can_be_saved_and_loaded_into_one_made_of_untrained_weights(bert, tokens):
    made = compress.factorize(bert, 3, (FEED, WORDS))
    other = compress.factorize(text.untrained(5, layers=2, width=16, heads=2, vocab_size=60, seed=1), 3, (FEED, WORDS))
    other.load_state_dict(made.state_dict())
    torch.testing.assert_close(metrics.logits(other, tokens), metrics.logits(made, tokens))


def test_very_few_inputs_are_enough_for_a_weighted_factorization():
    """Fewer inputs than numbers of one: their moments are of low rank, and rounding must not make them negative."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(400, 300)), torch.randn(20, 400) + 300 * torch.randn(400)
    made = low_rank.factorize(net, 25, moments=low_rank.input_moments(net, x))
    with torch.no_grad():
        torch.testing.assert_close(made(x), net(x), rtol=1e-2, atol=1e-2)
