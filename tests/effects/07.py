"""Run in notebook 07 after its last cell, at its own values."""

assert all(gain > 1 for gain in ours), "specialists improve their generalist, for every seed"
assert fmean(ours) > fmean(gains["random-class specialists"]) + 1, "it matters which classes they have"
assert fmean(gains[f"ensemble of {1 + n_specialists}"]) > fmean(ours), "as many plain models gain more, at more cost"
assert expertise > 1 > 0 < rejection, "both sources give something"
assert all(points < 0 for points in change), "a specialist with every class gains less: it repeats the generalist"
assert all(after > before for before, after in both), "specialists know their own classes better"
