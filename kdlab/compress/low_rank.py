"""Factorizing: a matrix becomes the product of two thin ones.

Every method here keeps the `rank` directions of a layer's output that matter most, and throws the others away: the new
layer is U Uᵀ W, stored as Uᵀ W and U. Methods differ by whom it shall matter to: to the weights alone, or to the
inputs that the layer meets.
"""

import fnmatch
import warnings
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import machine, models

from . import surgery

FAINT = 1e-6  # the share of a plain factorization in a weighted one: it decides where no input has told anything
Layer = nn.Linear | nn.Embedding | Any  # or transformers' Conv1D
Rank = int | float | dict[str, int | float]


class Product(nn.Sequential):
    """Two layers in the place of one. What asks for `weight` gets their product, as large as the layer that was there.

    So it fits into layers of torch that read a weight themselves, such as nn.MultiheadAttention and the fast path of
    nn.TransformerEncoderLayer; these then save space and no time.
    """

    @property
    def weight(self) -> Tensor:
        first, second = self
        if not isinstance(second.weight, Tensor):
            return second.weight  # in bytes: a method, as of torch's quantized layers
        return first.weight @ second.weight.T if isinstance(first, nn.Embedding) else second.weight @ first.weight

    @property
    def bias(self) -> Tensor | None:
        return self[1].bias


def factorize(
    model: nn.Module,
    rank: Rank,
    names: str | Iterable[str] | None = None,
    *,
    but: str | Iterable[str] = (),
    moments: dict[str, Tensor] | None = None,
) -> nn.Module:
    """A copy of `model` with two thin layers in the place of each layer chosen; the one given stays as it is.

    A Linear becomes Linear(n_in, rank) without bias and Linear(rank, n_out); an Embedding becomes an embedding of
    `rank` numbers a word and a Linear(rank, numbers) without bias. Shapes in and out stay.
    rank: a whole number; or a share in (0, 1] of each layer's `break_even`; or one of them by name: {"*.query": 64}.
    names, but: of layers, as for `surgery.layers`; by default every Linear (and transformers' Conv1D) and no Embedding.
    moments: of `input_moments`. Without them the distance of the weights is the least possible (Eckart & Young 1936);
    with them that of the layer's outputs, as in DRONE (Chen et al. 2021) and SVD-LLM (Wang et al. 2024,
    arXiv:2403.07378). FWSVD (Hsu et al. 2022, arXiv:2207.00112) weighs by the loss's gradients, which is not done here.
    Raises ValueError for a rank that a layer cannot have, for a weight that another layer uses, too, for a layer with
    a forward of its own, and where moments lack a layer; warns where the layers grow, or hold little of the model.
    Two layers made of a frozen one are frozen; of a model frozen as a whole all learn (`surgery.copied`).
    """
    model = surgery.copied(model)
    ranks = _ranks(model, rank, names, but)
    chosen = {name: model.get_submodule(name) for name in ranks}
    surgery.check_alone(model, chosen, "alike" if moments is None else "never")
    for name, layer in chosen.items():
        surgery.check_plain(name, layer)
        if moments is not None and name not in moments:
            raise ValueError(f"the moments know nothing of {name}; call input_moments with the same names")
    if names is None and not isinstance(rank, dict):
        surgery.warn_if_little(model, chosen, "factorized")
    surgery.replace_each(
        model, chosen, lambda name, layer: product(layer, ranks[name], None if moments is None else moments[name])
    )
    return model


def lower_rank(
    model: nn.Module, rank: int | float, names: str | Iterable[str] = "*", *, but: str | Iterable[str] = ()
) -> nn.Module:
    """A copy of a factorized model at a lower rank: what `factorize` makes at this rank, without computing it again.

    The numbers between two thin layers come in the order of what they matter, so the last ones go. Once the layers have
    been trained nothing keeps that order, and a lower rank may lose more than it must.
    rank, names, but: as for `factorize`, of layers that it made; all of them by default.
    Raises ValueError where no layer is factorized, for a rank above the one that is there, and for layers in bytes.
    """
    model = surgery.copied(model)
    pairs = surgery.layers(model, names, Product, but)
    ranks = {name: _rank_of_pair(name, pair, rank) for name, pair in pairs.items()}
    for name, (first, second) in pairs.items():
        r, embedding = ranks[name], isinstance(first, nn.Embedding)
        first.weight = _part(first.weight, first.weight[:, :r] if embedding else first.weight[:r])
        second.weight = _part(second.weight, second.weight[:, :r])
        setattr(first, "embedding_dim" if embedding else "out_features", r)
        second.in_features = r
    return model


def _rank_of_pair(name: str, pair: Product, wanted: int | float) -> int:
    first, second = pair
    if type(second) is not nn.Linear or type(first) not in (nn.Linear, nn.Embedding):
        raise ValueError(f"{name} was changed after it was factorized, as by int8; lower its rank before that")
    n_in = first.num_embeddings if isinstance(first, nn.Embedding) else first.in_features
    rank = _rank(name, wanted, n_in, second.out_features)
    if rank > second.in_features:
        raise ValueError(f"{name} has the rank {second.in_features}, and {rank} is more; factorize the model it is of")
    return rank


def _part(weight: nn.Parameter, part: Tensor) -> nn.Parameter:
    return nn.Parameter(part.detach().clone(), weight.requires_grad)


def product(layer: Layer, rank: int, moment: Tensor | None = None) -> Product:
    """One layer as two, of at most `rank` numbers in between. moment: as for `spectrum`."""
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    matrix = _matrix(layer)
    up = directions(layer, moment)[0][:, :rank]  # (n_out, rank), orthonormal columns
    down = up.T @ matrix.double()  # (rank, n_in)
    if isinstance(layer, nn.Embedding):
        first = nn.utils.skip_init(nn.Embedding, len(layer.weight), rank, padding_idx=layer.padding_idx, **like)
        down = down.T
    else:
        first = nn.utils.skip_init(nn.Linear, matrix.shape[1], rank, bias=False, **like)
    biased = getattr(layer, "bias", None) is not None
    second = nn.utils.skip_init(nn.Linear, rank, len(matrix), bias=biased, **like)
    with torch.no_grad():
        first.weight.copy_(down)
        second.weight.copy_(up)
        if biased:
            second.bias.copy_(layer.bias)
            second.bias.requires_grad_(layer.bias.requires_grad)
    for part in (first, second):
        part.weight.requires_grad_(layer.weight.requires_grad)
    return Product(first, second)


def spectrum(layer: Layer, moment: Tensor | None = None) -> Tensor:
    """(min(n_in, n_out),) singular values of the layer's matrix, the largest first: how much each direction carries.

    The squares of those after the first `rank` sum to the squared error of the best factorization.
    moment: of the layer, from `input_moments`; then of W C^½, so that the squares are those of the outputs' mean.
    """
    return directions(layer, moment)[1]


def directions(layer: Layer, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(n_out, n) orthonormal directions of the layer's output, and how much each carries, (n,); the largest first."""
    matrix = _matrix(layer).double()  # (n_out, n_in); n_in is the number of words for an embedding
    if moment is not None:
        n, moment = matrix.shape[1], moment.to(matrix)
        if moment.shape not in ((n,), (n, n)):
            raise ValueError(
                f"a layer of {n} inputs wants moments of the shape ({n},) or ({n}, {n}), got "
                f"{tuple(moment.shape)}; are they another layer's?"
            )
        ridge = FAINT * (moment if moment.dim() == 1 else moment.diagonal()).mean()
        if moment.dim() == 1:
            matrix = matrix * (moment + ridge).sqrt()
        else:
            matrix = matrix @ torch.linalg.cholesky(moment + ridge * torch.eye(n).to(moment))
    with machine.threads():
        if matrix.shape[1] > 2 * matrix.shape[0]:  # the same directions, from a small matrix: three times as fast
            matrix = torch.linalg.qr(matrix.T, mode="r").R.T
        up, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    return up, values


def input_moments(
    model: nn.Module,
    x: Tensor,
    names: str | Iterable[str] | None = None,
    *,
    but: str | Iterable[str] = (),
    pad: int | None = None,
    batch_size: int = 16,
) -> dict[str, Tensor]:
    """What layers meet when `model` reads x, by name: C = mean of z zᵀ over the inputs z of a Linear, (n_in, n_in); the
    share of each word among those of an Embedding, (words,).

    names, but: as for `factorize`. pad: the number that fills up texts of x (n, tokens); what layers meet in its
    places does not count. A layer that met nothing is left out. A few hundred texts of a dozen tokens are enough.
    batch_size: no more than a `text.Bert`'s group, which cuts longer batches by itself.
    """
    chosen = _chosen(model, names, but)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    real: Tensor | None = None  # (batch, tokens): which places of the batch at hand are no padding

    def watch(name: str):
        def hook(layer: nn.Module, inputs: tuple) -> None:
            z = inputs[0]
            apart = 0 if isinstance(layer, nn.Embedding) else 1  # dimensions of one input
            if real is not None and z.shape[: z.dim() - apart] == real.shape:
                z = z[real]
            met, n = _moment(layer, z)
            sums[name], counts[name] = sums.get(name, 0) + met, counts.get(name, 0) + n

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in chosen.items()]
    try:
        with models.evaluating(model), machine.threads():
            for part in x.split(batch_size):
                real = None if pad is None else part != pad
                model(part)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def _moment(layer: Layer, z: Tensor) -> tuple[Tensor, int]:
    """The sum over the inputs z, and how many they are."""
    if isinstance(layer, nn.Embedding):
        return torch.bincount(z.flatten(), minlength=len(layer.weight)).double(), z.numel()
    z = z.reshape(-1, z.shape[-1]).to(_finest(z.device))  # single precision's sums of few texts may be no squares
    return (z.T @ z).double(), len(z)


def _finest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's graphics know no double


def break_even(n_in: int, n_out: int) -> float:
    """The rank at which two thin matrices have as many numbers as the one: n_in · n_out / (n_in + n_out).

    Below it a Linear gets smaller and needs fewer multiply-adds, in the same proportion. An Embedding (n_in words)
    gets smaller only: looking a word up cost nothing before.
    """
    return n_in * n_out / (n_in + n_out)


def _matrix(layer: Layer) -> Tensor:
    """(n_out, n_in): what the layer multiplies its inputs by; an embedding's are words, each a one among zeros."""
    weight = layer.weight.detach()
    return weight.T if isinstance(layer, (nn.Embedding, surgery.Conv1D)) else weight


def _chosen(model: nn.Module, names: str | Iterable[str] | None, but: str | Iterable[str]) -> dict[str, nn.Module]:
    kind = surgery.LINEAR if names is None else (nn.Linear, nn.Embedding, surgery.Conv1D)
    return surgery.layers(model, "*" if names is None else names, kind, but)


def _ranks(model: nn.Module, rank: Rank, names: str | Iterable[str] | None, but: str | Iterable[str]) -> dict[str, int]:
    """Name → rank of every layer chosen."""
    if isinstance(rank, dict):
        if names is not None:
            raise ValueError("ranks by name say which layers they are for; leave `names` out")
        names = list(rank)
    ranks, grown = {}, []
    for name, layer in _chosen(model, names, but).items():
        wanted = next(r for key, r in rank.items() if fnmatch.fnmatch(name, key)) if isinstance(rank, dict) else rank
        n_out, n_in = _matrix(layer).shape
        ranks[name] = _rank(name, wanted, n_in, n_out)
        grown += [name] * (ranks[name] > break_even(n_in, n_out))
    if grown:
        more = f" and {len(grown) - 1} more layers grow" if len(grown) > 1 else " grows"
        warnings.warn(
            f"{grown[0]}{more}: a rank of {ranks[grown[0]]} is above break_even(n_in, n_out); a share in "
            "(0, 1] instead of a whole number stays below it in every layer",
            stacklevel=3,
        )
    return ranks


def _rank(name: str, wanted: Any, n_in: int, n_out: int) -> int:
    most = min(n_in, n_out)
    if isinstance(wanted, float) and 0 < wanted <= 1:
        return max(1, int(wanted * break_even(n_in, n_out)))
    if isinstance(wanted, Integral) and not isinstance(wanted, bool) and 1 <= wanted <= most:
        return int(wanted)
    raise ValueError(
        f"{name} has {n_in} inputs and {n_out} outputs, so its rank is a whole number from 1 to {most}, "
        f"or a share in (0, 1] of its break-even rank; got {wanted!r}. Leave it out by `but`, or give "
        "ranks by name"
    )
