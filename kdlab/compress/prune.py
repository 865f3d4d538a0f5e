"""Pruning: what of a trained net can go. Weights at zero, whole attention heads, whole layers.

    sparse = prune.magnitude(net, 0.5, "*encoder*")         # half of the weights are zeros: as large, as slow as before
    with prune.held(sparse):                                # which stay zeros while the rest learns
        train.fit(sparse, …)
    importance = prune.head_importance(net, x, y)
    small = prune.heads(net, prune.least_important(importance, 0.5))  # the matrices themselves get smaller
    half = prune.layers(net, keep=[0, 2, 4])
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import losses, machine, models

from . import surgery

# ---- weights


def magnitude(model: nn.Module, share: float, names: str | Iterable[str] = "*", *,
              per_layer: bool = False) -> nn.Module:
    """A copy of `model` with the smallest of its linear layers' weights at zero; shapes and biases stay.

    share: of those weights that are zero afterwards, in [0, 1); zeros that are there already count first.
    names: of the layers, as in `surgery.layers`, such as "*encoder*". per_layer: cut the same share of each layer,
    instead of the smallest of all of them together, wherever they are.

    Han et al. 2015, arXiv:1506.02626, section 3.
    """
    model = surgery.copied(model)
    cut = _weights(model, names)
    _apply(cut, _kept(cut, _share(share), per_layer))
    return model


def zeros(model: nn.Module, names: str | Iterable[str] = "*") -> float:
    """The share of the linear layers' weights that is zero, in [0, 1]. names: as in `magnitude`."""
    found = _weights(model, names)
    return 1 - sum(int(weight.count_nonzero()) for weight in found) / sum(weight.numel() for weight in found)


@contextlib.contextmanager
def held(model: nn.Module, names: str | Iterable[str] = "*") -> Iterator[nn.Module]:
    """Inside the block the weights of `model` that are zero now stay zero, while the course's one loop trains it.

    The loop calls `model.constrain()` after every step (`train.Training`; your own loop has to). The model itself stays
    plain: nothing is added to its state_dict, and nothing is left on it after the block.
    """
    cut = _weights(model, names)
    masks = [weight != 0 for weight in cut]
    with _after_each_step(model, lambda: _apply(cut, masks)):
        yield model


@contextlib.contextmanager
def gradually(model: nn.Module, share: float, steps: int, names: str | Iterable[str] = "*", *, every: int = 10,
              per_layer: bool = False) -> Iterator[nn.Module]:
    """Inside the block ever more of the weights of `model` become zero, while the course's one loop trains it.

    In place. After `steps` steps it is `share` of them, by the course of `cubic`; in later steps the rest recovers.
    every: steps from one cut to the next. What is zero stays zero. names, per_layer: as in `magnitude`.
    Raises ValueError at the end of the block where fewer than `steps` steps were taken.
    """
    share, cut, taken = _share(share), _weights(model, names), 0
    masks = [weight != 0 for weight in cut]

    def constrain() -> None:
        nonlocal taken, masks
        taken += 1
        _apply(cut, masks)
        if taken == steps or (taken < steps and taken % every == 0):
            masks = _kept(cut, cubic(taken / steps, share), per_layer)
            _apply(cut, masks)

    with _after_each_step(model, constrain):
        yield model
    if taken < steps:
        raise ValueError(f"the share of zeros was to grow for {steps} steps, and {taken} were taken: it ends at "
                         f"{zeros(model, names):.0%} and not at {share:.0%}; train longer, or let it grow faster")


def cubic(progress: float, share: float) -> float:
    """The share of zeros when `progress`, in [0, 1], of the cutting is done: much at first, less and less to the end.

    Zhu & Gupta 2017, arXiv:1710.01878, eq. 1, beginning at none.
    """
    return share * (1 - (1 - progress) ** 3)


def _weights(model: nn.Module, names: str | Iterable[str]) -> list[nn.Parameter]:
    """The weights of the linear layers of these names, once where layers share one."""
    return list({id(layer.weight): layer.weight for layer in surgery.layers(model, names).values()}.values())


def _kept(weights: list[nn.Parameter], share: float, per_layer: bool) -> list[Tensor]:
    """A mask a weight matrix: what is left when the smallest `share` of all of them, or of each, is gone."""
    if per_layer:
        return [mask for weight in weights for mask in _kept([weight], share, per_layer=False)]
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    stay = torch.ones_like(sizes, dtype=torch.bool)
    stay[sizes.topk(round(share * len(sizes)), largest=False, sorted=False).indices] = False
    parts = stay.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


@torch.no_grad()
def _apply(weights: list[nn.Parameter], masks: list[Tensor]) -> None:
    for weight, mask in zip(weights, masks, strict=True):
        weight.masked_fill_(~mask, 0)  # a product with the mask would leave -0.0, and NaN where a weight broke


@contextlib.contextmanager
def _after_each_step(model: nn.Module, work: Callable[[], None]) -> Iterator[None]:
    """Let `model.constrain()` do `work`, too."""
    own, before = getattr(model, "constrain", None), dict(model.__dict__)

    def constrain() -> None:
        if own is not None:
            own()
        work()

    model.constrain = constrain
    try:
        yield
    finally:
        del model.constrain
        if "constrain" in before:  # of a block around this one
            model.constrain = before["constrain"]


def _share(share: float) -> float:
    if not 0 <= share < 1:
        raise ValueError(f"share is the part that goes, at least 0 and below 1, got {share}; for 30 % give 0.3")
    return float(share)


# ---- heads


class _Attention(NamedTuple):
    """One layer's attention, and the names of its linear layers: into the heads (query, key, value), and out."""

    module: nn.Module
    into: list[str]
    out: str

    @property
    def size(self) -> int:
        """Numbers of one head."""
        return self.module.attention_head_size

    @property
    def n_heads(self) -> int:
        return getattr(self.module, self.into[0].rpartition(".")[2]).out_features // self.size


def head_importance(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 64) -> Tensor:
    """(layers, heads): how much each head matters, as the mean over the cases of |gradient of the loss at its gate|.

    A gate is a factor on a head's output that is 1; the loss is the cross-entropy with y, (n,) class numbers, of the
    model's logits for x, (n, …). Its gradient says how fast the loss of this case moves once the head is turned down.
    NaN stands where a layer has fewer heads than another. Models: as in `heads`.

    Michel, Levy & Neubig 2019, arXiv:1905.10650, section 4.1; without its normalisation by layer.
    """
    there = _attentions(model)
    sums = [torch.zeros(each.n_heads, device=x.device) for each in there]
    with models.evaluating(model), machine.threads(), torch.enable_grad():
        for part, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            with _gated(model, there) as gates:
                loss = losses.label(model(part), labels) * len(part)  # the sum: a case's gate sees only its own loss
            for total, own in zip(sums, gates, strict=True):
                for gradient in torch.autograd.grad(loss, own, retain_graph=True):
                    total += gradient.abs().sum(dim=0).flatten()
    return nn.utils.rnn.pad_sequence([total / len(x) for total in sums], batch_first=True, padding_value=torch.nan)


def least_important(importance: Tensor, share: float) -> dict[int, list[int]]:
    """Which heads to remove, {layer: [heads]}, so that `share` of all goes, the least important first.

    importance: (layers, heads), as from `head_importance`; NaN where there is no head. The most important head of
    every layer stays, whatever the share: a layer without a head has nothing to say.
    """
    score = importance.detach().clone()
    n = round(_share(share) * int(score.isfinite().sum()))
    score[range(len(score)), score.nan_to_num(-torch.inf).argmax(dim=1)] = torch.nan
    order = score.flatten().argsort()[: int(score.isfinite().sum())]  # NaN comes last
    if n > len(order):
        raise ValueError(f"{n} heads shall go, and only {len(order)} can: one stays in each of {len(score)} layers; "
                         "choose a smaller share, or remove whole layers")
    remove: dict[int, list[int]] = {}
    for place in sorted(order[:n].tolist()):
        remove.setdefault(place // score.shape[1], []).append(place % score.shape[1])
    return remove


def heads(model: nn.Module, remove: Mapping[int, Iterable[int]]) -> nn.Module:
    """A copy of `model` without these attention heads, {layer: [heads]}, both from 0: its matrices get smaller.

    A head's rows of the query, key and value layers go, and its columns of the layer after the attention. At least one
    head of a layer stays.
    model: an encoder of transformers whose attention has three linear layers of its own, as those of BERT, RoBERTa,
    ELECTRA and DistilBERT. Its config still tells the old number, as there is no one number any more: to load its
    state_dict, build the net, remove the same heads, and load.
    """
    model = surgery.copied(model)
    there = _attentions(model)
    for layer, gone in remove.items():
        if not 0 <= layer < len(there):
            raise ValueError(f"there is no layer {layer}: this model has attention in layers 0 to {len(there) - 1}")
        attention, size = there[layer], there[layer].size
        stay = _staying(layer, set(gone), attention.n_heads)
        numbers = torch.tensor([size * head + i for head in stay for i in range(size)])
        for name in attention.into:
            _shrink(model, name, numbers, dim=0)
        _shrink(model, attention.out, numbers, dim=1)
        for attribute in {"num_attention_heads", "n_heads"} & set(vars(attention.module)):
            setattr(attention.module, attribute, len(stay))
        for attribute in {"all_head_size", "dim"} & set(vars(attention.module)):
            setattr(attention.module, attribute, len(numbers))
    return model


def _staying(layer: int, gone: set[int], n_heads: int) -> list[int]:
    if unknown := gone - set(range(n_heads)):
        raise ValueError(f"layer {layer} has no head {min(unknown)}: it has heads 0 to {n_heads - 1}; were some removed"
                         " from it before, so that the others moved up?")
    if len(gone) == n_heads:
        raise ValueError(f"all {n_heads} heads of layer {layer} shall go, and at least one must stay; to be rid of the "
                         "whole layer use prune.layers")
    return [head for head in range(n_heads) if head not in gone]


def _shrink(model: nn.Module, name: str, numbers: Tensor, dim: int) -> None:
    """Keep these rows (dim 0) or columns (dim 1) of a linear layer, in place."""
    layer = model.get_submodule(name)
    numbers = numbers.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(dim, numbers))
    if dim == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[numbers])
    layer.out_features, layer.in_features = layer.weight.shape


def _attentions(model: nn.Module) -> list[_Attention]:
    """The attention of each layer, in the model's order."""
    found = []
    for name, module in model.named_modules():
        above = name.rpartition(".")[0]
        for parts, out in ((("query", "key", "value"), f"{above}.output.dense".lstrip(".")),
                           (("q_lin", "k_lin", "v_lin"), f"{name}.out_lin".lstrip("."))):
            if all(isinstance(getattr(module, part, None), nn.Linear) for part in parts):
                found.append(_Attention(module, [f"{name}.{part}".lstrip(".") for part in parts], out))
    if not found:
        packed = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
        but = "; torch's nn.MultiheadAttention is, which can only be as wide as its input" if packed else ""
        raise ValueError("no attention with its own linear layers query, key and value (or q_lin, k_lin and v_lin) is "
                         f"in this {type(model).__name__}{but}")
    return found


@contextlib.contextmanager
def _gated(model: nn.Module, there: list[_Attention]) -> Iterator[list[list[Tensor]]]:
    """Gates of 1 on the heads' outputs: for each layer those of every call, (batch, 1, heads, 1)."""
    gates: list[list[Tensor]] = [[] for _ in there]

    def gate(own: list[Tensor], n_heads: int, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        context = inputs[0]  # (batch, tokens, heads · size)
        own.append(torch.ones(len(context), 1, n_heads, 1, device=context.device, requires_grad=True))
        return (context.unflatten(-1, (n_heads, -1)) * own[-1]).flatten(-2)

    hooks = [model.get_submodule(each.out).register_forward_pre_hook(functools.partial(gate, own, each.n_heads))
             for own, each in zip(gates, there, strict=True)]  # fmt: skip
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()


# ---- layers


def layers(model: nn.Module, keep: Iterable[int], name: str | None = None) -> nn.Module:
    """A copy of `model` with only the layers `keep`, counted from 0, in their order.

    name: of the nn.ModuleList they are in, where the model has several. A config that counts them, as transformers'
    does, counts the new ones, so that save_pretrained and from_pretrained work.
    """
    model = surgery.copied(model)
    name, stack = _stack(model, name)
    keep, before = list(keep), len(stack)
    if not keep or keep != sorted(set(keep)) or not 0 <= keep[0] <= keep[-1] < before:
        raise ValueError(f"keep is some of the layers 0 to {before - 1} of {name!r}, each once, in order; got {keep}")
    surgery.put(model, name, nn.ModuleList(stack[i] for i in keep))
    for module in model.modules():
        if getattr(getattr(module, "config", None), "num_hidden_layers", None) == before:
            module.config.num_hidden_layers = len(keep)
    for i, layer in enumerate(model.get_submodule(name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # transformers' decoders find their cache by it
                module.layer_idx = i
    return model


@contextlib.contextmanager
def layer_drop(model: nn.Module, p: float = 0.5, name: str | None = None) -> Iterator[nn.Module]:
    """Inside the block each layer of `model` is skipped with probability p whenever it is called in train mode.

    So it learns to do without: afterwards `layers` may take some away. Drawn from torch's random state, which
    `train.Training` sets for each step. p: for a net that shall keep the part r of its layers the paper advises 1 - r.
    name: as in `layers`. A layer must map its first argument to a tensor of the same shape.

    Fan, Grave & Joulin 2019, arXiv:1909.11556, sections 3.1 and 3.2.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is the probability of skipping a layer, at least 0 and below 1, got {p}")

    def perhaps(layer: nn.Module, forward: Callable, hidden: Tensor, *others, **named) -> Tensor:
        return hidden if layer.training and torch.rand(()) < p else forward(hidden, *others, **named)

    stack = list(dict.fromkeys(_stack(model, name)[1]))  # a layer that is used twice is wrapped once
    for layer in stack:
        layer.forward = functools.partial(perhaps, layer, layer.forward)
    try:
        yield model
    finally:
        for layer in stack:
            del layer.forward  # the class's own shows again


def _stack(model: nn.Module, name: str | None) -> tuple[str, nn.ModuleList]:
    """The list of layers of this name; without one, the only one there is."""
    lists = {own: each for own, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each) > 1}
    if name is None and len(lists) == 1:
        return next(iter(lists.items()))
    if name not in lists:
        came = "no name was given" if name is None else f"{name!r} is none"
        raise ValueError(f"the name of an nn.ModuleList of at least two layers is wanted, and {came}; there are "
                         f"{', '.join(lists) or 'none in this model'}")
    return name, lists[name]
