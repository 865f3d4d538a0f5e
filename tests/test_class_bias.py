"""The bias of a class never seen: against trying every bias, against counting, and against every assignment."""

import itertools

import pytest
import torch

from kdlab import metrics
from kdlab.metrics import class_bias


@pytest.fixture(params=range(5))
def case(request):
    rng = torch.Generator().manual_seed(request.param)
    logits, y = torch.randn(200, 5, generator=rng) * 3, torch.randint(0, 5, (200,), generator=rng)
    logits[torch.arange(200), y] += 2
    logits[:, 3] -= 6  # never seen
    return logits, y


@pytest.mark.parametrize("classes", [[3], [3, 1], [0, 1, 2, 4]])
def test_the_bias_by_errors_is_as_good_as_the_best_of_a_fine_grid(case, classes):
    logits, y = case
    grid = [metrics.errors(class_bias.shifted(logits, classes, b), y) for b in torch.linspace(-25, 25, 5001).tolist()]
    assert metrics.errors(class_bias.shifted(logits, classes, class_bias.by_errors(logits, y, classes)), y) <= min(grid)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_bias_by_frequency_calls_that_share_of_the_cases_so(case, share):
    logits, _ = case
    called = class_bias.shifted(logits, [3], class_bias.by_frequency(logits, [3], share)).argmax(dim=1)
    assert int((called == 3).sum()) == round(share * 200)


@pytest.mark.parametrize("shares", [{3: 0.2}, {3: 0.3, 1: 0.1}, {0: 0.2, 3: 0.25, 4: 0.15}])
def test_biases_by_frequencies_call_each_class_for_its_own_share(case, shares):
    logits, _ = case
    moved = class_bias.shifted(logits, [*shares], class_bias.by_frequencies(logits, shares))
    called = moved.argmax(dim=1).bincount(minlength=5)
    assert [int(called[c]) for c in shares] == pytest.approx([200 * share for share in shares.values()], abs=1)


def test_for_one_class_by_frequencies_is_by_frequency(case):
    logits, _ = case
    assert class_bias.by_frequencies(logits, {3: 0.2}) == pytest.approx([class_bias.by_frequency(logits, [3], 0.2)])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shares", [{0: 0.25, 1: 0.25}, {2: 0.25, 0: 0.375}, {0: 0.125, 1: 0.25, 2: 0.375}])
def test_by_frequencies_finds_the_assignment_with_the_largest_sum_of_logits(seed, shares):
    """Tried: every way to call eight cases by four names, each name as often as its share says."""
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).double() * 3
    wanted = {c: round(8 * share) for c, share in shares.items()}
    ways = torch.tensor([*itertools.product(range(4), repeat=8)])  # (65536, 8)
    ways = ways[torch.stack([(ways == c).sum(dim=1) == n for c, n in wanted.items()]).all(dim=0)]
    best = ways[logits[torch.arange(8), ways].sum(dim=1).argmax()]
    found = class_bias.shifted(logits, [*shares], class_bias.by_frequencies(logits, shares)).argmax(dim=1)
    assert torch.equal(found, best)


def test_cases_of_equal_margin_turn_together():
    """Planted: twenty equal cases, half of them right once turned; no bias can turn only those."""
    logits, y = torch.zeros(20, 2), torch.tensor([1, 0] * 10)
    logits[:, 0] = 1.0
    logits = torch.cat([logits, torch.tensor([[9.0, 0.0]])])
    bias = class_bias.by_errors(logits, torch.cat([y, torch.tensor([0])]), [1])
    assert metrics.errors(class_bias.shifted(logits, [1], bias), torch.cat([y, torch.tensor([0])])) == 10


@pytest.mark.parametrize(("classes", "bias"), [([2], 1.5), ([4, 2], -0.5), ([4, 2], [1.5, -3.0])])
def test_shifting_is_moving_the_last_layers_bias(classes, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 5), torch.randn(7, 4)
    before = layer(x).detach()
    with torch.no_grad():
        layer.bias[classes] += torch.tensor(bias)
    torch.testing.assert_close(class_bias.shifted(before, classes, bias), layer(x).detach())


def test_recognized_counts_each_class_by_itself():
    logits = torch.eye(3)[[0, 0, 1, 2, 0, 1]]  # called 0, 0, 1, 2, 0, 1
    percent = class_bias.recognized(logits, torch.tensor([0, 0, 0, 2, 2, 2]))
    torch.testing.assert_close(percent, torch.tensor([200 / 3, torch.nan, 100 / 3]).double(), equal_nan=True)


def test_outcomes_are_those_of_each_bias_counted_by_hand(case):
    logits, y = case
    table = class_bias.outcomes(logits, y, [3, 1], [0.0, 4.0, -2.5])
    for bias, errors, percent in table.tolist():
        called = (logits + bias * torch.tensor([0, 1, 0, 1, 0])).argmax(dim=1).tolist()
        theirs = [(c, label) for c, label in zip(called, y.tolist(), strict=True) if label in (1, 3)]
        assert errors == sum(c != label for c, label in zip(called, y.tolist(), strict=True))
        assert percent == pytest.approx(100 * sum(c == label for c, label in theirs) / len(theirs), rel=1e-5)
    assert table[:, 0].tolist() == [0.0, 4.0, -2.5]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s, y: class_bias.by_errors(s, y[:3], [1]), "must have the shapes"),
        (lambda s, y: class_bias.by_errors(s, y, []), "some, not all"),
        (lambda s, y: class_bias.by_errors(s, y, [0, 1]), "some, not all"),
        (lambda s, y: class_bias.by_errors(s, y, [2]), "some, not all"),
        (lambda s, y: class_bias.by_errors(s * torch.nan, y, [1]), "finite"),
        (lambda s, y: class_bias.by_frequency(s, [1], 1.0), "between 0 and 1"),
        (lambda s, y: class_bias.by_frequencies(s, {1: 0.0}), "between 0 and 1"),
        (lambda s, y: class_bias.by_frequencies(torch.randn(6, 3), {1: 0.5, 2: 0.5}), "together below 1"),
        (lambda s, y: class_bias.by_frequencies(s, {}), "some, not all"),
        (lambda s, y: class_bias.shifted(s, [1], [1.0, 2.0]), "one for each of 1 classes, got 2"),
    ],
)
def test_what_makes_no_sense_is_said(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(torch.randn(6, 2), torch.tensor([0, 1] * 3))
