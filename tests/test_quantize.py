"""Weights on a grid, nets that learn there, and real bytes."""

import copy
import itertools
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from kdlab import compress, losses, metrics, text, train
from kdlab.compress import quantize


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


def bert():
    return text.untrained(5, layers=2, width=16, heads=2, vocab_size=50)


def tokens(n=6, length=7, seed=0):
    x = torch.randint(1, 50, (n, length), generator=torch.Generator().manual_seed(seed))
    x[0, 4:] = 0
    return x


@pytest.fixture
def no_fast_path():
    """torch's own quick way through nn.TransformerEncoderLayer knows no layers of bytes."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_weight_goes_to_the_nearest_value_of_a_grid_laid_by_hand(bits):
    weight = random(6, 40)
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    torch.testing.assert_close(quantize.steps(weight, bits), step[:, 0])
    by_hand = step * torch.round(weight / step)
    torch.testing.assert_close(quantize.rounded(weight, quantize.steps(weight, bits), bits), by_hand)


def test_eight_bits_err_by_half_a_step_at_the_most_and_each_bit_less_doubles_it_or_more():
    weight = random(20, 300)
    worst = []
    for bits in (8, 7, 6, 5):
        step = quantize.steps(weight, bits)
        error = (quantize.rounded(weight, step, bits) - weight).abs()
        assert (error <= step[:, None] * 0.5001).all()
        worst.append(float(error.max()))
    assert all(b > 1.8 * a for a, b in itertools.pairwise(worst))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("per, grids", [("channel", 8), ("tensor", 1)])
def test_a_layer_has_one_value_fewer_than_its_bits_tell_apart_on_each_of_its_grids(bits, per, grids):
    net = compress.fake_quantize(nn.Sequential(nn.Linear(500, 8)), bits, per=per)
    assert net[0].weight.unique().numel() == (2**bits - 2) * grids + 1  # all share the zero
    assert all(row.unique().numel() <= 2**bits - 1 for row in net[0].weight)


def test_the_grids_are_those_of_torchs_own_quantized_tensors():
    weight = random(8, 50)
    step = quantize.steps(weight, 8)
    torchs = torch.quantize_per_channel(weight, step.double(), torch.zeros(8, dtype=torch.long), 0, torch.qint8)
    torch.testing.assert_close(quantize.rounded(weight, step, 8), torchs.dequantize())
    one = quantize.steps(weight, 8, per="tensor")
    assert one.unique().numel() == 1
    torchs = torch.quantize_per_tensor(weight, float(one[0]), 0, torch.qint8)
    torch.testing.assert_close(quantize.rounded(weight, one, 8), torchs.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_grid_of_least_error_errs_less_and_about_as_little_as_a_fine_search_finds(bits):
    weight = random(4, 2000) * torch.tensor([1.0, 0.01, 5.0, 1.0])[:, None]
    weight[3, 0] = 40  # an outlier

    def error(step):
        return (quantize.rounded(weight, step, bits) - weight).square().mean(dim=1)

    widest, fitted = quantize.steps(weight, bits), quantize.steps(weight, bits, fit="error")
    fine = torch.stack([error(widest * share) for share in np.linspace(0.1, 1, 200)]).amin(dim=0)
    assert (error(fitted) <= error(widest)).all()
    assert (error(fitted) <= 1.05 * fine).all()
    if bits < 4:
        assert (error(fitted) < 0.7 * error(widest))[:3].all()


def test_the_gradient_goes_straight_through_the_rounding_and_stops_beyond_the_ends():
    weight = random(3, 40).requires_grad_()
    step = quantize.steps(weight, 3, fit="error")
    direction = random(3, 40, seed=1)
    (direction * quantize.rounded(weight, step, 3)).sum().backward()
    inside = (weight / step[:, None]).round().abs() <= 3
    assert 0 < (~inside).sum() < 30
    assert torch.equal(weight.grad, direction * inside)


def test_a_net_that_learns_on_the_grid_steps_by_the_gradient_at_its_rounded_weights():
    """One step of plain gradient descent, against the same by hand on two separate sets of weights."""
    x, y, net = random(16, 12), torch.arange(16) % 5, small()
    aware = compress.prepare_qat(net, 3)
    plain = compress.bake(aware)
    F.cross_entropy(plain(x), y).backward()
    F.cross_entropy(aware(x), y).backward()
    for i in (0, 2):
        learned = aware[i].parametrizations.weight.original
        assert torch.equal(learned, net[i].weight)  # the free weights begin as they were
        torch.testing.assert_close(learned.grad, plain[i].weight.grad)
        assert not torch.equal(plain[i].weight, net[i].weight)


def test_baked_answers_as_the_net_that_learned_and_is_a_plain_net_again():
    net, x = small(), random(9, 12)
    aware = compress.prepare_qat(net, 4)
    train.fit(aware, (x, torch.arange(9) % 5), train.labels(), epochs=3, lr=1e-2)
    plain = compress.bake(aware)
    assert torch.equal(plain(x), aware(x))
    assert sorted(plain.state_dict()) == sorted(net.state_dict())
    assert not any(parametrize.is_parametrized(layer) for layer in plain.modules())
    assert parametrize.is_parametrized(aware[0])
    assert all(row.unique().numel() <= 15 for row in plain[0].weight)
    small().load_state_dict(safetensors.torch.load(safetensors.torch.save(plain.state_dict())))


def test_rounding_is_what_learning_on_the_grid_begins_with_and_leaves_the_net_given_as_it_was():
    net, x = bert(), tokens()
    before = copy.deepcopy(net.state_dict())
    first = compress.prepare_qat(net, 4, "*encoder*")
    assert torch.equal(metrics.logits(first, x), metrics.logits(compress.fake_quantize(net, 4, "*encoder*"), x))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(first.model.classifier.weight, net.model.classifier.weight)


def test_learning_on_the_grid_beats_rounding_what_was_learned_without_it():
    x = random(400, 12)
    y = (x[:, :5] * x[:, 5:10]).argmax(dim=1)
    net = small()
    train.fit(net, (x, y), train.labels(), epochs=60, lr=1e-2)
    aware = compress.prepare_qat(net, 2, fit="error")
    train.fit(aware, (x, y), train.labels(), epochs=60, lr=1e-2)
    after, during = compress.fake_quantize(net, 2, fit="error"), compress.bake(aware)
    loss = {each: float(losses.label(metrics.logits(each, x), y)) for each in (net, after, during)}
    assert loss[net] < loss[during] < loss[after] - 0.1


def test_embeddings_and_convolutions_are_rounded_too_and_a_channel_of_zeros_stays_zero():
    net = nn.Sequential(nn.Embedding(9, 6, padding_idx=0), nn.Conv1d(4, 3, 2), nn.Linear(5, 2))
    quantized = compress.fake_quantize(net, 3)
    for i in range(3):
        assert not torch.equal(quantized[i].weight, net[i].weight)
        by_hand = quantize.rounded(net[i].weight, quantize.steps(net[i].weight, 3), 3)
        torch.testing.assert_close(quantized[i].weight, by_hand)
    assert not quantized[0].weight[0].any()
    assert torch.equal(compress.fake_quantize(net, 3, but="0")[0].weight, net[0].weight)


def test_int8_embeddings_are_a_quarter_of_the_bytes_and_off_by_half_a_step():
    net = nn.Sequential(nn.Embedding(1000, 64)).eval()
    smaller = compress.int8_embeddings(net)
    assert 0.25 < metrics.disk_bytes(smaller) / metrics.disk_bytes(net) < 0.28
    assert metrics.parameters(smaller) == metrics.parameters(net) == 64_000
    x = torch.arange(1000).view(10, 100)
    error = (smaller(x) - net(x)).abs()
    assert (error <= 0.5001 * smaller[0].step[x][..., None]).all()
    torch.testing.assert_close(smaller(x)[..., :], compress.fake_quantize(net, 8)(x))


def test_int8_embeddings_agree_with_torchs_own_and_unlike_those_are_kept_by_safetensors():
    layer = nn.Embedding(50, 16)
    ours = compress.int8_embeddings(nn.Sequential(layer))
    per_row = torch.ao.quantization.float_qparams_weight_only_qconfig
    torchs = torch.ao.quantization.quantize_dynamic(
        nn.Sequential(copy.deepcopy(layer)), {nn.Embedding: per_row}, dtype=torch.quint8
    )
    x = torch.arange(50)
    torch.testing.assert_close(ours(x), torchs(x), atol=0.03, rtol=0)  # two grids, a step of 0.02 each
    state = safetensors.torch.load(safetensors.torch.save(ours.state_dict()))
    assert {name: str(value.dtype) for name, value in state.items()} == {
        "0.weight": "torch.int8",
        "0.step": "torch.float32",
    }
    other = compress.int8_embeddings(nn.Sequential(nn.Embedding(50, 16)))
    other.load_state_dict(state)
    assert torch.equal(other(x), ours(x))


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_int8_is_a_quarter_of_the_linear_layers_and_answers_nearly_the_same(per):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10)).eval(), random(50, 256)
    smaller = compress.int8(net, per=per)
    assert metrics.disk_bytes(smaller) < 0.3 * metrics.disk_bytes(net)
    assert metrics.parameters(smaller) == metrics.parameters(net)
    assert metrics.multiply_adds(smaller, x) == metrics.multiply_adds(net, x)
    s, t = metrics.logits(smaller, x), metrics.logits(net, x)
    assert 0 < (s - t).norm() / t.norm() < 0.03


def test_int8_takes_a_bert_and_layers_by_name_and_leaves_embeddings_in_floats_and_the_net_as_it_was():
    net, x = bert(), tokens()
    before = metrics.logits(net, x)
    smaller = compress.int8(net, "*encoder*")
    assert type(smaller.model.classifier) is nn.Linear
    assert smaller.model.bert.embeddings.word_embeddings.weight.dtype == torch.float32
    assert smaller.model.bert.encoder.layer[0].attention.self.query.weight().dtype == torch.qint8
    torch.testing.assert_close(metrics.logits(smaller, x), before, atol=0.02, rtol=0)
    assert torch.equal(metrics.logits(net, x), before)
    both = compress.int8(compress.int8_embeddings(net))
    assert metrics.parameters(both) == metrics.parameters(net)
    torch.testing.assert_close(metrics.logits(both, x), before, atol=0.02, rtol=0)


def test_int8_of_the_readers_own_transformer_and_of_a_net_that_learned_on_the_grid(no_fast_path):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0)
    net, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), random(3, 5, 16)
    smaller = compress.int8(compress.prepare_qat(net, 8), "*linear?")
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), net(x), atol=0.1, rtol=0)


def test_int8_says_nothing_of_deprecation(recwarn):
    compress.int8(small())
    assert not [str(each.message) for each in recwarn]


def test_errors_name_the_layer_and_the_reason(monkeypatch):
    net = small()
    with pytest.raises(ValueError, match="from 2 to 8, got 1; a grid of one bit has no zero"):
        compress.fake_quantize(net, 1)
    with pytest.raises(ValueError, match="no Linear or Embedding or .*decoder.*; there are 0, 2"):
        compress.prepare_qat(net, 4, "*decoder*")
    with pytest.raises(ValueError, match="per is one of channel, tensor, got 'row'"):
        compress.fake_quantize(net, 4, per="row")
    with pytest.raises(ValueError, match="fit is one of largest, error, got 'best'"):
        compress.fake_quantize(net, 4, fit="best")
    with pytest.raises(ValueError, match=r"weights of 0 are parametrised already \(weight\)"):
        compress.prepare_qat(compress.prepare_qat(net, 4), 2)
    with pytest.raises(ValueError, match="per is channel or tensor, got 'row'"):
        compress.int8(net, per="row")
    with pytest.raises(ValueError, match="0.weight is on meta.*model.cpu"):
        compress.int8(small().to("meta"))
    with pytest.raises(ValueError, match="0 shortens its rows.*max_norm=1"):
        compress.int8_embeddings(nn.Sequential(nn.Embedding(5, 3, max_norm=1.0)))
    net[2].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight of 2 holds NaN"):
        compress.fake_quantize(net, 4)
    monkeypatch.setattr(quantize, "_has_torch_ao", lambda: False)
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torchao; or use export.onnx_int8"):
        compress.int8(small())


def test_torchao_is_asked_for_the_chosen_layers_where_torch_has_lost_its_own(monkeypatch):
    """torchao itself is not needed here: a stand-in notes what it was asked."""
    asked = []

    class Library:
        Int8DynamicActivationInt8WeightConfig = dict

        @staticmethod
        def quantize_(model, config, filter_fn):
            asked.extend(name for name, layer in model.named_modules() if filter_fn(layer, name))

    monkeypatch.setattr(quantize, "_has_torch_ao", lambda: False)
    monkeypatch.setitem(sys.modules, "torchao.quantization", Library)
    compress.int8(small(), "2")
    assert asked == ["2"]
