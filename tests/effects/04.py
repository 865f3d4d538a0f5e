"""Run in notebook 04 after its last cell, at its own values."""

assert all(a > d for a, d in zip(errors["alone"], errors["distilled"], strict=True)), "for every seed"
assert statistics.fmean(closed) > 20, "a good part of the gap is closed"
assert mean_cost["teacher"] < 1 < mean_cost["distilled"] < 0.8 * mean_cost["alone"], "a pixel costs the distilled less"
assert mean_cost[from_shifted] < mean_cost[from_originals], "some of it is what the teacher learned from shifted digits"
assert teacher_cost[True] < teacher_cost[False]
assert hot[-1] < 0.95 * alone[-1] and warm[-1] < 0.95 * alone[-1], "from all the images soft targets help"
assert 1 - warm[0] / alone[0] < 1 - warm[-1] / alone[-1], "and more than from the fewest"
widest_row = by_T.mean(dim=1)[-1]
assert widest_row.min() < 0.96 * widest_row[0], "for the widest, a temperature above 1 is better than T = 1"
