"""What a net costs, each thing counted by hand as well."""

import pickle
import warnings

import pytest
import torch
from torch import nn

from kdlab import metrics, plots, ruler, text


def bert(**settings):
    return text.untrained(3, layers=2, width=16, heads=2, vocab_size=50, max_position_embeddings=20, **settings)


def quantised(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def test_parameters_of_a_bert_by_hand():
    d, ff, words, places = 16, 64, 50, 20
    layer = 4 * (d * d + d) + (d * ff + ff) + (ff * d + d) + 2 * 2 * d
    by_hand = (words + places + 2) * d + 2 * d + 2 * layer + (d * d + d) + (3 * d + 3)
    assert metrics.parameters(bert()) == by_hand


def test_shared_weights_count_once_in_parameters_and_on_disk_but_not_in_operations():
    layer = nn.Linear(30, 30)
    once, twice, apart = nn.Sequential(layer), nn.Sequential(layer, layer), nn.Sequential(layer, nn.Linear(30, 30))
    x = torch.randn(1, 30)
    assert metrics.parameters(twice) == metrics.parameters(once) == 930
    assert metrics.disk_bytes(twice) < metrics.disk_bytes(apart) - 3000
    assert metrics.multiply_adds(twice, x) == 2 * metrics.multiply_adds(once, x)


def test_zeros_count_as_parameters_bytes_and_operations_but_not_as_nonzero():
    dense, sparse, x = nn.Linear(40, 50), nn.Linear(40, 50), torch.randn(1, 40)
    with torch.no_grad():
        sparse.weight[:25] = 0
    assert metrics.nonzero(dense) - metrics.nonzero(sparse) == 25 * 40
    assert metrics.parameters(dense) == metrics.parameters(sparse)
    assert metrics.disk_bytes(dense) == metrics.disk_bytes(sparse)
    assert metrics.multiply_adds(dense, x) == metrics.multiply_adds(sparse, x) == 2000


def test_bytes_on_disk_are_those_of_a_file(tmp_path):
    from safetensors.torch import save_model

    model = bert()
    save_model(model, str(tmp_path / "net.safetensors"))
    assert abs(metrics.disk_bytes(model) - (tmp_path / "net.safetensors").stat().st_size) < 200  # the header
    assert metrics.disk_bytes(model.half()) < 0.6 * (tmp_path / "net.safetensors").stat().st_size


@pytest.mark.parametrize("tokens", [1, 7])
def test_multiply_adds_of_a_bert_by_hand(tokens):
    d, ff, n = 16, 64, tokens
    by_hand = 3 * (2 * (4 * n * d * d + 2 * n * d * ff + 2 * n * n * d) + d * d + 3 * d)  # three texts
    assert metrics.multiply_adds(bert(), torch.ones(3, tokens, dtype=torch.long)) == by_hand


def test_multiply_adds_of_other_nets_by_hand():
    lstm = nn.LSTM(10, 20, bidirectional=True, batch_first=True)
    assert metrics.multiply_adds(lstm, torch.randn(2, 5, 10)) == 2 * 5 * 2 * 4 * (20 * 10 + 20 * 20)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    by_hand = 7 * (4 * 16**2 + 2 * 16 * 32) + 2 * 7**2 * 16  # of one layer and one text
    assert metrics.multiply_adds(encoder, torch.randn(3, 7, 16)) == 3 * 2 * by_hand
    assert metrics.multiply_adds(nn.Conv2d(3, 8, 3), torch.randn(1, 3, 10, 10)) == 8 * 8 * 8 * 27


def test_a_net_in_bytes_has_as_many_parameters_and_operations_and_fewer_bytes():
    model, x = text.untrained(3, layers=2, width=128, heads=2, vocab_size=50), torch.ones(2, 6, dtype=torch.long)
    small = quantised(model)
    assert metrics.parameters(small) == metrics.parameters(model)
    assert metrics.multiply_adds(small, x) == metrics.multiply_adds(model, x)
    assert metrics.disk_bytes(small) < 0.5 * metrics.disk_bytes(model)
    assert metrics.nonzero(small) <= metrics.nonzero(model)


def test_memory_is_the_most_that_is_held_at_once():
    """Three layers: at the second, its input and output are alive; what came before is not."""
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((10, 200), (200, 300), (300, 5))))
    assert metrics.memory(model, torch.randn(7, 10)) == 4 * 7 * (200 + 300)
    assert metrics.memory(model, torch.randn(14, 10)) == 2 * metrics.memory(model, torch.randn(7, 10))


def test_memory_counts_no_weights_and_no_views():
    model = nn.Sequential(nn.Linear(100, 4, bias=False), nn.Flatten(), nn.Unflatten(1, (2, 2)))
    assert metrics.memory(model, torch.randn(1, 100)) == 4 * 4


class Sleeps(nn.Module):
    """Takes a time that we set: longer in its first passes."""

    def __init__(self):
        super().__init__()
        self.calls, self.threads = 0, set()

    def forward(self, x):
        import time

        self.calls += 1
        self.threads.add(torch.get_num_threads())
        time.sleep(0.3 if self.calls <= 3 else 0.005)
        return x


def test_latency_is_the_median_of_warm_passes_on_the_threads_it_states():
    model, before = Sleeps(), torch.get_num_threads()
    timing = metrics.latency(model, torch.ones(1), repeats=8, warm=3, threads=2)
    assert model.calls == 11 and model.threads == {2} and torch.get_num_threads() == before
    assert 5 <= timing.low <= timing.median <= timing.high
    assert timing.median < 300 and (timing.n, timing.threads) == (8, 2)


def test_latency_stops_in_time_where_a_pass_takes_long():
    model = Sleeps()
    timing = metrics.latency(model, torch.ones(1), repeats=30, warm=5, seconds=0.12)  # the first three take 0.05 each
    assert model.calls == 3 and timing.n == 2 and timing.median >= 50


def test_measuring_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    x = torch.randn(2, 4)
    for measure in (metrics.multiply_adds, metrics.memory, metrics.latency):
        measure(model, x)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_accuracy_and_its_error_by_hand():
    logits, y = torch.eye(4)[[0, 1, 2, 3, 0]], torch.tensor([0, 1, 2, 3, 1])
    right = metrics.accuracy(logits, y)
    assert (right, right.error) == pytest.approx((80.0, 100 * (0.8 * 0.2 / 5) ** 0.5))
    assert repr(right) == "80 ± 18 %" and repr(metrics.accuracy(logits, logits.argmax(dim=1))) == "100 %"
    again = pickle.loads(pickle.dumps(right))
    assert (again, again.error, again.n) == (right, right.error, 5)


@pytest.fixture(scope="module")
def task():
    return text.read("glosses", n_train=5, n_dev=5, n_test=120)


def test_a_row_holds_each_cost_by_itself(task):
    net = text.untrained(45, layers=1, width=16, heads=2)
    row = ruler.measure("tiny", net, task, repeats=2)
    x = ruler.sample(task, 1)
    assert row["parameters"] == metrics.parameters(net) and row["multiply_adds"] == metrics.multiply_adds(net, x)
    assert row["scores"] == [metrics.accuracy(metrics.logits(net, task.x_test), task.y_test)]
    assert row["ms_1"] > 0 and row["ms_32"] > 0 and row["n_test"] == 120


def test_what_is_timed_is_real_text_without_padding(task):
    x = ruler.sample(task, 40)
    assert x.shape == (40, ruler.TOKENS) and x.all()
    there = {tuple(row) for row in task.x_test[:, : ruler.TOKENS].tolist()}
    assert {tuple(row) for row in x.tolist()} <= there
    with pytest.raises(ValueError, match="n_test"):
        ruler.sample(task._replace(x_test=task.x_test[:5]), 1)


def test_rows_are_kept_by_notebook_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    ruler.keep([{"name": "b"}], notebook="10_b")
    ruler.keep([{"name": "old"}], notebook="09_a")
    ruler.keep([{"name": "a"}], notebook="09_a")
    ruler.keep([{"name": "quick"}], notebook="09_a", profile="smoke")
    assert [row["name"] for row in ruler.kept()] == ["a", "b"]
    assert [row["name"] for row in ruler.kept("smoke")] == ["quick"]


ROW = {
    "name": "BERT",
    "parameters": 2e6,
    "nonzero": 2e6,
    "bytes": 8e6,
    "multiply_adds": 1e8,
    "ms_1": 4.0,
    "ms_32": 50.0,
    "memory": 1e6,
    "scores": [80.0],
    "n_test": 1600,
    "threads": 1,
}


def test_a_row_of_as_many_texts_as_notebook_09s_is_compared_with_its_bert(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    ruler.keep([ROW], notebook="09_the_ruler")
    ruler.keep([ROW | {"name": "same"}, ROW | {"name": "fewer", "n_test": 400}], notebook="10_b")
    _, same, fewer = ruler.kept()
    assert same["reference"] == {"name": "BERT", "score": 80.0} and "reference" not in fewer


def test_the_table_shows_shares_of_its_first_row():
    half = ROW | {"name": "half", "parameters": 1e6, "scores": [70.0, 72.0]}
    head, first, second = ruler.Table([ROW, half]).cells()
    assert first[1] == "2.0" and second[1] == "1.0 (50 %)"
    assert head[-3:] == ["right, %", "beside BERT, points", "seeds"]
    assert first[-3:] == ["80.0 ± 1.0", "", "1"]  # √(80 · 20 / 1600)
    assert second[-3:] == ["71.0 ± 1.5", "-9.0", "2"]  # √(71 · 29 / 1600 + 2 / 2)
    assert "<td" in ruler.Table([ROW])._repr_html_() and "half" in repr(ruler.Table([ROW, half]))
    with pytest.raises(ValueError, match="notebook 09"):
        ruler.Table([])


def test_scores_of_other_texts_are_compared_with_the_reference_on_those():
    fewer = ROW | {"name": "stack", "n_test": 400, "scores": [81.0]}
    with pytest.raises(ValueError, match="'stack' has 400 of them, 'BERT' 1,600.*reference=row"):
        ruler.Table([ROW, fewer])
    *_, line = ruler.Table([ROW, fewer | {"reference": {"name": "BERT", "score": 81.5}}]).cells()
    assert line[-3:] == ["81.0 ± 2.0 (400 texts)", "-0.5", "1"]  # below BERT, though 81 is above its 80


def test_a_measured_row_remembers_its_reference(task):
    net = text.untrained(45, layers=1, width=16, heads=2)
    row = ruler.measure("tiny", net, task, repeats=2, scores=[50.0], reference=ROW | {"scores": [79.0, 81.0]})
    assert row["reference"] == {"name": "BERT", "score": 80.0}


def test_the_front_is_what_nothing_beats():
    points = {"dear": (9, 80), "cheap": (1, 50), "worse": (2, 40), "middle": (4, 80), "tie": (4, 70)}
    assert plots.front(points) == ["cheap", "middle"]


@pytest.mark.parametrize(
    "points",
    [
        {f"net {i}": (10 + 0.01 * i, 50.0) for i in range(4)},
        {"a rather long name": (10, 50), "a dot beside": (10.5, 49.5), "dear": (30, 60), "bad": (30, 40)},
    ],
)
def test_names_in_a_chart_of_costs_cover_no_other_name_and_no_dot(points):
    ax = plots.tradeoff(points, "ms", "right, %")
    ax.figure.canvas.draw()
    boxes = [said.get_window_extent(ax.figure.canvas.get_renderer()) for said in ax.texts]
    assert len(boxes) == 4 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = ax.transData.transform(list(points.values()))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
