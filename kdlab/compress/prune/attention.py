"""Attention heads: which matter, and a net without the others."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import losses, machine, models

from .. import surgery
from .weights import fraction


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

    Michel, Levy & Neubig 2019, arXiv:1905.10650, section 4.1; without its normalization by layer.
    """
    there = attentions(model)
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
    n = round(fraction(share) * int(score.isfinite().sum()))
    score[range(len(score)), score.nan_to_num(-torch.inf).argmax(dim=1)] = torch.nan
    order = score.flatten().argsort()[: int(score.isfinite().sum())]  # NaN comes last
    if n > len(order):
        raise ValueError(
            f"{n} heads shall go, and only {len(order)} can: one stays in each of {len(score)} layers; "
            "choose a smaller share, or remove whole layers"
        )
    remove: dict[int, list[int]] = {}
    for place in sorted(order[:n].tolist()):
        remove.setdefault(place // score.shape[1], []).append(place % score.shape[1])
    return remove


def heads(model: nn.Module, remove: Mapping[int, Iterable[int]]) -> nn.Module:
    """A copy of `model` without these attention heads, {layer: [heads]}, both from 0: its matrices get smaller.

    A head's rows of the query, key and value layers go, and its columns of the layer after the attention. At least one
    head of a layer stays.
    model: an encoder of transformers whose attention has three linear layers of its own, as those of BERT, RoBERTa,
    ELECTRA and DistilBERT. One that uses one attention in every layer, as ALBERT, has layer 0 alone, and loses the
    head in all of its uses. Its config still tells the old number, as there is no one number any more: to load its
    state_dict, build the net, remove the same heads, and load.
    """
    model = surgery.copied(model)
    there = attentions(model)
    for layer, gone in remove.items():
        if not 0 <= layer < len(there):
            raise ValueError(f"there is no layer {layer}: this model has attention in layers 0 to {len(there) - 1}")
        attention, size = there[layer], there[layer].size
        stay = _staying(layer, set(gone), attention.n_heads)
        parts = {name: model.get_submodule(name) for name in (*attention.into, attention.out)}
        for name, part in parts.items():
            surgery.check_parameter(name, part)
        surgery.check_alone(model, parts, "never", "leave the heads of this layer as they are; or ")
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
        raise ValueError(
            f"layer {layer} has no head {min(unknown)}: it has heads 0 to {n_heads - 1}; were some removed"
            " from it before, so that the others moved up?"
        )
    if len(gone) == n_heads:
        raise ValueError(
            f"all {n_heads} heads of layer {layer} shall go, and at least one must stay; to be rid of the "
            "whole layer use prune.layers"
        )
    return [head for head in range(n_heads) if head not in gone]


def _shrink(model: nn.Module, name: str, numbers: Tensor, dim: int) -> None:
    """Keep these rows (dim 0) or columns (dim 1) of a linear layer, in place."""
    layer = model.get_submodule(name)
    numbers = numbers.to(layer.weight.device)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(dim, numbers), layer.weight.requires_grad)
    if dim == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[numbers], layer.bias.requires_grad)
    layer.out_features, layer.in_features = layer.weight.shape


def attentions(model: nn.Module) -> list[_Attention]:
    """The attention of each layer, in the model's order."""
    found = []
    for name, module in model.named_modules():
        above = name.rpartition(".")[0]
        for parts, out in (
            (("query", "key", "value"), f"{above}.output.dense".lstrip(".")),
            (("query", "key", "value"), f"{name}.dense".lstrip(".")),  # ALBERT
            (("q_lin", "k_lin", "v_lin"), f"{name}.out_lin".lstrip(".")),
        ):
            if _fits(model, module, parts, out):
                found.append(_Attention(module, [f"{name}.{part}".lstrip(".") for part in parts], out))
    if not found:
        packed = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
        but = "; torch's nn.MultiheadAttention is, which can only be as wide as its input" if packed else ""
        raise ValueError(
            "no attention with its own linear layers query, key and value (or q_lin, k_lin and v_lin) is "
            f"in this {type(model).__name__}{but}"
        )
    return found


def _fits(model: nn.Module, module: nn.Module, parts: tuple[str, ...], out: str) -> bool:
    """Whether `module` is an attention of these parts, and of no others that a head has a share in."""
    if hasattr(module, "block_size"):
        return False  # BigBird's, which the model replaces by one of the config's sizes as it runs
    layers = [getattr(module, part, None) for part in parts]
    after = dict(model.named_modules()).get(out)
    if not all(isinstance(layer, nn.Linear) for layer in (*layers, after)):
        return False
    others = {name for name, child in module.named_children() if any(True for _ in child.parameters())}
    known = {*parts, "distance_embedding", "dense", "out_lin", "LayerNorm"}
    widths = {layer.out_features for layer in layers} | {after.in_features}
    return hasattr(module, "attention_head_size") and others <= known and len(widths) == 1


@contextlib.contextmanager
def _gated(model: nn.Module, there: list[_Attention]) -> Iterator[list[list[Tensor]]]:
    """Gates of 1 on the heads' outputs: for each layer those of every call, (batch, 1, heads, 1)."""
    gates: list[list[Tensor]] = [[] for _ in there]

    def gate(own: list[Tensor], n_heads: int, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        context = inputs[0]  # (batch, tokens, heads · size)
        own.append(torch.ones(len(context), 1, n_heads, 1, device=context.device, requires_grad=True))
        return (context.unflatten(-1, (n_heads, -1)) * own[-1]).flatten(-2)

    hooks = [
        model.get_submodule(each.out).register_forward_pre_hook(functools.partial(gate, own, each.n_heads))
        for own, each in zip(gates, there, strict=True)
    ]
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()
