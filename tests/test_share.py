"""One layer's weights in several layers: counted once, kept once, learned together; as many operations as before."""

import copy

import pytest
import safetensors.torch
import torch
from torch import nn

from kdlab import compress, metrics, store, text, train


def bert(layers=4):
    return text.untrained(5, layers=layers, width=16, heads=2, vocab_size=50)


def tokens(n=6, length=7):
    return torch.randint(1, 50, (n, length), generator=torch.Generator().manual_seed(0))


def encoder(layers=3):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()
    torch.manual_seed(0)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    return net


def of_one_layer(net):
    return metrics.parameters(net.model.bert.encoder.layer[0])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_parameters_fall_by_the_layers_that_went_and_operations_stay(groups):
    net, x = bert(), tokens()
    smaller = compress.share_layers(net, groups)
    assert metrics.parameters(net) - metrics.parameters(smaller) == (4 - groups) * of_one_layer(net)
    assert metrics.multiply_adds(smaller, x) == metrics.multiply_adds(net, x)
    saved = metrics.disk_bytes(net) - metrics.disk_bytes(smaller)
    assert saved >= 4 * (4 - groups) * of_one_layer(net)
    assert len(smaller.model.bert.encoder.layer) == 4


def test_as_many_groups_as_layers_change_nothing():
    net, x = bert(), tokens()
    assert torch.equal(metrics.logits(compress.share_layers(net, 4), x), metrics.logits(net, x))


def test_neighbors_share_and_uneven_groups_give_the_first_ones_more():
    layers = compress.share_layers(bert(5), 2).model.bert.encoder.layer
    assert [layers[i] is layers[0] for i in range(5)] == [True, True, True, False, False]
    assert layers[3] is layers[4]


@pytest.mark.parametrize("start", ["mean", "first"])
def test_a_group_begins_with_the_mean_of_its_layers_or_with_its_first(start):
    net = bert()
    layers = compress.share_layers(net, 2, start=start).model.bert.encoder.layer
    for name, weight in layers[3].named_parameters():
        own = [dict(net.model.bert.encoder.layer[i].named_parameters())[name] for i in (2, 3)]
        torch.testing.assert_close(weight, (own[0] + own[1]) / 2 if start == "mean" else own[0])


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_uses():
    """Against the same net with a copy of the weights in each layer, whose gradients are added up by hand."""
    net, x = compress.share_layers(encoder(), 1), torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    apart = copy.deepcopy(net)
    for i in range(3):
        apart.layers[i] = copy.deepcopy(net.layers[0])
    net(x).square().sum().backward()
    apart(x).square().sum().backward()
    for name, weight in net.layers[0].named_parameters():
        by_hand = sum(dict(layer.named_parameters())[name].grad for layer in apart.layers)
        torch.testing.assert_close(weight.grad, by_hand)


def test_what_is_shared_stays_shared_while_it_learns_and_the_net_given_stays_as_it_was():
    net, x, y = bert(), tokens(), torch.arange(6) % 5
    before = copy.deepcopy(net.state_dict())
    smaller = compress.share_layers(net, 2)
    train.fit(smaller, (x, y), train.labels(), epochs=3, lr=1e-2)
    layers = smaller.model.bert.encoder.layer
    assert torch.equal(layers[0].output.dense.weight, layers[1].output.dense.weight)
    assert not torch.equal(layers[1].output.dense.weight, layers[2].output.dense.weight)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_it_is_kept_once_and_comes_back_by_the_store_and_without_kdlab(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    net, x = compress.share_layers(bert(), 1), tokens()
    kept, _ = store.model("albert", {"groups": 1}, lambda: compress.share_layers(bert(), 1), lambda each: None)
    again, _ = store.model("albert", {"groups": 1}, lambda: compress.share_layers(bert(), 1), lambda each: 1 / 0)
    assert torch.equal(metrics.logits(kept, x), metrics.logits(again, x))
    assert metrics.parameters(again) == metrics.parameters(net)
    safetensors.torch.save_model(net, str(tmp_path / "albert.safetensors"))
    other = compress.share_layers(text.untrained(5, layers=4, width=16, heads=2, vocab_size=50, seed=1), 1)
    safetensors.torch.load_model(other, str(tmp_path / "albert.safetensors"))
    assert torch.equal(metrics.logits(other, x), metrics.logits(net, x))


def test_the_readers_own_net_is_shared_by_the_name_of_its_layers():
    net = nn.Sequential(nn.Linear(3, 8), nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))), nn.Linear(8, 2))
    assert metrics.parameters(compress.share_layers(net, 1, "1")) == metrics.parameters(net) - 2 * 72
    assert metrics.parameters(compress.share_layers(net)) == metrics.parameters(net) - 2 * 72  # the only ones alike
    assert metrics.parameters(compress.share_layers(encoder(), 1)) < metrics.parameters(encoder()) / 2


def test_errors_name_the_layers_and_the_reason():
    net = bert()
    with pytest.raises(ValueError, match="groups must be a whole number from 1 to 4, the layers in model.bert.encoder"):
        compress.share_layers(net, 5)
    with pytest.raises(ValueError, match="got 0"):
        compress.share_layers(net, 0)
    with pytest.raises(ValueError, match="start is mean or first, got 'last'"):
        compress.share_layers(net, 1, start="last")
    with pytest.raises(ValueError, match="no ModuleList or Sequential .*'decoder'; there are model.bert.encoder.layer"):
        compress.share_layers(net, 1, "decoder")
    net.model.bert.encoder.layer[2].output.dense = nn.Linear(30, 16)
    with pytest.raises(ValueError, match="layers 0 and 2 of model.bert.* cannot share.*output.dense.weight"):
        compress.share_layers(net, 1, "model.bert.encoder.layer")
    two = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), "b": encoder()})
    with pytest.raises(ValueError, match="2 of this model hold layers that are alike .a, b.layers"):
        compress.share_layers(two)
    with pytest.raises(ValueError, match="'\\*' fits a, b.layers"):
        compress.share_layers(two, 1, "*")
    with pytest.raises(ValueError, match="it has no ModuleList or Sequential at all"):
        compress.share_layers(nn.Linear(3, 3))
