"""Every way of compressing on every kind of model: it works, or it refuses and says why; small models, drawn at random.

REFUSES is the table of both: every pair that is not in it works. A way that works changes no logit where it cuts
nothing, changes some where it cuts, and leaves as many parameters as a count by hand says. The model given is never
changed.
"""

import copy

import pytest
import torch
from small_models import LISTS, MODELS, answer, linear, model_and_input, near, numbers, size
from torch import nn

from kdlab import compress, metrics
from kdlab.compress import prune

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- every way: what it does where it cuts nothing, what it does where it cuts, and what is expected of that


def int8(kind, model, x, same):
    made = compress.int8(model)
    assert near(same, answer(made, x), 0.5)
    packed = [each for each in linear(model).values() if type(each).__name__ != "NonDynamicallyQuantizableLinear"]
    assert metrics.parameters(made) == metrics.parameters(model)
    assert size(model) - size(made) == 3 * numbers(packed)
    return made


def int8_embeddings(kind, model, x, same):
    made = compress.int8_embeddings(model)
    assert near(same, answer(made, x), 0.5)
    words = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    assert size(model) - size(made) == 3 * numbers(words)
    return made


def fake_quantize(kind, model, x, same):
    assert near(same, answer(compress.fake_quantize(model, 8), x), 0.5)
    made = compress.fake_quantize(model, 4)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Embedding, nn.Conv2d)) or type(layer).__name__ == "Conv1D":
            weight = layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight
            step = weight.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (weight.dim() - 1)) / 7
            found = made.get_submodule(name).weight
            by_hand = step * (weight / step).round()
            torch.testing.assert_close(found.T if weight is not layer.weight else found, by_hand)
    assert metrics.parameters(made) == metrics.parameters(model)
    return made


def factorize(kind, model, x, same):
    layers = linear(model)
    full = compress.factorize(model, {name: min(layer.weight.shape) for name, layer in layers.items()})
    torch.testing.assert_close(answer(full, x), same, rtol=1e-3, atol=1e-4)
    made = compress.factorize(model, 2)
    assert metrics.parameters(model) - metrics.parameters(made) == numbers(layers.values()) - 2 * sum(
        sum(layer.weight.shape) for layer in layers.values()
    )
    return made


def magnitude(kind, model, x, same):
    assert torch.equal(answer(prune.magnitude(model, 0.0), x), same)
    made = prune.magnitude(model, 0.5)
    n = numbers(linear(model).values())
    assert metrics.nonzero(model) - metrics.nonzero(made) == round(0.5 * n)
    return made


def heads(kind, model, x, same):
    """Without a head: as with the columns at zero that read it."""
    torch.testing.assert_close(answer(prune.heads(model, {}), x), same)
    made = prune.heads(model, {0: [1]})
    assert metrics.parameters(model) - metrics.parameters(made) == 4 * (3 * (16 + 1) + 16)
    muted = copy.deepcopy(model)
    out = next(
        layer
        for name, layer in muted.named_modules()
        if name.endswith(("attention.output.dense", "out_lin", "attention.dense"))
    )
    out.weight.data[:, 4:8] = 0
    torch.testing.assert_close(answer(made, x), answer(muted, x))
    return made


def layers(kind, model, x, same):
    """Without a layer: as with a layer that returns what it was given, and as the model that is loaded from a file."""
    torch.testing.assert_close(answer(prune.layers(model, range(3)), x), same)
    made = prune.layers(model, [0, 2])
    gone = model.get_submodule(LISTS[kind])[1]
    assert metrics.parameters(model) - metrics.parameters(made) == metrics.parameters(gone)

    def passed(layer, given, out):
        return given[0] if isinstance(out, torch.Tensor) else (given[0], *out[1:])

    hook = gone.register_forward_hook(passed)
    torch.testing.assert_close(answer(made, x), answer(model, x))
    hook.remove()
    if hasattr(model, "config"):
        built = type(made)(copy.deepcopy(made.config)).eval()  # by its config alone, as from_pretrained does
        built.load_state_dict(made.state_dict())
        torch.testing.assert_close(answer(made, x), answer(built, x))
    return made


def shared(kind, model, x, same):
    """With one layer used everywhere: as with separate layers that have equal weights."""
    torch.testing.assert_close(answer(compress.share_layers(model, 3, LISTS.get(kind)), x), same)
    made = compress.share_layers(model, 1, LISTS.get(kind))
    apart, held = copy.deepcopy(model), model.get_submodule(LISTS[kind])
    for layer in apart.get_submodule(LISTS[kind]):
        layer.load_state_dict(held[0].state_dict())
    torch.testing.assert_close(answer(made, x), answer(apart, x))
    assert metrics.parameters(model) - metrics.parameters(made) == 2 * metrics.parameters(held[0])
    return made


WAYS = [int8, int8_embeddings, fake_quantize, factorize, magnitude, heads, layers, shared]
TIED, NO_HEADS, NO_LIST = (
    "share one weight.*but=",
    "no attention with its own linear layers",
    "nn.ModuleList of at least",
)
REFUSES = {  # way → model → what the refusal says; every other pair works
    "int8": {"gpt2_lm": TIED, "gemma3": TIED},
    "int8_embeddings": {
        "gpt2_lm": TIED,
        "gemma3": TIED,
        "vit": "no Embedding of this model",
        "resnet": "no Embedding of this model",
    },
    "fake_quantize": {},
    "factorize": {"gpt2_lm": TIED, "gemma3": TIED},
    "magnitude": {},
    "heads": dict.fromkeys(set(MODELS) - {"bert", "roberta", "electra", "distilbert", "albert"}, NO_HEADS),
    "layers": {"albert": NO_LIST, "resnet": NO_LIST, "lstm": NO_LIST},
    "shared": {
        "albert": "0 of this model hold layers that are alike",
        "modernbert": "cannot share their weights: attn_norm.weight",
        "t5": "cannot share their weights: layer.0.SelfAttention.relative_attention_bias",
        "resnet": "0 of this model hold layers that are alike",
        "lstm": "0 of this model hold layers that are alike",
    },
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_works_or_refuses_on_every_model(way, kind):
    model, x = model_and_input(kind)
    same, before = answer(model, x), described(model)
    if said := REFUSES[way.__name__].get(kind):
        with pytest.raises(ValueError, match=said):
            way(kind, model, x, same)
    else:
        made = way(kind, model, x, same)
        assert (answer(made, x) - same).abs().max() > 1e-6
        assert not made.training
    assert described(model) == before and torch.equal(answer(model, x), same)


def described(model):
    weights = [
        (name, id(weight), weight.requires_grad, weight.sum().item()) for name, weight in model.named_parameters()
    ]
    config = model.config.to_dict() if hasattr(model, "config") else None
    return weights, [(name, id(module), len(vars(module))) for name, module in model.named_modules()], str(config)


PAIRED = {way.__name__: way for way in (compress.int8, compress.int8_embeddings, compress.share_layers)} | {
    "fake_quantize": lambda model: compress.fake_quantize(model, 4),
    "prepare_qat": lambda model: compress.prepare_qat(model, 4),
    "factorize": lambda model: compress.factorize(model, 2),
    "magnitude": lambda model: compress.magnitude(model, 0.5),
    "heads": lambda model: compress.heads(model, {0: [1]}),
    "layers": lambda model: compress.layers(model, [0, 1]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["bert", "albert", "gpt2", "gpt2_lm", "t5", "encoder"])
def test_two_ways_one_after_another_leave_no_more_weights_or_the_second_refuses(kind):
    model, x = model_and_input(kind)
    pairs = 0
    for first in PAIRED.values():
        try:
            once = first(model)
        except ValueError:
            continue
        expected = answer(once, x)
        for second in set(PAIRED.values()) - {first}:
            try:
                twice = second(once)
            except ValueError:
                continue
            finally:
                assert torch.equal(answer(once, x), expected)
            assert answer(twice, x).isfinite().all()
            assert metrics.parameters(twice) <= metrics.parameters(once)
            pairs += 1
    assert pairs >= 15


def test_a_decoder_that_shares_its_layers_is_put_in_bytes_once():
    model, x = model_and_input("gpt2")
    once = compress.share_layers(model)
    made = compress.int8(once)
    assert metrics.parameters(made) == metrics.parameters(once)
    assert made.transformer.h[0].mlp.c_fc is made.transformer.h[2].mlp.c_fc
    assert near(answer(once, x), answer(made, x), 0.5)
