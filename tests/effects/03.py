"""Run in notebook 03 after its last cell, at its own values."""

assert late(rates_by_T["T = 4"]) < late(rates_by_T["alone"]), "the teacher helps"
assert late(rates_by_T["T = 4"]) < late(rates_by_T["T = 0.2"]), "a low temperature is hardly more than labels"
assert late(rates_by_lr["rate 0.03 for a while"]) < 20 < late(rates_by_lr["rate 0.3 for a while"])
dead = [count_dead(run.student) for run in runs.values()]
assert dead[2] > 100 > max(dead[:2]), "a rate far too high leaves dead units, and they stay dead"
assert log["steps"] == 400 and log["turns"] == [{"step": 200, "T": 0.3}]
assert knobs.fingerprint(again.student) == log["weights"] != knobs.fingerprint(other.student), "every step counts"
assert set(live.runs) == {"A", "B"} and live.controls["T"].value == 0.3
