"""Which units of which modules stand or fall together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import UnknownName, suggestion
from hwcost.recorder import record
from hwcost.recorder_values import Call, Recording, without_compiler
from hwcost.search.channels import Channels, find_channels
from hwcost.search.pit_layers import layer_of
from hwcost.tracing import Recorded

#: Modules whose units lie along the last dimension of what they return; others', along the second.
LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase)


@dataclass(frozen=True, eq=False)
class Coupling:
    """The classes of channels of a model, by module.

    A module's units are the channels of its output; of ``nn.MultiheadAttention``, its heads.

    Attributes:
        model: the model.
        recorded: its run.
        channels: the classes.
    """

    model: nn.Module
    recorded: Recorded
    channels: Channels

    def units(self, path: str) -> Tensor:
        """Return the class of each unit of a module, -1 where it stays; int64, (units,).

        Raises:
            UnknownName: there is no such module, or it has no units.
        """
        if path not in self._modules:
            raise UnknownName(f"no module {path!r}{suggestion(path, list(self._modules))}")
        module = self._modules[path]
        if isinstance(module, nn.MultiheadAttention):
            return self._heads(path, module)
        found = self._returned(path, module)
        if found is None:
            found = self._made(path)
        if found is None:
            raise UnknownName(f"module {path!r} ({type(module).__name__}) has no units of its own")
        return found

    def members(self, path: str) -> list[str]:
        """Return the modules whose weights make the channels of a module's units, itself first."""
        own = set(self.units(path).tolist()) - {-1}
        found = {path: None} if path in self.producers else {}
        for name, classes in self.producers.items():
            if not own.isdisjoint(classes):
                found[name] = None
        return list(found) or [path]

    @cached_property
    def producers(self) -> Mapping[str, frozenset[int]]:
        """Path of a module -> the classes that its weights make, in order of first use."""
        found: dict[str, frozenset[int]] = {}
        for axis in self.channels.axes:
            for name in axis.producers:
                path = layer_of(name)
                made = {c for cut in self.channels.cuts[name] for c in cut.classes.tolist()}
                inside = range(axis.start, axis.start + axis.size)
                found[path] = found.get(path, frozenset()) | made.intersection(inside)
        return found

    def returns_units(self, path: str) -> bool:
        """Whether a module runs, and returns its units; some are read for their weights only."""
        if not is_layer(self.module(path)):
            return False
        return any(scope.path == path for scope in self._recording.scopes)

    def why(self, path: str) -> str:
        """Return why the units of a module stay, "" if none does."""
        units = self.units(path)
        if bool((units >= 0).all()):
            return ""
        own = (why for name, why in self.channels.frozen.items() if layer_of(name) == path)
        return next(own, "they meet channels that stay")

    def module(self, path: str) -> nn.Module:
        """Return the module at a path."""
        return self._modules[path]

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        named = self.model.named_modules(remove_duplicate=False)
        return {without_compiler(name): module for name, module in named}

    @property
    def _recording(self) -> Recording:
        return self.recorded.recording

    @cached_property
    def _last_calls(self) -> Mapping[str, Call]:
        """Path -> the last call of a module's first run that returned something."""
        scopes = self._recording.scopes
        found: dict[str, Call] = {}
        for call in self._recording.calls:
            if call.outputs and scopes and scopes[call.scope].call == 0:
                found[scopes[call.scope].path] = call
        return found

    def _returned(self, path: str, module: nn.Module) -> Tensor | None:
        """Return the classes of what a module without modules inside returns."""
        call = self._last_calls.get(path)
        if call is None or not is_layer(module):
            return None
        ref = call.outputs[0]
        shape, fields = self._recording.tensors[ref].shape, self.channels.fields.get(ref, ())
        if len(shape) < 2:
            return None
        dim = self._dim(module, len(shape), [self._dim_of(f.classes) for f in fields])
        classes = torch.full((shape[dim],), -1)
        for field in fields:
            if self._dim_of(field.classes) == dim:
                classes = field.classes.reshape(-1)
        return classes

    @staticmethod
    def _dim_of(classes: Tensor) -> int:
        return max(range(classes.dim()), key=lambda d: classes.shape[d])

    @staticmethod
    def _dim(module: nn.Module, rank: int, known: Sequence[int]) -> int:
        if isinstance(module, LAST):
            return rank - 1
        return known[0] if len(known) == 1 and not any(True for _ in module.parameters()) else 1

    def _made(self, path: str) -> Tensor | None:
        """Return the classes of the channels that the weight of a module makes."""
        for name, cuts in self.channels.cuts.items():
            for cut in cuts:
                if layer_of(name) == path and cut.role == "out":
                    return cut.classes
        frozen = [n for n in self.channels.frozen if layer_of(n) == path]
        if not frozen:
            return None
        shapes = {without_compiler(n): p.shape for n, p in self.model.named_parameters()}
        return torch.full((shapes[frozen[0]][0],), -1)

    def _heads(self, path: str, module: nn.MultiheadAttention) -> Tensor:
        names = [f"{path}.{n}".lstrip(".") for n in ("in_proj_weight", "q_proj_weight")]
        for name in names:
            for cut in self.channels.cuts.get(name, ()):
                rows = module.num_heads * module.head_dim
                if cut.role == "out" and cut.dim == 0:
                    table = cut.classes[:rows].view(module.num_heads, module.head_dim)
                    same = bool((table == table[:, :1]).all())
                    return table[:, 0] if same else torch.full((module.num_heads,), -1)
        return torch.full((module.num_heads,), -1)


def find_coupling(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> Coupling:
    """Return which units of a model stand or fall together, from a run on an example.

    Args:
        model: the model; it is not changed.
        args: the example; kwargs: likewise.

    Raises:
        TraceError: the model does not run on the example.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    return coupled(model, Recorded(record(model, args, kwargs), args, kwargs))


def coupled(model: nn.Module, found: Recorded) -> Coupling:
    """Return which units of a model that ran stand or fall together."""
    channels = find_channels(model, found.recording, args=found.args, kwargs=found.kwargs)
    return Coupling(model, found, channels)


def is_layer(module: nn.Module) -> bool:
    """Whether a module has no others inside, parametrizations aside: it returns what it makes."""
    return all(name == "parametrizations" for name, _ in module.named_children())
