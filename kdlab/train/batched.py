"""Many small students of one shape at once: one batched product where each alone would leave the processor idle.

    students = [models.mlp((30, 30), seed=s) for s in range(16)]
    batched.fit(students, (x, y, t), T=[1, 2, 4, 8] * 4, epochs=5, lr=1e-2)   # t: the teacher's logits

Each ends as `train.fit` would have left it alone, to rounding. They may differ in their start, T, alpha, learning
rate, order of the minibatches, and in the classes that they never see.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from kdlab import losses, models, parallel

from .loop import Training, adam
from .minibatches import Data
from .objectives import Objective

Each = float | Sequence[float]  # one number for all members, or one for each


class Many(nn.Module):
    """Nets of one shape as one: each weight (…) of theirs is one of (members, …) here.

    Called with x (batch, …), the same for all, or `each(x)` with x (members, batch, …); returns the members' logits
    (members, batch, classes). Dropout draws for each member by itself.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        _same_shape(members)
        self.n = len(members)
        weights, buffers = stack_module_state(list(members))
        for name, weight in weights.items():
            kept = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            self.register_parameter(_flat(name), kept)
        for name, buffer in buffers.items():
            self.register_buffer(_flat(name), buffer.clone())
        self._one = [copy.deepcopy(members[0]).to("meta")]  # in a list: its weights are not this net's

    def forward(self, x: Tensor) -> Tensor:
        one = self._one[0].train(self.training)
        weights = {name.replace("/", "."): value for name, value in [*self.named_parameters(), *self.named_buffers()]}
        if _begins_linear(one):  # pixels are many and the same for all: one product instead of one a member
            weight, bias = weights.pop("1.weight"), weights.pop("1.bias")
            units = F.linear(x.flatten(1), weight.flatten(0, 1), bias.flatten()).unflatten(1, (self.n, -1))
            return self._mapped(one[2:], weights, units.transpose(0, 1), 0)
        return self._mapped(one, weights, x, None)

    def each(self, x: Tensor) -> Tensor:
        """Logits (members, batch, classes) for batches (members, batch, …), each member's own."""
        weights = {name.replace("/", "."): value for name, value in [*self.named_parameters(), *self.named_buffers()]}
        return self._mapped(self._one[0].train(self.training), weights, x, 0)

    @staticmethod
    def _mapped(one: nn.Module, weights: dict[str, Tensor], x: Tensor, dim: int | None) -> Tensor:
        def called(own, x):
            return functional_call(one, own, (x,))

        return vmap(called, in_dims=(0, dim), randomness="different")(weights, x)

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep each unit's incoming weights within its layer's `max_norm`, as the loop asks after every step."""
        for name, layer in self._one[0].named_modules():
            if isinstance(layer, models.MaxNormLinear):
                weight = self.get_parameter(_flat(f"{name}.weight"))
                weight.copy_(weight.flatten(0, 1).renorm(2, 0, layer.max_norm).view_as(weight))

    @torch.no_grad()
    def give_back(self, members: Sequence[nn.Module]) -> None:
        """Put each member's weights into the net that it came from, or another of its shape."""
        for i, member in enumerate(members):
            member.load_state_dict({name.replace("/", "."): value[i] for name, value in self.state_dict().items()})
            member.eval()


def distilling(*, T: Each = 4.0, alpha: Each = 0.9, without: Sequence[Sequence[int]] | None = None) -> Objective:
    """Return the objective of a `Many`: the sum over its members of `losses.two_terms`, for data (x, y, t).

    T, alpha: one for all, or one for each member. without: for each member the classes whose cases do not count for
    it; its mean is over the other cases.
    """
    for one_T in torch.as_tensor(T).flatten().tolist():
        losses.temperature(one_T)
    for one_alpha in torch.as_tensor(alpha).flatten().tolist():
        losses.share(one_alpha)

    def objective(many: Many, x: Tensor, y: Tensor, t: Tensor) -> dict[str, Tensor]:
        s = many(x) if y.dim() == 1 else many.each(x)  # (members, batch, classes)
        Ts, alphas = _each(T, many.n), _each(alpha, many.n).to(s)
        y, t = y.expand(s.shape[:2]), t.expand_as(s)
        counts = _counting(y, without)
        terms = {"ce": (1 - alphas, _label(s, y)), "kd": (alphas, _soft_targets(s, t, Ts))}
        return {
            name: (weight * (each * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)).sum()
            for name, (weight, each) in terms.items()
        }

    return objective


def _label(s: Tensor, y: Tensor) -> Tensor:
    """`losses.label` of each case: (members, batch)."""
    return F.cross_entropy(losses.wide(s).flatten(0, 1), y.flatten(), reduction="none").view(y.shape)


def _soft_targets(s: Tensor, t: Tensor, T: Tensor) -> Tensor:
    """`losses.soft_targets` of each case: (members, batch). T: (members,). In double, as there."""
    T = T.to(s.device, torch.float32 if s.device.type == "mps" else torch.float64)
    log_q = F.log_softmax(s.to(T.dtype) / T[:, None, None], dim=2)
    log_p = F.log_softmax(t.to(T.dtype) / T[:, None, None], dim=2)
    return (T[:, None] ** 2 * losses.kl(log_p, log_q)).to(s.dtype)


def _counting(y: Tensor, without: Sequence[Sequence[int]] | None) -> Tensor:
    """(members, batch): 1 where a case counts for a member, 0 where its class was left out."""
    if without is None:
        return torch.ones_like(y, dtype=torch.float32)
    if len(without) != len(y):
        raise ValueError(f"{len(y)} members want {len(y)} lists of classes, got {len(without)}")
    return torch.stack(
        [
            ~torch.isin(labels, torch.tensor([*left_out], device=y.device, dtype=y.dtype))
            for labels, left_out in zip(y, without, strict=True)
        ]
    ).float()


def fit(
    members: Sequence[nn.Module],
    data: Data,
    *,
    T: Each = 4.0,
    alpha: Each = 0.9,
    lr: Each = 1e-3,
    seed: int | Sequence[int] = 0,
    without: Sequence[Sequence[int]] | None = None,
    n_jobs: int = 1,
    backend: str | None = None,
    progress: str = "",
    **settings,
) -> Sequence[nn.Module]:
    """Distill all members at once, in place; each as `train.fit(member, data, train.distilling(…))` alone.

    data: (x, y, t), t the teacher's logits. T, alpha, lr, seed: one for all, or a list with one for each; members of
    one seed see the same minibatches, which is fastest. without: see `distilling`. n_jobs, backend: in how many
    processes, and whose, see `parallel.map`. settings: epochs and the like, as for `train.Training`.
    Raises FloatingPointError, with their numbers, where members diverged.
    """
    _same_shape(members)
    n = len(members)
    for name, value in (("T", T), ("alpha", alpha), ("lr", lr), ("seed", seed), ("without", without)):
        if isinstance(value, Sequence | Tensor) and len(value) != n:
            raise ValueError(f"{name}: one value for all, or one for each of the {n} members, got {len(value)}")
    own = {"T": T, "alpha": alpha, "lr": lr, "seed": seed, "without": without}
    shares = [[*range(i, n, n_jobs)] for i in range(min(n_jobs, n))]
    jobs = [
        ([members[i] for i in share], data, {key: _part(value, share) for key, value in own.items()}, settings)
        for share in shares
    ]
    done = parallel.map(_fit, jobs, n_jobs=n_jobs, backend=backend, progress=progress if n_jobs > 1 else "")
    for share, states in zip(shares, done, strict=True):
        for i, state in zip(share, states, strict=True):
            members[i].load_state_dict(state)
            members[i].eval()
    if broken := [i for i, net in enumerate(members) if not all(p.isfinite().all() for p in net.parameters())]:
        raise FloatingPointError(
            f"the members {broken} of {n} diverged, the others learned; the usual cause is a "
            "learning rate that is too high: try a tenth of it"
        )
    return members


def _fit(members: Sequence[nn.Module], data: Data, own: dict[str, Any], settings: dict) -> list[dict]:
    many = Many(members)
    rates = _each(own["lr"], many.n)
    optimizer = _own_rates(settings.get("optimizer", adam), rates)
    settings = settings | {"lr": float(rates.max()), "optimizer": optimizer, "seed": _one_seed(own["seed"])}
    for _ in Training(many, data, distilling(T=own["T"], alpha=own["alpha"], without=own["without"]), **settings):
        pass
    many.give_back(members)
    return [member.state_dict() for member in members]


def _own_rates(make: Callable, rates: Tensor) -> Callable:
    """An optimizer whose step is scaled for each member: torch's own go in proportion to their rate."""
    shares = rates / rates.max()
    if (shares == 1).all():
        return make

    def made(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        optimizer, before = make(parameters, lr), []

        def remember(*_):
            before[:] = [p.detach().clone() for p in parameters]

        def scale(*_):
            with torch.no_grad():
                for p, old in zip(parameters, before, strict=True):
                    share = shares.to(p).view(-1, *[1] * (p.dim() - 1))
                    p.copy_(torch.lerp(old, p, share))

        optimizer.register_step_pre_hook(remember)
        optimizer.register_step_post_hook(scale)
        return optimizer

    return made


def _one_seed(seed: int | Sequence[int]) -> int | list[int]:
    if not isinstance(seed, Sequence):
        return seed
    return seed[0] if len(set(seed)) == 1 else list(seed)


def _each(value: Each, n: int) -> Tensor:
    """(members,) of one number for all, or one for each."""
    values = torch.as_tensor(value, dtype=torch.float64)
    if values.dim() > 1 or (values.dim() == 1 and len(values) != n):
        raise ValueError(f"one number for all, or one for each of the {n} members, got {tuple(values.shape)}")
    return values.expand(n)


def _part(value: Any, share: list[int]) -> Any:
    return [value[i] for i in share] if isinstance(value, Sequence | Tensor) else value


def _same_shape(members: Sequence[nn.Module]) -> None:
    if not members:
        raise ValueError("no member was given; many nets are at least one")
    first, *others = ([(type(m), str(getattr(m, "p", ""))) for m in net.modules()] for net in members)
    shapes = [[(name, v.shape, v.dtype, v.device) for name, v in net.state_dict().items()] for net in members]
    if odd := [i + 1 for i, other in enumerate(others) if other != first or shapes[i + 1] != shapes[0]]:
        raise ValueError(
            f"members of one shape are trained at once; number {odd[0]} differs from number 0: "
            "train each shape by itself"
        )


def _begins_linear(net: nn.Module) -> bool:
    return (
        isinstance(net, nn.Sequential)
        and len(net) > 2
        and isinstance(net[0], nn.Flatten)
        and isinstance(net[1], nn.Linear)
        and net[1].bias is not None
    )


def _flat(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name may hold no dot
