"""Batches of data as calls of a model, sample by sample where need be; losses of each sample."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from hwcost.errors import SearchError

Criterion = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples.

    Attributes:
        args: what the model is called with; kwargs: likewise.
        y: the targets.
        size: how many samples.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any
    size: int

    def sample(self, index: int) -> "Batch":
        """Return one sample as a batch."""
        args, kwargs = part((self.args, self.kwargs), index, self.size)
        return Batch(args, kwargs, part(self.y, index, self.size), 1)

    def tiled(self, times: int) -> "Batch":
        """Return all samples so many times, one round after another."""
        if times == 1:
            return self
        args, kwargs, y = (tile(v, times, self.size) for v in (self.args, self.kwargs, self.y))
        return Batch(args, kwargs, y, self.size * times)


class Batches:
    """The batches of an iterable as calls of a model; what can be read only once is kept."""

    def __init__(self, model: nn.Module, data: Iterable[Any], device: Any) -> None:
        self._model = model
        self._data = list(data) if isinstance(data, Iterator) else data
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for item in self._data:
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise SearchError(
                    f"batch {seen} of the data is {_described(item)}; expected a pair of inputs "
                    "and targets"
                )
            seen += 1
            yield self._batch(*item)
        if not seen:
            raise SearchError("the data yielded no batch")

    def __len__(self) -> int:
        """How many batches, 0 if the data does not tell."""
        try:
            return len(self._data)  # type: ignore[arg-type]
        except TypeError:
            return 0

    def _batch(self, x: Any, y: Any) -> Batch:
        x, y = tree_map_only(Tensor, lambda t: t.to(self._device), (x, y))
        sizes = [t.shape[0] for t in tree_leaves(x) if isinstance(t, Tensor) and t.dim()]
        if not sizes or not sizes[0]:
            raise SearchError(f"the inputs are {_described(x)}; expected tensors of samples")
        for t in tree_leaves(y):
            if isinstance(t, Tensor) and t.dim() and t.shape[0] != sizes[0]:
                raise SearchError(f"a batch has {sizes[0]} inputs and {t.shape[0]} targets")
        args, kwargs = arguments(self._model, x)
        return Batch(args, kwargs, y, sizes[0])


def arguments(model: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return how a model is called with an input: as ``hwcost.trace`` calls it."""
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # a compiled forward without a signature
        return (tuple(x) if isinstance(x, (tuple, list)) else (x,)), {}
    try:
        if isinstance(x, Mapping) and all(isinstance(name, str) for name in x):
            signature.bind(**x)
            return (), dict(x)
        if isinstance(x, (tuple, list)) and not hasattr(x, "_fields"):
            signature.bind(*x)
            return tuple(x), {}
    except TypeError:
        return (x,), {}
    return (x,), {}


def part(value: Any, index: int, size: int) -> Any:
    """Return one sample of a nest of tensors whose first dimension has ``size`` of them."""
    leaves = tree_leaves(value)
    if isinstance(value, list) and len(value) == size and not _leading(leaves, size):
        return value[index : index + 1]
    return tree_map(lambda t: t[index : index + 1] if _leads(t, size) else t, value)


def tile(value: Any, times: int, size: int) -> Any:
    """Return a nest of tensors of ``size`` samples, all of them so many times."""
    if isinstance(value, list) and len(value) == size and not _leading(tree_leaves(value), size):
        return value * times
    return tree_map(lambda t: torch.cat([t] * times) if _leads(t, size) else t, value)


def _leads(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == size


def _leading(leaves: list[Any], size: int) -> bool:
    return any(_leads(leaf, size) for leaf in leaves)


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


class Losses:
    """The loss of each sample, whatever reduction the criterion has."""

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self._at_once: bool | None = None

    def __call__(self, output: Any, y: Any, size: int) -> Tensor:
        """Return what the criterion says of each sample alone, shape ``(size,)``.

        Where it returns several numbers for a sample, their mean.
        """
        if size == 1:
            return self._one(output, y).reshape(1)
        if self._at_once is None:
            self._at_once = self._agrees(output, y, size)
        return self._mapped(output, y) if self._at_once else self._looped(output, y, size)

    def _one(self, output: Any, y: Any) -> Tensor:
        loss = self._criterion(output, y)
        if not isinstance(loss, Tensor) or not loss.numel():
            raise SearchError(f"the criterion returned {_described(loss)}; expected a tensor")
        return loss.reshape(()) if loss.numel() == 1 else loss.mean()

    def _looped(self, output: Any, y: Any, size: int) -> Tensor:
        pairs = ((part(output, i, size), part(y, i, size)) for i in range(size))
        return torch.stack([self._one(*pair) for pair in pairs])

    def _mapped(self, output: Any, y: Any) -> Tensor:
        def one(pair: Any) -> Tensor:
            return self._one(*tree_map(lambda t: t.unsqueeze(0), pair))

        return torch.vmap(one)((output, y))

    def _agrees(self, output: Any, y: Any, size: int) -> bool:
        """Whether torch can map the criterion over samples, with the same result."""
        if not all(_leads(leaf, size) for leaf in tree_leaves((output, y))):
            return False
        with torch.no_grad():
            alone = self._looped(output, y, size)
            try:
                mapped = self._mapped(output, y)
            except Exception:  # what vmap cannot do is told in many ways
                return False
        return torch.allclose(alone, mapped, rtol=1e-5, atol=1e-7, equal_nan=True)


def samples(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Return each sample of batches as a batch."""
    return chain.from_iterable((b.sample(i) for i in range(b.size)) for b in batches)
