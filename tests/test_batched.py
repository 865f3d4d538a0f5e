"""Students trained at once end as each alone would have, which `train.fit` shows one by one."""

import pytest
import torch
from torch import nn

from kdlab import losses, metrics, models, train
from kdlab.train import batched

rng = torch.Generator().manual_seed(5)
X = torch.rand(150, 1, 6, 6, generator=rng).double()
Y = torch.randint(0, 5, (150,), generator=rng)
TEACHER = torch.randn(150, 5, generator=rng).double() * 4
DATA = (X, Y, TEACHER)
HOW = {"epochs": 3, "batch_size": 64}


def net(seed=0, build=models.mlp, **kwargs):
    shape = {"hidden": (12, 9), "n_in": 36} if build is models.mlp else {}
    return build(**shape, n_classes=5, seed=seed, **kwargs).double()


def alone(seed, T=4.0, alpha=0.9, lr=1e-3, order=0, build=models.mlp, **settings):
    student = net(seed, build)
    train.fit(student, DATA, train.distilling(T=T, alpha=alpha), lr=lr, seed=order, **HOW, **settings)
    return student


def same(a, b):
    for (name, one), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=lambda said, name=name: f"{name}: {said}")


def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True)


@pytest.mark.parametrize("order", [3, [3, 4, 5, 3]], ids=["one order of the batches", "each its own"])
@pytest.mark.parametrize("optimizer", [train.adam, sgd])
def test_each_ends_as_it_would_alone(order, optimizer):
    own = {"T": [1.0, 2.0, 5.0, 20.0], "alpha": [1.0, 0.9, 0.5, 0.0], "lr": [1e-2, 3e-3, 1e-2, 5e-3]}
    members = [net(i) for i in range(4)]
    assert batched.fit(members, DATA, **own, seed=order, optimizer=optimizer, **HOW) is members
    for i, member in enumerate(members):
        mine = {name: values[i] for name, values in own.items()}
        order_i = order if isinstance(order, int) else order[i]
        same(member, alone(i, **mine, order=order_i, optimizer=optimizer))
        assert not member.training


def test_other_shapes_than_layers_in_a_row_train_at_once_too():
    """Convolutions, and batch norm with its averages."""
    members = [net(i, models.convnet, channels=(3, 4)) for i in range(3)]
    batched.fit(members, DATA, T=[1.0, 4.0, 9.0], **HOW)
    for i, T in enumerate((1.0, 4.0, 9.0)):
        student = net(i, models.convnet, channels=(3, 4))
        train.fit(student, DATA, train.distilling(T=T), lr=1e-3, **HOW)
        same(members[i], student)


def test_left_out_classes_teach_nothing():
    """A member's gradient is that of the mean over the cases it may see, by hand."""
    members = [net(i) for i in range(3)]
    stacked = batched.Many(members)
    without = [(), (3,), (0, 1)]
    terms = batched.distilling(T=3.0, alpha=0.7, without=without)(stacked, *DATA)
    by_hand = 0.0
    for member, left_out in zip(members, without, strict=True):
        seen = torch.tensor([int(y) not in left_out for y in Y])
        by_hand += losses.distillation(member(X[seen]), TEACHER[seen], Y[seen], 3.0, 0.7)
    torch.testing.assert_close(sum(terms.values()), by_hand)


def test_a_batch_without_a_case_that_counts_is_no_lesson():
    stacked = batched.Many([net(0)])
    terms = batched.distilling(without=[(0, 1, 2, 3, 4)])(stacked, *DATA)
    assert sum(terms.values()).item() == 0.0


def test_weights_stay_within_their_constraint():
    members = [net(i, max_norm=0.1) for i in range(2)]
    batched.fit(members, DATA, lr=1e-2, **HOW)
    for member in members:
        assert max(layer.weight.norm(dim=1).max().item() for layer in models.constrained(member)) <= 0.1 + 1e-6


def test_each_member_draws_its_own_dropout():
    torch.manual_seed(0)
    stacked = batched.Many([net(0, dropout=(0.0, 0.5))] * 2)
    assert not torch.equal(*stacked.train()(X))
    assert torch.equal(*stacked.eval()(X))


@pytest.mark.xdist_group("processes")  # the tests that want them share them
def test_in_two_processes_it_is_the_same():
    here, there = ([net(i) for i in range(5)] for _ in range(2))
    own = {"T": [1.0, 2.0, 4.0, 8.0, 16.0], **HOW}
    batched.fit(here, DATA, **own)
    batched.fit(there, DATA, **own, n_jobs=2)
    for a, b in zip(here, there, strict=True):
        same(a, b)


def test_one_that_diverges_is_named_and_the_others_learn():
    members = [net(i) for i in range(3)]
    with pytest.raises(FloatingPointError, match=r"members \[1\] of 3 diverged"):
        batched.fit(members, DATA, lr=[1e-2, 1e200, 1e-2], optimizer=sgd, epochs=20)
    same(members[0], alone_for(20, 0))
    assert metrics.logits(members[2], X).isfinite().all()


def alone_for(epochs, seed):
    student = net(seed)
    train.fit(student, DATA, train.distilling(), lr=1e-2, epochs=epochs, optimizer=sgd)
    return student


@pytest.mark.parametrize(
    ("members", "settings", "said"),
    [
        ([net(0), models.mlp((12, 8), n_in=36, n_classes=5).double()], {}, "number 1 differs"),
        ([net(0), nn.Sequential(nn.Flatten(), nn.Linear(36, 5)).double()], {}, "number 1 differs"),
        ([], {}, "no member"),
        ([net(0), net(1)], {"T": [1.0]}, "T: one value for all, or one for each of the 2"),
        ([net(0), net(1)], {"T": [1.0, 0.0]}, "temperature T must be > 0"),
        ([net(0), net(1)], {"alpha": [1.0, 1.5]}, r"alpha is .* in \[0, 1\]"),
        ([net(0), net(1)], {"without": [(3,)]}, "without: one value"),
    ],
)
def test_what_cannot_be_trained_at_once_is_said(members, settings, said):
    with pytest.raises(ValueError, match=said):
        batched.fit(members, DATA, **HOW, **settings)
