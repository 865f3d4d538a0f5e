"""Losses on what goes on inside a transformer: each against numpy by hand, another library, or transformers' own."""

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import losses, text
from kdlab.train import features

LENGTHS = (5, 2, 3)
MASK = torch.arange(5) < torch.tensor(LENGTHS)[:, None]  # (batch, tokens)


def states(width=6, seed=0, tokens=5):
    return torch.randn(3, tokens, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def maps(heads=2, seed=0, tokens=5):
    return torch.randn(3, heads, tokens, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(student, teacher):
    """The mean KL over heads and real rows, one text at a time, cut to its length: no mask is needed."""
    rows = []
    for s, t, n in zip(student.numpy(), teacher.numpy(), LENGTHS, strict=True):
        p, q = softmax(t[:, :n, :n]), softmax(s[:, :n, :n])
        rows += (p * np.log(p / q)).sum(axis=-1).ravel().tolist()
    return np.mean(rows)


def test_hidden_mse_is_the_mean_over_real_tokens_and_numbers():
    s, t = states(), states(seed=1)
    real = [((s[i, :n] - t[i, :n]) ** 2).numpy().ravel() for i, n in enumerate(LENGTHS)]
    assert losses.hidden_mse(s, t, MASK).item() == pytest.approx(np.concatenate(real).mean())


def test_cosine_is_torchs_own_cosine_embedding_loss_on_real_tokens():
    """Which is what DistilBERT's code calls."""
    s, t = states(), states(seed=1)
    own = nn.CosineEmbeddingLoss()(s[MASK], t[MASK], torch.ones(sum(LENGTHS)))
    torch.testing.assert_close(losses.cosine(s, t, MASK), own)


def test_patient_is_the_squared_distance_of_unit_vectors_and_2_minus_2_cosines():
    s, t = states(), states(seed=1)
    unit = [a.numpy() / np.linalg.norm(a.numpy(), axis=-1, keepdims=True) for a in (s, t)]
    assert losses.cls_direction_mse(s, t).item() == pytest.approx(((unit[0] - unit[1]) ** 2).sum(axis=-1).mean())
    torch.testing.assert_close(losses.cls_direction_mse(s, t), 2 * losses.cosine(s, t, MASK | True))
    assert losses.cls_direction_mse(s, 3 * s).item() == pytest.approx(0, abs=1e-12)
    assert losses.cls_direction_mse(s, -s).item() == pytest.approx(4)


def test_attention_mse_is_the_mean_over_pairs_of_real_tokens():
    s, t = maps(), maps(seed=1)
    real = [((s[i, :, :n, :n] - t[i, :, :n, :n]) ** 2).numpy().ravel() for i, n in enumerate(LENGTHS)]
    assert losses.attention_mse(s, t, MASK).item() == pytest.approx(np.concatenate(real).mean())


def test_attention_kl_is_the_sum_p_log_p_over_q_of_each_real_row():
    s, t = maps(), maps(seed=1)
    assert losses.attention_kl(s, t, MASK).item() == pytest.approx(divergence(s, t))
    assert losses.attention_kl(t, t, MASK).item() == 0


def test_value_relation_is_eq_3_and_4_of_minilm_by_hand():
    s, t = states(6), states(10, seed=1)

    def relation(v):
        by_head = v.numpy().reshape(3, 5, 2, -1).transpose(0, 2, 1, 3)
        return torch.tensor(by_head @ by_head.transpose(0, 1, 3, 2) / np.sqrt(by_head.shape[-1]))

    assert losses.value_relation(s, t, MASK, heads=2).item() == pytest.approx(divergence(relation(s), relation(t)))


def test_scores_softened_are_the_attention_maps_of_transformers():
    net = text.untrained(layers=1, width=8, heads=2, vocab_size=50)
    net.model.set_attn_implementation("eager")
    x = torch.tensor([[1, 7, 9, 2, 0], [1, 4, 2, 0, 0]])
    at = "model.bert.encoder.layer.0.attention.self"
    with features.capture(net, [f"{at}.query", f"{at}.key"]) as seen:
        net(x)
    theirs = net.model(x, attention_mask=(x != 0).long(), output_attentions=True).attentions[0]
    mine = losses.scores(seen[f"{at}.query"], seen[f"{at}.key"], heads=2)
    mine = mine.masked_fill((x == 0)[:, None, None], -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t, mask: losses.hidden_mse(s, t, mask),
        lambda s, t, mask: losses.cosine(s, t, mask),
        lambda s, t, mask: losses.attention_mse(losses.scores(s, s, 2), losses.scores(t, t, 2), mask),
        lambda s, t, mask: losses.attention_kl(losses.scores(s, s, 2), losses.scores(t, t, 2), mask),
        lambda s, t, mask: losses.value_relation(s, t, mask, heads=2),
    ],
)
def test_padding_does_not_count_whatever_stands_in_it(loss):
    s, t = states(), states(seed=1)
    before = loss(s, t, MASK)
    s, t = (torch.cat([each.masked_fill(~MASK[..., None], 1e6), torch.full((3, 4, 6), 1e6)], 1) for each in (s, t))
    torch.testing.assert_close(loss(s, t, torch.cat([MASK, torch.zeros(3, 4).bool()], 1)), before)


@pytest.mark.parametrize(
    "loss, give",
    [
        (losses.hidden_mse, lambda seed: states(seed=seed)),
        (losses.cosine, lambda seed: states(seed=seed)),
        (losses.attention_mse, lambda seed: maps(seed=seed)),
        (losses.attention_kl, lambda seed: maps(seed=seed)),
        (lambda *given, **how: losses.value_relation(*given, heads=2, **how), lambda seed: states(seed=seed)),
    ],
)
def test_unreduced_they_are_the_loss_of_each_text_alone_and_their_mean_by_tokens_is_the_loss(loss, give):
    s, t = give(seed=0), give(seed=1)
    each = loss(s, t, MASK, reduction="none")
    alone = [loss(s[i : i + 1], t[i : i + 1], MASK[i : i + 1]) for i in range(len(LENGTHS))]
    torch.testing.assert_close(each, torch.stack(alone))
    weight = torch.tensor(LENGTHS).double() ** (2 if loss is losses.attention_mse else 1)  # pairs of tokens, or tokens
    torch.testing.assert_close((each * weight).sum() / weight.sum(), loss(s, t, MASK))
    none_real = MASK & torch.tensor([[True], [False], [True]])
    assert loss(s, t, none_real, reduction="none")[1] == 0
    with pytest.raises(ValueError, match="'mean' or 'none', got 'sum'"):
        loss(s, t, MASK, reduction="sum")


def test_directions_unreduced_are_a_mean_over_layers_for_each_text():
    s, t = (torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    each = losses.cls_direction_mse(s, t, reduction="none")
    expected = [losses.cls_direction_mse(a, b) for a, b in zip(s, t, strict=True)]
    torch.testing.assert_close(each, torch.stack(expected))


@pytest.mark.parametrize("loss", [losses.hidden_mse, losses.cosine])
def test_no_gradient_reaches_the_teacher_nor_padding(loss):
    s, t = states().requires_grad_(), states(seed=1).requires_grad_()
    loss(s, t, MASK).backward()
    assert t.grad is None
    assert (s.grad[MASK] != 0).any() and (s.grad[~MASK] == 0).all()


def test_the_gradient_of_attention_kl_is_finite_with_padding_and_q_minus_p():
    s, t = maps().requires_grad_(), maps(seed=1)
    losses.attention_kl(s, t, MASK).backward()
    n = LENGTHS[2]
    by_hand = (s[2, :, :n, :n].softmax(-1) - t[2, :, :n, :n].softmax(-1)) / (2 * sum(LENGTHS))
    torch.testing.assert_close(s.grad[2, :, :n, :n], by_hand.detach())
    assert (s.grad[1, :, :, 2:] == 0).all()


def test_half_precision_is_computed_in_single():
    s, t = states().bfloat16(), states(seed=1).bfloat16()
    for loss in (losses.hidden_mse, losses.cosine):
        assert loss(s, t, MASK).dtype == torch.float32
    assert losses.scores(s, t, 2).dtype == torch.float32


def test_errors_name_the_usual_cause():
    with pytest.raises(ValueError, match=r"\(3, 5, 6\).*\(3, 5, 8\).*nn.Linear"):
        losses.hidden_mse(states(6), states(8), MASK)
    with pytest.raises(ValueError, match="another number of layers"):
        losses.cls_direction_mse(torch.ones(4, 2, 6), torch.ones(4, 3, 6))
    with pytest.raises(ValueError, match="number, or cut both into as many"):
        losses.attention_kl(maps(2), maps(12), MASK)
    with pytest.raises(ValueError, match="number, or cut both into as many"):
        losses.attention_mse(states(), states(), MASK)
    with pytest.raises(ValueError, match="4 heads must divide"):
        losses.value_relation(states(6), states(6), MASK, heads=4)
    for mask in (MASK.long(), MASK[:2], MASK & False):
        with pytest.raises(ValueError, match="x != 0 makes one"):
            losses.hidden_mse(states(), states(), mask)
