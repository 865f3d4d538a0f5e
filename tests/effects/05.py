"""Run in notebook 05 after its last cell, at its own values."""

distilled, control = chosen["distilled"], chosen["labels only"]  # (seeds, ways, 3): bias, errors, percent recognized

assert (distilled[:, 2:, 2] > distilled[:, :1, 2] + 25).all(), "a bias chosen honestly brings many 3s back"
assert (distilled[:, 2:, 2] > 75).all()
assert (distilled[:, 2:, 1] < 1.2 * distilled[:, 1:2, 1]).all(), "and costs few errors more than the test set's"
assert (control[:, 1, 2] < 30).all(), "no bias helps the student of labels alone"
assert (control[:, 3, 2] < distilled[:, 3, 2] - 30).all() and (control[:, 3, 1] > 2 * distilled[:, 3, 1]).all()
assert (x_without_3 != x_rest[y_rest == 3][0]).flatten(1).any(dim=1).all(), "no 3 in the transfer set"

assert len(twenty) == 20 and called.count(3) >= 12, "most of the poster's 3s flip"
pad_image = mnist.x_test[torch.minimum(wrong_before, right_after).argmax()][None]
assert int(metrics.logits(never_saw_3, pad_image).argmax()) != 3 == int(metrics.logits(with_bias, pad_image).argmax())
confused = metrics.confusion(test, mnist.y_test)
wrong_by_row = confused.sum(dim=1) - confused.diag()
assert int(wrong_by_row.argmax()) == 3, "the row of the 3 is the worst"
called_3 = metrics.confusion(class_bias.shifted(test, [3], bias + 5), mnist.y_test)[:, 3]
assert {5, 8} <= set(called_3.topk(4).indices.tolist()), "3 itself, and above all 5s and 8s"

assert (chosen_7_8[:, 3, 1] < 0.7 * chosen_7_8[:, 0, 1]).all(), "one bias for eight digits saves many errors"
assert (chosen_7_8[:, 3, 2] > chosen_7_8[:, 0, 2] + 25).all() and (chosen_7_8[:, 3, 2] < 90).all(), "not all"

assert (seen > 80).all() and seen.mean() > alone.mean() + 15, "the student that saw the digit is the yardstick"
assert int(alone.argmax()) == 1
