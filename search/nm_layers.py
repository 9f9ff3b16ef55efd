"""The weights that N:M sparsity can be laid on, and along which of their dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwcost.recorder_values import Call, Recording, Ref, TensorInfo, product
from hwcost.search.channels import Channels
from hwcost.search.channels_constants import WEIGHT_NORM
from hwcost.search.nm_patterns import pattern
from hwcost.search.pit_layers import Selection, layer_of
from hwcost.search.points import PRODUCTS, WEIGHTED
from hwcost.search.quantized_step import stored
from hwcost.tracing import Traced


@dataclass(frozen=True, eq=False)
class NMLayer:
    """A weight of which n of every m stay.

    Attributes:
        weight: name of the parameter.
        dim: its dimension of input channels; 2 with ``kernel``.
        blocks: equal parts of that dimension whose groups are their own.
        kernel: whether groups lie along the kernel's positions instead, all in a row.
        classes: class of each entry along the dimension, -1 where it stays; int64.
        rows: of the traced table that read it.
    """

    weight: str
    dim: int
    blocks: int
    kernel: bool
    classes: Tensor
    rows: tuple[int, ...]

    @property
    def path(self) -> str:
        """The layer."""
        return layer_of(self.weight)

    def mask(self, weight: Tensor, n: int, m: int, alive: Tensor | None = None) -> Tensor:
        """Return which numbers of the weight stay, bool.

        Args:
            weight: as it is stored, or without its dead channels.
            n, m: so many of so many.
            alive: bool, shape ``(n_classes + 1,)``, the last True; None where nothing is dead.
        """
        if self.kernel:
            return pattern(weight.flatten(2), 2, n, m).view(weight.shape)
        there = None if alive is None else alive[self.classes]
        return pattern(weight, self.dim, n, m, self.blocks, there)

    def sliced_mask(self, weight: Tensor, n: int, m: int, alive: Tensor) -> Tensor:
        """Return ``mask`` of a weight whose dead channels are gone."""
        left = alive[self.classes].view(self.blocks, -1).any(1)
        if self.kernel:
            return self.mask(weight, n, m)
        return pattern(weight, self.dim, n, m, max(int(left.sum()), 1))


@dataclass(frozen=True)
class Found:
    """Weights to prune, and why others are left as they are, one line each."""

    layers: tuple[NMLayer, ...]
    missed: tuple[str, ...]


@dataclass(frozen=True)
class _Use:
    """How a call reads a weight: see ``NMLayer``."""

    dim: int
    blocks: int = 1
    kernel: bool = False


def find_layers(
    model: nn.Module, traced: Traced, channels: Channels, selection: Selection, depthwise: bool
) -> Found:
    """Return the weights of convolutions, linear layers and products that may be pruned."""
    uses = _uses(traced.recording)
    layers, missed = [], []
    for name, found in uses.items():
        path = layer_of(name)
        if not selection.takes(path, model.get_submodule(path)):
            continue
        calls, ways = zip(*found, strict=True)
        why = _why_not(set(ways), depthwise)
        if why:
            missed.append(f"{path or name}: {why}")
            continue
        rows = tuple(row for row, call in enumerate(traced.calls) if call in calls)
        layers.append(_layer(name, ways[0], stored(model, name), channels, rows))
    return Found(tuple(layers), tuple(missed))


def _why_not(ways: set[_Use | str], depthwise: bool) -> str:
    """Return why a weight is left as it is, "" where it is not."""
    words = [way for way in ways if isinstance(way, str)]
    if words:
        return words[0]
    if len(ways) > 1:
        return "stays dense: it is read along several dimensions"
    kernels = any(way.kernel for way in ways if isinstance(way, _Use))
    return "stays dense: depthwise, see depthwise=True" if kernels and not depthwise else ""


def _layer(
    name: str, use: "_Use | str", weight: nn.Parameter, channels: Channels, rows: tuple[int, ...]
) -> NMLayer:
    assert isinstance(use, _Use)
    size = product(weight.shape[2:]) if use.kernel else weight.shape[use.dim]
    classes = torch.full((size,), -1)
    for cut in channels.cuts.get(name, ()):
        if cut.dim == use.dim and not use.kernel:
            classes = cut.classes
    return NMLayer(name, use.dim, use.blocks, use.kernel, classes, rows)


def _uses(recording: Recording) -> dict[str, list[tuple[int, "_Use | str"]]]:
    """Return the calls that multiply by each parameter, and how."""
    tensors = recording.tensors
    stored = {tensors[ref].storage: ref for ref in recording.parameters}
    uses: dict[str, list[tuple[int, _Use | str]]] = {}
    for index, call in enumerate(recording.calls):
        argument = WEIGHTED.get(call.op.name)
        view = None if argument is None else _directions(recording, call.arg(argument))
        ref = None if view is None else stored.get(tensors[view].storage)
        if view is None or ref is None:
            continue
        use = _use(recording, call, tensors[view], tensors[ref])
        if use is not None:
            uses.setdefault(recording.parameters[ref], []).append((index, use))
    return uses


def _directions(recording: Recording, ref: Ref) -> Ref:
    """Return a weight, or of one under weight norm the directions: they are 0 where it is."""
    producer = recording.tensors[ref].producer
    call = recording.calls[producer] if producer >= 0 else None
    return call.args[0] if call is not None and call.op.name == WEIGHT_NORM else ref


def _use(
    recording: Recording, call: Call, view: TensorInfo, stored: TensorInfo
) -> "_Use | str | None":
    """Return how a call reads a weight, or why it cannot be pruned; None if there is nothing to."""
    if call.op.name.endswith("convolution"):
        return _convolved(recording, call, view, stored)
    read = 0 if call.op.name in PRODUCTS else 1
    if len(view.shape) != 2 or len(stored.shape) != 2 or not view.stride:
        return "stays dense: it is not read as a matrix"
    places = [d for d in _likely(view, read) if _at(stored, d) == _at(view, read)]
    if not places:
        return "stays dense: a part of it is read"
    return _Use(places[0]) if view.shape[read] > 1 else None


def _likely(view: TensorInfo, read: int) -> Iterator[int]:
    """Yield the dimension that a matrix is read along, as it is stored, before the other one."""
    turned = view.stride[0] < view.stride[1]
    yield from (1 - read, read) if turned else (read, 1 - read)


def _at(info: TensorInfo, dim: int) -> tuple[int, int]:
    return info.shape[dim], info.stride[dim]


def _convolved(
    recording: Recording, call: Call, view: TensorInfo, stored: TensorInfo
) -> "_Use | str | None":
    if view.shape != stored.shape or view.stride != stored.stride:
        return "stays dense: a part of it is read"
    groups, turned = call.arg("groups"), bool(call.arg("transposed"))
    channels = recording.tensors[call.arg("input")].shape[-len(view.shape) + 1]
    if groups > 1 and groups == channels:
        return _Use(2, kernel=True) if product(view.shape[2:]) > 1 else None
    if channels == groups:
        return None
    return _Use(0, groups) if turned else _Use(1)
