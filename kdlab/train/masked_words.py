"""Pre-training: a BERT learns words from their neighbors before it is told of any task.

net = text.untrained(layers=2, width=128, initializer_range=0.09, attn_implementation="eager")
learner = masked_words.MaskedWords(net, x)
train.fit(learner, (x,), masked_words.guessing(), epochs=1, lr=2e-3)   # `net` has learned
classifier = text.classifier(net, n_classes=26)                           # for any task
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab import models, text
from kdlab.randomness import for_a_while

from .objectives import Objective

NOT_ASKED = -100  # the target of a place that does not count: what F.cross_entropy, too, leaves out


def vocabulary(x: Tensor, least: int = 1, marks: text.Marks = text.BERT) -> Tensor:
    """(k,) token numbers that occur at least `least` times in x, from small to large; the marks are none of them."""
    marks.check(x)
    counts = _counts(x, max(marks.all))
    counts[list(marks.all)] = 0
    found = (counts >= max(1, least)).nonzero().flatten()
    if not len(found):
        raise ValueError(f"no word occurs {least} times in these {len(x)} texts; take more of them, or a smaller least")
    return found


def masked(
    x: Tensor,
    words: Tensor,
    share: float = 0.15,
    generator: torch.Generator | None = None,
    marks: text.Marks = text.BERT,
) -> tuple[Tensor, Tensor]:
    """(inputs, targets), both as x: the texts with words hidden; and the words to guess, NOT_ASKED everywhere else.

    x: (n, length) token numbers. words: (k,) those that may be asked for. A `share` of their places is chosen, each by
    chance; of those 80 % become [MASK], 10 % one of `words`, and 10 % stay, so that no word may be trusted blindly.
    generator: a CPU one, or torch's global state.

    Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the part of the words to guess, between 0 and 1, got {share}; BERT's is 0.15")
    chance, what = torch.rand(2, *x.shape, generator=generator).to(x.device)
    others = words[torch.randint(len(words), x.shape, generator=generator).to(x.device)]
    asked = torch.isin(x, words) & (chance < share)
    inputs = torch.where(asked & (what < 0.8), marks.mask, x)
    inputs = torch.where(asked & (what >= 0.8) & (what < 0.9), others, inputs)
    return inputs, torch.where(asked, x, NOT_ASKED)


class MaskedWords(nn.Module):
    """A net and what it needs to guess hidden words. Its output layer is the net's own word vectors, used once more.

    net: a text.Bert; what it learns stays in it, at `learner.net`. x: (n, length) the texts that it will read. It can
    guess the words that occur at least `least` times in them, and begins by guessing each as often as it occurs.
    seed: draws the one layer before the output, which is thrown away afterwards. group: texts of a batch that are
    computed together, each group cut to its longest text. marks: those of the tokenizer that made x.
    """

    def __init__(
        self,
        net: text.Bert,
        x: Tensor,
        least: int = 1,
        seed: int = 0,
        group: int = models.GROUP,
        marks: text.Marks = text.BERT,
    ):
        super().__init__()
        self.group, self.marks = group, marks
        words, width = vocabulary(x, least, marks), net.model.config.hidden_size
        with for_a_while(seed):
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)).to(x.device)
        counts = _counts(x, max(marks.all))[words].float()
        self.net, self.bias = net, nn.Parameter((counts / counts.sum()).log())
        self.register_buffer("words", words)

    def around(self, net: text.Bert) -> "MaskedWords":
        """A copy with another net in place of its own, such as one made of that by compressing, to train on."""
        made = copy.deepcopy(self)
        made.net = net
        return made

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        """(places, k) logits over `words` at the places of x that `where` marks, row by row. x, where: (n, length); no
        padding is marked.

        Only there, because the output layer is most of what a small net costs.
        """
        embeddings, numbers = self.net.model.get_input_embeddings(), torch.arange(x.numel(), device=x.device).view_as(x)
        vectors = embeddings(torch.cat([x.flatten(), self.words]))  # all in one look-up: it has one gradient, not two
        inputs, lengths, found = vectors[: x.numel()].view(*x.shape, -1), text.lengths(x, self.marks.pad), []
        for part in lengths.argsort(stable=True).split(self.group):
            cut = slice(int(lengths[part].max()))  # beyond it all of them are padding
            hidden = self.net.model.base_model(
                inputs_embeds=inputs[part, cut], attention_mask=x[part, cut].ne(self.marks.pad).long()
            ).last_hidden_state
            found.append((numbers[part, cut][where[part, cut]], hidden[where[part, cut]]))
        places, hidden = map(torch.cat, zip(*found, strict=True))
        return F.linear(self.head(hidden[places.argsort()]), vectors[x.numel() :], self.bias)


def loss(learner: MaskedWords, inputs: Tensor, targets: Tensor) -> Tensor:
    """Nats a hidden word: the mean over the places asked for. inputs, targets: (n, length), as from `masked`."""
    where = targets != NOT_ASKED
    wanted = torch.searchsorted(learner.words, targets[where])
    return F.cross_entropy(learner(inputs, where).float(), wanted, reduction="sum") / max(1, len(wanted))


def guessing(share: float = 0.15) -> Objective:
    """Return the objective of a `MaskedWords` for data (x,): `loss`, with other words hidden at every step."""

    def objective(learner: MaskedWords, x: Tensor) -> dict[str, Tensor]:
        return {"words": loss(learner, *masked(x, learner.words, share, marks=learner.marks))}

    return objective


def _counts(x: Tensor, greatest: int) -> Tensor:
    return torch.bincount(x.flatten(), minlength=greatest + 1)
