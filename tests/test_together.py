"""Ways of compressing, stacked: what order can be, when the net learns again, and what the losses add up to."""

import math

import pytest
import torch
from torch import nn

from kdlab import compress, text, train
from kdlab.compress import prune, quantize, together

WORDS = 1_000


def bert():
    return text.untrained(5, layers=4, width=16, heads=2, vocab_size=WORDS, max_position_embeddings=16)


def texts(n=12):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(104, WORDS, (n, 8), generator=rng), torch.arange(n) % 5


def halves():
    x, y = texts()
    return {
        "layers": lambda net: prune.layers(net, [0, 3]),
        "heads": lambda net: prune.heads(net, prune.least_important(prune.head_importance(net, x, y), 0.5)),
        "factors": lambda net: compress.factorize(net, 0.5, "*.intermediate.dense"),
        "zeros": lambda net: prune.magnitude(net, 0.5, "*encoder*"),
        "bytes": quantize.int8,
    }


def test_a_stack_is_the_ways_one_after_another_and_leaves_the_net_given():
    net, (x, _), ways = bert(), texts(), halves()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    made = compress.stack(net, ways, ["layers", "factors", "bytes"])
    by_hand = ways["bytes"](ways["factors"](ways["layers"](net)))
    assert torch.equal(made(x), by_hand(x))
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert torch.equal(compress.stack(net, ways, [])(x), net(x))


def test_the_order_makes_another_net():
    ways = halves()
    zeros = {
        order: prune.zeros(compress.stack(bert(), ways, order), "*encoder*")
        for order in (("factors", "zeros"), ("zeros", "factors"))
    }
    assert zeros["factors", "zeros"] == pytest.approx(0.5, abs=1e-3)
    assert zeros["zeros", "factors"] < 0.45, "factorizing the emptied matrices should fill them again"


def test_it_learns_once_after_the_cuts_and_before_the_bytes_and_its_zeros_stay():
    (x, y), seen = texts(), []

    def recover(net):
        seen.append((len(net.model.bert.encoder.layer), prune.zeros(net, "*encoder*")))
        with prune.hold_zeros(net, "*encoder*"):
            train.fit(net, (x, y), train.labels(), epochs=2, lr=1e-2, batch_size=6)

    net = compress.stack(bert(), halves(), ["layers", "zeros"], recover)
    assert seen == [(2, pytest.approx(0.5, abs=1e-3))]
    assert prune.zeros(net, "*encoder*") == pytest.approx(0.5, abs=1e-3)
    in_bytes = compress.stack(bert(), halves(), ["layers", "zeros", "bytes"], recover)
    assert len(seen) == 2 and not in_bytes.training
    assert torch.equal(in_bytes(x), quantize.int8(net)(x))
    compress.stack(bert(), halves(), ["bytes"], recover)
    assert len(seen) == 2, "nothing was cut, so there is nothing to recover from"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (["bytes", "factors"], "factors cannot come after bytes.*neither be cut nor learn.*let bytes be the last"),
        (["layers", "halves"], "no way called 'halves'; there are layers, heads"),
        (["layers", "layers"], "layers comes twice in layers → layers"),
    ],
)
def test_an_order_that_cannot_be_is_refused_before_anything_is_done(order, said):
    def never(net):
        raise AssertionError("should not be called")

    with pytest.raises(ValueError, match=said):
        compress.stack(bert(), dict.fromkeys(halves(), never), order)


def test_the_readers_own_model_and_ways_will_do():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    ways = {"half": lambda net: prune.magnitude(net, 0.5), "16 bits": lambda net: net.bfloat16()}
    with pytest.raises(ValueError, match="half cannot come after 16 bits"):
        compress.stack(net, ways, ["16 bits", "half"], last=["16 bits"])
    made = compress.stack(net, ways, ["half", "16 bits"], last=["16 bits"])
    assert made[0].weight.dtype == torch.bfloat16 and net[0].weight.dtype == torch.float32


def test_subsets_are_all_choices_in_order():
    assert compress.subsets("abc") == [(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert len(compress.subsets("abcd")) == 16


# ---- do the losses add up?

A, B, AB, NONE = map(frozenset, (["a"], ["b"], ["a", "b"], []))


def test_excess_of_two_by_hand():
    """Ten texts: a loses 1, b loses 2, together 5: two more than the sum."""
    right = {NONE: torch.ones(10), A: torch.ones(10), B: torch.ones(10), AB: torch.ones(10)}
    right[A][:1], right[B][1:3], right[AB][:5] = 0, 0, 0
    assert [compress.loss(right, each).value for each in ("a", "b", "ab")] == pytest.approx([10, 20, 50])
    assert compress.excess(right, "ab").value == pytest.approx(20)
    per_text = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 0, 0]).double()
    assert compress.excess(right, "ab").error == pytest.approx(100 * float(per_text.std()) / math.sqrt(10))
    kept = 0.5 / (0.9 * 0.8)
    assert compress.ratio_excess(right, "ab").value == pytest.approx(math.log(kept))


def test_the_sum_of_all_takes_the_single_losses_only():
    rng = torch.Generator().manual_seed(0)
    right = {frozenset(each): (torch.rand(200, generator=rng) < 0.8).float() for each in compress.subsets("abcd")}
    score = {each: 100 * float(values.mean()) for each, values in right.items()}
    by_hand = (score[NONE] - score[frozenset("abcd")]) - sum(score[NONE] - score[frozenset(each)] for each in "abcd")
    assert compress.excess(right, "abcd").value == pytest.approx(by_hand)


def test_independent_chances_multiply_and_so_the_losses_do_not_quite_add():
    """A text is right where a and b both leave it right, each by its own coin: 0.9 · 0.8 = 0.72."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200_000, generator=rng) < p for p in (0.9, 0.8))
    right = {NONE: torch.ones(len(a)), A: a, B: b, AB: a & b}
    assert abs(compress.ratio_excess(right, "ab").value) < 0.002 and not compress.ratio_excess(right, "ab").told_apart
    assert compress.excess(right, "ab").value == pytest.approx(28 - 30, abs=0.3)
    assert compress.excess(right, "ab").told_apart


def test_the_errors_are_those_of_the_bootstrap():
    rng = torch.Generator().manual_seed(0)
    base = torch.rand(400, generator=rng) < 0.9
    chances = {NONE: 1, A: 0.9, B: 0.8, AB: 0.7}
    right = {each: base & (torch.rand(400, generator=rng) < p) for each, p in chances.items()}
    drawn = [torch.randint(400, (400,), generator=rng) for _ in range(1_500)]
    for of in (compress.excess, compress.ratio_excess):
        again = torch.tensor([of({each: values[i] for each, values in right.items()}, "ab").value for i in drawn])
        assert of(right, "ab").error == pytest.approx(float(again.std()), rel=0.1)


def test_what_is_missing_or_does_not_fit_is_named():
    right = {NONE: torch.ones(4), A: torch.zeros(4), B: torch.ones(4)}
    with pytest.raises(ValueError, match="the stack of a, b was not measured; there are 3 others"):
        compress.excess(right, "ab")
    with pytest.raises(ValueError, match="0 is no share"):
        compress.ratio_excess(right | {AB: torch.ones(4)}, "ab")
    with pytest.raises(ValueError, match=r"same texts .* \(3,\) for a, b and \(4,\) for none"):
        compress.excess(right | {AB: torch.ones(3)}, "ab")
    assert not together.Estimate(1.0, 0.6).told_apart and together.Estimate(-1.0, 0.4).told_apart
