"""The nets of the course: plain modules that map images, or texts as token numbers, to logits."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import randomness


class MaxNormLinear(nn.Linear):
    """A linear layer whose units keep an incoming weight vector no longer than `max_norm`.

    The loop calls `constrain()` after every step. The paper regularized its teacher with dropout and such a
    constraint (section 3, after Hinton et al. 2012, arXiv:1207.0580) without naming the length.
    """

    def __init__(self, n_in: int, n_out: int, max_norm: float):
        super().__init__(n_in, n_out)
        self.max_norm = max_norm

    @torch.no_grad()
    def constrain(self) -> None:
        self.weight.copy_(self.weight.renorm(2, 0, self.max_norm))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, max_norm={self.max_norm}"


def mlp(
    hidden: Sequence[int] = (800, 800),
    *,
    n_in: int = 784,
    n_classes: int = 10,
    dropout: tuple[float, float] = (0.0, 0.0),
    max_norm: float = math.inf,
    seed: int = 0,
) -> nn.Sequential:
    """Fully connected rectified layers: (batch, …) images of n_in pixels → (batch, n_classes) logits.

    hidden: units of each hidden layer; the paper's nets are (1200, 1200), (800, 800), (300, 300) and (30, 30).
    dropout: the share of pixels and of hidden units that a training step leaves out.
    max_norm: longest incoming weight vector of a hidden unit.
    seed: of the random start, so that nets differ by their seed alone.
    """
    if not all(0 <= p < 1 for p in dropout):
        raise ValueError(f"dropout is the share left out of (pixels, hidden units), each in [0, 1), got {dropout}")
    with randomness.for_a_step(seed):
        layers: list[nn.Module] = [nn.Flatten(), *_dropout(dropout[0])]
        for width in hidden:
            layers += [_linear(n_in, width, max_norm), nn.ReLU(), *_dropout(dropout[1])]
            n_in = width
        return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


def _linear(n_in: int, n_out: int, max_norm: float) -> nn.Linear:
    return nn.Linear(n_in, n_out) if math.isinf(max_norm) else MaxNormLinear(n_in, n_out, max_norm)


def _dropout(p: float) -> list[nn.Module]:
    return [nn.Dropout(p)] if p else []


def convnet(channels: Sequence[int] = (16, 32), *, n_in: int = 1, n_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """A small convolutional net: (batch, n_in, height, width) → (batch, n_classes) logits.

    Each stage is a 3 × 3 convolution, batch norm, a rectifier and a halving of height and width; the mean over
    what is left feeds one linear layer, so any image size of at least 2 ** len(channels) pixels will do.
    """
    with randomness.for_a_step(seed):
        layers: list[nn.Module] = []
        for n_out in channels:
            layers += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            n_in = n_out
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes))


class BiLSTM(nn.Module):
    """A small reader: (batch, length) token numbers, padded at the end → (batch, classes) logits.

    One LSTM reads each text from its beginning, one from its end; a linear layer sees what each holds at last. With
    a wider hidden layer between them it is the student of Tang et al. 2019, arXiv:1903.12136, section 3.1.
    """

    def __init__(self, n_words: int, width: int, units: int, n_classes: int, dropout: float = 0.0, pad: int = 0):
        super().__init__()
        self.pad = pad
        self.words = nn.Embedding(n_words, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, units, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * units, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        lengths = x.ne(self.pad).sum(dim=1).clamp(min=1)
        if torch.compiler.is_exporting():
            return self._unpacked(x, lengths)
        read = self.dropout(self.words(x))  # (batch, length, width)
        packed = nn.utils.rnn.pack_padded_sequence(read, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2, batch, units): neither direction reads padding
        return self.classifier(self.dropout(torch.cat([last[0], last[1]], dim=1)))

    def _unpacked(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same logits without packed sequences, which no export knows: the text is read twice, for the direction
        from its end moved to the right, so that neither direction meets padding before a word."""
        length, units = x.shape[1], self.lstm.hidden_size
        begin = (length - lengths)[:, None]
        place = torch.arange(length, device=x.device)[None] - begin
        moved = torch.where(place >= 0, x.gather(1, place.clamp(min=0)), self.pad)
        forth, back = (self.lstm(self.words(each))[0] for each in (x, moved))
        last = forth.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, 2 * units))[:, 0, :units]
        first = back.gather(1, begin[:, :, None].expand(-1, 1, 2 * units))[:, 0, units:]
        return self.classifier(torch.cat([last, first], dim=1))


def bilstm(
    width: int = 16,
    units: int = 100,
    *,
    n_words: int = 30_522,
    n_classes: int = 45,
    dropout: float = 0.0,
    words: Tensor | None = None,
    seed: int = 0,
) -> BiLSTM:
    """A BiLSTM drawn by `seed`: of `units` each way, over word vectors of `width` numbers.

    words: (n_words, width) word vectors to begin with, such as `text.narrow_words` makes of BERT's.
    """
    with randomness.for_a_step(seed):
        net = BiLSTM(n_words, width, units, n_classes, dropout)
    if words is not None:
        with torch.no_grad():
            net.words.weight.copy_(words)
    return net


def constrained(model: nn.Module) -> list[nn.Module]:
    """The layers of `model` that must be constrained after every step: those that have a method for it."""
    return [layer for layer in model.modules() if callable(getattr(layer, "constrain", None))]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode and without gradients inside the block; each of its modules' own mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes.items():
            module.training = training


GROUP = 16  # texts of one batch that are computed together


def logits(model: nn.Module, x: Tensor | Mapping[str, Tensor], group: int | None = GROUP) -> Tensor:
    """Call the model on one batch and return its logits, whatever it wraps them in.

    x: the inputs; a mapping is given by name, as transformers' tokenizers return it. Token numbers (batch, length) for
    a model of transformers come with an attention mask that leaves out its padding token. Of a ModelOutput the logits
    are taken, of a tuple the first tensor. Raises TypeError where there are none.
    group: a longer batch of texts for a classifier of transformers is sorted by length and computed in groups of so
    many, each cut to its longest text: this changes no logit and saves most of the padding. None, or a forward hook
    in the model: the batch is computed as it comes.
    """
    pad = _fills_up(model, x) if group and len(x) > group else None
    if pad is None or not isinstance(x, Tensor):
        return _unwrapped(call(model, x))
    n = x.ne(pad).sum(dim=1).clamp(min=1)
    order = n.argsort(stable=True)
    parts = [_unwrapped(call(model, x[part, : int(n[part].max())])) for part in order.split(group)]
    return torch.cat(parts)[order.argsort()]


def _fills_up(model: nn.Module, x: Tensor | Mapping[str, Tensor]) -> int | None:
    """The number that fills up the texts x at their ends; None where it is not known, or a hook watches the model."""
    inner = getattr(model, "model", model)
    pad = getattr(getattr(inner, "config", None), "pad_token_id", None)
    texts = isinstance(x, Tensor) and x.dim() == 2 and x.dtype == torch.int64
    if pad is None or not texts or not type(inner).__name__.endswith("ForSequenceClassification"):
        return None
    if any(part._forward_hooks or part._forward_pre_hooks for part in model.modules()):
        return None  # who looks inside wants the batch as it came
    filled = x.eq(pad)
    return None if (filled[:, :-1] & ~filled[:, 1:]).any() else pad  # a word after padding: it is not at the end


def call(model: nn.Module, x: Tensor | Mapping[str, Tensor]) -> Any:
    """Call the model on one batch as `logits` does, and return whatever it returns.

    Raises ValueError where a token number is not one of the model's words.
    """
    config = getattr(model, "config", None)
    try:
        if isinstance(x, Mapping):
            return model(**x)
        pad = getattr(config, "pad_token_id", None)
        if pad is not None and getattr(model, "main_input_name", "") == "input_ids" and not x.is_floating_point():
            return model(input_ids=x, attention_mask=x.ne(pad).long())
        return model(x)
    except IndexError as error:
        words, tokens = _words(model), x.get("input_ids") if isinstance(x, Mapping) else x
        if words is None or not isinstance(tokens, Tensor) or tokens.is_floating_point() or int(tokens.max()) < words:
            raise
        raise ValueError(
            f"the token number {int(tokens.max()):,} is not one of the {words:,} that the model knows; was the text "
            "cut by the tokenizer of another model?"
        ) from error


def _words(model: nn.Module) -> int | None:
    """How many words the model knows: by its config, or by its only embedding."""
    config = getattr(getattr(model, "model", model), "config", None)
    if words := getattr(config, "vocab_size", None):
        return words
    found = [each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding)]
    return found[0] if len(found) == 1 else None


def _unwrapped(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        f"a model must return logits, as a tensor, in a tuple or as .logits, got {type(output).__name__}; a model of "
        "transformers needs a head, such as AutoModelForSequenceClassification"
    )
