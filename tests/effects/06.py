"""Run in notebook 06 after its last cell, at its own values."""

assert frames["ensemble"][0] > max(frames["labels"]), "the ensemble gets more frames right than each of its models"
assert vote_loss < member_loss, "Jensen's inequality"
assert 2 <= enough <= 6, "the first few models give most of the gain"
assert min(frames["distilled"]) > average["labels"], "each student beats the models of its size on average"
assert average["distilled"] > average["labels, as many epochs"] + 0.3, "longer training on labels is not the reason"
assert average["distilled"] < average["ensemble"] + 0.2, "one model keeps about all of the gain at the most"
assert 0 < differ.float().mean() < 0.02, "the two means rarely name different words"

change = F.pad((truth[1:] != truth[:-1]).float(), (0, 1))
near = F.max_pool1d(change[None], 7, stride=1, padding=3)[0] > 0  # within three frames of a change of word
assert is_wrong[near].mean() > is_wrong[~near].mean() + 0.05, "words are wrong more often where they meet"
counts = [sum(map(len, recognize(member_test[0], price))) for price in (0, -4, -20)]
assert counts[0] > counts[1] > counts[2], "a lower word price gives fewer words"
