"""Every way of compressing on every kind of model: it works, or it refuses and says why; small models, drawn at random.

WORKS is the table of both. A way that works changes no logit where it cuts nothing, changes some where it cuts, and
leaves as many parameters as a count by hand says. The model given is never changed.
"""

import copy
import itertools
import warnings

import pytest
import torch
import torchvision
import transformers
from torch import nn

from kdlab import compress, metrics, text
from kdlab.compress import prune

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_labels": 3}
SIZES |= {"num_hidden_layers": 3, "pad_token_id": 0}


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.lstm, self.out = nn.Embedding(50, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.lstm(self.words(x))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x):
        return self.out(self.encoder(self.words(x)).mean(dim=1))


def of_transformers(kind, task="ForSequenceClassification", **settings):
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    return getattr(transformers, f"{kind}{task}")(config)


def gemma3():
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    config = transformers.Gemma3TextConfig(**SIZES | HEADS, layer_types=kinds, sliding_window=3)
    return transformers.Gemma3ForCausalLM(config)


TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 4} | TOKENS
MODERN = {"global_attn_every_n_layers": 2, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2} | TOKENS
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 3, "num_heads": 4, "vocab_size": 50}
MODELS = {
    "bert": lambda: of_transformers("Bert"),
    "roberta": lambda: of_transformers("Roberta", max_position_embeddings=40),
    "electra": lambda: of_transformers("Electra", embedding_size=16),
    "distilbert": lambda: of_transformers("DistilBert", dim=16, hidden_dim=32),
    "albert": lambda: of_transformers("Albert", embedding_size=8),
    "modernbert": lambda: of_transformers("ModernBert", **MODERN),
    "gpt2": lambda: of_transformers("GPT2", n_positions=32, **TOKENS),
    "gpt2_lm": lambda: of_transformers("GPT2", "LMHeadModel", n_positions=32, **TOKENS),
    "llama": lambda: of_transformers("Llama", **HEADS),
    "gemma3": gemma3,
    "t5": lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)),
    "vit": lambda: of_transformers("ViT", "ForImageClassification", image_size=8, patch_size=4),
    "resnet": lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3),
    "lstm": Lstm,
    "encoder": Encoder,
}
LISTS = {"bert": "bert.encoder.layer", "roberta": "roberta.encoder.layer", "electra": "electra.encoder.layer"}
LISTS |= {"distilbert": "distilbert.transformer.layer", "modernbert": "model.layers", "gpt2": "transformer.h"}
LISTS |= {"gpt2_lm": "transformer.h", "llama": "model.layers", "gemma3": "model.layers", "t5": "encoder.block"}
LISTS |= {"vit": "vit.layers", "encoder": "encoder.layers"}  # name → its list of three layers


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_and_input(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.15 * torch.randn_like(weight) + (0 if weight.dim() > 1 else weight))
    if kind in ("vit", "resnet"):
        return model, torch.randn(2, 3, 8, 8) if kind == "vit" else torch.randn(2, 3, 32, 32)
    return model, torch.randint(3, 50, (2, 7))


@torch.no_grad()
def answer(model, x):
    out = model(x)
    return out if isinstance(out, torch.Tensor) else out[0]


def linear(model):
    """Name → linear layer, each once; nn.MultiheadAttention reads the weight of its last one by itself."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    }


def numbers(layers):
    return sum({id(layer.weight): layer.weight.numel() for layer in layers}.values())


def size(model):
    """Bytes of the weights, each counted once."""
    found = {
        weight.data_ptr() if not weight.is_quantized else weight: weight
        for weight in metrics.cost.weights(model).values()
    }
    return sum(weight.numel() * weight.element_size() for weight in found.values())


# ---- every way: what it does where it cuts nothing, what it does where it cuts, and what is expected of that


def near(a, b, share):
    return (a - b).abs().max() <= share * a.std()


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


def fake_quantised(kind, model, x, same):
    assert near(same, answer(compress.fake_quantised(model, 8), x), 0.5)
    made = compress.fake_quantised(model, 4)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Embedding, nn.Conv2d)) or type(layer).__name__ == "Conv1D":
            weight = layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight
            step = weight.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (weight.dim() - 1)) / 7
            found = made.get_submodule(name).weight
            by_hand = step * (weight / step).round()
            torch.testing.assert_close(found.T if weight is not layer.weight else found, by_hand)
    assert metrics.parameters(made) == metrics.parameters(model)
    return made


def factorised(kind, model, x, same):
    layers = linear(model)
    full = compress.factorised(model, {name: min(layer.weight.shape) for name, layer in layers.items()})
    torch.testing.assert_close(answer(full, x), same, rtol=1e-3, atol=1e-4)
    made = compress.factorised(model, 2)
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
    torch.testing.assert_close(answer(compress.shared(model, 3, LISTS.get(kind)), x), same)
    made = compress.shared(model, 1, LISTS.get(kind))
    apart, held = copy.deepcopy(model), model.get_submodule(LISTS[kind])
    for layer in apart.get_submodule(LISTS[kind]):
        layer.load_state_dict(held[0].state_dict())
    torch.testing.assert_close(answer(made, x), answer(apart, x))
    assert metrics.parameters(model) - metrics.parameters(made) == 2 * metrics.parameters(held[0])
    return made


WAYS = [int8, int8_embeddings, fake_quantised, factorised, magnitude, heads, layers, shared]
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
    "fake_quantised": {},
    "factorised": {"gpt2_lm": TIED, "gemma3": TIED},
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


PAIRED = {way.__name__: way for way in (compress.int8, compress.int8_embeddings, compress.shared)} | {
    "fake_quantised": lambda model: compress.fake_quantised(model, 4),
    "quantisation_aware": lambda model: compress.quantisation_aware(model, 4),
    "factorised": lambda model: compress.factorised(model, 2),
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
    once = compress.shared(model)
    made = compress.int8(once)
    assert metrics.parameters(made) == metrics.parameters(once)
    assert made.transformer.h[0].mlp.c_fc is made.transformer.h[2].mlp.c_fc
    assert near(answer(once, x), answer(made, x), 0.5)


# ---- what is said where little is left to do


def test_a_pattern_that_leaves_nothing_is_refused_with_what_there_is():
    model = model_and_input("gpt2")[0]
    for way in (
        lambda: compress.int8(model, "score", but="*"),
        lambda: compress.fake_quantised(model, 4, "score", but="score"),
        lambda: compress.factorised(model, 2, but=("transformer.h*", "score")),
        lambda: compress.int8_embeddings(model, but="transformer.*"),
    ):
        with pytest.raises(ValueError, match="no layer is left to work on: but=.*(score|transformer.wte|c_attn)"):
            way()


@pytest.mark.parametrize(
    "kind, way, share",
    [
        ("resnet", compress.int8, 0),
        ("lstm", compress.int8, 4),
        ("lstm", lambda model: compress.factorised(model, 1), 4),
        ("lstm", lambda model: compress.magnitude(model, 0.5), 4),
    ],
)
def test_a_way_that_knows_little_of_a_model_warns_of_the_share(kind, way, share):
    model = model_and_input(kind)[0]
    with pytest.warns(UserWarning, match=f"changes {share}% of the numbers in this model's matrices"):
        way(model)


def test_a_way_that_knows_most_of_a_model_or_is_told_the_layers_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("bert", "gpt2", "llama", "t5", "vit"):
            compress.int8(model_and_input(kind)[0])
            compress.factorised(model_and_input(kind)[0], 0.5)
        compress.int8(model_and_input("lstm")[0], "out")


def test_what_was_touched_is_counted():
    model, _ = model_and_input("bert")
    found = compress.touched(model, prune.heads(model, {0: [1], 2: [0, 3]}))
    assert found.parameters[0] - found.parameters[1] == 3 * 4 * (3 * 17 + 16)
    assert found.heads == (12, 9) and found.matrices == (8, 20)
    assert found.share == pytest.approx(8 * 256 / (12 * 256 + 6 * 512 + 256 + 48))
    assert "heads: 9 of 12 are left" in str(found) and "matrices: 8 of 20 changed" in str(found)
    found = compress.touched(model, compress.layers(model, [0, 1]))
    assert found.layers == {"bert.encoder.layer": (3, 2)} and "layers: 2 of 3 are left" in str(found)
    assert compress.touched(model, compress.shared(model)).layers == {"bert.encoder.layer": (3, 1)}
    found = compress.touched(model, compress.int8(model, but="classifier"))
    assert found.matrices == (19, 20) and found.embeddings == (0, 3) and found.layers == {}
    assert compress.touched(model, compress.int8_embeddings(model)).embeddings == (3, 3)
    assert compress.touched(model, copy.deepcopy(model)).matrices == (0, 20)


# ---- weights that two layers share


@pytest.mark.parametrize("kind, words", [("gpt2_lm", "transformer.wte"), ("gemma3", "model.embed_tokens")])
def test_a_tied_model_is_compressed_by_what_its_refusal_says_and_stays_tied(kind, words):
    model, x = model_and_input(kind)
    for made in (
        compress.int8(model, but="lm_head"),
        compress.factorised(model, 2, but="lm_head"),
        compress.fake_quantised(model, 4),
        compress.baked(compress.quantisation_aware(model, 4)),
        compress.magnitude(model, 0.3),
        compress.shared(model),
        compress.layers(model, [0, 2]),
    ):
        assert made.lm_head.weight is made.get_submodule(words).weight
        assert answer(made, x).isfinite().all()
    with pytest.raises(ValueError, match="share one weight.*choose both"):
        compress.fake_quantised(model, 4, "lm_head")


def test_a_tied_weight_that_learns_on_a_grid_is_one_weight():
    model, x = model_and_input("gpt2_lm")
    aware = compress.quantisation_aware(model, 4)
    free = aware.lm_head.parametrizations.weight.original
    assert free is aware.transformer.wte.parametrizations.weight.original
    with torch.no_grad():
        free += 0.1
    made = compress.baked(aware)
    assert made.lm_head.weight is made.transformer.wte.weight
    torch.testing.assert_close(answer(made, x), answer(aware, x))


def test_a_layer_in_two_places_is_one_in_bytes():
    layer, words = nn.Linear(8, 8), nn.Embedding(9, 8)
    made = compress.int8(nn.Sequential(layer, nn.ReLU(), layer))
    assert made[0] is made[2] and type(made[0]) is not nn.Linear
    made = compress.int8_embeddings(nn.ModuleDict({"a": words, "b": nn.ModuleList([words])}))
    assert made["a"] is made["b"][0] and made["a"].weight.dtype == torch.int8


def test_a_layer_with_a_forward_of_its_own_is_not_replaced_by_a_plain_one():
    model = model_and_input("gemma3")[0]  # its embedding multiplies what it looks up
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    for way in (lambda: compress.int8_embeddings(model), lambda: compress.factorised(model, 2, "*embed_tokens")):
        with pytest.raises(ValueError, match="embed_tokens is a .*ScaledWordEmbedding, which computes more than"):
            way()


# ---- layers that differ, and that know their place


@pytest.mark.parametrize("kind, keep", [("gemma3", [1, 2]), ("gemma3", [0, 2]), ("modernbert", [0, 2]), ("llama", [2])])
def test_layers_that_were_kept_are_loaded_as_they_were_saved(kind, keep, tmp_path):
    model, x = model_and_input(kind)
    made = compress.layers(model, keep)
    if kind != "llama":
        assert made.config.layer_types == [model.config.layer_types[i] for i in keep]
    made.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.num_hidden_layers == len(keep)
    torch.testing.assert_close(answer(again, x), answer(made, x))


@pytest.mark.parametrize("kind, part", [("modernbert", "attn_norm"), ("t5", "relative_attention_bias")])
def test_a_layer_that_would_be_another_when_loaded_is_refused(kind, part):
    with pytest.raises(ValueError, match=f"layer 1 of .* would become layer 0, and they differ in .*{part}"):
        compress.layers(model_and_input(kind)[0], [1, 2])


@pytest.mark.parametrize("kind", ["gpt2_lm", "gemma3"])
@pytest.mark.parametrize("way", [lambda model: compress.layers(model, [0, 2]), compress.shared])
def test_a_cut_decoder_answers_the_same_with_its_cache(way, kind):
    """One token after another, by the keys and values that are kept, and all tokens at once."""
    model, x = model_and_input(kind)
    made, past, found = way(model), None, []
    with torch.no_grad():
        for i in range(x.shape[1]):
            out = made(x[:, i : i + 1], past_key_values=past, use_cache=True)
            past, found = out.past_key_values, [*found, out.logits]
        torch.testing.assert_close(torch.cat(found, dim=1), made(x, use_cache=False).logits, rtol=1e-4, atol=1e-5)
    assert sorted({m.layer_idx for m in made.modules() if hasattr(m, "layer_idx")}) == list(range(len(past)))


def bart():
    """An encoder and a decoder, each with three layers, and one table of words for both and for the output."""
    torch.manual_seed(0)
    sides = {
        f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 3), ("attention_heads", 4))
    }
    sides |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_start_token_id": 1, "max_position_embeddings": 40}
    config = transformers.BartConfig(vocab_size=50, d_model=16, pad_token_id=0, **TOKENS, **sides)
    model = transformers.BartForConditionalGeneration(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.15)
    return model, torch.randint(3, 50, (2, 7))


@torch.no_grad()
def translated(model, x):
    return model(input_ids=x, decoder_input_ids=x.flip(1)).logits


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_one_side_of_an_encoder_and_decoder_is_cut_and_loaded_again(side, tmp_path):
    model, x = bart()
    made = compress.layers(model, [0, 2], f"model.{side}.layers")
    assert (made.config.encoder_layers, made.config.decoder_layers) == ((2, 3) if side == "encoder" else (3, 2))
    made.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(translated(again, x), translated(made, x))
    assert not torch.allclose(translated(model, x), translated(made, x))
    with pytest.raises(ValueError, match="no name was given; there are model.encoder.layers, model.decoder.layers"):
        compress.layers(model, [0, 2])


def test_a_decoder_of_two_sides_shares_its_layers_with_caches_of_their_own():
    model, x = bart()
    made, apart = compress.shared(model, 1, "model.decoder.layers"), copy.deepcopy(model)
    for layer in apart.model.decoder.layers:
        layer.load_state_dict(model.model.decoder.layers[0].state_dict())
    torch.testing.assert_close(translated(made, x), translated(apart, x))


def test_a_refusal_names_every_layer_that_is_to_be_left_out():
    model, x = bart()
    words = ["model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"]
    with pytest.raises(ValueError, match="share one weight") as refusal:
        compress.int8_embeddings(model)
    assert all(repr(name) in str(refusal.value) for name in words)
    with pytest.raises(ValueError, match="embed_positions is a BartLearnedPositionalEmbedding, which computes more"):
        compress.int8_embeddings(model, but=words)
    assert translated(compress.int8(model, but="lm_head"), x).isfinite().all()


@pytest.mark.parametrize("kind", sorted(set(LISTS) - {"encoder"}))
def test_layers_that_are_dropped_pass_on_what_they_were_given(kind):
    """All of them at once; dropout is off, so that the layers that are left out are the only difference."""
    model, x = model_and_input(kind)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    stack = model.get_submodule(LISTS[kind])
    with prune.layer_drop(model, 1 - 1e-9):
        dropped = answer(model.train(), x)
    model.eval()
    for layer in stack:
        layer.register_forward_hook(lambda _, given, out: given[0] if torch.is_tensor(out) else (given[0], *out[1:]))
    torch.testing.assert_close(dropped, answer(model, x))


def test_a_layer_that_cannot_be_dropped_says_so():
    class Named(nn.Linear):
        def forward(self, x):
            return {"hidden": super().forward(x)}

    for layer, error, said in (
        (nn.Linear(4, 5), ValueError, r"a Linear maps the shape \(2, 4\) to \(2, 5\)"),
        (Named(4, 4), TypeError, "a Named returns a dict, and a layer that can be skipped returns a tensor"),
    ):
        model = nn.ModuleDict({"layers": nn.ModuleList([layer, nn.Linear(4, 4)])}).train()
        with prune.layer_drop(model, 1 - 1e-9), pytest.raises(error, match=said):
            model["layers"][0](torch.zeros(2, 4))


# ---- precision, and who learns


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "kind, way",
    [
        *itertools.product(
            ["bert", "gpt2", "llama", "t5", "encoder", "lstm"],
            ["int8", "int8_embeddings", "fake_quantised", "factorised"],
        ),
        ("bert", "heads"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_precision_answers_in_it(way, kind, dtype):
    model, x = model_and_input(kind)
    model = model.to(dtype)
    made = compress.fake_quantised(model, 8) if way == "fake_quantised" else PAIRED[way](model)
    found = answer(made, x)
    assert found.dtype == dtype and {weight.dtype for weight in made.parameters()} <= {dtype}
    assert found.isfinite().all()
    if way not in ("factorised", "heads"):  # eight bits are near
        assert near(answer(model, x).float(), found.float(), 0.5)


LEARNING_WAYS = {
    "heads": lambda model: compress.heads(model, {0: [1]}),
    "layers": lambda model: compress.layers(model, [0, 1]),
    "factorised": lambda model: compress.factorised(model, 2),
    "fake_quantised": lambda model: compress.fake_quantised(model, 4),
    "magnitude": lambda model: compress.magnitude(model, 0.5),
    "shared": compress.shared,
}


@pytest.mark.parametrize("way", LEARNING_WAYS)
def test_frozen_weights_stay_frozen_and_a_model_frozen_as_a_whole_learns_in_its_copy(way):
    model, _ = model_and_input("bert")
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[0].attention.requires_grad_(False)
    made = LEARNING_WAYS[way](model)
    frozen = {name for name, weight in made.named_parameters() if not weight.requires_grad}
    expected = ("bert.embeddings.", "bert.encoder.layer.0.attention.")
    assert frozen == {name for name, _ in made.named_parameters() if name.startswith(expected)}
    assert all(weight.requires_grad for weight in LEARNING_WAYS[way](model.requires_grad_(False)).parameters())
    assert not any(weight.requires_grad for weight in model.parameters())


# ---- a new last layer


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "modernbert", "albert"])
def test_a_classifier_for_another_task_is_saved_and_loaded_alike(kind, tmp_path):
    model, x = model_and_input(kind)
    net = text.Bert(model)
    other = text.classifier(net, 7, seed=1)
    found = metrics.logits(other, x)
    assert found.shape == (2, 7) and metrics.logits(net, x).shape == (2, 3)
    other.model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(metrics.logits(text.Bert(again), x), found)
    same = {name for name, weight in model.state_dict().items() if not weight.equal(other.model.state_dict()[name])}
    last = "classifier.out_proj" if kind in ("roberta", "electra") else "classifier"
    assert same == {f"{last}.weight", f"{last}.bias"}


def test_a_classifier_of_a_factorised_model_and_of_none():
    model, x = model_and_input("roberta")
    cut = compress.factorised(text.Bert(model), 2)
    assert metrics.logits(text.classifier(cut, 7), x).shape == (2, 7)
    with pytest.raises(ValueError, match="T5EncoderModel has no last layer that is known.*shared, encoder"):
        text.classifier(text.Bert(model_and_input("t5")[0]), 7)
