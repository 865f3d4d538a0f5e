"""The loop: it learns, it repeats itself bit by bit, it can be left and taken up, and teachers stay as they are."""

import contextlib
import io
import itertools
import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlab import data, losses, machine, metrics, models, train
from kdlab.train import loop, minibatches


def blobs(n=300, seed=0):
    """Three noisy clusters as 1 × 6 × 6 'images'."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=rng)
    centers = 2 * torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(99))
    return centers[y] + torch.randn(n, 1, 6, 6, generator=rng), y


def net(seed=0, **kwargs):
    return models.mlp((16,), n_in=36, n_classes=3, seed=seed, **kwargs)


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


def test_one_step_of_plain_gradient_descent_is_what_calculus_says():
    x, y = blobs(8)
    model, by_hand = net(), net()
    training = train.Training(
        model,
        (x, y),
        train.labels(),
        epochs=1,
        lr=0.5,
        batch_size=8,
        schedule=train.constant,
        optimizer=torch.optim.SGD,
    )
    next(training)
    F.cross_entropy(by_hand(x), y).backward()
    expected = torch.cat([(p - 0.5 * p.grad).flatten() for p in by_hand.parameters()]).double()
    torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-7)


def test_fit_learns_and_reports_each_epochs_mean_terms():
    x, y = blobs()
    student = net()
    history = train.fit(student, (x, y), train.labels(), epochs=5, lr=0.01, batch_size=64)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert history[-1]["ce"] < 0.3 * history[0]["ce"]
    assert metrics.errors(metrics.logits(student, x), y) < 0.05 * len(y)
    assert not student.training, "a trained net is handed back in eval mode"


def test_every_case_is_seen_once_an_epoch_with_its_own_label_and_logits():
    n = 103
    data_ = (torch.arange(n).float()[:, None], torch.arange(n), 10 * torch.arange(n))
    model, seen = nn.Linear(1, 1), []

    def objective(model, *batch):
        seen.append(batch)
        return {"ce": model(batch[0]).mean()}

    train.fit(model, data_, objective, epochs=2, lr=0.01, batch_size=25, seed=3)
    for epoch in (0, 1):
        parts = seen[5 * epoch : 5 * epoch + 5]
        assert [len(x) for x, _, _ in parts] == [25, 25, 25, 25, 3]
        assert sorted(torch.cat([y for _, y, _ in parts]).tolist()) == list(range(n))
        assert all(torch.equal(x[:, 0].long(), y) and torch.equal(10 * y, t) for x, y, t in parts)
    first, second = (torch.cat([y for _, y, _ in part]) for part in (seen[:5], seen[5:]))
    assert not torch.equal(first, second), "each epoch has its own order"


def run(seed=0, disturb=False, **kwargs):
    """A short training with dropout and jitter: all that draws random numbers."""
    x, y = blobs()
    model = net(dropout=(0.2, 0.5), max_norm=1.0)
    training = train.Training(
        model,
        (x, y),
        lambda model, x, y: {"ce": F.cross_entropy(model(data.jitter(x, 1)), y)},
        epochs=3,
        lr=0.01,
        batch_size=64,
        seed=seed,
        **kwargs,
    )
    for _ in training:
        if disturb:
            torch.rand(7)
    return model


def test_the_same_seed_gives_the_same_weights_bit_by_bit_whatever_else_draws_random_numbers():
    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    assert same(first, run(disturb=True))
    assert not same(first, run(seed=1))


def test_training_leaves_the_callers_random_state_and_threads_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 7, 14, 15])
def test_left_at_any_step_and_taken_up_it_ends_with_the_same_weights(stop, tmp_path):
    """Five steps an epoch, three epochs: stops at, before and after an epoch's end. The state goes through a file."""
    x, y = blobs()

    def start():
        model = net(dropout=(0.2, 0.5))
        return train.Training(
            model, (x, y), lambda model, x, y: {"ce": F.cross_entropy(model(x), y)}, epochs=3, lr=0.01, batch_size=64
        )

    whole = start()
    losses = [step.terms["ce"].item() for step in whole]
    left = start()
    head = [next(left).terms["ce"].item() for _ in range(stop)]
    torch.save(left.state(), tmp_path / "state.pt")
    for _ in left:  # what happens after the copy was made must not reach it
        pass
    resumed = start().resume(torch.load(tmp_path / "state.pt", weights_only=True))
    tail = [step.terms["ce"].item() for step in resumed]
    assert head + tail == losses
    assert same(resumed.model, whole.model)


def test_resuming_with_other_settings_is_refused():
    x, y = blobs()
    model = net()
    state = train.Training(model, (x, y), train.labels(), epochs=3, lr=0.01).state()
    with pytest.raises(ValueError, match="resume with the same"):
        train.Training(model, (x, y), train.labels(), epochs=3, lr=0.02).resume(state)


class Noisy(nn.Module):
    """A teacher with all that goes wrong in train mode: dropout and a batch norm that moves."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Dropout(0.5), nn.Linear(36, 3))

    def forward(self, x):
        return self.net(x)


def test_the_teacher_is_frozen_and_in_eval_mode_whatever_the_caller_forgot():
    x, y = blobs()
    torch.manual_seed(0)
    teacher, student = Noisy(), net()
    before = weights(teacher)
    expected = metrics.logits(teacher, x)
    teacher.train()
    objective = train.distilling(teacher, T=2.0, alpha=1.0)
    seen = []
    teacher.register_forward_hook(lambda module, args, out: seen.append(out))
    training = train.Training(student, (x, y), objective, epochs=2, lr=0.01, batch_size=300)
    next(training)
    teacher.train()  # forgotten once more, in mid-training
    list(training)
    assert torch.equal(weights(teacher), before), "batch norm's averages moved, or the teacher learned"
    assert not any(out.requires_grad for out in seen)
    (order,) = train.batches(len(x), 300, seed=0, epoch=1)
    torch.testing.assert_close(seen[1], expected[order])


def test_logits_that_come_with_the_batch_teach_the_same_as_the_teacher_itself():
    x, y = blobs()
    teacher = net(seed=7)
    asked, given = net(), net()
    train.fit(asked, (x, y), train.distilling(teacher, T=3.0), epochs=2, lr=0.01)
    train.fit(given, (x, y, metrics.logits(teacher, x)), train.distilling(T=3.0), epochs=2, lr=0.01)
    torch.testing.assert_close(weights(asked), weights(given), rtol=1e-4, atol=1e-6)


def test_alpha_1_needs_no_labels_and_alpha_0_no_teacher():
    x, y = blobs()
    wrong_labels = (y + 1) % 3
    teacher = net(seed=7)
    t = metrics.logits(teacher, x)
    a, b = net(), net()
    train.fit(a, (x, y, t), train.distilling(alpha=1.0), epochs=1, lr=0.01)
    train.fit(b, (x, wrong_labels, t), train.distilling(alpha=1.0), epochs=1, lr=0.01)
    assert same(a, b)
    c, d = net(), net()
    train.fit(c, (x, y, t), train.distilling(alpha=0.0), epochs=1, lr=0.01)
    train.fit(d, (x, y), train.labels(), epochs=1, lr=0.01)
    torch.testing.assert_close(weights(c), weights(d), rtol=1e-5, atol=1e-7)


def test_max_norm_holds_after_every_step():
    x, y = blobs()
    model = net(max_norm=0.5)
    for _ in train.Training(model, (x, y), train.labels(), epochs=2, lr=0.1, batch_size=64):
        assert model[1].weight.norm(dim=1).max() <= 0.5 + 1e-6


def test_schedules_start_and_end_where_they_should():
    assert (train.cosine(0), train.cosine(0.5), train.cosine(1)) == pytest.approx((1, 0.5, 0), abs=1e-12)
    assert (train.one_cycle(0.05), train.one_cycle(0.1), train.one_cycle(1)) == pytest.approx((0.5, 1, 0), abs=1e-12)
    assert train.constant(0.3) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lr": -1.0}, "lr a number of at least 0"),
        ({"lr": math.nan}, "lr a number"),
        ({"epochs": -1}, "epochs and steps must be"),
        ({"batch_size": 0}, "batch_size at least 1"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    x, y = blobs()
    model = net()
    with pytest.raises(ValueError, match=message):
        train.Training(model, (x, y), train.labels(), **{"epochs": 1, "lr": 0.1} | change)


def test_the_usual_slips_are_named():
    x, y = blobs()
    model = net()
    with pytest.raises(ValueError, match="one and the same length"):
        train.fit(model, (x, y[:-1]), train.labels(), epochs=1, lr=0.1)
    with pytest.raises(TypeError, match="returns its terms by name"):
        train.fit(model, (x, y), lambda model, x, y: F.cross_entropy(model(x), y), epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="same model"):
        train.fit(model, (x, y), train.distilling(model), epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="either the teacher"):
        train.fit(model, (x, y), train.distilling(), epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="is this the frozen teacher"):
        train.fit(model.requires_grad_(False), (x, y), train.labels(), epochs=1, lr=0.1)


def test_a_rate_that_breaks_the_net_is_named():
    x, y = blobs()
    model = net()
    with pytest.raises((ValueError, FloatingPointError), match="learning rate that is too high"):
        train.fit(model, (x, y), train.labels(), epochs=20, lr=1e25, optimizer=torch.optim.SGD)


def test_convnet_distils_too():
    x, y = blobs()
    teacher, student = net(seed=3), models.convnet((8,), n_classes=3)
    train.fit(teacher, (x, y), train.labels(), epochs=3, lr=0.01)
    train.fit(student, (x, y), train.distilling(teacher), epochs=30, lr=0.03)
    assert metrics.agreement(metrics.logits(teacher, x), metrics.logits(student, x)) > 0.9


def test_threads_and_device_are_chosen_in_one_place(monkeypatch):
    monkeypatch.delenv("KDLAB_THREADS", raising=False)
    seen = []
    x, y = blobs()
    model = net()

    def objective(model, x, y):
        seen.append(torch.get_num_threads())
        return train.labels()(model, x, y)

    train.fit(model, (x, y), objective, epochs=1, lr=0.01, batch_size=300)
    monkeypatch.setenv("KDLAB_THREADS", "2")
    train.fit(model, (x, y), objective, epochs=1, lr=0.01, batch_size=300)
    assert seen == [1, 2]
    monkeypatch.setenv("KDLAB_DEVICE", "cpu")
    assert machine.device() == torch.device("cpu")
    monkeypatch.setenv("KDLAB_DEVICE", "toaster")
    with pytest.raises(ValueError, match="toaster"):
        machine.device()
    monkeypatch.setenv("KDLAB_THREADS", "many")
    with pytest.raises(ValueError, match="whole number"):
        machine.thread_count()


def test_fit_shows_a_progress_bar_with_its_name_and_none_without(capsys):
    x, y = blobs()
    model = net()
    train.fit(model, (x, y), train.labels(), epochs=1, lr=0.01, progress="my student")
    assert "my student" in capsys.readouterr().err
    train.fit(model, (x, y), train.labels(), epochs=1, lr=0.01)
    assert capsys.readouterr().err == ""


def test_a_step_that_raised_is_taken_again_and_the_end_is_the_same():
    x, y = blobs()

    def start(fails: set[int]):
        model = net(dropout=(0.2, 0.5))

        def objective(model, x, y):
            loss = F.cross_entropy(model(x), y)
            if training.number in fails:
                fails.remove(training.number)
                raise KeyboardInterrupt
            return {"ce": loss}

        training = train.Training(model, (x, y), objective, epochs=3, lr=0.01, batch_size=64)
        return training

    smooth, rough = start(set()), start({0, 4, 5, 13})
    list(smooth)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    interruptions = 0
    while rough.number < len(rough):
        try:
            next(rough)
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == 4
    assert same(smooth.model, rough.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_two_trainings_taken_turn_by_turn_are_as_each_alone():
    together = [run_slowly(0), run_slowly(1)]
    for _ in zip(*together, strict=True):
        pass
    for training, seed in zip(together, (0, 1), strict=True):
        alone = run_slowly(seed)
        list(alone)
        assert same(training.model, alone.model)


def run_slowly(seed):
    x, y = blobs()
    model = net(dropout=(0.2, 0.5), seed=seed)
    return train.Training(
        model,
        (x, y),
        lambda model, x, y: {"ce": F.cross_entropy(model(x), y)},
        epochs=2,
        lr=0.01,
        batch_size=64,
        seed=seed,
    )


def test_a_teacher_is_only_frozen_while_it_teaches_so_two_nets_can_teach_each_other():
    """Mutual learning: each learns from the labels and from the other as it is at that moment."""
    x, y = blobs()
    a, b = net(seed=1), net(seed=2)
    sides = [
        train.Training(s, (x, y), train.distilling(t, T=2.0, alpha=0.5), epochs=4, lr=0.01) for s, t in ((a, b), (b, a))
    ]
    apart = [weights(a), weights(b)]
    for _ in zip(*sides, strict=True):
        pass
    assert not torch.equal(weights(a), apart[0])
    assert not torch.equal(weights(b), apart[1])
    assert metrics.agreement(metrics.logits(a, x), metrics.logits(b, x)) > 0.95


def test_asking_a_teacher_puts_its_own_modes_back():
    teacher = Noisy().train()
    teacher.net[2].eval()
    train.frozen(teacher)(blobs()[0])
    assert [m.training for m in teacher.modules()] == [True, True, True, True, False, True]


def test_a_teacher_that_shares_layers_with_its_student_is_warned_of():
    body = nn.Sequential(nn.Flatten(), nn.Linear(36, 8))
    student, teacher = nn.Sequential(body, nn.Linear(8, 3)), nn.Sequential(body, nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="share layers"):
        train.distilling(teacher)(student, *blobs())


def test_an_impossible_temperature_or_share_fails_before_the_first_step():
    for slip in ({"T": 0}, {"alpha": 2}):
        with pytest.raises(ValueError, match="must be"):
            train.distilling(net(seed=1), **slip)


def test_a_batch_norm_left_in_eval_mode_stays_so_and_the_rest_learns():
    x, y = blobs()
    student = Noisy()
    student.net[1].eval()
    before = student.net[1].running_mean.clone()
    train.fit(student, (x, y), train.labels(), epochs=1, lr=0.01)
    assert torch.equal(student.net[1].running_mean, before)
    moving = Noisy()
    train.fit(moving, (x, y), train.labels(), epochs=1, lr=0.01)
    assert not torch.equal(moving.net[1].running_mean, before)


def test_a_retried_step_moves_batch_norm_once():
    x, y = blobs()

    def trained(fails: set[int]):
        torch.manual_seed(0)
        model = Noisy()

        def objective(model, x, y):
            loss = F.cross_entropy(model(x), y)
            if training.number in fails:
                fails.remove(training.number)
                raise KeyboardInterrupt
            return {"ce": loss}

        training = train.Training(model, (x, y), objective, epochs=2, lr=0.01, batch_size=64)
        while training.number < len(training):
            with contextlib.suppress(KeyboardInterrupt):
                next(training)
        return model

    assert same(trained(set()), trained({0, 3, 7}))


def test_groups_of_parameters_keep_the_ratio_of_their_rates():
    x, y = blobs()
    model = net()
    head = list(model[-1].parameters())
    body = [p for p in model.parameters() if all(p is not h for h in head)]
    seen = []
    training = train.Training(
        model,
        (x, y),
        train.labels(),
        epochs=1,
        lr=0.1,
        batch_size=150,
        optimizer=lambda _, lr: torch.optim.SGD([{"params": body, "lr": lr / 10}, {"params": head}], lr=lr),
    )
    for _ in training:
        seen.append([group["lr"] for group in training.optimizer.param_groups])
    assert seen[0] == pytest.approx([0.01, 0.1])
    assert seen[1] == pytest.approx([0.005, 0.05])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"schedule": train.constant}, "schedule"),
        ({"schedule": lambda progress: 1 - progress}, "schedule"),
        ({"optimizer": torch.optim.SGD}, "optimizer"),
        ({"seed": 4}, "seed"),
        ({"data": "other"}, "data"),
        ({"optimizer": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.8, 0.9))}, "optimizer"),
    ],
)
def test_resuming_notices_what_else_is_not_as_it_was(change, named):
    def training(data="same", **settings):
        x, y = blobs(seed=int(data == "other"))
        model = net()
        return train.Training(model, (x, y), train.labels(), **{"epochs": 2, "lr": 0.01} | settings)

    state = training().state()
    training().resume(state)
    with pytest.raises(ValueError, match=f"{named}: .* then, .* now"):
        training(**change).resume(state)


@pytest.mark.parametrize(
    "objective, error, said",
    [
        (lambda s, x, y: {"ce": 1.0}, TypeError, "'ce' must be a scalar tensor, got float"),
        (
            lambda s, x, y: {"ce": F.cross_entropy(s(x), y, reduction="none")},
            TypeError,
            "is a mean over the batch missing",
        ),
        (lambda s, x, y: {"epoch": F.cross_entropy(s(x), y)}, TypeError, 'none is called "epoch"'),
        (lambda s, x, y: {"ce": F.cross_entropy(s(x).detach(), y)}, ValueError, "do not depend on the weights"),
        (lambda s, x, y: {f"ce{len(x)}": F.cross_entropy(s(x), y)}, ValueError, "same terms at every step"),
    ],
)
def test_an_objective_that_slips_is_told_how(objective, error, said):
    x, y = blobs()
    student = net()
    with pytest.raises(error, match=said):
        train.fit(student, (x, y), objective, epochs=1, lr=0.1)


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"data": blobs()[0]}, TypeError, "tuple of tensors, such as"),
        ({"data": (blobs()[0].numpy(), blobs()[1].numpy())}, TypeError, "from_numpy"),
        ({"data": (blobs()[0].double(), blobs()[1])}, ValueError, r"use x.to\(torch.float32\)"),
        ({"data": (blobs()[0].byte(), blobs()[1])}, ValueError, "/ 255"),
        ({"batch_size": 64.0}, TypeError, "whole numbers"),
        ({"epochs": 1.5}, TypeError, "whole numbers"),
    ],
)
def test_data_and_settings_of_the_wrong_kind_are_named(change, error, said):
    model = net()
    settings = {"data": blobs(), "epochs": 1, "batch_size": 64} | change
    with pytest.raises(error, match=said):
        train.fit(model, settings.pop("data"), train.labels(), lr=0.1, **settings)


def test_two_trainings_in_two_threads_and_a_net_built_meanwhile_are_as_each_alone():
    """All three draw from the one random state of the process: dropout in the trainings, the start of the nets."""

    def work(seed):
        trained[seed] = run(seed=seed)

    trained, built = {}, []
    workers = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        built.append(weights(net(seed=5)))
    for worker in workers:
        worker.join()
    assert same(trained[0], run(seed=0))
    assert same(trained[1], run(seed=1))
    assert all(torch.equal(each, weights(net(seed=5))) for each in built)


def test_device_names_and_an_empty_number_of_threads(monkeypatch):
    monkeypatch.setenv("KDLAB_THREADS", "")
    assert machine.thread_count() == 1
    monkeypatch.setenv("KDLAB_DEVICE", "meta")
    with pytest.raises(ValueError, match="not known"):
        machine.device()
    monkeypatch.delenv("KDLAB_DEVICE")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda:0' was asked for"):
            machine.device(0)


def interrupted(checkpoint, monkeypatch, student, after, **settings):
    """Fit until `after` objectives were asked, then Ctrl-C."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    asked = []

    def objective(model, x, y):
        asked.append(1)
        if len(asked) > after:
            raise KeyboardInterrupt
        return train.labels()(model, x, y)

    settings = {"epochs": 4, "lr": 1e-2} | settings
    return train.fit(student, blobs(), objective, checkpoint=checkpoint, **settings)


def test_an_interrupted_fit_goes_on_from_its_checkpoint_and_ends_the_same(tmp_path, monkeypatch):
    whole, checkpoint = net(), tmp_path / "kept" / "a.checkpoint"
    history = train.fit(whole, blobs(), train.labels(), epochs=4, lr=1e-2)
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpoint, monkeypatch, net(), after=7)
    assert checkpoint.exists()
    student = net(seed=9)
    assert interrupted(checkpoint, monkeypatch, student, after=100) == history
    assert torch.equal(weights(student), weights(whole))
    assert not checkpoint.exists()


@pytest.mark.parametrize("spoil", [lambda blob: blob[:-200], lambda blob: b"", lambda blob: flipped(blob)])
def test_a_damaged_checkpoint_is_kept_aside_by_name_and_the_training_begins_anew(tmp_path, monkeypatch, spoil):
    checkpoint = tmp_path / "a.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpoint, monkeypatch, net(), after=7)
    damaged = spoil(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    student, whole = net(), net()
    with pytest.warns(UserWarning, match=r"a\.checkpoint is damaged .* kept as a\.checkpoint\.damaged"):
        interrupted(checkpoint, monkeypatch, student, after=100)
    train.fit(whole, blobs(), train.labels(), epochs=4, lr=1e-2)
    assert torch.equal(weights(student), weights(whole))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.checkpoint.damaged": damaged}


def flipped(blob: bytes) -> bytes:
    """One bit of a weight is another; torch.load takes that without a word."""
    weight = torch.load(io.BytesIO(blob), weights_only=True)["state"]["model"]["1.weight"]
    place = blob.index(weight.numpy().tobytes())
    return blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]


def wider():
    return models.mlp((17,), n_in=36, n_classes=3)


def deeper():
    return models.mlp((16, 16), n_in=36, n_classes=3)


def partly_frozen():
    model = net(seed=3)
    model[1].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "build, named",
    [
        (wider, r"1\.weight: \[16, 36\] float32 then, \[17, 36\] float32 now"),
        (deeper, r"3\.weight: .*; 5\.weight: missing then, \[3, 16\] float32 now"),
        (lambda: net(seed=3).double(), r"1\.weight: \[16, 36\] float32 then, \[16, 36\] float64 now"),
        (partly_frozen, r"other weights learn than then: 1\.weight\)"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_checkpoint_of_another_model_is_refused_before_a_weight_changes_and_stays(
    tmp_path, monkeypatch, build, named
):
    checkpoint = tmp_path / "a.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpoint, monkeypatch, net(), after=7)
    other = build()
    before = weights(other)
    data_ = (blobs()[0].to(other[-1].weight.dtype), blobs()[1])
    monkeypatch.setattr(minibatches, "digest", lambda data: "equal")  # of data in double, which is told first
    state = torch.load(checkpoint, weights_only=True)
    state["state"]["settings"]["data"] = "equal"
    torch.save(state, checkpoint)
    kept = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=rf"a\.checkpoint: this model is not the one that was left \({named}"):
        train.fit(other, data_, train.labels(), epochs=4, lr=1e-2, checkpoint=checkpoint)
    assert torch.equal(weights(other), before)
    assert [*tmp_path.iterdir()] == [checkpoint] and checkpoint.read_bytes() == kept


def test_an_optimizers_memory_of_another_shape_is_refused_before_a_weight_changes():
    training = train.Training(net(), blobs(), train.labels(), epochs=2, lr=0.01)
    next(training)
    state = training.state()
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(17, 36)
    fresh = net(seed=3)
    before = weights(fresh)
    with pytest.raises(ValueError, match=r"exp_avg: \[17, 36\] float32 then, \[16, 36\] float32 now"):
        train.Training(fresh, blobs(), train.labels(), epochs=2, lr=0.01).resume(state)
    assert torch.equal(weights(fresh), before)


def test_a_file_of_another_kind_is_refused_and_stays(tmp_path):
    notes, foreign = tmp_path / "notes.txt", tmp_path / "model.pt"
    notes.write_text("what I saw")
    torch.save(net().state_dict(), foreign)
    for path in (notes, foreign):
        before, student = path.read_bytes(), net()
        with pytest.raises(ValueError, match=f"{path.name}.*stays as it is"):
            train.fit(student, blobs(), train.labels(), epochs=1, lr=1e-2, checkpoint=path)
        assert path.read_bytes() == before and same(student, net())


def test_a_checkpoints_path_may_be_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, student = net(), net(seed=9)
    train.fit(whole, blobs(), train.labels(), epochs=4, lr=1e-2)
    with pytest.raises(KeyboardInterrupt):
        interrupted("kept/a.checkpoint", monkeypatch, net(), after=7)
    interrupted("kept/a.checkpoint", monkeypatch, student, after=100)
    assert same(student, whole) and not [*(tmp_path / "kept").iterdir()]


NUMPYS = {
    "lr": {"lr": np.float64(1e-2)},
    "float32": {"lr": np.float32(0.0078125)},
    "seed": {"seed": np.int64(5)},
    "large seed": {"seed": np.uint64(2**63 + 5)},
    "counts": {"epochs": np.int32(4), "batch_size": np.int64(128)},
    "schedule": {"schedule": lambda progress: np.float64(1 - progress)},
    "optimizer": {
        "optimizer": lambda p, lr: torch.optim.Adam(
            p, lr, betas=(np.float64(0.8), np.float64(0.5)), weight_decay=np.float32(0.0625), amsgrad=np.bool_(True)
        )
    },
}


def pythons(value):
    """The same settings in Python's own numbers."""
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("name", NUMPYS)
@pytest.mark.filterwarnings("error")
def test_numbers_of_numpy_are_numbers_and_an_interrupted_training_goes_on(tmp_path, monkeypatch, name):
    given = {"lr": 1e-2, "epochs": 4} | NUMPYS[name]
    own = {key: pythons(value) for key, value in given.items()}
    if name == "schedule":
        own["schedule"] = lambda progress: 1 - progress
    if name == "optimizer":
        own["optimizer"] = lambda p, lr: torch.optim.Adam(p, lr, betas=(0.8, 0.5), weight_decay=0.0625, amsgrad=True)
    whole, student, checkpoint = net(), net(seed=9), tmp_path / "a.checkpoint"
    train.fit(whole, blobs(), train.labels(), **own)
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpoint, monkeypatch, net(), after=7, **given)
    assert torch.load(checkpoint, weights_only=True)["state"]["number"] == 7
    interrupted(checkpoint, monkeypatch, student, after=100, **own)  # begun with numpy's numbers, ended with Python's
    assert same(student, whole) and not checkpoint.exists()


def test_seeds_may_come_as_an_array_and_a_seed_that_is_no_whole_number_is_refused():
    model = net()
    for seeds in (np.array([3, 4]), torch.tensor([3, 4]), (np.int64(3), 4)):
        assert train.Training(model, blobs(), train.labels(), epochs=1, lr=0.1, seed=seeds).seed == [3, 4]
    assert all(map(torch.equal, train.batches(300, 64, np.int64(3), np.int64(1)), train.batches(300, 64, 3, 1)))
    with pytest.raises(TypeError, match="a seed is a whole number, got 0.5"):
        train.Training(model, blobs(), train.labels(), epochs=1, lr=0.1, seed=0.5)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    checkpoint = tmp_path / "a.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupted(checkpoint, monkeypatch, net(), after=7)
    with pytest.raises(ValueError, match="batch_size: 128 then, 64 now"):
        interrupted(checkpoint, monkeypatch, net(), after=100, batch_size=64)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="the training goes on"):
        history = interrupted(tmp_path / "file" / "a.checkpoint", monkeypatch, net(), after=100)
    assert len(history) == 4


def test_bfloat16_learns_and_its_weights_stay_single():
    """torch's autocast keeps rounded weights while its block lasts; so would a whole training have kept its first."""
    torch.manual_seed(0)
    student = net()
    before = weights(student)
    with machine.autocast("bfloat16"):
        history = train.fit(student, blobs(), train.labels(), epochs=12, lr=1e-2)
    assert history[-1]["ce"] < history[0]["ce"] / 2
    assert not torch.equal(weights(student), before)
    assert all(p.dtype == torch.float32 for p in student.parameters())


# ---- the objective gets the model, and it is asked who learns


def test_an_objective_of_another_model_is_refused_and_nothing_changes():
    student, other = net(), net(seed=1)
    before = weights(student), weights(other)
    with pytest.raises(ValueError, match="calls another model"):
        train.fit(student, blobs(), lambda _, x, y: {"ce": F.cross_entropy(other(x), y)}, epochs=1, lr=0.1)
    assert torch.equal(weights(student), before[0]) and torch.equal(weights(other), before[1])


def test_a_temperature_that_the_optimizer_lacks_is_named_and_one_that_it_has_learns():
    x, y = blobs()
    t = metrics.logits(net(seed=7), x)

    def objective(model, x, y, t):
        return {"kd": losses.soft_targets(model(x), t, T=log_T.exp())}

    log_T = torch.tensor(1.0, requires_grad=True)
    with pytest.warns(UserWarning, match="1 tensors that require a gradient .* a tensor of shape"):
        train.fit(net(), (x, y, t), objective, epochs=1, lr=0.1)
    assert log_T.item() == 1.0
    train.fit(net(), (x, y, t), objective, epochs=1, lr=0.1, optimizer=lambda w, lr: train.adam([*w, log_T], lr))
    assert log_T.item() != 1.0


def test_a_layer_that_is_unfrozen_in_mid_training_is_named():
    model = net()
    model[1].requires_grad_(False)
    training = train.Training(model, blobs(), train.labels(), epochs=2, lr=0.1)
    next(training)
    model[1].requires_grad_(True)
    with pytest.warns(UserWarning, match=r"do not learn: 1.weight, 1.bias"):
        list(training)


def test_a_batch_norm_that_would_meet_one_case_is_refused_before_the_first_step():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    x, y = blobs(65)
    before = weights(model)
    with pytest.raises(ValueError, match="65 cases in batches of 64 leave one case"):
        train.fit(model, (x, y), train.labels(), epochs=1, lr=0.1, batch_size=64)
    assert torch.equal(weights(model), before)
    train.fit(model, (x, y), train.labels(), epochs=1, lr=0.1, batch_size=65)


# ---- steps, validation, precision


def test_steps_are_taken_whatever_the_epochs_come_to():
    x, y = blobs(100)
    by_steps, by_epochs = net(), net()
    history = train.fit(by_steps, (x, y), train.labels(), steps=7, lr=0.01, batch_size=40)
    assert [row["epoch"] for row in history] == [0, 1, 2], "three of 3, 3 and 1 minibatches"
    train.fit(by_epochs, (x, y), train.labels(), epochs=3, lr=0.01, batch_size=40)
    assert not same(by_steps, by_epochs)
    train.fit(by_steps := net(), (x, y), train.labels(), steps=9, lr=0.01, batch_size=40)
    assert same(by_steps, by_epochs)
    for slip in ({}, {"steps": 3, "epochs": 1}):
        with pytest.raises(ValueError, match="either epochs or steps"):
            train.fit(net(), (x, y), train.labels(), lr=0.01, **slip)


def test_validation_is_in_eval_mode_and_stands_in_the_epochs_row():
    x, y = blobs()
    student, modes = net(dropout=(0.1, 0.5)), []

    def validate(model):
        modes.append(model.training)
        return {"errors": metrics.errors(metrics.logits(model, x), y)}

    history = train.fit(student, (x, y), train.labels(), epochs=3, lr=0.01, validate=validate)
    assert modes == [False] * 3
    assert history[-1]["errors"] == metrics.errors(metrics.logits(student, x), y)
    with pytest.raises(TypeError, match="names other than"):
        train.fit(student, (x, y), train.labels(), epochs=1, lr=0.01, validate=lambda model: {"ce": 1.0})


def test_precision_is_that_of_the_products_while_training():
    seen = []

    def objective(model, x, y):
        s = model(x)
        seen.append(s.dtype)
        return {"ce": F.cross_entropy(s.float(), y)}

    for precision in ("bfloat16", "float32", None):
        train.fit(student := net(), blobs(), objective, steps=1, lr=0.1, precision=precision)
        assert next(student.parameters()).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


# ---- data that come as a Dataset or DataLoader


class Cases(torch.utils.data.Dataset):
    """Some blobs, one by one, with noise of the moment; it counts how often it was asked."""

    def __init__(self, noise=0.0):
        self.x, self.y = blobs(90)
        self.noise = noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + self.noise * torch.randn(self.x[i].shape), int(self.y[i])


def test_a_loader_in_order_teaches_as_a_loop_by_hand():
    loader = torch.utils.data.DataLoader(Cases(), batch_size=40)
    student, by_hand = net(), net()
    train.fit(student, loader, train.labels(), epochs=2, lr=0.01, schedule=train.constant)
    optimizer = train.adam(list(by_hand.parameters()), 0.01)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(by_hand(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(weights(student), weights(by_hand))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shuffled_loader_with_noise_is_resumed_at_any_step(tmp_path, monkeypatch, workers):
    def loader():
        return torch.utils.data.DataLoader(Cases(noise=0.5), batch_size=20, shuffle=True, num_workers=workers)

    whole, left = net(), net()
    history = train.fit(whole, loader(), train.labels(), epochs=3, lr=0.01, seed=4)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    asked, path = [], tmp_path / "a.checkpoint"

    def interrupting(model, x, y):
        asked.append(1)
        if len(asked) == 8:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return train.labels()(model, x, y)

    with pytest.raises(KeyboardInterrupt):
        train.fit(left, loader(), interrupting, epochs=3, lr=0.01, seed=4, checkpoint=path)
    resumed = net(seed=9)
    assert train.fit(resumed, loader(), train.labels(), epochs=3, lr=0.01, seed=4, checkpoint=path) == history
    assert same(resumed, whole) and len(history) == 3
    other = net()
    train.fit(other, loader(), train.labels(), epochs=3, lr=0.01, seed=5)
    assert not same(other, whole)


def test_a_dataset_is_shuffled_and_its_teacher_asked_batch_by_batch():
    student, teacher, seen = net(), net(seed=3), []
    teacher.register_forward_hook(lambda *_: seen.append(1))
    history = train.fit(student, Cases(), train.distilling(teacher, T=2.0), epochs=30, lr=0.02, batch_size=30)
    assert len(seen) == 90 and history[-1]["kd"] < history[0]["kd"] / 3


def test_batches_by_name_go_into_the_model_by_name():
    class Named(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return {"x": torch.full((4,), float(i)), "scale": torch.tensor(2.0), "labels": i % 3}

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, x, scale):
            assert (scale == 2).all()
            return (self.last(x * scale[:, None]),)  # in a tuple, as older models of transformers do

    (row,) = train.fit(Scaled(), Named(), train.labels(), epochs=1, lr=0.01, batch_size=5)
    assert row["ce"] > 0


def test_a_stream_that_ends_too_soon_is_named():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(zip(*blobs(10), strict=True))

    loader = torch.utils.data.DataLoader(Stream(), batch_size=5)
    with pytest.raises(ValueError, match="by steps=, not epochs="):
        train.fit(net(), loader, train.labels(), epochs=1, lr=0.01)
    train.fit(net(), loader, train.labels(), steps=2, lr=0.01)
    with pytest.raises(ValueError, match="ended after 2 batches"):
        train.fit(net(), loader, train.labels(), steps=3, lr=0.01)


def test_a_followed_training_is_the_same_training_and_its_scores_are_those_of_the_models_on_the_way():
    x, y = blobs()
    model, plain = net(dropout=(0.2, 0.5)), net(dropout=(0.2, 0.5))
    settings = {"lr": 0.01, "batch_size": 64, "seed": 3}
    scores = train.follow(model, (x, y), train.labels(), [(x, y), (x[:7], y[:7])], at=[2, 9], **settings)
    training = train.Training(plain, (x, y), train.labels(), steps=9, **settings)
    for step in training:
        if step.number + 1 in (2, 9):
            s = metrics.logits(plain, x)
            right = 100 * (s.argmax(dim=1) == y).double().mean()
            expected = [float(right), float(F.cross_entropy(s, y))]
            assert scores[0 if step.number + 1 == 2 else 1][0] == pytest.approx(expected, rel=1e-5)
    assert same(model, plain) and not model.training
    assert torch.tensor(scores).shape == (2, 2, 2) and scores[1][0][0] > scores[0][0][0]


def test_a_followed_training_says_what_is_wrong_with_its_steps_and_stops_when_it_diverges():
    x, y = blobs(64)
    for at in ([], [0, 3], [3, 2], [2, 2]):
        with pytest.raises(ValueError, match="ascending numbers of steps"):
            train.follow(net(), (x, y), train.labels(), [(x, y)], at=at, lr=0.01)
    with pytest.raises(ValueError, match="takes 5 steps, got 6"):
        train.follow(net(), (x, y), train.labels(), [(x, y)], at=[6], lr=0.01, steps=5)
    with pytest.raises(FloatingPointError, match="learning rate"):
        train.follow(
            net(), (x, y), lambda model, x, y: {"ce": model(x).sum() * math.nan}, [(x, y)], at=[1], lr=0.01, steps=1
        )


@pytest.mark.parametrize("steps, n", [(1, 10), (10, 10), (500, 10), (4_000, 5)])
def test_steps_spaced_on_a_logarithmic_axis_ascend_to_the_last(steps, n):
    spaced = train.log_spaced(steps, n)
    assert spaced == sorted(set(spaced)) and spaced[0] >= 1 and spaced[-1] == steps and len(spaced) <= n
    assert steps < 500 or all(1.35 < b / a < 1.5 for a, b in itertools.pairwise(spaced))
