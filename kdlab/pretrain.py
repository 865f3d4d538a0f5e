"""Pre-training: a BERT learns words from their neighbours before it is told of any task.

    net = text.untrained(layers=4, width=128)
    learner = pretrain.MaskedWords(net, pretrain.vocabulary(x))
    train.fit(learner, (x,), pretrain.guessing(learner), epochs=1, lr=1e-3)   # `net` has learned
    classifier = text.classifier(net, n_classes=26)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab import text, train
from kdlab.randomness import for_a_while

NOT_ASKED = -100  # where a target does not count: what F.cross_entropy leaves out by itself


def vocabulary(x: Tensor, least: int = 1) -> Tensor:
    """(words,) token numbers that occur at least `least` times in x, from small to large; BERT's own tokens are none.

    Fewer words make a smaller output layer, which is most of what a small net costs: BERT's 30,522 × width.
    """
    counts = torch.bincount(x.flatten())
    counts[: text.MASK + 1] = 0  # [PAD], [CLS], [SEP], [MASK], and places that BERT left free
    found = (counts >= max(1, least)).nonzero().flatten()
    if not len(found):
        raise ValueError(f"no word occurs {least} times in the {len(x)} texts; take more texts or a smaller `least`")
    return found


def masked(x: Tensor, words: Tensor, share: float = 0.15,
           generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(inputs, targets), both as x: the texts with words hidden, and the words to guess, NOT_ASKED everywhere else.

    x: (n, length) token numbers. words: (k,) those that may be asked for. `share` of their places are chosen, each by
    itself; of those 80 % become [MASK], 10 % another of `words`, and 10 % stay, so that no place can be trusted.
    generator: a CPU one, or torch's global state.

    Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 1, and appendix A.1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the part of the words to guess, between 0 and 1, got {share}; BERT's is 0.15")
    may = torch.zeros(max(int(x.max()), int(words.max())) + 1, dtype=torch.bool, device=x.device)
    may[words] = True
    chance, what = torch.rand(2, *x.shape, generator=generator).to(x.device)
    asked = may[x] & (chance < share)
    others = words[torch.randint(len(words), x.shape, generator=generator).to(x.device)]
    inputs = torch.where(asked & (what < 0.8), text.MASK, x)
    inputs = torch.where(asked & (what >= 0.8) & (what < 0.9), others, inputs)
    return inputs, torch.where(asked, x, NOT_ASKED)


class MaskedWords(nn.Module):
    """A net and what it needs to guess hidden words: the output layer is the net's own word vectors, transposed.

    net: a text.Bert; it is what learns, at `learner.net`. words: (k,) token numbers to choose from, from small to
    large, as from `vocabulary`. The layer before the word vectors is drawn by `seed`, and thrown away afterwards.
    """

    def __init__(self, net: text.Bert, words: Tensor, seed: int = 0):
        super().__init__()
        width = net.model.config.hidden_size
        with for_a_while(seed):
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)).to(words.device)
        self.net = net
        self.bias = nn.Parameter(torch.zeros(len(words), device=words.device))
        self.register_buffer("words", words)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        """(places, k) logits over `words` at those places of x, (n, length), where `where` says so; row by row.

        Only there: the other places' logits would be most of the work, and no one asks for them.
        """
        embeddings = self.net.model.get_input_embeddings()
        looked_up = embeddings(torch.cat([x.flatten(), self.words]))  # at once: one gradient of all word vectors, not two
        inputs, vectors = looked_up[: x.numel()].view(*x.shape, -1), looked_up[x.numel() :]
        found, numbers = [], torch.arange(x.numel(), device=x.device).view_as(x)
        lengths = text.lengths(x)
        for part in lengths.argsort(stable=True).split(self.net.group or len(x)):
            cut = slice(int(lengths[part].max()))  # the padding that all of them have is left out
            hidden = self.net.model.base_model(inputs_embeds=inputs[part, cut],
                                               attention_mask=x[part, cut].ne(text.PAD).long()).last_hidden_state
            found.append((numbers[part, cut][where[part, cut]], hidden[where[part, cut]]))
        places, hidden = map(torch.cat, zip(*found, strict=True))
        return F.linear(self.head(hidden[places.argsort()]), vectors, self.bias)


def guessing(learner: MaskedWords, share: float = 0.15) -> train.Objective:
    """An objective for data (x,): the cross-entropy of hidden words, masked anew whenever a text is read."""

    def objective(x: Tensor) -> dict[str, Tensor]:
        inputs, targets = masked(x, learner.words, share)
        return {"words": loss(learner, inputs, targets)}

    return objective


def loss(learner: MaskedWords, inputs: Tensor, targets: Tensor) -> Tensor:
    """Nats a hidden word, the mean over the places asked for. inputs, targets: (n, length), as from `masked`."""
    where = targets != NOT_ASKED
    logits = learner(inputs, where)
    wanted = torch.searchsorted(learner.words, targets[where])
    return F.cross_entropy(logits.float(), wanted, reduction="sum") / max(1, len(wanted))
