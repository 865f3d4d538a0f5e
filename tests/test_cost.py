"""What a net costs, each thing counted by hand as well."""

import pickle
import re
import statistics
import warnings

import pytest
import small_models
import torch
from torch import nn

from kdlab import course, metrics, models, plots, text
from kdlab.metrics import cost


def bert(**settings):
    return text.untrained(3, layers=2, width=16, heads=2, vocab_size=50, max_position_embeddings=20, **settings)


def quantized(model: nn.Module) -> nn.Module:
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
    small = quantized(model)
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
    row = metrics.measure("tiny", net, task.test, repeats=2)
    few = metrics.sample(task.x_test, 8)
    singles = [each[None, : text.lengths(each[None])] for each in few]
    assert row.parameters == metrics.parameters(net)
    assert row.multiply_adds == sum(metrics.multiply_adds(net, x) for x in singles) / 8
    assert row.scores == pytest.approx((float(metrics.score(net, task.test)),))
    assert row.peak == metrics.weight_bytes(net) + metrics.memory(net, metrics.sample(task.x_test, 32))
    assert row.ms_1 > 0 and row.ms_32 > 0 and row.n_test == 120 and row.reference is None


def test_images_and_numbers_have_rows_too():
    net, images = models.convnet((4,), n_classes=3), torch.rand(50, 1, 8, 8)
    y = metrics.logits(net, images).argmax(dim=1)
    y[:5] = (y[:5] + 1) % 3
    row = metrics.measure("images", net, (images, y), repeats=2)
    products = 64 * 9 * 4 + 4 * 3  # a 3 × 3 convolution of one channel at 64 places, and a linear layer
    weights = 4 * 9 + 2 * 4 + 4 * 3 + 3
    assert (row.multiply_adds, row.parameters, row.scores) == (products, weights, (90.0,))
    assert metrics.measure("few", nn.Linear(6, 3), (torch.randn(2, 6), torch.tensor([0, 1])), repeats=2).n_test == 2


def test_a_model_of_transformers_is_measured_as_it_is():
    model, x = small_models.model_and_input("bert")
    x = torch.cat([x, torch.zeros_like(x)], dim=1)
    row = metrics.measure("bert", model, (x, model(x, x.ne(0).long()).logits.argmax(dim=1)), repeats=2)
    assert row.score == 100 and row.multiply_adds == metrics.multiply_adds(model, x[:1, :7])


def test_a_model_that_broke_is_refused_and_scores_of_several_seeds_are_not_compared_case_by_case():
    net = models.mlp((5,))
    data = torch.rand(20, 784), torch.arange(20) % 10
    row = metrics.measure("seeds", net, data, scores=[1.0, 2.0], reference=("net", net), repeats=2)
    assert row.scores == (1.0, 2.0) and row.reference.error is None
    net[1].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        metrics.measure("broken", net, data, repeats=2)


def test_whole_numbers_that_are_no_texts_are_not_cut():
    pixels = torch.zeros(5, 784, dtype=torch.uint8)
    assert metrics.sample(pixels, 3).shape == (3, 784)


class Slow(nn.Module):
    """Computes what its model does, five times over."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, x):
        for _ in range(4):
            self.inner(x)
        return self.inner(x)


def test_a_reference_is_timed_in_turns_and_asked_for_the_same_cases():
    net = models.mlp((600, 600))
    x, y = torch.rand(200, 784), torch.arange(200) % 10
    row = metrics.measure("slow", Slow(net), (x, y), reference=("net", net), repeats=15)
    assert row.reference.name == "net" and row.reference.score == row.score
    assert row.reference.error == 0  # the same answers, case by case
    assert 2 < row.ms_32 / row.reference.ms_32 < 12
    first = metrics.measure("net", net, (x, y), repeats=5).replace(ms_32=1e6)
    _, line = metrics.Table([first, row]).cells()[1:]
    share = re.search(r"\((.*) %\)", line[6])[1]  # of the reference's time, not of the first row's
    assert float(share) == pytest.approx(100 * row.ms_32 / row.reference.ms_32, abs=1)


def test_the_error_of_a_difference_counts_the_cases_that_differ():
    net, other = nn.Linear(4, 4), nn.Linear(4, 4)
    nn.init.eye_(net.weight), nn.init.eye_(other.weight), nn.init.zeros_(net.bias), nn.init.zeros_(other.bias)
    other.bias.data[0] = 1.5  # calls every case 0
    x, y = torch.eye(4).repeat(25, 1), torch.arange(100) % 4
    row = metrics.measure("other", other, (x, y), reference=("net", net), repeats=2)
    d = [0] * 25 + [-100] * 75
    by_hand = statistics.stdev(d) / 100**0.5
    assert (row.score, row.reference.score, row.reference.error) == pytest.approx((25, 100, by_hand))


def test_models_in_turns_get_the_same_inputs_in_turns():
    seen = []

    class Notes(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen.append((self.name, float(x)))
            return x

    timings = cost.in_turns([Notes("a"), Notes("b")], [torch.zeros(1), torch.ones(1)], repeats=2, warm=1)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 0), ("b", 0)]
    assert [each.n for each in timings] == [2, 2]


def test_what_is_timed_are_real_texts_at_their_own_lengths(task):
    x = metrics.sample(task.x_test, 40, tokens=16)
    assert x.shape == (40, 16) and x.all()
    there = {tuple(row) for row in task.x_test[:, :16].tolist()}
    assert {tuple(row) for row in x.tolist()} <= there
    with pytest.raises(ValueError, match="n_test"):
        metrics.sample(task.x_test[:5], 1, tokens=16)
    drawn = metrics.sample(task.x_test, 32, seed=3)
    lengths = text.lengths(drawn)
    assert drawn.shape[1] == lengths.max() and len(lengths.unique()) > 3
    assert not torch.equal(drawn, metrics.sample(task.x_test, 32, seed=4))


ROW = metrics.Row("BERT", (80.0,), 1600, 2_000_000, 2_000_000, 8_000_000, 1e8, 4.0, 50.0, 1_000_000, 1)


def test_rows_are_kept_by_notebook_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    rows = course.rows
    rows.keep([ROW.replace(name="b")], notebook="10_b")
    rows.keep([ROW.replace(name="old")], notebook="09_a")
    rows.keep([ROW.replace(name="a", reference=metrics.Reference("x", 50.0, 1.0))], notebook="09_a")
    rows.keep([ROW.replace(name="quick")], notebook="09_a", profile="smoke")
    assert [row.name for row in rows.kept()] == ["a", "b"]
    assert rows.kept()[0] == ROW.replace(name="a", reference=metrics.Reference("x", 50.0, 1.0))
    assert [row.name for row in rows.kept("smoke")] == ["quick"]


def test_a_row_of_as_many_texts_as_notebook_09s_is_compared_with_its_bert(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    course.rows.keep([ROW], notebook="09_the_ruler")
    course.rows.keep([ROW.replace(name="same"), ROW.replace(name="fewer", n_test=400)], notebook="10_b")
    _, same, fewer = course.rows.kept()
    assert same.reference == ROW.as_reference() and fewer.reference is None


def test_a_row_that_was_written_before_a_column_was_there_is_read_with_a_dash():
    plain = {"name": "old", "scores": [70.0], "n_test": 10, "parameters": 5, "memory": 3}
    row = metrics.Row.from_plain(plain)
    assert row.parameters == 5 and row.peak is None
    assert metrics.Table([ROW, row.replace(n_test=1600)]).cells()[-1][7] == "–"


def test_costs_that_depend_on_the_texts_are_shares_of_the_reference_on_the_same_texts(task):
    """A row of short texts does not look cheap beside a first row that was measured on long ones."""
    net = text.untrained(45, layers=1, width=16, heads=2)
    length = text.lengths(task.x_test)
    short, long = (tuple(each[length.argsort(descending=far)[:12]] for each in task.test) for far in (False, True))
    first = metrics.measure("net", net, long, repeats=2)
    row = metrics.measure("the same", net, short, repeats=2, reference=("net", net))
    alone = row.replace(name="without", reference=metrics.Reference("net", row.score))
    table = metrics.Table([first, row, alone])
    assert row.multiply_adds < first.multiply_adds, "the texts are shorter"
    assert table.share(row, "multiply_adds") == table.share(row, "peak") == 1
    assert table.share(alone, "multiply_adds") is None and table.share(alone, "ms_1") is None
    assert table.share(alone, "bytes") == 1, "the same on any texts"


def test_the_table_shows_shares_of_its_first_row():
    half = ROW.replace(name="half", parameters=1_000_000, scores=(70.0, 72.0))
    head, first, second = metrics.Table([ROW, half]).cells()
    assert first[1] == "2.0" and second[1] == "1.0 (50 %)"
    assert head[-3:] == ["right, %", "beside BERT, points", "seeds"]
    assert first[-3:] == ["80.0 ± 1.0", "", "1"]  # √(80 · 20 / 1600)
    assert second[-3:] == ["71.0 ± 1.5", "-9.0", "2"]  # √(71 · 29 / 1600 + 2 / 2)
    assert "<td" in metrics.Table([ROW])._repr_html_() and "half" in repr(metrics.Table([ROW, half]))
    nothing = ROW.replace(name="nothing", nonzero=0, multiply_adds=0.0)
    assert metrics.Table([nothing, ROW]).cells()[-1][2] == "2.0"  # no share of nothing
    with pytest.raises(ValueError, match="no rows to show"):
        metrics.Table([])
    with pytest.raises(TypeError, match="made of metrics.Row.* got a dict"):
        metrics.Table([ROW.plain()])


def test_scores_of_other_texts_are_compared_with_the_reference_on_those():
    fewer = ROW.replace(name="stack", n_test=400, scores=(81.0,))
    with pytest.raises(ValueError, match="'stack' has 400 of them, 'BERT' 1,600.*reference="):
        metrics.Table([ROW, fewer])
    with pytest.raises(ValueError, match="'stack' has 1,600 of them, 'BERT' 1,600 others"):
        metrics.Table([ROW.replace(cases="a"), ROW.replace(name="stack", cases="b")])
    *_, line = metrics.Table([ROW, fewer.replace(reference=metrics.Reference("BERT", 81.5))]).cells()
    assert line[-3:] == ["81.0 ± 2.0 (400 cases)", "-0.5", "1"]  # below BERT, though 81 is above its 80


def test_a_measured_row_remembers_its_reference(task):
    net = text.untrained(45, layers=1, width=16, heads=2)
    known = ROW.replace(scores=(79.0, 81.0))
    row = metrics.measure("tiny", net, task.test, repeats=2, scores=[50.0], reference=known)
    assert row.reference == known.as_reference() and row.scores == (50.0,)
    assert (known.as_reference().name, known.as_reference().score) == ("BERT", 80.0)


def test_the_front_is_what_nothing_beats():
    points = {"dear": (9, 80), "cheap": (1, 50), "worse": (2, 40), "middle": (4, 80), "tie": (4, 70)}
    assert metrics.front(points) == ["cheap", "middle"]


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
