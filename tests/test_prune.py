"""Weights at zero that stay zero, heads and layers that are really gone; beside torch's and transformers' own tools."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune as torchs

from kdlab import metrics, randomness, text, train
from kdlab.compress import prune, surgery

transformers = pytest.importorskip("transformers")


@pytest.fixture
def bert():
    """Two layers of four heads of four numbers each; weights larger than a fresh net's, so that heads matter."""
    net = text.untrained(5, layers=2, width=16, heads=4, vocab_size=50, seed=1)
    with torch.no_grad():
        for layer in surgery.layers(net).values():
            layer.weight.mul_(20)
    return net


@pytest.fixture
def texts():
    """(12, 7) token numbers, some texts shorter, and their classes."""
    with randomness.for_a_step(0):
        x, y = torch.randint(1, 50, (12, 7)), torch.randint(0, 5, (12,))
    x[:4, 5:] = 0
    return x, y


@pytest.fixture
def mlp():
    """The reader's own model."""
    with randomness.for_a_step(0):
        return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))


@pytest.fixture
def cases():
    with randomness.for_a_step(1):
        return torch.randn(64, 10), torch.randint(0, 3, (64,))


def linears(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def same(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items()) and a.keys() == b.keys()


# ---- weights


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_magnitude_is_torchs_global_unstructured(mlp, share):
    theirs = copy.deepcopy(mlp)
    torchs.global_unstructured([(layer, "weight") for layer in linears(theirs)], torchs.L1Unstructured, amount=share)
    for layer in linears(theirs):
        torchs.remove(layer, "weight")
    assert same(prune.magnitude(mlp, share).state_dict(), theirs.state_dict())


def test_magnitude_per_layer_is_torchs_l1_unstructured(mlp):
    theirs = copy.deepcopy(mlp)
    for layer in linears(theirs):
        torchs.remove(torchs.l1_unstructured(layer, "weight", amount=0.45), "weight")
    assert same(prune.magnitude(mlp, 0.45, per_layer=True).state_dict(), theirs.state_dict())


def test_the_net_that_was_given_stays_and_biases_and_embeddings_are_left_alone(bert):
    before = copy.deepcopy(bert.state_dict())
    sparse = prune.magnitude(bert, 0.5, "*encoder*")
    assert same(bert.state_dict(), before)
    changed = {name for name, value in sparse.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{name}.weight" for name in surgery.layers(bert, "*encoder*")}
    assert prune.zeros(sparse, "*encoder*") == 0.5
    assert (
        metrics.nonzero(bert) - metrics.nonzero(sparse)
        == sum(layer.weight.numel() for layer in surgery.layers(bert, "*encoder*").values()) / 2
    )


def test_exactly_the_share_goes_where_many_weights_are_equally_small(mlp):
    with torch.no_grad():
        for layer in linears(mlp):
            layer.weight.fill_(1.0)
    assert prune.zeros(prune.magnitude(mlp, 0.25)) == pytest.approx(0.25, abs=1e-3)


def test_zeros_that_are_there_count(mlp):
    once = prune.magnitude(mlp, 0.5)
    assert same(prune.magnitude(once, 0.4).state_dict(), once.state_dict())
    assert same(prune.magnitude(once, 0.7).state_dict(), prune.magnitude(mlp, 0.7).state_dict())


def test_a_weight_that_layers_share_is_cut_once_and_stays_shared():
    tied = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    tied[1].weight = tied[0].weight
    sparse = prune.magnitude(tied, 0.5)
    assert sparse[1].weight is sparse[0].weight
    assert sparse[0].weight.count_nonzero() == 32


def test_a_sparse_net_costs_what_the_dense_one_costs(bert, texts):
    sparse = prune.magnitude(bert, 0.9)
    for cost in (metrics.parameters, metrics.disk_bytes, lambda net: metrics.multiply_adds(net, texts[0])):
        assert cost(sparse) == cost(bert)
    assert metrics.nonzero(sparse) < metrics.nonzero(bert)


def descend(net, x, y, steps):
    """A loop of its own: Adam on the whole set."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def test_held_trains_as_torchs_masks_do_and_leaves_a_plain_net(mlp, cases):
    ours = prune.magnitude(mlp, 0.6)
    theirs = copy.deepcopy(mlp)
    torchs.global_unstructured([(layer, "weight") for layer in linears(theirs)], torchs.L1Unstructured, amount=0.6)
    names = list(ours.state_dict())
    with prune.hold_zeros(ours):
        assert list(ours.state_dict()) == names
        train.fit(
            ours,
            cases,
            train.labels(),
            epochs=20,
            lr=0.01,
            batch_size=64,
            schedule=train.constant,
            optimizer=lambda p, lr: torch.optim.Adam(p, lr=lr),
        )
    descend(theirs, *cases, 20)
    for layer in linears(theirs):
        torchs.remove(layer, "weight")
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=2e-4)
    assert prune.zeros(ours) == prune.zeros(theirs) == pytest.approx(0.6, abs=2e-3)
    assert not hasattr(ours, "constrain")
    copy.deepcopy(mlp).load_state_dict(ours.state_dict())


def test_without_held_the_zeros_are_gone_after_one_step(mlp, cases):
    """The planted bug."""
    sparse = prune.magnitude(mlp, 0.6)
    train.fit(sparse, cases, train.labels(), epochs=1, lr=0.01, batch_size=64)
    assert prune.zeros(sparse) < 0.2  # those of units that were never on had no gradient


def test_held_calls_a_nets_own_constraint_too_and_blocks_may_be_nested(mlp):
    class Bounded(nn.Sequential):
        def constrain(self):
            self[0].weight.data.clamp_(-0.1, 0.1)

    net = prune.magnitude(Bounded(*mlp), 0.5)
    with prune.hold_zeros(net, "0"), prune.hold_zeros(net, "2"):
        for layer in linears(net):
            layer.weight.data.add_(1.0)
        net.constrain()
    assert net[0].weight.max() <= 0.1
    assert (net[0].weight == 0).any() and (net[2].weight == 0).any() and not (net[4].weight == 0).any()
    assert "constrain" not in vars(net)


def test_gradually_follows_zhu_and_guptas_cubic(mlp, cases):
    with prune.gradually(mlp, 0.8, steps=20, every=5):
        training = train.Training(mlp, cases, train.labels(), epochs=30, lr=0.01, batch_size=64)
        seen = [prune.zeros(mlp) for _ in training]
    final, start, n, delta = 0.8, 0.0, 4, 5  # eq. 1 with t0 = 0: s_t = s_f + (s_i - s_f) (1 - t / (n Δt))³
    expected = [final + (start - final) * (1 - 5 * (min(t, 20) // 5) / (n * delta)) ** 3 for t in range(1, 31)]
    assert seen == pytest.approx(expected, abs=2e-3)


def test_what_gradually_cut_never_comes_back(mlp, cases):
    cut = torch.zeros_like(mlp[2].weight, dtype=torch.bool)
    with prune.gradually(mlp, 0.9, steps=40, every=4, per_layer=True):
        for _ in train.Training(mlp, cases, train.labels(), epochs=40, lr=0.05, batch_size=64):
            now = mlp[2].weight == 0
            assert not (cut & ~now).any()
            cut = now
    assert cut.float().mean() == pytest.approx(0.9, abs=2e-3)


def test_gradually_says_when_the_training_was_too_short(mlp, cases):
    said = "for 50 steps, and 10 were taken: it ends at 39% and not at 80%; train longer"  # 0.8 (1 - 0.8³)
    with pytest.raises(ValueError, match=said), prune.gradually(mlp, 0.8, steps=50):
        train.fit(mlp, cases, train.labels(), epochs=10, lr=0.01, batch_size=64)


@pytest.mark.parametrize("share", [1, -0.1, 30, math.nan])
def test_a_share_outside_its_range_is_refused(mlp, share):
    for use in (
        lambda: prune.magnitude(mlp, share),
        lambda: prune.gradually(mlp, share, 10).__enter__(),
        lambda: prune.least_important(torch.rand(2, 4), share),
    ):
        with pytest.raises(ValueError, match=f"at least 0 and below 1, got {share}; for 30 % give 0.3"):
            use()


def test_a_name_that_fits_no_layer_is_refused(mlp):
    with pytest.raises(ValueError, match="no Linear of this model is called"):
        prune.magnitude(mlp, 0.5, "*encoder*")


# ---- heads


def muted(net, remove, scale=0.0):
    """A copy whose heads are there, and turned down: by the columns of the layer after the attention."""
    net = copy.deepcopy(net)
    for i, layer in enumerate(net.model.bert.encoder.layer):
        for head in remove.get(i, []):
            layer.attention.output.dense.weight.data[:, 4 * head : 4 * head + 4] *= scale
    return net


def test_without_heads_the_logits_are_those_of_the_full_net_with_their_output_at_zero(bert, texts):
    remove = {0: [1, 3], 1: [0, 1, 2]}
    small = prune.heads(bert, remove)
    logits, before = metrics.logits(small, texts[0]), metrics.logits(bert, texts[0])
    torch.testing.assert_close(logits, metrics.logits(muted(bert, remove), texts[0]))
    assert (logits - before).abs().max() > 0.1
    assert metrics.logits(bert, texts[0]).equal(before)


def test_the_matrices_of_heads_are_really_smaller_as_transformers_own_tool_makes_them(bert, texts):
    from transformers.pytorch_utils import prune_linear_layer

    small = prune.heads(bert, {1: [2]}).model.bert.encoder.layer[1].attention
    whole = bert.model.bert.encoder.layer[1].attention
    stay = torch.tensor([i for i in range(16) if i // 4 != 2])
    for name in ("query", "key", "value"):
        theirs = prune_linear_layer(copy.deepcopy(getattr(whole.self, name)), stay)
        assert same(getattr(small.self, name).state_dict(), theirs.state_dict())
        assert getattr(small.self, name).out_features == 12
    assert same(
        small.output.dense.state_dict(), prune_linear_layer(copy.deepcopy(whole.output.dense), stay, dim=1).state_dict()
    )
    assert (small.self.num_attention_heads, small.self.all_head_size, small.output.dense.in_features) == (3, 12, 12)
    gone = 4 * (3 * (16 + 1) + 16)
    assert metrics.parameters(bert) - metrics.parameters(prune.heads(bert, {1: [2]})) == gone
    assert metrics.multiply_adds(prune.heads(bert, {1: [2]}), texts[0]) < metrics.multiply_adds(bert, texts[0])


def test_heads_go_by_and_by_as_they_go_at_once(bert, texts):
    twice = prune.heads(prune.heads(bert, {0: [1]}), {0: [2]})  # what was head 3 is now head 2
    assert metrics.logits(twice, texts[0]).equal(metrics.logits(prune.heads(bert, {0: [1, 3]}), texts[0]))


@pytest.mark.parametrize("kind", ["DistilBert", "Roberta", "Electra"])
def test_other_encoders_lose_heads_too(kind, texts):
    sizes = (
        {"dim": 16, "hidden_dim": 32, "n_heads": 4, "n_layers": 2}
        if kind == "DistilBert"
        else {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    )
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, num_labels=5, pad_token_id=0, **sizes)
    net = text.Bert(getattr(transformers, f"{kind}ForSequenceClassification")(config)).eval()
    small = prune.heads(net, {0: [0], 1: [1, 2, 3]})
    assert metrics.parameters(net) - metrics.parameters(small) == 4 * 4 * (3 * 17 + 16)
    assert metrics.logits(small, texts[0]).shape == (12, 5)


def test_a_net_without_heads_or_layers_is_plain_and_its_weights_load_into_one_built_alike(bert, texts, tmp_path):
    small = prune.layers(prune.heads(bert, {0: [1], 1: [0, 3]}), [1])
    made_by = {type(module).__module__.split(".")[0] for module in small.model.modules()}
    assert made_by <= {"torch", "transformers"}
    assert not any({"forward", "constrain"} & set(vars(module)) for module in small.modules())
    torch.save(small.model, tmp_path / "small.pt")
    again = torch.load(tmp_path / "small.pt", weights_only=False)
    assert metrics.logits(text.Bert(again), texts[0]).equal(metrics.logits(small, texts[0]))
    other = prune.layers(
        prune.heads(text.untrained(5, layers=2, width=16, heads=4, vocab_size=50, seed=9), {0: [1], 1: [0, 3]}), [1]
    )
    other.load_state_dict(small.state_dict())
    assert metrics.logits(other, texts[0]).equal(metrics.logits(small, texts[0]))


def test_importance_is_the_mean_size_of_the_slope_by_finite_differences(bert, texts):
    x, y = texts
    bert.double()

    def losses(scale, layer, head):
        return F.cross_entropy(metrics.logits(muted(bert, {layer: [head]}, scale), x), y, reduction="none")

    h = 1e-5
    expected = [
        [((losses(1 + h, i, j) - losses(1 - h, i, j)) / (2 * h)).abs().mean().item() for j in range(4)]
        for i in range(2)
    ]
    for batch_size in (64, 5):
        found = prune.head_importance(bert, x, y, batch_size)
        torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-7)


def test_a_head_whose_output_is_zero_does_not_matter_and_asking_leaves_nothing_behind(bert, texts):
    net = muted(bert, {1: [2]}).requires_grad_(False).train()
    importance = prune.head_importance(net, *texts)
    assert importance[1, 2] == 0 and (importance > 0).sum() == 7
    assert net.training and not any(p.requires_grad or p.grad is not None for p in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_net_with_fewer_heads_has_nan_where_there_is_none(bert, texts):
    importance = prune.head_importance(prune.heads(bert, {1: [0]}), *texts)
    assert importance.shape == (2, 4)
    assert importance.isnan().nonzero().tolist() == [[1, 3]]
    remove = prune.least_important(importance, 5 / 7)  # all that can go
    assert [len(remove[layer]) for layer in (0, 1)] == [3, 2] and 3 not in remove[1]


def test_the_least_important_heads_go_and_the_best_of_each_layer_stays():
    importance = torch.tensor([[0.1, 0.2, 0.3], [9.0, 8.0, 7.0]])
    assert prune.least_important(importance, 0.0) == {}
    assert prune.least_important(importance, 1 / 3) == {0: [0, 1]}
    assert prune.least_important(importance, 0.5) == {0: [0, 1], 1: [2]}  # not head 2 of layer 0, its last
    with pytest.raises(ValueError, match="5 heads shall go, and only 4 can: one stays in each of 2 layers"):
        prune.least_important(importance, 0.8)


def test_errors_about_heads_name_the_layer_and_the_head(bert, mlp):
    with pytest.raises(ValueError, match="all 4 heads of layer 1 shall go, and at least one must stay"):
        prune.heads(bert, {0: [1], 1: range(4)})
    with pytest.raises(ValueError, match="layer 0 has no head 4: it has heads 0 to 3"):
        prune.heads(bert, {0: [1, 4]})
    with pytest.raises(ValueError, match="there is no layer 2: this model has attention in layers 0 to 1"):
        prune.heads(bert, {2: [0]})
    with pytest.raises(ValueError, match="no attention with its own linear layers.* in this Sequential$"):
        prune.heads(mlp, {0: [0]})
    with pytest.raises(ValueError, match="nn.MultiheadAttention is, which can only be as wide as its input"):
        prune.heads(encoder(), {0: [0]})


# ---- layers


def encoder(n=4):
    """torch's own: the reader's model with one nn.ModuleList."""
    with randomness.for_a_step(2):
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, n, enable_nested_tensor=False)


def test_layers_that_are_left_compute_what_they_computed():
    net, x = encoder(), torch.randn(3, 5, 8)
    for i, layer in enumerate(net.layers):
        layer.linear1.weight.data.mul_(1 + i)
    half = prune.layers(net, [0, 3])
    with torch.no_grad():
        torch.testing.assert_close(half.eval()(x), net.layers[3].eval()(net.layers[0].eval()(x)))
    assert len(net.layers) == 4


def test_a_bert_with_fewer_layers_is_saved_and_loaded_by_transformers_alone(bert, texts, tmp_path):
    half = prune.layers(bert, [1])
    half.model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == 1 and bert.model.config.num_hidden_layers == 2
    torch.testing.assert_close(metrics.logits(text.Bert(again), texts[0]), metrics.logits(half, texts[0]))
    assert [m.layer_idx for m in half.modules() if hasattr(m, "layer_idx")] == [0]


def test_layer_drop_skips_each_layer_as_often_as_it_was_told():
    net, called = encoder(4), []
    for i, layer in enumerate(net.layers):
        layer.register_forward_hook(lambda _, inputs, out, i=i: called.append((i, out is inputs[0])))
    with randomness.for_a_step(3), prune.layer_drop(net, 0.25):
        for _ in range(200):
            net.train()(torch.zeros(1, 1, 8))
    for i in range(4):
        skipped = [skip for j, skip in called if i == j]
        assert len(skipped) == 200
        assert abs(sum(skipped) - 50) < 4 * math.sqrt(200 * 0.25 * 0.75)


def test_layer_drop_repeats_with_the_seed_and_ends_with_its_block(bert, texts):
    """In eval mode all layers compute; after the block the net is as plain as before."""
    whole, weights = metrics.logits(bert, texts[0]), []
    for seed in (0, 0, 1):
        net = copy.deepcopy(bert)
        with prune.layer_drop(net, 0.5):
            assert metrics.logits(net, texts[0]).equal(whole)
            train.fit(net, texts, train.labels(), epochs=3, lr=1e-3, batch_size=6, seed=seed)
        assert not any("forward" in vars(module) for module in net.modules())
        weights.append(net.state_dict())
    assert same(weights[0], weights[1]) and not same(weights[0], weights[2])


def test_layer_drop_at_zero_changes_nothing(bert, texts):
    nets = [copy.deepcopy(bert) for _ in range(2)]
    train.fit(nets[0], texts, train.labels(), epochs=1, lr=1e-3, batch_size=6)
    with prune.layer_drop(nets[1], 0.0):
        train.fit(nets[1], texts, train.labels(), epochs=1, lr=1e-3, batch_size=6)
    differ = [(a - b).abs().max() for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True)]
    assert max(differ) < 1e-2  # dropout draws other numbers once layers draw, too


@pytest.mark.parametrize("keep", [[], [2, 0], [0, 0], [0, 4], [-1]])
def test_layers_that_are_not_there_or_out_of_order_are_refused(keep):
    with pytest.raises(ValueError, match="keep is some of the layers 0 to 3 of 'layers', each once, in order; got"):
        prune.layers(encoder(), keep)


def test_which_list_of_layers_must_be_clear(mlp):
    two = nn.ModuleDict({"a": encoder(2), "b": encoder(3)})
    assert len(prune.layers(two, [0], "b.layers")["b"].layers) == 1
    for net, name, said in (
        (two, None, "no name was given; there are a.layers, b.layers"),
        (two, "c", "'c' is none; there are a.layers"),
        (mlp, None, "none in this model"),
    ):
        with pytest.raises(ValueError, match=said):
            prune.layers(net, [0], name)
    with pytest.raises(ValueError, match="p is the probability of skipping a layer, at least 0 and below 1, got 1"):
        prune.layer_drop(two, 1, "a.layers").__enter__()
