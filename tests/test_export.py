"""Files that run without kdlab and without torch."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import small_models
import torch
from torch import nn

from kdlab import compress, metrics, models, text

pytestmark = pytest.mark.xdist_group("export")  # the file is written once
FRESH = """
import sys, json, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
x, = session.get_inputs()
logits, = session.run(None, {x.name: numpy.array(json.loads(sys.argv[2]), dtype=numpy.int64)})
assert not {"torch", "kdlab"} & set(sys.modules)
print(json.dumps(logits.tolist()))
"""


def bert(**settings):
    """A small one whose biases differ, too: ONNX keeps what is equal once."""
    net = text.untrained(5, **{"layers": 2, "width": 16, "heads": 2, "vocab_size": 60} | settings)
    rng = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=rng)
    return net


def tokens(n=6, length=7, seed=0):
    """Token numbers, the first text shorter than the others."""
    x = torch.randint(1, 60, (n, length), generator=torch.Generator().manual_seed(seed))
    x[0, max(1, length // 2) :] = 0
    return x


@pytest.fixture(scope="module")
def net():
    return bert()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    return compress.to_onnx(net, tokens(), tmp_path_factory.mktemp("onnx") / "bert.onnx")


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 32), (40, 12)])
def test_the_file_takes_texts_of_any_number_and_length_and_answers_as_the_net(net, file, shape):
    x = tokens(*shape)
    torch.testing.assert_close(metrics.logits(compress.OnnxNet(file), x), metrics.logits(net, x), atol=1e-4, rtol=0)


def test_the_file_runs_in_a_process_that_knows_neither_torch_nor_kdlab(net, file):
    x = tokens()
    said = subprocess.run([sys.executable, "-c", FRESH, file, json.dumps(x.tolist())], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    np.testing.assert_allclose(json.loads(said.stdout), metrics.logits(net, x).numpy(), atol=1e-4)


def low_rank(net):
    layer = net.model.bert.embeddings.word_embeddings
    u, s, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    small = nn.Sequential(nn.Embedding.from_pretrained(u[:, :4] * s[:4]), nn.Linear(4, 16, bias=False))
    small[1].weight.data = v[:4].T.contiguous()
    net.model.bert.embeddings.word_embeddings = small
    return net


def headless(net):
    """Its first layer with one head of two: half of the queries, keys and values."""
    own = net.model.bert.encoder.layer[0].attention
    for name in ("query", "key", "value"):
        setattr(own.self, name, nn.Linear(16, 8))
    own.output.dense = nn.Linear(8, 16)
    own.self.num_attention_heads, own.self.all_head_size = 1, 8
    return net


@pytest.mark.parametrize(
    "way",
    [low_rank, headless, compress.share_layers, lambda net: compress.prepare_qat(net, 3)],
    ids=["low rank", "one head", "shared", "on the grid"],
)
def test_compressed_nets_are_written_too(way, tmp_path):
    made, x = way(bert()).eval(), tokens()
    there = compress.OnnxNet(compress.to_onnx(made, x, tmp_path / "net.onnx"))
    torch.testing.assert_close(metrics.logits(there, x), metrics.logits(made, x), atol=1e-4, rtol=0)


def test_layers_that_are_shared_are_kept_once(tmp_path, net, file):
    smaller = compress.to_onnx(compress.share_layers(net), tokens(), tmp_path / "shared.onnx")
    assert compress.OnnxNet(file).costs()["parameters"] == pytest.approx(metrics.parameters(net), rel=0.01)
    saved = compress.OnnxNet(file).costs()["parameters"] - compress.OnnxNet(smaller).costs()["parameters"]
    assert saved == metrics.parameters(net.model.bert.encoder.layer[0])


def test_the_readers_own_net_of_numbers_is_written_too(tmp_path):
    net, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(5, 6)
    there = compress.OnnxNet(compress.to_onnx(net, x, tmp_path / "net.onnx"))
    for n in (1, 20):
        x = torch.randn(n, 6)
        torch.testing.assert_close(there(x), metrics.logits(net, x))


def test_a_bilstm_is_written_and_answers_texts_of_any_length_alike(tmp_path):
    net = models.bilstm(8, 6, n_words=50, n_classes=3).eval()
    there = compress.OnnxNet(compress.to_onnx(net, tokens(4, 7), tmp_path / "net.onnx"))
    for n, length in ((1, 2), (9, 13), (4, 1)):
        x = torch.randint(1, 50, (n, length))
        x[0, 1:] = 0  # a text of one word
        x[-1, -1:] = 0
        torch.testing.assert_close(there(x), metrics.logits(net, x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "roberta"])
def test_a_model_of_transformers_is_written_with_its_mask_as_an_input(kind, tmp_path):
    model, x = small_models.model_and_input(kind)
    mask = torch.ones_like(x)
    mask[0, 4:] = 0
    given = {"input_ids": x, "attention_mask": mask}
    there = compress.OnnxNet(compress.to_onnx(compress.factorize(model, 2), given, tmp_path / "net.onnx"))
    assert there.inputs == ["input_ids", "attention_mask"]
    expected = metrics.logits(compress.factorize(model, 2), given)
    torch.testing.assert_close(metrics.logits(there, given), expected, atol=1e-5, rtol=1e-4)
    assert (metrics.logits(there, given | {"attention_mask": torch.ones_like(x)}) - expected).abs().max() > 1e-4
    with pytest.raises(ValueError, match="takes the inputs input_ids, attention_mask; got input_ids"):
        there(x)


def test_a_copy_of_a_file_reads_the_same_file(net, file):
    there, x = compress.OnnxNet(file, threads=2), tokens()
    for copied in (copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
        assert torch.equal(copied(x), there(x)) and copied.threads == 2


def test_in_bytes_the_file_is_about_a_quarter_embeddings_too_and_answers_nearly_the_same(tmp_path):
    net, x = bert(width=64, vocab_size=4000), tokens()
    whole = compress.to_onnx(net, x, tmp_path / "net.onnx")
    small = compress.OnnxNet(compress.onnx_int8(whole, tmp_path / "int8.onnx"))
    costs, before = small.costs(), compress.OnnxNet(whole).costs()
    assert costs["bytes"] == (tmp_path / "int8.onnx").stat().st_size < 0.4 * before["bytes"]
    assert costs["parameters"] == pytest.approx(before["parameters"], rel=0.02)
    s, t = metrics.logits(small, x), metrics.logits(net, x)
    assert 0 < (s - t).norm() / t.norm() < 0.1


def test_a_row_takes_a_file_at_its_word(net, file):
    x = tokens(40, 20)
    y = x[:, 0] % 5
    row = metrics.measure("file", compress.OnnxNet(file), (x, y), repeats=2)
    assert row.bytes == file.stat().st_size
    assert row.multiply_adds is None and row.peak is None
    whole = metrics.measure("net", net, (x, y), repeats=2)
    assert row.scores == pytest.approx(whole.scores)
    shown = metrics.Table([whole, row]).cells()[-1]
    assert shown[4] == shown[7] == "–" and "%" in shown[3]
    first = metrics.Table([row, whole]).cells()[-1]  # what nobody counted of the first row is no base for shares
    assert "%" not in first[4] and "%" not in first[7] and "%" in first[3]


def test_threads_are_those_asked_for(file, monkeypatch):
    assert compress.OnnxNet(file).threads == 1
    assert compress.OnnxNet(file, threads=2).threads == 2


def test_errors_name_the_reason(net, file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"at least 2 cases of at least 2 tokens, got the shape \(1, 7\)"):
        compress.to_onnx(net, tokens(1), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="query is a layer of torch.ao in bytes.*onnx_int8"):
        compress.to_onnx(compress.int8(net), tokens(), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="per is channel or tensor, got 'row'"):
        compress.onnx_int8(file, tmp_path / "out.onnx", per="row")
    for read in (compress.OnnxNet, lambda path: compress.onnx_int8(path, tmp_path / "out.onnx")):
        with pytest.raises(FileNotFoundError, match="there is no .*none.onnx; to_onnx writes one"):
            read(tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"want onnxruntime: pip install 'kdlab\[deploy\]'"):
        compress.OnnxNet(file)


def test_a_file_of_another_program_is_taken_too(file):
    """The session is onnxruntime's own; kdlab adds nothing to the numbers."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = tokens(3, 5)
    assert np.array_equal(session.run(None, {"x": x.numpy()})[0], compress.OnnxNet(file)(x).numpy())
