"""What a user asks a pruner for, as units to remove and as cuts of single modules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from hwcost.errors import SearchError, did_you_mean
from hwcost.search.channels_values import Channels, Cut

#: Modules that have no sizes of their own.
SHAPELESS = "has no units of its own"


def unit_indices(indices: Any, size: int, where: str) -> Tensor:
    """Return the units that a user names, sorted, each once; int64.

    Args:
        indices: whole numbers in a list, array or tensor, one number, or a bool for each unit.
        size: how many units there are.
        where: whose they are, for messages.

    Raises:
        SearchError: they are no whole numbers, out of range, or all units.
    """
    found = _as_tensor(indices, where)
    if found.dtype == torch.bool:
        if found.shape != (size,):
            raise SearchError(f"{where}: a mask of shape {tuple(found.shape)} for {size} units")
        found = found.nonzero()
    chosen = sorted({int(i) for i in found.reshape(-1).tolist()})
    wrong = [i for i in chosen if not 0 <= i < size]
    if wrong:
        raise SearchError(f"{where}: there is no unit {wrong[0]}; expected 0 to {size - 1}")
    if len(chosen) == size:
        raise SearchError(f"{where}: these are all its {size} units; one must stay")
    return torch.tensor(chosen, dtype=torch.int64)


def _as_tensor(indices: Any, where: str) -> Tensor:
    if isinstance(indices, Iterable) and not isinstance(indices, Tensor | str | bytes):
        indices = list(indices)
    try:
        found: Tensor = torch.as_tensor(indices).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise SearchError(f"{where}: {indices!r} are no indices of units") from None
    if (found.is_floating_point() or found.is_complex()) and found.numel():
        raise SearchError(f"{where}: {indices!r} are no whole numbers")
    return found


@dataclass(frozen=True)
class Side:
    """Where the units of a module lie on one of its sides.

    Attributes:
        size: how many.
        cuts: name of a parameter or buffer -> its dimension, and the unit of each entry there.
        features: whether the module counts channels without a parameter that has them.
    """

    size: int
    cuts: Mapping[str, tuple[int, Tensor]]
    features: bool = False


def _conv_out(module: _ConvNd, where: str) -> Side:
    size = module.out_channels
    if isinstance(module, _ConvTransposeNd):
        if module.groups == 1:
            return _side(module, where, size, weight=1, bias=0)
        raise SearchError(_grouped(where))
    if module.groups > 1 and not _is_depthwise(module):
        raise SearchError(_grouped(where))
    return _side(module, where, size, weight=0, bias=0)


def _conv_in(module: _ConvNd, where: str) -> Side:
    if _is_depthwise(module):
        return _conv_out(module, where)
    if module.groups > 1:
        raise SearchError(_grouped(where))
    turned = isinstance(module, _ConvTransposeNd)
    return _side(module, where, module.in_channels, weight=0 if turned else 1)


def _is_depthwise(module: _ConvNd) -> bool:
    turned = isinstance(module, _ConvTransposeNd)
    return not turned and module.groups == module.in_channels == module.out_channels > 1


def _grouped(where: str) -> str:
    return f"{where}: its groups must keep equal sizes; prune_model finds what goes together"


def _linear_out(module: nn.Linear, where: str) -> Side:
    return _side(module, where, module.out_features, weight=0, bias=0)


def _linear_in(module: nn.Linear, where: str) -> Side:
    return _side(module, where, module.in_features, weight=1)


def _norm(module: Any, where: str) -> Side:
    size: int = module.num_features
    return _side(module, where, size, weight=0, bias=0, running_mean=0, running_var=0)


def _layer_norm(module: Any, where: str) -> Side:
    if len(module.normalized_shape) != 1:
        raise SearchError(f"{where}: it normalises {len(module.normalized_shape)} dimensions")
    return _side(module, where, module.normalized_shape[0], weight=0, bias=0)


def _prelu(module: nn.PReLU, where: str) -> Side:
    return _side(module, where, module.num_parameters, weight=0)


def _embedding_out(module: Any, where: str) -> Side:
    return _side(module, where, module.embedding_dim, weight=1)


def _recurrent_in(module: nn.RNNBase, where: str) -> Side:
    first = {f"weight_ih_l0{suffix}": 1 for suffix in ("", "_reverse")}
    return _side(module, where, module.input_size, **first)


def _side(module: nn.Module, where: str, size: int, **dims: int) -> Side:
    if is_parametrized(module):
        raise SearchError(f"{where}: its weight is parametrized; prune_model finds what to cut")
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    units = torch.arange(size)
    cuts = {name: (dim, units) for name, dim in dims.items() if name in tensors}
    return Side(size, cuts, features=not cuts)


_Reader = Callable[[Any, str], Side]

#: Class -> what lies on its sides; one that passes channels on has the same on both.
OUT: dict[type[nn.Module], _Reader] = {
    _ConvNd: _conv_out,
    nn.Linear: _linear_out,
    _NormBase: _norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.PReLU: _prelu,
    nn.Embedding: _embedding_out,
    nn.EmbeddingBag: _embedding_out,
}
IN: dict[type[nn.Module], _Reader] = {
    **OUT,
    _ConvNd: _conv_in,
    nn.Linear: _linear_in,
    nn.RNNBase: _recurrent_in,
}


def side_of(module: nn.Module, direction: str, where: str) -> Side:
    """Return where a module's units lie, of its input or its output.

    Raises:
        SearchError: there is no such direction, or the module has no such units.
    """
    sides = {"out": OUT, "in": IN}
    if direction not in sides:
        hint = did_you_mean(str(direction), sides)
        raise SearchError(f"direction is {direction!r}; expected 'out' or 'in'{hint}")
    for cls, reader in sides[direction].items():
        if isinstance(module, cls):
            return reader(module, where)
    raise SearchError(f"{where}: a {type(module).__name__} {SHAPELESS}")


def widened(side: Side, units: int, where: str) -> Side:
    """Return a side whose units are what a flatten makes of so many channels, each in one piece.

    Raises:
        SearchError: the sizes do not divide.
    """
    if type(units) is not int or units < 1 or side.size % units:
        raise SearchError(f"{where}: {side.size} inputs are not a multiple of {units!r} units")
    own = torch.arange(units).repeat_interleave(side.size // units)
    return Side(units, {name: (dim, own) for name, (dim, _) in side.cuts.items()}, side.features)


def channels_of(sides: Sequence[tuple[str, Side, str]]) -> Channels:
    """Return sides of modules that lose the same units as channels, one class for each unit.

    Args:
        sides: path of the module, its side, and the role of the cut.
    """
    cuts: dict[str, tuple[Cut, ...]] = {}
    features: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for path, side, direction in sides:
        role: Any = "out" if direction == "out" else "in"
        for name, (dim, units) in side.cuts.items():
            full = f"{path}.{name}".lstrip(".")
            cuts[full] = (*cuts.get(full, ()), Cut(dim, units, role))
            if name.startswith("weight_ih"):
                inputs[path] = units
        if side.features:
            features[path] = torch.arange(side.size)
    size = max((s.size for _, s, _ in sides), default=0)
    return Channels((), cuts, {}, {}, inputs, {}, (), size, features)
