"""Every loss against a formula written by hand, a limit of the paper's, or another way to compute it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlab import losses


def pair(n=8, classes=10, seed=0, scale=5.0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, n, classes, dtype=dtype, generator=rng)


def centered(logits):
    return logits - logits.mean(dim=1, keepdim=True)


def numpy_softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("T", [0.1, 1.0, 2.5, 20.0, 100.0])
def test_softened_is_eq_1(T):
    z, _ = pair()
    by_hand = [[math.exp(v / T) / sum(math.exp(w / T) for w in row) for v in row] for row in z.tolist()]
    torch.testing.assert_close(losses.softened(z, T), torch.tensor(by_hand, dtype=torch.float64))


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("n, classes", [(1, 2), (8, 10), (3, 400)])
def test_soft_targets_is_the_sum_p_log_p_over_q_times_T_squared(T, n, classes):
    s, t = pair(n, classes)
    p, q = numpy_softmax(t.numpy() / T), numpy_softmax(s.numpy() / T)
    by_hand = T**2 * (p * (np.log(p) - np.log(q))).sum() / n
    assert losses.soft_targets(s, t, T).item() == pytest.approx(by_hand, rel=1e-9)


def test_soft_targets_differs_from_the_papers_cross_entropy_by_the_entropy_of_the_targets():
    s, t = pair()
    T = 3.0
    p = F.softmax(t / T, dim=1)
    cross_entropy = -(p * F.log_softmax(s / T, dim=1)).sum(1).mean()
    entropy = torch.distributions.Categorical(p).entropy().mean()
    torch.testing.assert_close(losses.soft_targets(s, t, T), T**2 * (cross_entropy - entropy))


def test_eq_2_the_gradient_is_T_times_q_minus_p():
    """Eq. 2 has 1/T; the T² before the loss makes it T, and the mean over the batch divides by its size."""
    s, t = pair()
    s.requires_grad_(True)
    T = 2.5
    losses.soft_targets(s, t, T).backward()
    torch.testing.assert_close(s.grad, T * (F.softmax(s / T, 1) - F.softmax(t / T, 1)).detach() / len(s))


def test_eqs_3_and_4_in_the_hot_limit_the_gradient_is_that_of_half_the_squared_distance():
    s, t = pair()
    gaps = []
    for T in (10.0, 100.0, 1000.0):
        z = s.clone().requires_grad_(True)
        losses.soft_targets(z, t, T).backward()
        expected = (centered(s) - centered(t)) / s.shape[1] / len(s)
        gaps.append((z.grad - expected).abs().max().item() / expected.abs().max().item())
    assert gaps[2] < 0.01
    assert gaps[0] / gaps[1] > 5, "the gap shrinks as 1/T, the order eq. 3 leaves out"
    assert gaps[1] / gaps[2] > 9


def test_hot_limit_is_half_the_mean_squared_distance_of_centred_logits():
    s, t = pair(scale=1.0)
    gap = centered(s) - centered(t)
    torch.testing.assert_close(losses.soft_targets(s, t, T=1e4), gap.square().mean(1).mean() / 2, rtol=1e-3, atol=0)
    torch.testing.assert_close(losses.logit_matching(s, t), gap.square().mean(1).mean() / 2)


def test_logit_matching_has_the_gradient_of_eq_4_and_ignores_a_shift_of_either_net():
    s, t = pair()
    s.requires_grad_(True)
    losses.logit_matching(s, t).backward()
    torch.testing.assert_close(s.grad, (centered(s) - centered(t)).detach() / s.numel())
    torch.testing.assert_close(losses.logit_matching(s + 7, t - 3), losses.logit_matching(s, t))


def test_without_T_squared_the_gradient_would_fade_and_with_it_it_is_flat_only_from_about_4():
    """The measurement behind notebook 02: logits of sd 5, ten classes."""
    s, t = pair(n=500)

    def size(T):
        z = s.clone().requires_grad_(True)
        losses.soft_targets(z, t, T).backward()
        return z.grad.norm().item()

    assert size(1.0) < 0.75 * size(20.0)
    assert size(4.0) / size(100.0) == pytest.approx(1, abs=0.45)
    assert size(20.0) / size(100.0) == pytest.approx(1, abs=0.1)
    assert size(100.0) / 100.0**2 < 1e-3 * size(100.0)


def test_two_terms_are_weighted_by_alpha_and_sum_to_the_loss():
    s, t = pair()
    y = torch.arange(8) % 10
    terms = losses.two_terms(s, t, y, T=3.0, alpha=0.7)
    torch.testing.assert_close(terms["ce"], 0.3 * -F.log_softmax(s, 1)[range(8), y].mean())
    torch.testing.assert_close(terms["kd"], 0.7 * losses.soft_targets(s, t, 3.0))
    torch.testing.assert_close(losses.distillation(s, t, y, 3.0, 0.7), terms["ce"] + terms["kd"])


def test_the_loss_is_torchs_own_kl_of_distributions_to_float_accuracy():
    s, t = pair(dtype=torch.float32)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=t / 4), torch.distributions.Categorical(logits=s / 4)
    ).mean()
    torch.testing.assert_close(losses.soft_targets(s, t, 4.0), 16 * kl, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("T", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("targets", ["far", "one-hot", "underflowed", "minus infinity"])
def test_value_and_gradient_are_finite_at_the_edges(targets, dtype, T):
    t = {
        "far": torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]]),
        "one-hot": torch.tensor([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]]),
        "underflowed": torch.tensor([[0.0, -200.0, -5000.0], [-300.0, 0.0, -9.0]]),
        "minus infinity": torch.tensor([[0.0, -math.inf, -math.inf], [-1.0, 0.0, -math.inf]]),
    }[targets].to(dtype)
    for s in (torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 5.0]]), torch.zeros(2, 3)):
        s = s.to(dtype).requires_grad_(True)
        loss = losses.distillation(s, t, torch.tensor([0, 2]), T=T, alpha=0.9)
        loss.backward()
        assert loss.isfinite() and s.grad.isfinite().all()
        assert s.grad.abs().max() > 0, "a student this wrong must be told so"


def test_a_half_precision_loss_is_that_of_the_same_logits_in_single():
    s, t = (z.half() for z in pair())
    torch.testing.assert_close(losses.soft_targets(s, t, 20.0), losses.soft_targets(s.float(), t.float(), 20.0))


def test_a_student_that_agrees_has_no_loss_and_is_not_moved():
    s, _ = pair()
    same = s.clone().requires_grad_(True)
    loss = losses.soft_targets(same, s, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(same.grad, torch.zeros_like(s))


@pytest.mark.parametrize("T", [1.0, 5.0])
def test_ensemble_softened_at_the_same_T_is_the_mean_of_its_members(T):
    members = torch.stack(list(pair(seed=1)) + list(pair(seed=2)))
    probabilities = np.stack([numpy_softmax(m.numpy() / T) for m in members])
    arithmetic = probabilities.mean(axis=0)
    geometric = np.exp(np.log(probabilities).mean(axis=0))
    geometric /= geometric.sum(axis=1, keepdims=True)
    for mean, expected in (("arithmetic", arithmetic), ("geometric", geometric)):
        softened = losses.softened(losses.ensemble(members, T, mean), T)
        np.testing.assert_allclose(softened.numpy(), expected, rtol=1e-9, atol=1e-300)


def test_an_ensemble_of_one_is_its_member_and_members_far_apart_stay_finite():
    s, _ = pair()
    for mean in ("arithmetic", "geometric"):
        torch.testing.assert_close(losses.softened(losses.ensemble(s[None], 2.0, mean), 2.0), losses.softened(s, 2.0))
    far = torch.tensor([[[1e4, -1e4]], [[-1e4, 1e4]]])
    torch.testing.assert_close(losses.softened(losses.ensemble(far, 1.0), 1.0), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("T", [0, -1, math.nan, math.inf])
def test_an_impossible_temperature_is_refused_by_all_that_take_one(T):
    s, t = pair()
    for call in (
        lambda: losses.soft_targets(s, t, T),
        lambda: losses.softened(s, T),
        lambda: losses.ensemble(torch.stack([s, t]), T),
        lambda: losses.two_terms(s, t, torch.zeros(8).long(), T),
    ):
        with pytest.raises(ValueError, match="temperature T must be > 0"):
            call()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_its_range_is_refused(alpha):
    s, t = pair()
    with pytest.raises(ValueError, match="alpha .* must be in"):
        losses.distillation(s, t, torch.zeros(8, dtype=torch.long), alpha=alpha)


def test_other_classes_other_batches_and_lone_rows_are_refused_with_both_shapes():
    s, t = pair()
    with pytest.raises(ValueError, match=r"\(8, 10\).*\(8, 9\).*different set of classes"):
        losses.soft_targets(s, t[:, :9])
    with pytest.raises(ValueError, match=r"\(8, 10\).*\(1, 10\)"):
        losses.logit_matching(s, t[:1])
    with pytest.raises(ValueError, match="batch, classes"):
        losses.soft_targets(s[0], t[0])
    with pytest.raises(ValueError, match="class numbers, not one-hot rows"):
        losses.label(s, F.one_hot(torch.zeros(8, dtype=torch.long), 10))
    with pytest.raises(ValueError, match="from 0 to 10, but the student has 10 classes"):
        losses.label(s, torch.tensor([0, 10, 1, 1, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="members, batch, classes"):
        losses.ensemble(s)
    with pytest.raises(ValueError, match="'arithmetic' or 'geometric'"):
        losses.ensemble(torch.stack([s, t]), mean="median")


def test_nan_is_refused_and_its_owner_named():
    s, t = pair()
    broken = s.clone()
    broken[3, 4] = math.nan
    for call, whose in (
        (lambda: losses.soft_targets(broken, t), "student"),
        (lambda: losses.soft_targets(s, broken), "teacher"),
        (lambda: losses.label(broken, torch.zeros(8, dtype=torch.long)), "student"),
        (lambda: losses.ensemble(torch.stack([s, broken])), "ensemble"),
    ):
        with pytest.raises(ValueError, match=f"the {whose}'s logits contain NaN"):
            call()


def test_no_gradient_reaches_the_teacher():
    for loss in (losses.soft_targets, losses.logit_matching):
        s, t = (z.clone().requires_grad_(True) for z in pair())
        loss(s, t).backward()
        assert t.grad is None
        assert s.grad.abs().max() > 0


def test_labels_of_any_whole_type_will_do_and_an_empty_batch_is_named():
    s, t = pair()
    y = torch.arange(8)
    for dtype in (torch.int32, torch.uint8, torch.int16):
        torch.testing.assert_close(losses.label(s, y.to(dtype)), losses.label(s, y))
    with pytest.raises(ValueError, match="batch is empty"):
        losses.soft_targets(s[:0], t[:0])


@pytest.mark.parametrize("T", [20.0, 100.0, 1000.0, 10_000.0])
def test_the_hot_value_is_right_in_single_precision_too(T):
    """In single precision throughout, the value was 2 % off at T = 100 and no number at all at T = 1000."""
    s, t = pair(n=128, dtype=torch.float64)
    p, q = (np.exp(np.longdouble(z.float().numpy()) / T) for z in (t, s))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    by_hand = T**2 * float((p * np.log(p / q)).sum(1).mean())
    loss = losses.soft_targets(s.float(), t.float(), T)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_a_class_that_counts_in_neither_net_changes_nothing_and_one_that_the_student_alone_lacks_is_named():
    s, t = pair(classes=5)
    s.requires_grad_(True)
    out = torch.full((8, 1), -math.inf, dtype=torch.float64)
    masked = losses.soft_targets(torch.cat([s, out], 1), torch.cat([t, out], 1), 2.0)
    (gradient,) = torch.autograd.grad(masked, s)
    plain = losses.soft_targets(s, t, 2.0)
    torch.testing.assert_close(masked, plain)
    torch.testing.assert_close(gradient, *torch.autograd.grad(plain, s))
    with pytest.raises(ValueError, match="-inf for a class to which the teacher gives mass"):
        losses.soft_targets(torch.cat([s[:, :4], out], 1), t, 2.0)
    with pytest.raises(ValueError, match="no distance to it"):
        losses.logit_matching(torch.cat([s[:, :4], out], 1), t)
    with pytest.raises(ValueError, match="nothing but -inf"):
        losses.soft_targets(s, torch.full_like(t, -math.inf), 2.0)


@pytest.mark.parametrize("T", [torch.tensor(4, dtype=torch.int8), torch.tensor(4.0).half(), np.int8(4), 4])
def test_a_temperature_of_any_type_is_the_number_it_says(T):
    s, t = pair(dtype=torch.float32)
    torch.testing.assert_close(losses.soft_targets(s, t, T), losses.soft_targets(s, t, 4.0))
    torch.testing.assert_close(losses.softened(s, T), losses.softened(s, 4.0))


def test_a_temperature_that_learns_gets_its_gradient():
    s, t = pair()
    T = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.soft_targets(s, t, T), T)
    slope = (losses.soft_targets(s, t, 3.001) - losses.soft_targets(s, t, 2.999)) / 0.002
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "loss", [lambda s, t, T: losses.soft_targets(s, t, T), lambda s, t, T: losses.softened(s, T)[0, 0]]
)
def test_a_class_that_is_masked_out_has_no_part_in_the_gradient_of_a_temperature_that_learns(loss):
    s, t = pair()
    out = torch.full((len(s), 1), -math.inf, dtype=s.dtype)
    gradients = []
    for student, teacher in ((s, t), (torch.cat([s, out], dim=1), torch.cat([t, out], dim=1))):
        T = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        gradients += torch.autograd.grad(loss(student, teacher, T), T)
    torch.testing.assert_close(*gradients)


def test_a_class_that_all_members_mask_out_has_no_part_in_an_ensembles_gradients():
    members = pair().requires_grad_(True)
    out = torch.full((*members.shape[:2], 1), -math.inf, dtype=members.dtype)
    gradients = []
    for given in (members, torch.cat([members, out], dim=2)):
        T = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        logits = losses.ensemble(given, T)
        kept = logits[:, : members.shape[2]]
        gradients.append(torch.autograd.grad(kept.square().sum(), (T, members)))
    assert logits[:, -1].isneginf().all()
    torch.testing.assert_close(*gradients)


LOSSES = {
    "soft targets": lambda s, t, y, **how: losses.soft_targets(s, t, 3.0, **how),
    "label": lambda s, t, y, **how: losses.label(s, y, **how),
    "distillation": lambda s, t, y, **how: losses.distillation(s, t, y, 3.0, 0.7, **how),
    "logit matching": lambda s, t, y, **how: losses.logit_matching(s, t, **how),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_of_each_case_is_that_of_a_batch_of_this_case_alone(loss):
    s, t = pair()
    y = torch.arange(len(s)) % s.shape[1]
    each = loss(s, t, y, reduction="none")
    alone = [loss(s[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(len(s))]
    torch.testing.assert_close(each, torch.stack(alone))
    torch.testing.assert_close(each.mean(), loss(s, t, y))
    with pytest.raises(ValueError, match="reduction is 'mean' or 'none', got 'sum'"):
        loss(s, t, y, reduction="sum")


def test_kl_by_torchs_own_and_where_a_mass_is_zero():
    log_p, log_q = (z.log_softmax(dim=1) for z in pair())
    by_torch = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    torch.testing.assert_close(losses.kl(log_p, log_q), by_torch)
    p = torch.tensor([0.0, -math.inf]).requires_grad_(True)
    q = torch.tensor([math.log(0.5), -math.inf]).requires_grad_(True)
    value = losses.kl(p, q)
    value.backward()
    assert value.item() == pytest.approx(math.log(2)) and p.grad.isfinite().all() and q.grad.tolist() == [-1, 0]


@pytest.mark.parametrize("T", ["hot", None, torch.ones(3)])
def test_a_temperature_that_is_no_number_is_refused(T):
    with pytest.raises(TypeError, match="must be one number"):
        losses.softened(torch.zeros(1, 3), T)


def test_an_ensemble_of_nobody_is_refused():
    for nobody in (torch.zeros(0, 4, 3), [torch.zeros(4, 3)]):
        with pytest.raises(ValueError, match="torch.stack"):
            losses.ensemble(nobody)
