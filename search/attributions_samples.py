"""Where samples lie in what modules return, and whether they keep to themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hwcost.errors import SearchError
from hwcost.search.attributions_data import Batch
from hwcost.search.attributions_state import seeing


@dataclass(frozen=True, eq=False)
class Layout:
    """How the samples of a batch are told apart.

    Attributes:
        together: whether a batch gives what its samples give one by one.
        dims: of each module, which dimension of its output samples lie along.
        size: how many samples the batch had that told.
    """

    together: bool
    dims: tuple[int, ...]
    size: int


def layout(model: nn.Module, batch: Batch, modules: Sequence[tuple[str, nn.Module]]) -> Layout:
    """Return how samples are told apart, from a run of a batch and one of its first sample.

    Raises:
        SearchError: one of the modules does not run.
    """
    output, shapes = _run(model, batch, modules)
    if batch.size == 1:
        return Layout(True, (0,) * len(shapes), batch.size)
    alone, single = _run(model, batch.sample(0), modules)
    alike = _alike(output, alone, batch.size)
    found = [_sample_dim(a, b, batch.size) for a, b in zip(shapes, single, strict=True)]
    if not alike or None in found:
        return Layout(False, (0,) * len(shapes), batch.size)
    return Layout(True, tuple(d for d in found if d is not None), batch.size)


def _run(
    model: nn.Module, batch: Batch, modules: Sequence[tuple[str, nn.Module]]
) -> tuple[Any, list[list[torch.Size]]]:
    shapes: list[list[torch.Size]] = [[] for _ in modules]

    def seen_by(at: int) -> Any:
        def see(call: int, output: Tensor) -> Tensor:
            shapes[at].append(output.shape)
            return output

        return see

    with seeing([(module, seen_by(i)) for i, (_, module) in enumerate(modules)]):
        output = model(*batch.args, **batch.kwargs)
    for (path, module), each in zip(modules, shapes, strict=True):
        if not each:
            raise SearchError(
                f"module {path!r} ({type(module).__name__}) does not run when the model does; "
                "attributions look at what a module returns"
            )
        if len(each[0]) < 2:
            raise SearchError(
                f"module {path!r} ({type(module).__name__}) returns shape {tuple(each[0])}; "
                "expected samples and units"
            )
    return output, shapes


def _sample_dim(
    shapes: Sequence[torch.Size], single: Sequence[torch.Size], size: int
) -> int | None:
    """Return the only dimension that grows with the samples, None if none or several do."""
    if len(shapes) != len(single):
        return None
    found = set()
    for many, one in zip(shapes, single, strict=True):
        if len(many) != len(one):
            return None
        grown = [d for d in range(len(many)) if many[d] != one[d]]
        if len(grown) != 1 or (many[grown[0]], one[grown[0]]) != (size, 1):
            return None
        found.add(grown[0])
    return found.pop() if len(found) == 1 else None


def _alike(output: Any, alone: Any, size: int) -> bool:
    """Whether the first sample of what a model returned is what it returns for that alone."""
    many, one = tree_leaves(output), tree_leaves(alone)
    if len(many) != len(one):
        return False
    for a, b in zip(many, one, strict=True):
        if not isinstance(a, Tensor):
            continue
        if not a.dim() or a.shape[0] != size or a[:1].numel() != b.numel():
            return False
        if not a.is_floating_point():
            continue
        scale = float(b.abs().max()) if b.numel() else 0.0
        tolerance = torch.finfo(a.dtype).eps ** 0.5
        if not torch.allclose(
            a[:1].reshape(b.shape), b, rtol=tolerance, atol=tolerance * scale, equal_nan=True
        ):
            return False
    return True


def by_sample(values: Tensor, size: int, sample_dim: int, unit_dim: int) -> Tensor:
    """Return the sum over all but samples and units, shape ``(samples, units)``."""
    unit_dim %= values.dim()
    if size == 1:
        return values.transpose(0, unit_dim).flatten(1).sum(1)[None]
    sorted_ = values.movedim((sample_dim, unit_dim), (0, 1))
    return sorted_.flatten(2).sum(2) if values.dim() > 2 else sorted_
