"""Run in notebook 00 after its last cell, at its own values."""

assert mean["distilled"] < mean["smoothed labels"] < mean["alone"]
assert all(a > d for a, d in zip(errors["alone"], errors["distilled"], strict=True)), "for every seed"
assert teacher_errors == teachers.record("mnist")["measures"]["test_errors"]
assert abs(plain_errors - kdlab_errors) < 0.25 * plain_errors, "the plain loop and kdlab's do the same"
