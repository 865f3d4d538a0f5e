"""What a generalist and its specialists answer together, and where the answer is right.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5, tables 3 and 4.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import metrics

from . import equation5, training

Clusters = equation5.Clusters
MANY = 10  # specialists that cover a class: table 4 counts no further


class Joint(NamedTuple):
    """The answers of a generalist and its specialists to some images, and the one answer of eq. 5."""

    generalist: Tensor  # (images, classes) logits
    answers: list[Tensor]  # for each specialist (images, own classes + 1) logits, corrected, the dustbin last
    clusters: Clusters  # the classes of each specialist
    active: Tensor  # (images, specialists) bool: its classes hold the generalist's first choice
    log_q: Tensor  # (images, classes)
    full: bool = False  # the specialists have the full softmax: answers are (images, classes)

    def objective(self) -> Tensor:
        """Return eq. 5 at q, in nats, image by image."""
        every = [range(self.generalist.shape[1])] * len(self.clusters)
        clusters = every if self.full else self.clusters
        return equation5.objective(self.log_q, self.generalist, self.answers, clusters, self.active)

    def own_logits(self, i: int) -> Tensor:
        """Return specialist i's logits of its own classes, (images, own classes)."""
        own = list(self.clusters[i])
        return self.answers[i][:, own] if self.full else self.answers[i][:, : len(own)]


def join(
    generalist: nn.Module,
    members: Sequence[nn.Module],
    clusters: Clusters,
    x: Tensor,
    y_train: Tensor,
    *,
    corrections: Sequence[float] | None = None,
    n: int = 1,
    full: bool = False,
) -> Joint:
    """Ask every model for the images x, and solve eq. 5 with the specialists that are active for each image.

    y_train: (cases,) the labels that the specialists learned from. corrections: what to add to each dustbin's logit, in
    nats; default `correction` of y_train. n: a specialist is active where it covers one of the generalist's n first
    choices. full: the specialists have the full softmax of section 6.1 and no dustbin; the correction is taken off
    their own classes' logits instead.
    """
    corrections = [training.correction(y_train, own) for own in clusters] if corrections is None else corrections
    g, answers = metrics.logits(generalist, x), [metrics.logits(member, x) for member in members]
    for logits, own, correction in zip(answers, clusters, corrections, strict=True):
        if full:
            logits[:, list(own)] -= correction
        else:
            logits[:, -1] += correction
    active = training.awake(g, clusters, n)
    covered = [range(g.shape[1])] * len(clusters) if full else clusters
    return Joint(g, answers, clusters, active, equation5.solve(g, answers, covered, active), full)


def conditional_accuracy(joint: Joint, y: Tensor) -> tuple[metrics.Score, metrics.Score]:
    """Return percent right on a specialist's own classes where only these may be chosen: generalist, specialists.

    y: (images,). Over all specialists; an image counts once for each that covers its class.

    Hinton, Vinyals & Dean 2015, table 3.
    """
    before = after = n = 0
    for i, own in enumerate(joint.clusters):
        inside = torch.isin(y, torch.tensor(list(own), device=y.device))
        places = training.relabeled(y[inside], own, joint.generalist.shape[1])
        before += int((joint.generalist[inside][:, list(own)].argmax(dim=1) == places).sum())
        after += int((joint.own_logits(i)[inside].argmax(dim=1) == places).sum())
        n += len(places)
    return metrics.Score(before / n, n), metrics.Score(after / n, n)


class Part(NamedTuple):
    """A part of the images: how many they are, of how many, and how many are right by generalist and by eq. 5."""

    images: int
    total: int
    right_before: int
    right_after: int

    @property
    def before(self) -> float:
        """Percent right by the generalist; 0 without images."""
        return 100 * self.right_before / max(self.images, 1)

    @property
    def after(self) -> float:
        """Percent right by eq. 5; 0 without images."""
        return 100 * self.right_after / max(self.images, 1)

    @property
    def gain(self) -> float:
        """Percent more right than before: table 4's measure."""
        return 100 * (self.right_after / self.right_before - 1)

    @property
    def points(self) -> float:
        """What this part adds to the accuracy over all images, in points."""
        return 100 * (self.right_after - self.right_before) / self.total


def part(joint: Joint, y: Tensor, images: Tensor) -> Part:
    """Count what is right among some of the images. y: (images,); images: (images,) bool."""
    right = [int((logits.argmax(dim=1) == y)[images].sum()) for logits in (joint.generalist, joint.log_q)]
    return Part(int(images.sum()), len(y), *right)


def by_cover(joint: Joint, y: Tensor, least: int = 100) -> dict[int, Part]:
    """Return the images by how many specialists cover their class, for numbers that `least` images have.

    y: (images,). The number MANY stands for so many or more. A number of whose images the generalist has none right
    is left out.

    Hinton, Vinyals & Dean 2015, table 4.
    """
    cover = training.coverage(joint.clusters, joint.generalist.shape[1]).to(y.device).clamp(max=MANY)[y]
    parts = {k: part(joint, y, cover == k) for k in cover.unique().tolist()}
    return {k: each for k, each in parts.items() if each.images >= least and each.right_before}


def trend(parts: Mapping[int, Part]) -> float:
    """Return Spearman's rank correlation of gain and number of specialists: +1 for a gain that always rises.

    parts: from `by_cover`; fewer than three have no trend, NaN.
    """
    from scipy.stats import spearmanr

    return float(spearmanr([*parts], [each.gain for each in parts.values()]).statistic) if len(parts) > 2 else math.nan


def by_activity(joint: Joint, y: Tensor) -> dict[str, Part]:
    """Return three parts of the images: "expertise", "rejection", "none active".

    Where an active specialist covers the true class; where some are active and none covers it, so that the generalist
    is wrong; where none is active, so that eq. 5 leaves the generalist's answer. y: (images,).
    """
    covers = torch.stack([torch.isin(y, torch.tensor(list(own), device=y.device)) for own in joint.clusters], dim=1)
    covered, active = (covers & joint.active).any(dim=1), joint.active.any(dim=1)
    masks = {"expertise": covered, "rejection": active & ~covered, "none active": ~active}
    return {name: part(joint, y, mask) for name, mask in masks.items()}


def examples(joint: Joint, y: Tensor, n: tuple[int, int, int] = (14, 4, 6), without: Sequence[int] = ()) -> Tensor:
    """Return the numbers of some images of which the generalist is unsure, with one to three active specialists.

    n: of images that eq. 5 corrects, that it gets wrong though the generalist was right, and that both have right, in
    this order. without: classes that are neither shown nor answered.
    """
    right, before = (logits.argmax(dim=1) == y for logits in (joint.log_q, joint.generalist))
    unsure, active = joint.generalist.softmax(dim=1).amax(dim=1) < 0.7, joint.active.sum(dim=1)
    left_out = torch.tensor(list(without), dtype=y.dtype, device=y.device)
    shown = unsure & (active >= 1) & (active <= 3)
    shown &= ~torch.isin(y, left_out) & ~torch.isin(joint.log_q.argmax(dim=1), left_out)
    kinds = (right & ~before, ~right & before, right & before)
    return torch.cat([(shown & kind).nonzero().flatten()[:most] for kind, most in zip(kinds, n, strict=True)])
