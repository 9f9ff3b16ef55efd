"""Pruning of single modules, where the user says which; and what all pruning has in common."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from hwcost.errors import SearchError, UnknownName, did_you_mean
from hwcost.recorder import record
from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels
from hwcost.search.pruner_dropout import Dropped, adjust, noting_dropouts
from hwcost.search.pruner_requests import Side, channels_of, side_of, unit_indices, widened
from hwcost.search.slicing_training import Average, Snapshot, Training
from hwcost.search.swap import refuse_searched
from hwcost.tracing import Recorded, recorded

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)


@dataclass(frozen=True)
class Removed:
    """What one step of pruning removed.

    Attributes:
        units: name of a weight -> which of the channels that it made are gone, in the numbering
            before the step.
    """

    units: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        lines = [f"{name}: {len(gone)} units" for name, gone in self.units.items()]
        return "\n".join(lines) or "nothing"


class PrunerByHand:
    """What a ``Pruner`` does without looking at how modules are connected."""

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        input_size: Sequence[Any] | None = None,
        device: torch.device | str | None = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        ema: Average | Sequence[Average] | None = None,
        inplace: bool = True,
    ) -> None:
        refuse_searched(model)
        if isinstance(model, _WRAPPERS):
            raise SearchError(f"prune model.module, then make a new {type(model).__name__} of it")
        if _is_size(example) and input_size is None:
            example, input_size = None, example
        self._given = _paths(model)
        self.model = model if inplace else copy.deepcopy(model)
        optimizers = _optimizers(self.model, optimizer)
        with noting_dropouts(self.model) as dropped:
            first = recorded(self.model, example, input_shape=input_size)
        self.inputs = _moved(first.args, device), _moved(first.kwargs, device)
        self._seen: tuple[Recorded, Dropped] | None = (first, dropped) if device is None else None
        self._training = Training(self.model, optimizers, _averages(() if ema is None else ema))
        self._before: Snapshot | None = None
        self._layers = _layers(self.model)

    def prune_module(
        self,
        module: nn.Module | str,
        indices: Any,
        direction: str = "out",
        original_len: int | None = None,
    ) -> Removed:
        """Remove units of one module and of nothing else; what it is connected to must fit.

        Args:
            module: a module of the model, or its path.
            indices: which units: whole numbers, or a bool for each.
            direction: ``"out"``, units that it makes, or ``"in"``, units that it reads.
            original_len: how many units its input had before a flatten: each unit is then one
                piece of the inputs.

        Raises:
            SearchError: it is impossible; nothing is changed.
        """
        path = self.path(module)
        where = f"layer {path!r}"
        side = side_of(self._module(path), direction, where)
        if original_len is not None:
            side = widened(side, original_len, where)
        return self._prune_sides([(path, side, direction)], indices, where)

    def prune_parameter(
        self, module: nn.Module | str, name: str, indices: Any, axis: int = 0
    ) -> Removed:
        """Remove entries of one parameter or buffer along an axis, and of nothing else.

        Raises:
            SearchError: it is impossible; nothing is changed.
        """
        path = self.path(module)
        own = self._module(path)
        tensors: dict[str, Tensor] = dict(own.named_parameters(recurse=False))
        tensors |= dict(own.named_buffers(recurse=False))
        where = f"layer {path!r}, {name!r}"
        if name not in tensors:
            raise UnknownName(f"layer {path!r} has no {name!r}{did_you_mean(name, tensors)}")
        rank = tensors[name].dim()
        if not -rank <= axis < rank:
            raise SearchError(f"{where}: it has {rank} axes; there is none numbered {axis}")
        size = tensors[name].shape[axis]
        side = Side(size, {name: (axis % rank, torch.arange(size))})
        return self._prune_sides([(path, side, "out")], indices, where)

    def undo(self) -> None:
        """Undo the last step: weights, gradients, sizes, rates of dropout, the optimizers' state
        and averages are what they were just before it, also where they were trained since.

        Raises:
            SearchError: nothing was pruned since the last ``undo``, or layers were replaced since.
        """
        if self._before is None:
            raise SearchError("there is no step of pruning to undo")
        if self._layers != _layers(self.model):
            raise SearchError("layers were replaced or resized since the last step of pruning")
        with torch.inference_mode(False):
            self._before.restore()
        self._before = None
        self._forget()

    def path(self, module: nn.Module | str) -> str:
        """Return the path of a module of the model, or of the model that it is a copy of.

        Raises:
            UnknownName: there is no such module.
        """
        if isinstance(module, str):
            own = _modules(self.model)
            if module not in own:
                raise UnknownName(f"the model has no {module!r}{did_you_mean(module, own)}")
            return module
        for paths in (_paths(self.model), self._given):
            if module in paths:
                return paths[module]
        raise UnknownName(f"this {type(module).__name__} is not a module of the model")

    def _prune_listed(self, path: str, indices: Any, listed: Sequence[nn.Module | str]) -> Removed:
        """Remove units of a module and exactly of those that are listed."""
        where = f"layer {path!r}"
        sides = [(path, side_of(self._module(path), "out", where), "out")]
        size = sides[0][1].size
        dropouts = []
        for follower in map(self.path, listed):
            module, place = self._module(follower), f"layer {follower!r}"
            if isinstance(module, _DropoutNd):
                dropouts.append(module)
            elif any(True for _ in (*module.parameters(), *module.buffers())):
                side = side_of(module, "in", place)
                sides.append((follower, _fitted(side, size, place, where), "in"))
        removed = self._prune_sides(sides, indices, where)
        left = size - len(next(iter(removed.units.values()), ()))
        for module in dropouts:
            for one in self._training.twins(module):
                adjust(one, size, left)
        return removed

    def _prune_sides(
        self, sides: Sequence[tuple[str, Side, str]], indices: Any, where: str
    ) -> Removed:
        size = sides[0][1].size
        alive = torch.ones(size, dtype=torch.bool)
        alive[unit_indices(indices, size, where)] = False
        if bool(alive.all()):
            return Removed({})
        self._apply(channels_of(sides), alive)
        self._forget()
        gone = tuple((~alive).nonzero().flatten().tolist())
        return Removed({f"{path}.{name}": gone for path, side, _ in sides for name in side.cuts})

    def _apply(self, channels: Channels, alive: Tensor) -> None:
        """Remove channels from everything, or leave all as it was."""
        with torch.inference_mode(False):  # what is made there could not be trained
            before = Snapshot(self._training, channels, alive)
            try:
                self._training.remove(channels, alive)
            except BaseException:
                before.restore()
                raise
        self._before = before
        self._layers = _layers(self.model)

    def _look(self) -> tuple[Recorded, Dropped]:
        """Return a run of the model as it is now, and what goes through its dropouts."""
        seen, self._seen = self._seen, None
        if seen is not None:
            return seen
        with noting_dropouts(self.model) as dropped:
            return Recorded(record(self.model, *self.inputs), *self.inputs), dropped

    def _forget(self) -> None:
        """Forget what is known about connections: sizes have changed by hand."""
        self._seen = None
        self._layers = _layers(self.model)

    def _refresh(self) -> None:
        """Forget it if layers were replaced or resized since."""
        if self._layers != _layers(self.model):
            self._forget()

    def _module(self, path: str) -> nn.Module:
        return _modules(self.model)[path]


def _fitted(side: Side, size: int, place: str, where: str) -> Side:
    """Return a reader's side in units of what it reads, also behind a flatten."""
    if side.size == size:
        return side
    if side.size % size:
        raise SearchError(f"{place} reads {side.size} units, {where} makes {size}")
    return widened(side, size, place)


def _is_size(example: Any) -> bool:
    sizes = isinstance(example, tuple | list) and len(example) > 0
    return sizes and all(type(size) is int for size in example)


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by path; one that is shared has all of its paths."""
    named = model.named_modules(remove_duplicate=False)
    return {without_compiler(path): module for path, module in named}


def _layers(model: nn.Module) -> list[object]:
    """Return what tells whether a model is still made of the same layers of the same sizes."""
    found: list[object] = []
    for module in model.modules():
        tensors = (*module._parameters.values(), *module._buffers.values())
        found.append(id(module))
        found += [None if tensor is None else tensor.shape for tensor in tensors]
    return found


def _paths(model: nn.Module) -> dict[nn.Module, str]:
    return {module: without_compiler(path) for path, module in model.named_modules()}


def _averages(ema: Any) -> list[Average]:
    """Return averages as a list, also a single one."""
    if isinstance(ema, nn.Module | dict):
        return [ema]
    if isinstance(ema, str) or not isinstance(ema, Iterable):
        raise SearchError(f"ema is {ema!r}; expected copies of the model or tensors")
    averages = list(ema)
    alone = bool(averages) and all(isinstance(average, Tensor) for average in averages)
    return [averages] if alone else averages


def _optimizers(model: nn.Module, given: Any) -> list[Optimizer]:
    """Return optimizers as a list, each of the model's parameters."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    optimizers = [] if given is None else list(given) if several else [given]
    own = {id(parameter) for parameter in model.parameters()}
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise SearchError(f"optimizer is {optimizer!r}; expected an Optimizer, or several")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if own.isdisjoint(held):
            title = type(optimizer).__name__
            raise SearchError(f"{title} holds none of the model's parameters (pruned in a copy?)")
    return optimizers


def _moved(inputs: Any, device: torch.device | str | None) -> Any:
    if device is None:
        return inputs
    return tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, inputs)
