"""How many units a module's weights make, and how large they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import is_lazy

from hwcost.errors import SearchError


def norms_of(module: nn.Module, path: str) -> Tensor:
    """Return the sum of the absolute weights of each unit, shape ``(units,)``.

    Raises:
        SearchError: the module has no weights.
    """
    rows = _rows(module, path)
    return rows.detach().abs().flatten(1).sum(1, dtype=torch.float64)


def count_of(module: nn.Module, path: str) -> int:
    """Return how many units a module has.

    Raises:
        SearchError: the module has no weights.
    """
    return _rows(module, path).shape[0]


def _rows(module: nn.Module, path: str) -> Tensor:
    """Return the weights of a module, units first, at least two dimensions."""
    found = next((rows(module) for cls, rows in _ROWS if isinstance(module, cls)), None)
    if found is None:
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            raise SearchError(
                f"module {path!r} ({type(module).__name__}) has no weight to score units by; "
                "name the module that computes them"
            )
        found = weight
    if is_lazy(found):
        raise SearchError(f"module {path!r} is not initialised; run the model once first")
    return found if found.dim() > 1 else found.reshape(-1, 1)


def _transposed(module: Any) -> Tensor:
    """Units of a transposed convolution: dimension 1 of its weight, group after group."""
    weight: Tensor = module.weight
    split: Tensor = weight.unflatten(0, (module.groups, -1)).transpose(1, 2)
    return split.flatten(0, 1)


def _recurrent(module: Any) -> Tensor:
    """Weights that make what the last layer returns, both directions one after the other."""
    last = module.num_layers - 1
    found = []
    for suffix in ("", "_reverse") if module.bidirectional else ("",):
        if module.proj_size:
            found.append(getattr(module, f"weight_hr_l{last}{suffix}"))
            continue
        names = (f"weight_{kind}_l{last}{suffix}" for kind in ("ih", "hh"))
        gates = [getattr(module, name).unflatten(0, (-1, module.hidden_size)) for name in names]
        found.append(torch.cat([gate.transpose(0, 1).flatten(1) for gate in gates], 1))
    return torch.cat(found)


_ROWS: tuple[tuple[Any, Callable[[Any], Tensor]], ...] = (
    (_ConvTransposeNd, _transposed),
    (nn.RNNBase, _recurrent),
    (nn.Embedding, lambda module: module.weight.t()),
    (nn.EmbeddingBag, lambda module: module.weight.t()),
    (nn.MultiheadAttention, lambda module: module.out_proj.weight),
)
