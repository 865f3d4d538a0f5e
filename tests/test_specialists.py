"""Which classes belong together, the half-and-half sample, the dustbin and its correction, and who is asked."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import data, losses, models, specialists
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
        net = models.mlp((16,), n_classes=8, seed=1) if soft else specialists.start(generalist, own)
        specialists.learn(net, x, y, own, epochs=6, lr=1e-2, seed=3, generalist=generalist if soft else None)
        ended.append(net)
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in ended), strict=True))
    inside = torch.isin(y, torch.tensor(own))
    s = ended[0](x[inside])[:, own] if soft else ended[0](x[inside])[:, :3]
    assert (s.argmax(1) == specialists.relabeled(y[inside], own, 8)).float().mean() > 0.9


def test_a_soft_specialist_keeps_the_generalists_opinion_of_the_rest(taught):
    """Taught by labels, that opinion would be lost: here the labels of the rest are never used."""
    generalist, x, y = taught
    wrong = torch.where(torch.isin(y, torch.tensor([1, 4, 6])), y, 0)  # planted: nonsense labels of the rest
    kept = models.mlp((16,), n_classes=8, seed=1)
    specialists.learn(kept, x, wrong, [1, 4, 6], epochs=10, lr=3e-3, generalist=generalist, n_classes=8)
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
    specialists.learn(specialists.start(generalist, [0, 1]), x, y, [0, 1], epochs=1, lr=1e-3, pixels=2)
    assert set(asked) == {2}


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
    generalist, x, _ = taught
    clusters = [[0, 1, 2], [2, 3], [5, 6, 7]]
    nets = [specialists.start(generalist, own) for own in clusters]
    with torch.no_grad():
        g = generalist(x)
        everything = [net(x) for net in nets]
    expected = equation5.solve(g, everything, clusters, specialists.awake(g, clusters))
    monkeypatch.setattr(specialists.training, "IMAGES", 100)
    torch.testing.assert_close(specialists.answer(generalist, nets, clusters, x).exp(), expected.exp())
