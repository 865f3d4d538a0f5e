"""Run in notebook 08 after its last cell, at its own values."""

label_gap, soft_gap = ((runs[:, -1, TRAINING] - runs[:, -1, TEST])[:, RIGHT] for runs in (labels, soft))
assert (label_gap > 2 * soft_gap).all(), "labels are memorized, soft targets are not"
assert (label_gap > 40).all() and (labels[:, -1, TRAINING, RIGHT] > 95).all()
assert (found["soft-soft-3-test"] > found["soft-hard-3-test"] + 5).all(), "soft targets beat labels stopped early"
assert (100 * gained / gap > 45).all(), "and recover most of the gap"
assert (change(labels, NATS) > 0.2).all() and (change(soft, NATS) < 0.05).all(), "over-confident from labels alone"
assert (label_change > -2).all(), "the paper's sharp fall does not appear"
assert (soft_change > -0.5).all(), "soft targets need no early stopping"
assert points.mean(dim=1)[0] > points.mean(dim=1)[-1] + 5, "the fewer the data, the more points a teacher is worth"
assert mean[0, 0, -1, TRAINING] > mean[0, -1, -1, TRAINING] + 10, "more frames are memorized less"
assert accuracy[1, 0] > accuracy[0, 0] + 5 and bits[1] < bits[0], "the longer-trained teacher has memorized more"
assert student_test[:, 1].mean() < student_test[:, 0].mean() - 0.5, "and its student is worse"
assert (by_T[:, Ts.index(T)] > by_T[:, Ts.index(1.0)]).all(), "T = 5 beats T = 1"
assert (soft_wrong < label_wrong - 1).all(), "MNIST"
