"""Remove channels in the middle of training: gradients, optimizer state and averaged copies too."""

import copy
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwcost.errors import HwcostWarning, SearchError
from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels, Cut
from hwcost.search.slicing import kept_or_not, named_tensors, without
from hwcost.search.slicing_attributes import set_attributes

#: A moving average of a model: a copy of it (also inside ``AveragedModel`` and the like), its
#: tensors by name, or its parameters' averages in the order of ``model.parameters()``.
Average = nn.Module | dict[str, Tensor] | list[Tensor]


@dataclass(frozen=True)
class Training:
    """A model and all that has the shapes of its parameters.

    Attributes:
        model: the model; its parameters keep their identity.
        optimizers: of its parameters.
        ema: moving averages of the model.

    Raises:
        SearchError: an average does not fit the model.
    """

    model: nn.Module
    optimizers: Sequence[Optimizer] = ()
    ema: Sequence[Average] = ()

    def __post_init__(self) -> None:
        shapes = {name: t.shape for name, t in named_tensors(self.model).items()}
        for average in self.ema:
            for name, tensor in _averages(self.model, average).items():
                if name in shapes and tensor.shape != shapes[name]:
                    found, due = tuple(tensor.shape), tuple(shapes[name])
                    raise SearchError(f"ema: {name!r} has shape {found}; the model's has {due}")

    def remove(self, channels: Channels, alive: Tensor) -> None:
        """Remove the classes of channels that are not alive.

        Args:
            channels: of the model as it is now.
            alive: bool, shape ``(n_classes,)``.
        """
        keep = kept_or_not(alive)
        cuts = _losing(channels, keep)
        averages = [(average, _averages(self.model, average)) for average in self.ema]
        self._remove_all(cuts, keep)
        for average, tensors in averages:
            for name, tensor in tensors.items():
                if cuts.get(name):
                    replace_data(tensor, without(tensor.data, cuts[name], keep))
            if isinstance(average, nn.Module):
                set_attributes(_like(self.model, average), channels, keep)
        set_attributes(self.model, channels, keep)

    def twins(self, module: nn.Module) -> list[nn.Module]:
        """Return what stands for a module of the model in averages, itself first."""
        path = next((p for p, own in self.model.named_modules() if own is module), None)
        copies = (_like(self.model, one) for one in self.ema if isinstance(one, nn.Module))
        named = (dict(copy.named_modules()) for copy in copies)
        return [module, *(modules[path] for modules in named if path in modules)]

    def _remove_all(self, cuts: Mapping[str, Sequence[Cut]], keep: Tensor) -> None:
        named = {name: t for name, t in named_tensors(self.model).items() if cuts.get(name)}
        shapes = {name: tensor.shape for name, tensor in named.items()}
        for name, tensor in named.items():
            gradient = tensor.grad
            replace_data(tensor, without(tensor.data, cuts[name], keep))
            if gradient is not None:
                tensor.grad = without(gradient, cuts[name], keep)
        for optimizer in self.optimizers:
            lost = _remove_joint(optimizer, named) or [
                name
                for name, tensor in named.items()
                if not _remove_state(optimizer, tensor, shapes[name], cuts[name], keep)
            ]
            if lost:
                _warn(optimizer, lost)


def _losing(channels: Channels, keep: Tensor) -> dict[str, tuple[Cut, ...]]:
    """Return the cuts that take something away."""
    found = {
        name: tuple(cut for cut in own if not bool(keep[cut.classes].all()))
        for name, own in channels.cuts.items()
    }
    return {name: own for name, own in found.items() if own}


def replace_data(tensor: Tensor, data: Tensor) -> None:
    """Give a tensor other data, of another shape perhaps; it loses its gradient.

    A graph of an earlier step that is still alive holds the shape that its gradient had. Setting
    data of another type first is what makes autograd forget it.
    """
    tensor.grad = None
    other = torch.float64 if data.dtype != torch.float64 else torch.float32
    if data.is_floating_point() and tensor.requires_grad:
        tensor.data = torch.empty(0, dtype=other, device=data.device)
    tensor.data = data


def _remove_state(
    optimizer: Optimizer, parameter: Tensor, shape: torch.Size, cuts: Sequence[Cut], keep: Tensor
) -> bool:
    """Remove channels from what an optimizer knows of a parameter; return False if it forgets it.

    Args:
        shape: the parameter's, before.
    """
    state = optimizer.state.get(parameter)
    if not state:
        return True
    if not all(_is_scalar(value) or _has_shape(value, shape) for value in state.values()):
        del optimizer.state[parameter]
        return False
    for key, value in state.items():
        if _has_shape(value, shape):
            state[key] = without(value, cuts, keep)
    return True


def _has_shape(value: object, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def _is_scalar(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0
    return value is None or isinstance(value, bool | int | float | str)


def _remove_joint(optimizer: Optimizer, named: Iterable[str]) -> list[str]:
    """Let an optimizer start anew that keeps one state for all; return what it forgets."""
    if not _is_joint(optimizer) or not optimizer.state:
        return []
    optimizer.state.clear()
    _forget(optimizer)
    return list(named)


def _is_joint(optimizer: Optimizer) -> bool:
    """Whether an optimizer keeps one state for all its parameters, as LBFGS does."""
    return hasattr(optimizer, "_numel_cache")


def _forget(optimizer: Optimizer) -> None:
    """Let such an optimizer count its parameters again."""
    if _is_joint(optimizer):
        optimizer._numel_cache = None  # type: ignore[attr-defined]


def _warn(optimizer: Optimizer, names: Sequence[str]) -> None:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    warnings.warn(
        f"{type(optimizer).__name__} keeps a state of {names[0]!r}{more} that is not of its "
        "shape: it starts anew there",
        HwcostWarning,
        stacklevel=_levels(),
    )


def _levels() -> int:
    """Return the ``stacklevel`` at which a warning of the caller's points at the user's code."""
    frames = inspect.stack(context=0)[1:]
    names = (str(frame.frame.f_globals.get("__name__")) for frame in frames)
    ours = (level for level, name in enumerate(names, 1) if not name.startswith("hwcost."))
    return next(ours, 1)


def _averages(model: nn.Module, average: Average) -> Mapping[str, Tensor]:
    """Return the tensors of an average by the names that they have in the model.

    Raises:
        SearchError: it is no average of this model.
    """
    if isinstance(average, nn.Module):
        return named_tensors(_like(model, average))
    if isinstance(average, dict):
        named = {without_compiler(name): tensor for name, tensor in average.items()}
        if named and named.keys().isdisjoint(named_tensors(model)):
            raise SearchError(f"ema: {next(iter(average))!r} is none of the model's tensors")
        return named
    names = [without_compiler(name) for name, _ in model.named_parameters()]
    if not isinstance(average, list) or len(average) != len(names):
        raise SearchError(
            f"ema is {type(average).__name__}; expected a copy of the model, a dict of tensors by "
            f"name, or a list of {len(names)} tensors"
        )
    return dict(zip(names, average, strict=True))


def _like(model: nn.Module, average: nn.Module) -> nn.Module:
    """Return the part of an average that has the model's parameters."""
    names = [name for name, _ in model.named_parameters()]
    found = average
    while [name for name, _ in found.named_parameters()] != names:
        inner = list(found.children())
        if len(inner) != 1:
            raise SearchError(f"ema: {type(average).__name__} is no copy of the model")
        found = inner[0]
    return found


@dataclass
class Snapshot:
    """What a model and all that hangs on it were just before channels are removed.

    What is cut gets new memory then, so that the old need not be copied.

    Args:
        training: the model and what hangs on it.
        channels: of the model.
        alive: which classes of channels will be left.
    """

    training: Training
    channels: InitVar[Channels]
    alive: InitVar[Tensor]
    _tensors: list[tuple[Tensor, Tensor, Tensor | None]] = field(init=False)
    _modules: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = field(init=False)
    _states: list[tuple[Optimizer, dict[Any, Any]]] = field(init=False)

    def __post_init__(self, channels: Channels, alive: Tensor) -> None:
        training = self.training
        models = [m for m in (training.model, *training.ema) if isinstance(m, nn.Module)]
        cut = self._cut(_losing(channels, kept_or_not(alive)))
        self._tensors = [_kept(tensor, id(tensor) in cut) for tensor in self._all(models)]
        self._modules = [
            (module, type(module), _plain(module)) for m in models for module in m.modules()
        ]
        self._states = [(o, _copied(o.state)) for o in training.optimizers]

    def restore(self) -> None:
        """Make everything what it was."""
        for tensor, data, gradient in self._tensors:
            replace_data(tensor, data)
            tensor.grad = gradient
        for module, cls, attributes in self._modules:
            module.__class__ = cls
            module.__dict__.update(attributes)
        for optimizer, state in self._states:
            optimizer.state.clear()
            optimizer.state.update(state)
            _forget(optimizer)

    def _cut(self, names: Iterable[str]) -> set[int]:
        """Return the identities of all tensors of some names."""
        model = self.training.model
        found = [named_tensors(model), *(_averages(model, one) for one in self.training.ema)]
        return {id(named[name]) for named in found for name in names if name in named}

    def _all(self, models: Iterable[nn.Module]) -> list[Tensor]:
        own = [t for m in models for t in (*m.parameters(), *m.buffers())]
        others = (a for a in self.training.ema if not isinstance(a, nn.Module))
        loose = [t for a in others for t in (a.values() if isinstance(a, dict) else a)]
        return list({id(t): t for t in (*own, *loose)}.values())


def _kept(tensor: Tensor, cut: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a tensor with its data and gradient, copied unless they will be cut."""
    data, gradient = tensor.data, tensor.grad
    if cut:
        return tensor, data, gradient
    return tensor, data.clone(), None if gradient is None else gradient.clone()


def _plain(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes, except what ``nn.Module`` itself keeps."""
    kept = ("_parameters", "_buffers", "_modules")
    return {k: v for k, v in vars(module).items() if k not in kept and not k.endswith("_hooks")}


def _copied(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return an optimizer's state; its keys stay the parameters themselves."""
    return {key: copy.deepcopy(value) for key, value in state.items()}
