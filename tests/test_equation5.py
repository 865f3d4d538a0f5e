"""Eq. 5 for many images at once, against slow and separate ways of solving it."""

import numpy as np
import pytest
import scipy.optimize
import torch

from kdlab import losses
from kdlab.specialists import equation5

C = 7
CLUSTERS = [[0, 1, 2], [2, 3, 4, 5], [5, 6]]


@pytest.fixture(params=[0, 1, 2])
def case(request):
    """Logits of a generalist and three specialists on 12 cases, of which some wake none, some all three."""
    rng = torch.Generator().manual_seed(request.param)
    generalist = torch.randn(12, C, dtype=torch.float64, generator=rng)
    answers = [torch.randn(12, len(own) + 1, dtype=torch.float64, generator=rng) for own in CLUSTERS]
    awake = torch.rand(12, 3, generator=rng) < 0.5
    awake[0], awake[1] = False, True
    return generalist, answers, CLUSTERS, awake


def one_by_one(generalist, answers, clusters, awake) -> torch.Tensor:
    """The separate solution: eq. 5 as it is written, image by image, minimized by scipy's L-BFGS over z."""
    rows = []
    for i in range(len(generalist)):
        p_g = torch.softmax(generalist[i], 0).numpy()
        theirs = [(own, torch.softmax(answers[m][i], 0).numpy()) for m, own in enumerate(clusters) if awake[i, m]]

        def eq_5(z, p_g=p_g, theirs=theirs):
            q = np.exp(z - z.max())
            q /= q.sum()
            value = (p_g * np.log(p_g / q)).sum()
            for own, p in theirs:
                mine = np.append(q[own], 1 - q[own].sum())
                value += (p * np.log(p / mine)).sum()
            return value

        best = scipy.optimize.minimize(eq_5, np.log(p_g), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
        rows.append(torch.log_softmax(torch.from_numpy(best.x), 0))
    return torch.stack(rows)


@pytest.mark.parametrize("rate", [None, 2.0, equation5.SAFE])
def test_eq_5_for_a_batch_is_what_scipy_finds_image_by_image(case, rate):
    q = equation5.solve(*case, rate=rate, tolerance=1e-8, most=5_000).exp()
    torch.testing.assert_close(q, one_by_one(*case).exp(), rtol=0, atol=2e-5)
    torch.testing.assert_close(q[0], torch.softmax(case[0][0], 0), rtol=1e-9, atol=1e-9)  # nobody woke


def test_the_gradient_is_autograds(case):
    z = torch.randn(12, C, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    by_autograd = torch.autograd.grad(equation5.objective(z, *case).sum(), z)[0]
    answers, q = equation5.gather(*case), z.detach().softmax(1)
    torch.testing.assert_close(answers.nets * (q - answers.target(q)), by_autograd, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [None, 0.5, equation5.SAFE])
def test_no_step_makes_eq_5_larger(case, rate):
    way = equation5.path(*case, n_steps=60, rate=rate)
    values = torch.stack([equation5.objective(log_q, *case) for log_q in way])
    assert (values[1:] <= values[:-1] + 1e-12).all()
    torch.testing.assert_close(way[0].exp(), case[0].softmax(1), rtol=0, atol=1e-11)
    assert values[-1][1] < values[0][1]


def test_where_all_have_the_full_softmax_q_is_the_arithmetic_mean():
    """The closed form of eq. 5, as section 5 of the paper gives it."""
    rng = torch.Generator().manual_seed(0)
    generalist, *answers = torch.randn(4, 20, C, dtype=torch.float64, generator=rng)
    everyone = torch.ones(20, 3, dtype=torch.bool)
    q = equation5.solve(generalist, answers, [range(C)] * 3, everyone).exp()
    mean = torch.stack([generalist, *answers]).softmax(dim=2).mean(dim=0)
    torch.testing.assert_close(q, mean, rtol=1e-6, atol=1e-9)
    by_losses = losses.ensemble(torch.stack([generalist, *answers]), T=1.0)
    torch.testing.assert_close(q.log(), by_losses, rtol=1e-6, atol=1e-6)
    single = [x.float() for x in (generalist, *answers)]
    in_single = equation5.solve(single[0], single[1:], [range(C)] * 3, everyone).exp()
    torch.testing.assert_close(in_single, mean.float(), rtol=1e-5, atol=1e-6)


def test_a_dustbin_alone_only_scales():
    """One awake specialist that is sure of its dustbin: the others keep their proportions, by hand."""
    generalist = torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64).log()
    sure = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).log()  # -inf: probabilities of 0
    q = equation5.solve(generalist, [sure], [[0, 1]], torch.tensor([[True]]), tolerance=1e-12, most=5000).exp()
    # minimize Σ p log(p/q) - log(q2 + q3): q0, q1 = p/2; the rest holds 1 - (0.5 + 0.2) / 2, two to one
    torch.testing.assert_close(q, torch.tensor([[0.25, 0.1, 0.65 * 2 / 3, 0.65 / 3]], dtype=torch.float64))
    assert equation5.objective(q.log(), generalist, [sure], [[0, 1]], torch.tensor([[True]])).isfinite()


def test_a_class_that_all_hold_impossible_gets_nothing_and_one_that_a_specialist_sees_comes_back():
    generalist = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).log()
    says_one = torch.tensor([[0.0, 1.0, 0.0]]).log()
    q = equation5.solve(generalist, [says_one], [[0, 1]], torch.tensor([[True]])).exp()
    torch.testing.assert_close(q[0, :2], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-3)
    assert q[0, 2:].sum() < 1e-3 and q.isfinite().all()


def test_log_q_is_finite_where_a_probability_is_too_small_for_single_precision():
    generalist, says = torch.tensor([[0.0, -200.0, 1.0]]), torch.tensor([[3.0, -150.0, 0.0]])
    parts = generalist, [says], [[0, 1]], torch.tensor([[True]])
    for log_q in (equation5.solve(*parts), *equation5.path(*parts, n_steps=30)):
        assert log_q.isfinite().all() and equation5.objective(log_q, *parts).isfinite().all()


def test_the_order_of_specialists_and_sleeping_ones_make_no_difference(case):
    generalist, answers, clusters, awake = case
    q = equation5.solve(*case, tolerance=1e-10)
    turned = equation5.solve(generalist, answers[::-1], clusters[::-1], awake.flip(1), tolerance=1e-10)
    torch.testing.assert_close(q, turned)
    noise = [torch.where(awake[:, m, None], a, torch.randn_like(a)) for m, a in enumerate(answers)]
    torch.testing.assert_close(q, equation5.solve(generalist, noise, clusters, awake, tolerance=1e-10))
    torch.testing.assert_close(
        q[3:4], equation5.solve(generalist[3:4], [a[3:4] for a in answers], clusters, awake[3:4], tolerance=1e-10)
    )


def test_many_cases_go_through_in_parts(case, monkeypatch):
    whole = equation5.solve(*case)
    monkeypatch.setattr(equation5, "CHUNK", 5)
    torch.testing.assert_close(equation5.solve(*case), whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, a, k, w: (g, a[:2], k, w), "3 clusters want 3 specialists"),
        (lambda g, a, k, w: (g, a, k, w[:5]), "awake as bool of shape"),
        (lambda g, a, k, w: (g, a, k, w.float()), "float32"),
        (lambda g, a, k, w: (g, [x[:, :-1] for x in a], k, w), "the dustbin last"),
        (lambda g, a, k, w: (g[:6], a, k, w[:6]), "logits should be"),
    ],
)
def test_shapes_that_do_not_belong_together_are_named(case, change, said):
    with pytest.raises(ValueError, match=said):
        equation5.solve(*change(*case))


def test_a_rate_that_may_climb_is_refused(case):
    for rate in (0.0, -1.0, 4.5):
        with pytest.raises(ValueError, match="larger"):
            equation5.solve(*case, rate=rate)
