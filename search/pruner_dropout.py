"""Dropout rates after pruning: as many units stay active on average as before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from hwcost.recorder import record

#: Dropout module -> how many numbers go through it.
Sizes = dict[nn.Module, int]


def dropout_sizes(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sizes:
    """Return how many numbers go through each dropout of a model, in one run on an example."""
    if not any(_drops(module) for module in model.modules()):
        return {}
    sizes: Sizes = {}
    with _counting(model, sizes):
        record(model, args, kwargs)
    return sizes


@contextmanager
def _counting(model: nn.Module, sizes: Sizes) -> Iterator[None]:
    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            sizes[module] = sizes.get(module, 0) + args[0].numel()

    hooks = [m.register_forward_pre_hook(count) for m in model.modules() if _drops(m)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) and 0 < module.p < 1


def adjust(module: nn.Module, before: float, after: float) -> None:
    """Set the rate of a dropout through which fewer units go; 0 if all that are left must stay.

    Args:
        before: how many units there were.
        after: how many there are.
    """
    if isinstance(module, _DropoutNd) and _drops(module) and after:
        module.p = max(0.0, 1 - (1 - module.p) * before / after)


def adjust_all(before: Sizes, after: Sizes) -> None:
    """Adjust each dropout that lets fewer numbers through than before."""
    for module, size in before.items():
        if after.get(module, size) < size:
            adjust(module, size, after[module])
