"""The bias of a class never seen: against trying every bias, and against counting."""

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


def test_cases_of_equal_margin_turn_together():
    """Planted: twenty equal cases, half of them right once turned; no bias can turn only those."""
    logits, y = torch.zeros(20, 2), torch.tensor([1, 0] * 10)
    logits[:, 0] = 1.0
    logits = torch.cat([logits, torch.tensor([[9.0, 0.0]])])
    bias = class_bias.by_errors(logits, torch.cat([y, torch.tensor([0])]), [1])
    assert metrics.errors(class_bias.shifted(logits, [1], bias), torch.cat([y, torch.tensor([0])])) == 10


def test_shifting_is_moving_the_last_layers_bias():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 5), torch.randn(7, 4)
    before = layer(x).detach()
    with torch.no_grad():
        layer.bias[2] += 1.5
    torch.testing.assert_close(class_bias.shifted(before, [2], 1.5), layer(x).detach())


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s, y: class_bias.by_errors(s, y[:3], [1]), "must have the shapes"),
        (lambda s, y: class_bias.by_errors(s, y, []), "some, not all"),
        (lambda s, y: class_bias.by_errors(s, y, [0, 1]), "some, not all"),
        (lambda s, y: class_bias.by_errors(s, y, [2]), "some, not all"),
        (lambda s, y: class_bias.by_errors(s * torch.nan, y, [1]), "finite"),
        (lambda s, y: class_bias.by_frequency(s, [1], 1.0), "between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_said(ask, said):
    with pytest.raises(ValueError, match=said):
        ask(torch.randn(6, 2), torch.tensor([0, 1] * 3))
