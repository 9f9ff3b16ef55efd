"""PIT: output channels, receptive fields, dilations and kernels as trainable masks.

Source:
    Risso et al., Lightweight Neural Architecture Search for Temporal Convolutional Networks at
    the Edge, arXiv:2301.10281. Kernels of two and more dimensions are ours.
"""

from collections.abc import Hashable, Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.channels import Axis, Channels
from hwcost.search.gates import KernelBank, MaskBank
from hwcost.search.layers import PLAIN
from hwcost.search.method import Method
from hwcost.search.pit_kernels import Kernel, kernels
from hwcost.search.pit_layers import Selection
from hwcost.search.table import Cell


def _switch(kind: str, meaning: str) -> property:
    """Return a property that says, and sets, whether a kind of decision is trained."""

    def is_trained(self: "PITMethod") -> bool:
        return self._train[kind]

    def set_trained(self: "PITMethod", train: bool) -> None:
        self._set_training(kind, train)

    return property(is_trained, set_trained, doc=meaning)


class PITMethod(Method):
    """PIT as one of several methods of a search; for its arguments see ``PIT``."""

    title = "PIT"

    def __init__(
        self,
        *,
        exclude_names: Sequence[str] = (),
        exclude_types: Sequence[type[nn.Module]] = (),
        autoconvert_layers: bool = True,
        channel_multiple: int = 1,
        discrete_cost: bool = False,
        train_features: bool = True,
        train_rf: bool = True,
        train_dilation: bool = True,
    ) -> None:
        super().__init__()
        if type(channel_multiple) is not int or channel_multiple < 1:
            raise SearchError(f"channel_multiple is {channel_multiple!r}; expected 1 or more")
        self.selection = Selection(exclude_names, exclude_types, autoconvert_layers)
        self.channel_multiple = channel_multiple
        self.discrete_cost = discrete_cost
        self.channel_masks = MaskBank()
        self.kernel_masks = KernelBank()
        self.kernels: list[Kernel] = []
        self._start = 0
        self._train = {"features": train_features, "rf": train_rf, "dilation": train_dilation}

    def attach(self, search: Search) -> None:
        """Lay a mask on every set of channels and on every kernel that may be searched."""
        self.selection.check(search.model)
        axes = [a for a in search.channels.axes if self.selection.takes_all(a, search.model)]
        for axis in axes:
            self.channel_masks.add(axis.name, axis.size, self._multiple(axis, search))
        if axes:
            factor = _Channels(self, axes, search.channels.n_classes)
            search.alive.add(factor)
            for entries in factor.parts(search.channels):
                self.channel_masks.keep_one_of(entries)
        flat, wide = self.train_rf or self.train_dilation, self.train_rf
        self.kernels = list(kernels(search, self.selection, flat, wide))
        for kernel in self.kernels:
            dilated = self.train_dilation and kernel.flat and kernel.size > 2
            self.kernel_masks.add(kernel.weight, kernel.size, dilation=dilated)
        self._start = search.reserve(self.kernel_masks.total)
        for kernel in self.kernels:
            entries = kernel.distances + self._start + self._place(kernel).start
            search.mask_weight(kernel.weight, entries)
        if not axes and not self.kernels:
            raise SearchError(_nothing(search, self.selection))
        for what, train in self._train.items():
            self._set_training(what, train)

    def _place(self, kernel: Kernel) -> slice:
        return self.kernel_masks.places[kernel.weight]

    def project(self) -> None:
        self.channel_masks.project()
        self.kernel_masks.project()

    def entries(self) -> Tensor | None:
        if not self.kernels:
            return None
        return self.kernel_masks.binary() if self.discrete_cost else self.kernel_masks.soft()

    def binary_entries(self) -> Tensor | None:
        return self.kernel_masks.binary() if self.kernels else None

    def hard_entries(self) -> Tensor | None:
        return self.kernel_masks.hard().float() if self.kernels else None

    def cells(self) -> list[Cell]:
        starts = [self._start + self._place(kernel).start for kernel in self.kernels]
        pairs = zip(self.kernels, starts, strict=True)
        return [cell for kernel, start in pairs for cell in kernel.cells(start)]

    def decisions(self) -> Hashable:
        return tuple(self.kernel_masks.hard().tolist()) if self.kernels else ()

    def export(self, model: nn.Module) -> nn.Module:
        alive = self._alive_taps()
        for kernel in self.kernels:
            kernel.export(model, alive[self._place(kernel)])
        for module in model.modules():
            module.__class__ = PLAIN.get(type(module), type(module))
        return model

    def summary(self) -> list[str]:
        alive = self._alive_taps()
        shrunk = [k for k in self.kernels if not bool(alive[self._place(k)].all())]
        return [kernel.summary(alive[self._place(kernel)]) for kernel in shrunk]

    def _alive_taps(self) -> Tensor:
        return self.kernel_masks.hard().cpu()

    train_features = _switch("features", "Whether channel masks are trained.")
    train_rf = _switch("rf", "Whether receptive fields and kernels are trained.")
    train_dilation = _switch("dilation", "Whether dilations are trained.")

    def _set_training(self, what: str, train: bool) -> None:
        self._train[what] = train
        kernels = self.kernel_masks
        groups = {
            "features": list(self.channel_masks.parameters()),
            "rf": [kernels.beta],
            "dilation": [kernels.gamma],
        }
        for parameter in groups[what]:
            parameter.requires_grad_(train and parameter.numel() > 0)

    def knobs(self) -> dict[str, nn.Parameter]:
        """Return the decisions by name; a kind of which there are none has no entry."""
        return {name: p for name, p in self.named_parameters() if p.numel()}

    def trains(self, knob: str) -> bool:
        kinds = {"alpha": "features", "beta": "rf", "gamma": "dilation"}
        return self._train[kinds[knob.rpartition(".")[2]]]

    def _multiple(self, axis: Axis, search: Search) -> int:
        """Return how many classes survive together so that layers keep whole blocks."""
        if self.channel_multiple == 1:
            return 1
        members = range(axis.start, axis.start + axis.size)
        cuts = [set(cut.classes.tolist()) for cut in search.channels.cuts[axis.producers[0]]]
        sizes = [len(cut.classes) for cut in search.channels.cuts[axis.producers[0]]]
        made = [n for n, held in zip(sizes, cuts, strict=True) if held & set(members)]
        width = max(made[0] // axis.size, 1)
        return self.channel_multiple // gcd(self.channel_multiple, width)


class _Channels:
    """The factor of channels that PIT contributes: its masks, and 1 where it has none."""

    def __init__(self, method: PITMethod, axes: Sequence[Axis], n_classes: int) -> None:
        self.method, self.n_classes = method, n_classes
        places = [torch.arange(axis.start, axis.start + axis.size) for axis in axes]
        self.places = torch.cat(places)
        self.complete = len(self.places) == n_classes
        self.names = {axis.name for axis in axes}

    def parts(self, channels: Channels) -> list[Tensor]:
        """Return the entries of each layer that has a part of the searched channels only.

        Of a whole axis one channel always stays; of what a layer reads or makes of it, one must.
        """
        entry = torch.full((self.n_classes + 1,), -1)
        entry[self.places] = torch.arange(len(self.places))
        sizes = [axis.size for axis in channels.axes]
        axis_of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        sets = {tuple(cut.classes.unique().tolist()) for cs in channels.cuts.values() for cut in cs}
        found = []
        for classes in sorted(sets):
            members = torch.tensor(classes)
            counts = axis_of[members].bincount(minlength=len(sizes)).tolist()
            certain = min(classes) < 0 or any(
                n == size for n, size in zip(counts, sizes, strict=True)
            )
            if not certain and bool((entry[members] >= 0).all()):
                found.append(entry[members])
        return found

    def soft(self) -> Tensor:
        bank = self.method.channel_masks
        return self._spread(bank.binary() if self.method.discrete_cost else bank.soft())

    def binary(self) -> Tensor:
        return self._spread(self.method.channel_masks.binary())

    def hard(self) -> Tensor:
        alive = torch.ones(self.n_classes, dtype=torch.bool)
        alive[self.places] = self.method.channel_masks.hard().cpu()
        return alive

    def _spread(self, values: Tensor) -> Tensor:
        if self.complete:
            return values
        return values.new_ones(self.n_classes).index_copy(0, self.places.to(values.device), values)


class PIT(Search):
    """Search over channels, receptive fields, dilations and kernels of a network.

    Without a model it is one method for ``Search(model, example, [PIT(...), ...])``.

    Args:
        model, example, cost, input_shape, input_example, seed: as for ``Search``.
        exclude_names: layers that stay as they are, by module path; of a container, all in it.
        exclude_types: classes of layers that stay as they are.
        autoconvert_layers: False searches only ``PITConv1d`` ... ``PITLinear`` in the model.
        channel_multiple: keep channels in blocks of so many, as SIMD lanes want; the last block
            may be smaller only where all channels stay.
        discrete_cost: let costs count what is alive, not the masks' soft values.
        train_features, train_rf, train_dilation: what is trained: channels; receptive fields
            of 1-D convolutions and kernels of others; dilations.

    Raises:
        SearchError: no layer can be searched.
        UnknownName: an excluded name does not exist.

    Source:
        arXiv:2301.10281.
    """

    method = PITMethod

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        cost: Any = "counts:params",
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
        exclude_names: Sequence[str] = (),
        exclude_types: Sequence[type[nn.Module]] = (),
        autoconvert_layers: bool = True,
        channel_multiple: int = 1,
        discrete_cost: bool = False,
        train_features: bool = True,
        train_rf: bool = True,
        train_dilation: bool = True,
    ) -> None:
        method = PITMethod(
            exclude_names=exclude_names,
            exclude_types=exclude_types,
            autoconvert_layers=autoconvert_layers,
            channel_multiple=channel_multiple,
            discrete_cost=discrete_cost,
            train_features=train_features,
            train_rf=train_rf,
            train_dilation=train_dilation,
        )
        inputs = {"input_shape": input_shape, "input_example": input_example}
        super().__init__(model, example, [method], cost=cost, seed=seed, **inputs)


def _nothing(search: Search, selection: Selection) -> str:
    frozen = [f"{name}: {why}" for name, why in search.channels.frozen.items()]
    kept = f"; kept: {'; '.join(frozen[:3])}" if frozen else ""
    return f"{type(search.model).__name__} has no layer that PIT can search{selection.why()}{kept}"
