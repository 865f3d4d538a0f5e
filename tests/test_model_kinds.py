"""What models of other kinds than BERT need of compressing: ties, caches, per-layer settings, precisions, heads."""

import copy
import itertools
import warnings

import pytest
import torch
import transformers
from small_models import LISTS, TOKENS, answer, model_and_input, near, of_transformers
from torch import nn

from kdlab import compress, metrics, text
from kdlab.compress import prune

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- what is said where little is left to do


def test_a_pattern_that_leaves_nothing_is_refused_with_what_there_is():
    model = model_and_input("gpt2")[0]
    for way in (
        lambda: compress.int8(model, "score", but="*"),
        lambda: compress.fake_quantize(model, 4, "score", but="score"),
        lambda: compress.factorize(model, 2, but=("transformer.h*", "score")),
        lambda: compress.int8_embeddings(model, but="transformer.*"),
    ):
        with pytest.raises(ValueError, match="no layer is left to work on: but=.*(score|transformer.wte|c_attn)"):
            way()


@pytest.mark.parametrize(
    "kind, way, share",
    [
        ("resnet", compress.int8, 0),
        ("lstm", compress.int8, 4),
        ("lstm", lambda model: compress.factorize(model, 1), 4),
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
            compress.factorize(model_and_input(kind)[0], 0.5)
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
    assert compress.touched(model, compress.share_layers(model)).layers == {"bert.encoder.layer": (3, 1)}
    found = compress.touched(model, compress.int8(model, but="classifier"))
    assert found.bytes[0] - found.bytes[1] == 3 * (12 * 256 + 6 * 512 + 256)
    assert found.matrices == (19, 20) and found.embeddings == (0, 3) and found.layers == {}
    assert compress.touched(model, compress.int8_embeddings(model)).embeddings == (3, 3)
    assert compress.touched(model, copy.deepcopy(model)).matrices == (0, 20)


# ---- weights that two layers share


@pytest.mark.parametrize("kind, words", [("gpt2_lm", "transformer.wte"), ("gemma3", "model.embed_tokens")])
def test_a_tied_model_is_compressed_by_what_its_refusal_says_and_stays_tied(kind, words):
    model, x = model_and_input(kind)
    for made in (
        compress.int8(model, but="lm_head"),
        compress.factorize(model, 2, but="lm_head"),
        compress.fake_quantize(model, 4),
        compress.bake(compress.prepare_qat(model, 4)),
        compress.magnitude(model, 0.3),
        compress.share_layers(model),
        compress.layers(model, [0, 2]),
    ):
        assert made.lm_head.weight is made.get_submodule(words).weight
        assert answer(made, x).isfinite().all()
    with pytest.raises(ValueError, match="share one weight.*choose both"):
        compress.fake_quantize(model, 4, "lm_head")


def test_a_tied_weight_that_learns_on_a_grid_is_one_weight():
    model, x = model_and_input("gpt2_lm")
    aware = compress.prepare_qat(model, 4)
    free = aware.lm_head.parametrizations.weight.original
    assert free is aware.transformer.wte.parametrizations.weight.original
    with torch.no_grad():
        free += 0.1
    made = compress.bake(aware)
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
    for way in (lambda: compress.int8_embeddings(model), lambda: compress.factorize(model, 2, "*embed_tokens")):
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


@pytest.mark.parametrize(
    "way",
    [
        lambda model: compress.int8(model, "*layer.1.*"),
        lambda model: compress.factorize(model, 2, "*layer.1.*"),
        lambda model: compress.prepare_qat(model, 4, "*layer.1.*"),
    ],
)
def test_layers_go_where_only_some_were_compressed_before(way):
    model, x = model_and_input("bert")
    made = compress.layers(way(model), [1, 2])
    assert answer(made, x).isfinite().all() and made.config.num_hidden_layers == 2


@pytest.mark.parametrize("kind, part", [("modernbert", "attn_norm"), ("t5", "relative_attention_bias")])
def test_a_layer_that_would_be_another_when_loaded_is_refused(kind, part):
    with pytest.raises(ValueError, match=f"layer 1 of .* would become layer 0, and they differ in .*{part}"):
        compress.layers(model_and_input(kind)[0], [1, 2])


def test_a_layer_that_scales_by_its_number_keeps_its_scale_and_transformers_loading_is_warned_of(tmp_path):
    model = of_transformers("GPT2", n_positions=32, scale_attn_by_inverse_layer_idx=True, **TOKENS).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    x = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="layer 2 of 'transformer.h' scales its attention by its number"):
        made = compress.layers(model, [0, 2])
    loaded = compress.load(compress.save(made, tmp_path / "kept"))
    assert torch.equal(answer(loaded, x), answer(made, x))
    made.save_pretrained(tmp_path / "theirs")
    theirs = type(model).from_pretrained(tmp_path / "theirs").eval()
    assert not torch.allclose(answer(theirs, x), answer(made, x)), "what was warned of"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compress.layers(model, [0, 1])


@pytest.mark.parametrize("kind", ["gpt2_lm", "gemma3"])
@pytest.mark.parametrize("way", [lambda model: compress.layers(model, [0, 2]), compress.share_layers])
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
    made, apart = compress.share_layers(model, 1, "model.decoder.layers"), copy.deepcopy(model)
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
            ["int8", "int8_embeddings", "fake_quantize", "factorize"],
        ),
        ("bert", "heads"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_precision_answers_in_it(way, kind, dtype):
    model, x = model_and_input(kind)
    model = model.to(dtype)
    more = {"fake_quantize": [8], "factorize": [2], "heads": [{0: [1]}]}.get(way, [])
    made = getattr(compress, way)(model, *more)
    found = answer(made, x)
    assert found.dtype == dtype and {weight.dtype for weight in made.parameters()} <= {dtype}
    assert found.isfinite().all()
    if way not in ("factorize", "heads"):  # eight bits are near
        assert near(answer(model, x).float(), found.float(), 0.5)


LEARNING_WAYS = {
    "heads": lambda model: compress.heads(model, {0: [1]}),
    "layers": lambda model: compress.layers(model, [0, 1]),
    "factorize": lambda model: compress.factorize(model, 2),
    "fake_quantize": lambda model: compress.fake_quantize(model, 4),
    "magnitude": lambda model: compress.magnitude(model, 0.5),
    "shared": compress.share_layers,
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


def test_a_classifier_of_a_factorized_model_and_of_none():
    model, x = model_and_input("roberta")
    cut = compress.factorize(text.Bert(model), 2)
    assert metrics.logits(text.classifier(cut, 7), x).shape == (2, 7)
    with pytest.raises(ValueError, match="T5EncoderModel has no last layer that is known.*shared, encoder"):
        text.classifier(text.Bert(model_and_input("t5")[0]), 7)
