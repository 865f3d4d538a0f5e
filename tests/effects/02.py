"""Run in notebook 02 after its last cell, at its own values."""

assert by_alpha[2] < 0.95 * by_alpha[0], "with T², half the weight on soft targets beats labels alone"
assert by_alpha[2] < 0.95 * without_T2.mean(dim=1)[2], "without T² the label's term dominates"
assert abs(without_T2[4].mean() - by_alpha[4]) < 0.1 * by_alpha[4], "at alpha = 1 Adam hardly sees the factor"
assert -2.2 < float(slope) < -2, "a little steeper than 1/T²: 20 is not yet large beside the logits"
assert gaps[1000.0] < 0.01 and 7 < gaps[100.0] / gaps[1000.0] < 14, "what eq. 3 leaves out shrinks as 1/T"
