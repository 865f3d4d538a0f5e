"""Which classes belong together, the half-and-half sample, the dustbin and its correction, and who is asked."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import data, losses, models, randomness, specialists, train
from kdlab.specialists import equation5


def confusing(n: int = 4000, seed: int = 0) -> torch.Tensor:
    """Logits in which three planted families, of 3, 4 and 5 classes, are taken for one another."""
    rng = torch.Generator().manual_seed(seed)
    family = torch.tensor([0] * 3 + [1] * 4 + [2] * 5)
    truth = torch.randint(0, 12, (n,), generator=rng)
    logits = torch.randn(n, 12, generator=rng) + 6.0 * (family[truth][:, None] == family)
    logits[torch.arange(n), truth] += 1.0
    return logits


def test_covariance_is_numpys():
    logits = confusing(500)
    expected = np.cov(torch.softmax(logits.double(), 1).numpy(), rowvar=False)
    np.testing.assert_allclose(specialists.covariance(logits).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_planted_families_are_found_without_a_label(seed):
    found = specialists.clusters(confusing(seed=seed), 3, 3, seed=seed)
    families = [{0, 1, 2}, {3, 4, 5, 6}, {7, 8, 9, 10, 11}]
    assert all(any(set(own) <= family for family in families) for own in found)
    assert len({next(i for i, family in enumerate(families) if own[0] in family) for own in found}) == 3


def test_clusters_are_of_the_asked_size_the_same_for_a_seed_and_may_overlap():
    logits = confusing()
    found = specialists.clusters(logits, 5, 6, seed=3)
    assert found == specialists.clusters(logits, 5, 6, seed=3)
    assert all(len(own) == len(set(own)) == 6 for own in found)
    cover = specialists.coverage(found, 12)
    assert cover.sum() == 30 and cover.max() > 1
    assert cover.tolist() == [sum(c in own for own in found) for c in range(12)]


@pytest.mark.filterwarnings("ignore")
def test_an_empty_cluster_and_a_specialist_of_one_class_are_refused():
    with pytest.raises(ValueError, match="nothing to tell apart"):
        specialists.clusters(confusing(100), 3, 1)
    with pytest.raises(ValueError, match="generalist"):
        specialists.clusters(confusing(100), 3, 12)
    with pytest.raises(ValueError, match="from 1 to 12"):
        specialists.clusters(confusing(100), 13, 3)
    with pytest.raises(ValueError, match="cluster . of 5 is empty"):
        specialists.clusters(torch.zeros(50, 12), 5, 3)  # a generalist that knows nothing: all columns the same
    with pytest.raises(ValueError, match="two cases"):
        specialists.covariance(torch.zeros(1, 12))


# ---- learning


def test_a_specialist_starts_with_what_the_generalist_says_of_its_classes():
    generalist, own = models.mlp((20, 20), n_classes=9), [7, 2, 4]
    net, x = specialists.start(generalist, own), torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(net(x)[:, :3], generalist(x)[:, own])
    assert net(x).shape == (5, 4)
    net[1].weight.data.zero_()
    assert not (generalist[1].weight == 0).all(), "the generalist's weights were touched"


def test_the_dustbin_starts_near_the_mass_of_the_others():
    """Exactly there, where the other classes' logits are one and the same."""
    generalist = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    generalist[1].weight.data[2:] = generalist[1].weight.data[2]
    generalist[1].bias.data[2:] = 0.5
    x = torch.randn(8, 4)
    expected = generalist(x)[:, 2:].logsumexp(dim=1)
    torch.testing.assert_close(specialists.start(generalist, [0, 1])(x)[:, 2], expected)


@pytest.mark.parametrize("own", [[3], [], [1, 1], list(range(9)), [2, 9]])
def test_a_specialist_wants_some_classes_not_one_and_not_all(own):
    with pytest.raises(ValueError, match="from 2 to 8 different classes"):
        specialists.start(models.mlp((5,), n_classes=9), own)


def test_a_net_that_does_not_end_in_a_linear_layer_is_refused():
    with pytest.raises(TypeError, match="linear"):
        specialists.start(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), [0, 1])


def test_half_of_the_sample_is_its_own():
    y = torch.arange(10).repeat(30)
    drawn = specialists.sample(y, [2, 5], 200, seed=1)
    assert torch.isin(y[drawn], torch.tensor([2, 5])).sum() == 100
    mine, others = drawn[:100], drawn[100:]
    assert set(torch.bincount(mine)[mine].tolist()) == {1, 2}, "60 cases, each once or twice"
    assert len(set(others.tolist())) == 100
    assert torch.equal(drawn, specialists.sample(y, [2, 5], 200, seed=1))
    assert not torch.equal(drawn, specialists.sample(y, [2, 5], 200, seed=2))


def test_labels_as_a_specialist_has_them():
    assert specialists.relabeled(torch.tensor([0, 5, 2, 4]), [5, 0], 6).tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize("own", [[0], [0, 1], [0, 1, 2]])
def test_the_correction_gives_back_the_true_posterior(own):
    """Bayes by counting: half and half, the cases of feature v have other odds; corrected, they have the true ones."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(0, 8, (400,), generator=rng)
    v = (y + torch.randint(0, 3, (400,), generator=rng)) % 5  # what a net would see
    inside = torch.isin(y, torch.tensor(own))
    weight = torch.where(inside, 0.5 / inside.double().mean(), 0.5 / (~inside).double().mean())  # of the sample
    for value in range(5):
        seen = v == value
        learned = torch.stack([weight[seen & inside].sum(), weight[seen & ~inside].sum()]).log()
        learned[1] += specialists.correction(y, own)
        true = torch.stack([(seen & inside).sum(), (seen & ~inside).sum()]) / seen.sum()
        torch.testing.assert_close(learned.softmax(0), true.double())


def test_what_the_papers_words_would_add_differs_by_the_rests_share():
    y = torch.arange(10).repeat(5)
    s = 0.2
    assert specialists.correction(y, [3, 4]) == pytest.approx(math.log(1 / (2 * s)) + math.log(2 * (1 - s)))


def test_who_wakes():
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3], [0, 3, 2, 1]])
    who = specialists.awake(logits, [[0, 1], [1, 2]])
    assert who.tolist() == [[True, False], [False, False], [True, True]]
    assert specialists.awake(logits, [[0, 1], [1, 2]], n=2).tolist() == [[True, True], [False, True], [True, True]]


@pytest.fixture(scope="module")
def taught():
    """A small generalist on ten planted classes, and its data."""
    rng = torch.Generator().manual_seed(0)
    centers = torch.rand(8, 1, 28, 28, generator=rng)
    y = torch.arange(8).repeat(40)
    return models.mlp((16,), n_classes=8, seed=1), centers[y] + 0.3 * torch.randn(320, 1, 28, 28, generator=rng), y


@pytest.mark.parametrize("soft", [False, True])
def test_a_specialist_learns_its_classes_and_the_same_again_for_the_same_seed(taught, soft):
    generalist, x, y = taught
    own, ended = [1, 4, 6], []
    for _ in range(2):
        model = models.mlp((16,), n_classes=8, seed=1) if soft else specialists.start(generalist, own)
        ask = generalist if soft else None
        specialists.learn([model], x, y, [own], epochs=6, lr=1e-2, seed=3, generalist=ask)
        ended.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in ended), strict=True))
    inside = torch.isin(y, torch.tensor(own))
    s = ended[0](x[inside])[:, own] if soft else ended[0](x[inside])[:, :3]
    assert (s.argmax(1) == specialists.relabeled(y[inside], own, 8)).float().mean() > 0.9


@pytest.mark.parametrize("soft", [False, True])
def test_side_by_side_each_learns_what_it_learns_alone(taught, soft):
    """Alone: torch's Adam on the same cases, in the order of the same minibatches, at the rates of half a cosine."""
    generalist, x, y = taught
    groups, epochs, lr = [[1, 4, 6], [0, 6, 2], [7, 3, 5]], 2, 1e-2
    other = models.mlp((16,), n_classes=8, seed=3)  # beside the generalist itself Adam would enlarge rounding errors
    begin = [copy.deepcopy(other) if soft else specialists.start(generalist, own) for own in groups]
    together = [copy.deepcopy(model).requires_grad_() for model in begin]
    ask = generalist if soft else None
    specialists.learn(together, x, y, groups, epochs=epochs, lr=lr, batch_size=50, seed=5, generalist=ask)
    for i, (own, alone) in enumerate(zip(groups, begin, strict=True)):
        cases = specialists.sample(y, own, 2 * epochs * 3 * 40, randomness.mix(5, i))
        order = train.minibatches.batches(len(cases), 50, 5, 0)
        optimizer = torch.optim.Adam(alone.parameters(), lr=lr)
        for number, batch in enumerate(order):
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * number / len(order))) / 2
            optimizer.zero_grad()
            one_by_one = [loss_of_one(alone, generalist, x[j], int(y[j]), own, soft) for j in cases[batch]]
            torch.stack(one_by_one).mean().backward()
            optimizer.step()
        for a, b in zip(together[i].parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def loss_of_one(model, generalist, image, label, own, soft) -> torch.Tensor:
    """One image's cross-entropy, as section 5 or 6.1 says, up to what no weight changes."""
    log_q = model(image[None])[0].log_softmax(0)
    if not soft:
        return -log_q[own.index(label) if label in own else len(own)]
    p = nn.functional.one_hot(torch.tensor(label), 8) if label in own else generalist(image[None])[0].softmax(0)
    return -(p.detach() * log_q).sum()


def test_generalists_side_by_side_learn_from_all_cases_what_each_learns_alone(taught):
    _, x, y = taught
    together = [models.mlp((16,), n_classes=8, seed=i) for i in range(3)]
    specialists.learn_all(together, x, y, epochs=3, lr=1e-2, seed=4)
    for i, model in enumerate(together):
        alone = models.mlp((16,), n_classes=8, seed=i)
        train.fit(alone, (x, y), train.labels(), epochs=3, lr=1e-2, seed=4)
        for a, b in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_a_soft_specialist_keeps_the_generalists_opinion_of_the_rest(taught):
    """Trained on labels, that opinion would be lost: here the labels of the rest are never used."""
    generalist, x, y = taught
    wrong = torch.where(torch.isin(y, torch.tensor([1, 4, 6])), y, 0)  # planted: nonsense labels of the rest
    kept = models.mlp((16,), n_classes=8, seed=1)
    specialists.learn([kept], x, wrong, [[1, 4, 6]], epochs=10, lr=3e-3, generalist=generalist, n_classes=8)
    rest = ~torch.isin(y, torch.tensor([1, 4, 6]))
    with torch.no_grad():
        apart = losses.soft_targets(kept(x[rest]), generalist(x[rest]), T=1.0).item()
        label_driven = losses.label(kept(x[rest]), wrong[rest]).item()
    assert apart < 0.3 < label_driven


def test_a_specialist_without_cases_is_refused():
    y = torch.zeros(5, dtype=torch.long)
    for own in ([3, 4], [0, 1]):
        with pytest.raises(ValueError, match="cases are of the specialist's classes"):
            specialists.sample(y, own, 10)


def test_moved_images_reach_the_net(taught, monkeypatch):
    generalist, x, y = taught
    asked = []
    monkeypatch.setattr(data, "jitter", lambda images, pixels: asked.append(pixels) or images)
    specialists.learn([specialists.start(generalist, [0, 1])], x, y, [[0, 1]], epochs=1, lr=1e-3, pixels=2)
    specialists.learn_all([models.mlp((16,), n_classes=8)], x, y, epochs=1, lr=1e-3, pixels=3)
    assert set(asked) == {2, 3}


def test_only_those_who_are_awake_are_asked_and_corrected(taught):
    generalist, x, _ = taught
    clusters = [[0, 1, 2], [2, 3], [5, 6, 7]]
    nets = [specialists.start(generalist, own) for own in clusters]
    asked, who = [], specialists.awake(generalist(x), clusters)
    for net in nets:
        net.register_forward_pre_hook(lambda net, given: asked.append(len(given[0])))
    said = specialists.ask(nets, x, who, dustbins=[0.5, 0.0, 1.0])
    assert sum(asked) <= int(who.sum()) + 3  # one image of a specialist that nobody woke tells its shape
    with torch.no_grad():
        for i, net in enumerate(nets):
            expected = net(x)
            expected[:, -1] += [0.5, 0.0, 1.0][i]
            torch.testing.assert_close(said[i], torch.where(who[:, i, None], expected, 0.0))


def test_an_answer_is_eq_5_of_all_that_are_asked(taught, monkeypatch):
    generalist, x, y = taught
    clusters = [[0, 1, 2], [2, 3], [5, 6, 7]]
    nets = [specialists.start(generalist, own) for own in clusters]
    with torch.no_grad():
        g = generalist(x)
        everything = [net(x) for net in nets]
    for logits, own in zip(everything, clusters, strict=True):
        logits[:, -1] += math.log((8 - len(own)) / len(own))  # as many cases of each of the 8 classes
    expected = equation5.solve(g, everything, clusters, specialists.awake(g, clusters))
    monkeypatch.setattr(specialists.training, "IMAGES", 100)
    torch.testing.assert_close(specialists.answer(generalist, nets, clusters, x, y).exp(), expected.exp())


@pytest.mark.parametrize("full", [False, True])
def test_a_team_is_one_specialist_a_cluster_from_the_generalists_weights(taught, full):
    generalist, x, y = taught
    clusters = [[0, 1, 2], [2, 3, 5]]
    settings = {"epochs": 1, "lr": 1e-3, "seed": 2}
    members = specialists.team(generalist, clusters, x, y, full=full, **settings)
    begin = [
        copy.deepcopy(generalist).requires_grad_() if full else specialists.start(generalist, own) for own in clusters
    ]
    assert [member(x).shape for member in members] == [(320, 8 if full else 4)] * 2
    specialists.learn(begin, x, y, clusters, generalist=generalist if full else None, **settings)
    for a, b in zip(members, begin, strict=True):
        torch.testing.assert_close(a(x), b(x))


# ---- one answer, and where it is right


@pytest.fixture(scope="module", params=[False, True], ids=["dustbin", "full"])
def joined(request, taught):
    """The joint answer of three specialists of different sizes, its models, and what they add to the logits."""
    generalist, x, y = taught
    groups, corrections = [[0, 1, 2], [2, 3], [5, 6, 7]], [0.5, -0.2, 1.0]
    begin = models.mlp((16,), n_classes=8, seed=9)
    members = [copy.deepcopy(begin) if request.param else specialists.start(begin, own) for own in groups]
    joint = specialists.join(generalist, members, groups, x, y, corrections=corrections, full=request.param)
    return joint, members, request.param


def test_the_joint_answer_is_eq_5_of_corrected_answers_image_by_image(taught, joined):
    joint, members, full = joined
    generalist, x, _ = taught
    for i in range(0, len(x), 40):
        with torch.no_grad():
            g, answers = generalist(x[i : i + 1]), [member(x[i : i + 1]) for member in members]
        for answer, own, added in zip(answers, joint.clusters, [0.5, -0.2, 1.0], strict=True):
            for c in own if full else [-1]:
                answer[0, c] += -added if full else added
        active = [int(g.argmax()) in own for own in joint.clusters]
        assert joint.active[i].tolist() == active
        covered = [range(8)] * 3 if full else joint.clusters
        expected = equation5.solve(g, answers, covered, torch.tensor([active]))
        torch.testing.assert_close(joint.log_q[i : i + 1].exp(), expected.exp(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close([logits[i : i + 1] for logits in joint.answers], answers, rtol=1e-4, atol=1e-5)
        least = equation5.objective(expected, g, answers, covered, torch.tensor([active]))
        torch.testing.assert_close(joint.objective()[i : i + 1], least, rtol=1e-3, atol=1e-4)
        if full:  # the closed form: the mean of all that answer
            said = [g, *(a for a, on in zip(answers, active, strict=True) if on)]
            mean = torch.cat(said).softmax(dim=1).mean(dim=0)
            torch.testing.assert_close(joint.log_q[i].exp(), mean, rtol=1e-3, atol=1e-4)


def test_more_specialists_are_active_for_the_first_two_choices_and_corrected_by_their_share(taught):
    generalist, x, y = taught
    groups = [[0, 1], [2, 3, 6], [4, 5]]
    members = [specialists.start(generalist, own) for own in groups]
    first, second = generalist(x).topk(2, dim=1).indices.T.tolist()
    joint = specialists.join(generalist, members, groups, x, y, n=2)
    both = zip(first, second, strict=True)
    assert joint.active.tolist() == [[a in own or b in own for own in groups] for a, b in both]
    for member, own, answer in zip(members, groups, joint.answers, strict=True):
        with torch.no_grad():
            odds = (8 - len(own)) / len(own)  # as many cases of each of the 8 classes
            torch.testing.assert_close(answer[:, -1], member(x)[:, -1] + math.log(odds), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_conditional_accuracy_chooses_among_own_classes_alone(full):
    y = torch.tensor([0, 1, 2, 2])
    generalist = torch.tensor([[1.0, 0, 9], [2, 1, 9], [9, 1, 2], [9, 2, 1]])
    first = torch.tensor([[2.0, 1, 9], [3, 1, 9], [0, 0, 9], [0, 0, 9]])  # own 0 and 1; the dustbin is not counted
    second = torch.tensor([[0.0, 0, 9], [2, 1, 9], [2, 1, 9], [2, 1, 9]])  # own 2 and 1, in this order
    if full:
        second = second[:, [2, 1, 0]]  # logits of 0, 1 and 2
    clusters = [[0, 1], [2, 1]]
    joint = specialists.Joint(generalist, [first, second], clusters, torch.ones(4, 2).bool(), generalist, full)
    before, after = specialists.conditional_accuracy(joint, y)
    right_before = [True, False, False, True, False]  # of images 0 and 1; of images 1, 2 and 3
    right_after = [True, False, False, True, True]
    assert before == pytest.approx(100 * sum(right_before) / 5) and before.n == after.n == 5
    assert after == pytest.approx(100 * sum(right_after) / 5)


def made(clusters, generalist_says, joint_says, n_classes):
    """A joint answer that chooses these classes; active as the generalist's choices make it."""
    g, q = (torch.eye(n_classes)[torch.tensor(chosen)] for chosen in (generalist_says, joint_says))
    return specialists.Joint(g, [], clusters, specialists.awake(g, clusters), q.log())


def test_gains_by_cover_are_counted_image_by_image():
    y = torch.tensor([0] * 4 + [1] * 4 + [2] * 2 + [3])
    before = [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0]
    after = [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3]
    joint = made([[0, 1], [1, 2]], before, after, 4)  # covered once: 0 and 2; twice: 1; never: 3
    parts = specialists.by_cover(joint, y, least=1)
    assert set(parts) == {1, 2}, "of class 3 the generalist has no image right: nothing to compare with"
    once, twice = parts[1], parts[2]
    assert (once.images, twice.images) == (6, 4)
    assert (once.before, once.after, once.gain) == pytest.approx((50, 100 * 4 / 6, 100 / 3))
    assert (twice.before, twice.after, twice.gain) == pytest.approx((50, 75, 50))
    assert set(specialists.by_cover(joint, y, least=5)) == {1}


def test_what_covers_a_class_often_is_counted_together():
    joint = made([[0, 1]] * 12 + [[1, 2]] * 3, [0, 1, 2], [0, 1, 2], 3)
    parts = specialists.by_cover(joint, torch.tensor([0, 1, 2]), least=1)
    assert {k: part.images for k, part in parts.items()} == {3: 1, specialists.joint.MANY: 2}


def test_the_parts_by_activity_share_out_the_gain():
    y = torch.tensor([0, 1, 2, 3, 3, 2])
    joint = made([[0, 1], [1, 2]], [1, 1, 0, 0, 3, 2], [0, 1, 2, 3, 3, 1], 4)
    parts = specialists.by_activity(joint, y)
    covered = [
        True,
        True,
        False,
        False,
        False,
        True,
    ]  # image 2: of its class is the second, and only the first is active
    assert parts["expertise"].images == sum(covered)
    assert (parts["expertise"].before, parts["expertise"].after) == pytest.approx((200 / 3, 200 / 3))
    assert parts["rejection"].images == 2 and parts["rejection"].before == 0 and parts["rejection"].after == 100
    assert parts["none active"].images == 1 and parts["none active"].before == parts["none active"].after == 100
    total = 100 * ((joint.log_q.argmax(1) == y).float().mean() - (joint.generalist.argmax(1) == y).float().mean())
    assert sum(part.points for part in parts.values()) == pytest.approx(total.item(), abs=1e-4)


def test_a_part_without_images_adds_nothing():
    joint = made([[0, 1, 2]], [0, 1], [0, 1], 3)
    assert specialists.by_activity(joint, torch.tensor([0, 1]))["none active"].points == 0


def test_examples_are_unsure_and_in_the_order_of_their_kinds():
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    joint = made([[0, 1], [1, 2]], [1, 0, 0, 1, 2, 1], [0, 0, 1, 0, 2, 2], 3)
    joint.generalist[4] *= 50  # the generalist is sure of this one
    assert specialists.examples(joint, y).tolist() == [0, 2, 5, 3, 1]
    assert specialists.examples(joint, y, n=(1, 0, 5)).tolist() == [0, 1]
    assert specialists.examples(joint, y, without=[1]).tolist() == [0, 5, 1]


def test_the_trend_is_that_of_ranks():
    def part(gain):
        return specialists.Part(200, 1000, 100, 100 + gain)

    assert specialists.trend({0: part(1), 1: part(5), 2: part(6), 4: part(30)}) == pytest.approx(1)
    assert specialists.trend({0: part(9), 1: part(5), 3: part(2)}) == pytest.approx(-1)
    assert specialists.trend({0: part(1), 1: part(3), 2: part(2)}) == pytest.approx(1 - 6 * 2 / (3 * 8))  # by hand
    assert math.isnan(specialists.trend({0: part(1), 1: part(3)}))
