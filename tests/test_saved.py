"""A compressed model that was saved and loaded is the same: answers, what is shared, frozen and counted."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from small_models import LISTS, MODELS, answer, model_and_input
from torch import nn

from kdlab import compress, metrics, models, text

WAYS = {
    "nothing": lambda model, held: model,
    "int8": lambda model, held: compress.int8(model),
    "int8 by channel": lambda model, held: compress.int8(model, per="channel"),
    "int8_embeddings": lambda model, held: compress.int8_embeddings(model),
    "on a grid": lambda model, held: compress.fake_quantize(model, 4),
    "factorize": lambda model, held: compress.factorize(model, 2),
    "lower rank": lambda model, held: compress.lower_rank(compress.factorize(model, 3), 2),
    "embeddings factorized": lambda model, held: compress.factorize(model, 2, "*mbed*", but="*position*"),
    "magnitude": lambda model, held: compress.magnitude(model, 0.5),
    "heads": lambda model, held: compress.heads(model, {0: [1], 2: [0, 3]}),
    "layers": lambda model, held: compress.layers(model, [0, 2], held),
    "shared": lambda model, held: compress.share_layers(model, 1, held),
    "pairs": lambda model, held: compress.share_layers(model, 2, held),
}
STACKS = [("layers", "heads"), ("layers", "factorize", "int8"), ("shared", "int8", "int8_embeddings")]
STACKS += [("heads", "factorize"), ("magnitude", "int8 by channel"), ("factorize", "shared")]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("one_thread")]


def build_of(kind):
    """What the reader gives for a model that is not one of transformers."""
    return None if hasattr(MODELS[kind](), "config") else MODELS[kind]


def shared_in(model):
    """Which names of modules and of parameters stand for one and the same."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(name)
    for name, weight in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(weight), []).append(name)
    return sorted(names for names in found.values() if len(names) > 1)


def check_same(made, loaded, x):
    assert torch.equal(answer(made, x), answer(loaded, x))
    assert shared_in(made) == shared_in(loaded)
    assert (metrics.parameters(made), metrics.nonzero(made)) == (metrics.parameters(loaded), metrics.nonzero(loaded))
    for (name, one), (other, two) in zip(made.named_parameters(), loaded.named_parameters(), strict=True):
        assert (name, one.dtype, one.requires_grad) == (other, two.dtype, two.requires_grad)
    for (name, one), (other, two) in zip(made.named_modules(), loaded.named_modules(), strict=True):
        assert (name, type(one), one.training) == (other, type(two), two.training)


@pytest.mark.parametrize("kind", MODELS)
def test_every_way_and_stack_comes_back_the_same(kind, tmp_path):
    model, x = model_and_input(kind)
    held, worked = LISTS.get(kind), 0
    for ways in [(name,) for name in WAYS] + STACKS:
        made = model
        try:
            for way in ways:
                made = WAYS[way](made, held)
        except ValueError:
            continue  # which ways refuse which models: test_any_model
        folder = compress.save(made, tmp_path / "-".join(ways).replace(" ", "_"))
        check_same(made, compress.load(folder, build_of(kind)), x)
        worked += 1
    assert worked >= 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["int8", "int8_embeddings", "factorize"])
def test_another_precision_and_what_is_frozen_are_kept(way, dtype, tmp_path):
    model, x = model_and_input("bert")
    model = model.to(dtype)
    for name, weight in model.named_parameters():
        weight.requires_grad_("layer.0" not in name)
    made = WAYS[way](model, None)
    loaded = compress.load(compress.save(made, tmp_path / "kept"))
    check_same(made, loaded, x)
    assert any(not weight.requires_grad for weight in loaded.parameters())


def test_tied_words_stay_tied_and_a_batch_norm_in_eval_stays_there(tmp_path):
    model, x = model_and_input("gpt2_lm")
    loaded = compress.load(compress.save(compress.layers(model, [0, 1]), tmp_path / "tied"))
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    net = models.convnet((4, 8)).train()
    net[1].eval()
    again = compress.load(compress.save(net, tmp_path / "net"), build=lambda: models.convnet((4, 8), seed=1))
    assert (again[0].training, again[1].training) == (True, False)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(again.eval()(x), net.eval()(x), rtol=0, atol=0)


def test_kdlabs_bert_comes_back_with_its_classes_and_its_tokenizer(tmp_path):
    net = text.untrained(5, layers=3, width=16, heads=2)
    made = compress.int8(compress.factorize(text.classifier(compress.layers(net, [0, 2]), 7), 4))
    folder = compress.save(made, tmp_path / "bert", tokenizer=text.tokenizer())
    loaded, x = compress.load(folder), torch.randint(1000, 2000, (40, 9))
    x[::2, 5:] = 0
    assert isinstance(loaded, text.Bert) and metrics.logits(loaded, x).shape == (40, 7)
    assert torch.equal(metrics.logits(loaded, x), metrics.logits(made, x))
    assert torch.equal(text.encoded(["a cat"], text.tokenizer(str(folder))), text.encoded(["a cat"]))


def test_another_process_gets_the_same_answers(tmp_path):
    model, x = model_and_input("roberta")
    made = compress.int8(compress.factorize(compress.heads(model, {0: [1]}), 2))
    compress.save(made, tmp_path / "kept")
    torch.save((x, answer(made, x)), tmp_path / "asked.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); from kdlab import compress; x, y = torch.load(sys.argv[2]); "
        "print(torch.equal(compress.load(sys.argv[1])(x).logits, y))"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "kept", tmp_path / "asked.pt"], capture_output=True)
    assert told.stdout.decode().split() == ["True"], told.stderr.decode()


def test_the_random_numbers_around_a_load_are_left_alone(tmp_path):
    compress.save(models.mlp((5,)), tmp_path / "net")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    compress.load(tmp_path / "net", build=lambda: models.mlp((5,)))
    assert torch.equal(torch.rand(2), expected)


def test_transformers_does_not_take_the_folder_for_a_model_of_its_own(tmp_path):
    model, _ = model_and_input("bert")
    folder = compress.save(compress.factorize(model, 2), tmp_path / "kept")
    with pytest.raises(OSError, match=r"config\.json|model\.safetensors|weights"):
        type(model).from_pretrained(folder)


# ---- what goes wrong


class Other(nn.Module):
    pass


class Strided(nn.Module):
    def __init__(self, stride=(1, 1), activation=torch.relu, scale=3.0):
        super().__init__()
        self.conv, self.activation = nn.Conv2d(1, 2, 3, stride=stride), activation
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x):
        return self.scale * self.activation(self.conv(x)).mean(dim=(2, 3))


def test_a_stride_and_a_buffer_that_no_state_dict_holds_come_back(tmp_path):
    net, x = Strided().eval(), torch.rand(2, 1, 8, 8)
    compress.save(net, tmp_path / "net")
    loaded = compress.load(tmp_path / "net", build=lambda: Strided(stride=(2, 2), scale=9.0))
    assert torch.equal(loaded(x), net(x)) and loaded.state_dict().keys() == net.state_dict().keys()
    with pytest.raises(ValueError, match=r"activation is .*relu in the saved model, and .*tanh.* different models"):
        compress.load(tmp_path / "net", build=lambda: Strided(activation=torch.tanh))


def test_the_kind_of_attention_is_kept(tmp_path):
    model, x = model_and_input("bert")
    model.set_attn_implementation("eager")
    loaded = compress.load(compress.save(model, tmp_path / "net"))
    assert loaded.config._attn_implementation == "eager" and torch.equal(answer(model, x), answer(loaded, x))


def test_half_precision_buffers_stay_in_it(tmp_path):
    model, x = model_and_input("llama")
    model = model.to(torch.bfloat16)
    loaded = compress.load(compress.save(model, tmp_path / "net"))
    assert [each.dtype for each in loaded.buffers()] == [each.dtype for each in model.buffers()]
    assert torch.equal(answer(model, x), answer(loaded, x))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (None, "whose code is yours: load.folder, build="),
        (Other, "build makes a Other, and the folder holds a Sequential"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.Tanh(), nn.Linear(20, 10)), "ReLU .*Tanh"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 20, bias=False), nn.ReLU(), nn.Linear(20, 10)), "1 holds"),
    ],
)
def test_a_build_that_makes_another_model_is_refused(build, said, tmp_path):
    compress.save(models.mlp((20,)), tmp_path / "net")
    with pytest.raises(ValueError, match=said):
        compress.load(tmp_path / "net", build)


def test_a_sequential_may_have_had_more_layers_before_it_was_compressed(tmp_path):
    compress.save(models.mlp((20,)), tmp_path / "net")
    loaded, x = compress.load(tmp_path / "net", lambda: models.mlp((20, 20))), torch.rand(2, 784)
    assert torch.equal(loaded(x), models.mlp((20,))(x))


def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    compress.save(models.mlp((5,)), tmp_path / "net")

    class Broken:
        def save_pretrained(self, folder):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        compress.save(models.mlp((7,)), tmp_path / "net", tokenizer=Broken())
    real = type(tmp_path).rename

    def rename(self, target):
        if str(self).endswith(".part"):
            raise OSError("in use")
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    with pytest.raises(OSError, match="in use"):
        compress.save(models.mlp((7,)), tmp_path / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert compress.load(tmp_path / "net", lambda: models.mlp((5,)))[1].out_features == 5


def test_other_shapes_than_those_of_the_build_are_refused(tmp_path):
    compress.save(models.convnet((4,)), tmp_path / "net")
    with pytest.raises(
        ValueError, match=r"1\.weight is \(8, 1, 3, 3\).*|0\.weight is \(8, 1, 3, 3\) in what build makes"
    ):
        compress.load(tmp_path / "net", build=lambda: models.convnet((8,)))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda folder: (folder / "recipe.json").unlink(), FileNotFoundError, "holds no recipe.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), ValueError, "is damaged"),
        (lambda folder: cut(folder / "weights.safetensors"), ValueError, "weights.safetensors is damaged"),
        (lambda folder: cut(folder / "recipe.json"), ValueError, "is damaged"),
        (lambda folder: turn_a_bit(folder / "weights.safetensors"), ValueError, "not the file that was saved"),
        (lambda folder: forget(folder / "recipe.json"), ValueError, "is damaged .'sha256'"),
        (lambda folder: later(folder / "recipe.json"), ValueError, "has the format 99.*take a later kdlab"),
    ],
)
def test_a_folder_that_is_damaged_or_of_a_later_format_is_refused(spoil, error, said, tmp_path):
    folder = compress.save(models.mlp((5,)), tmp_path / "net")
    spoil(folder)
    with pytest.raises(error, match=said):
        compress.load(folder, build=lambda: models.mlp((5,)))


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def turn_a_bit(path):
    blob = bytearray(path.read_bytes())
    blob[-3] ^= 4
    path.write_bytes(blob)


def forget(path):
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}))


def later(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path):
    model, _ = model_and_input("bert")
    with pytest.raises(ValueError, match="parametrized; compress.bake"):
        compress.save(compress.prepare_qat(model, 4), tmp_path / "net")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="choose another folder"):
        compress.save(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    compress.save(models.mlp((5,)), tmp_path / "net", tokenizer=text.tokenizer())
    compress.save(models.mlp((7,)), tmp_path / "net")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["net", "recipe.json", "weights.safetensors"]
    weights = safetensors.torch.load_file(tmp_path / "net" / "weights.safetensors")
    assert weights["1.weight"].shape == (7, 784)
