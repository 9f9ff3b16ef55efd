"""NMPruning: of every m consecutive weights the n largest, chosen anew at every step.

Source:
    Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch, ICLR
    2021, openreview K9bw7vqp_s (SR-STE).
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.lean import LeanForward
from hwcost.search.method import Method
from hwcost.search.nm_layers import NMLayer, find_layers
from hwcost.search.nm_patterns import Pruned
from hwcost.search.nm_shares import Shares
from hwcost.search.pit_layers import Selection
from hwcost.search.quantized_step import stored
from hwcost.search.swap import FORWARD, TRANSFORMS, add_transform, drop_forward, owners
from hwcost.search.table import Cell
from hwcost.search.weights import WeightMask


class NMMethod(Method):
    """NMPruning as one of several methods of a search; for its arguments see ``NMPruning``."""

    title = "NMPruning"

    def __init__(
        self,
        *,
        n: int = 1,
        m: int = 4,
        exclude_names: Sequence[str] = (),
        exclude_types: Sequence[type[nn.Module]] = (),
        depthwise: bool = False,
        decay: float = 2e-4,
    ) -> None:
        super().__init__()
        _check(n, m, decay)
        self.n, self.m, self.decay, self.depthwise = n, m, float(decay), depthwise
        self.selection = Selection(exclude_names, exclude_types)
        self.layers: tuple[NMLayer, ...] = ()
        self.missed: tuple[str, ...] = ()
        self._masks: dict[int, Tensor] | None = None
        self._there: Tensor | None = None

    def attach(self, search: Search) -> None:
        """Find the weights to prune, and where their shares stand."""
        self.selection.check(search.model)
        _refuse_reordering(search)
        found = find_layers(
            search.model, search.traced, search.channels, self.selection, self.depthwise
        )
        self.layers, self.missed = found.layers, found.missed
        if not self.layers:
            raise SearchError(_nothing(search, self.selection, self.missed))
        self._search = [search]
        traced = search.traced.workload.column("density")
        dense = [float(traced[layer.rows[0]]) if layer.rows else 1.0 for layer in self.layers]
        self._shares = Shares(self.layers, self.n, self.m, dense)
        self._start = search.reserve(self._shares.total)

    def finish(self, search: Search) -> None:
        """Prune weights behind all masks and before what rounds them."""
        for number, layer in enumerate(self.layers):
            parameter = stored(search.model, layer.weight)
            for module, attribute in owners(search.model, parameter):
                if layer.kernel:
                    _refuse_searched_kernel(search, layer, module, attribute)
                add_transform(module, attribute, _Pattern(self, number))
                transforms = module.__dict__[TRANSFORMS]
                transforms[attribute] = tuple(sorted(transforms[attribute], key=_stage))
                if isinstance(module.__dict__.get(FORWARD), LeanForward):
                    drop_forward(module)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Make every pattern once for the body."""
        outermost = self._masks is None
        if outermost:
            self._masks = {}
        try:
            yield
        finally:
            if outermost:
                self._masks = self._there = None

    def pruned(self, number: int, weight: Tensor) -> Tensor:
        """Return a weight of which n of every m are left."""
        masks = {} if self._masks is None else self._masks
        if number not in masks:
            masks[number] = self._mask(number, weight)
        found: Tensor = Pruned.apply(weight, masks[number], self.decay)  # type: ignore[no-untyped-call]
        return found

    def _mask(self, number: int, weight: Tensor) -> Tensor:
        alive = None
        if self._search[0].alive.factors:
            alive = self._there if self._there is not None else self._alive()
            self._there = alive if self._masks is not None else None
        return self.layers[number].mask(weight, self.n, self.m, alive)

    def _alive(self) -> Tensor:
        """Return which classes of channels an export keeps; the last entry stands for -1."""
        alive = self._search[0].alive.hard()
        return torch.cat([alive, torch.ones(1, dtype=torch.bool)])

    def entries(self) -> Tensor | None:
        if not self.layers:
            return None
        alive = self._search[0].alive
        device = alive.soft().device if alive.factors else torch.device("cpu")
        if "workload_reference" not in vars(self._search[0]):
            return self._shares.before.to(device)  # that reference is the network before a search
        return self._shares(self._alive()).to(device)

    def cells(self) -> list[Cell]:
        return self._shares.cells(self._start)

    def decisions(self) -> Hashable:
        """Return how many weights are 0 by themselves: those are not in an export's density."""
        weights = [stored(self._search[0].model, layer.weight) for layer in self.layers]
        return tuple(0 if w.is_meta else int(w.count_nonzero()) for w in weights)

    @torch.no_grad()
    def export(self, model: nn.Module) -> nn.Module:
        alive = self._alive()
        for layer in self.layers:
            weight = model.get_parameter(layer.weight)
            mask = layer.sliced_mask(weight, self.n, self.m, alive)
            weight.data.masked_fill_(~mask, 0)
        return model

    def summary(self) -> list[str]:
        shares = self._shares(self._alive()).view(-1, 2).tolist()
        lines = [
            f"{layer.path or layer.weight}: {self.n} of {self.m}"
            f"{' along the kernel' if layer.kernel else ''}, density {kept / total:.3g}"
            for layer, (kept, total) in zip(self.layers, shares, strict=True)
        ]
        return [*lines, *self.missed]


class _Pattern:
    """Transform of a weight: what is left of it."""

    def __init__(self, method: NMMethod, number: int) -> None:
        self.method, self.number = method, number

    def __call__(self, module: Any, parameter: Tensor) -> Tensor:
        return self.method.pruned(self.number, parameter)


def _stage(transform: object) -> int:
    """Return when a transform has its turn: masks, patterns, then what rounds."""
    return 0 if isinstance(transform, WeightMask) else 1 if isinstance(transform, _Pattern) else 2


def _refuse_reordering(search: Search) -> None:
    """Refuse methods after which other channels stand beside one another."""
    for method in search.each_method():
        if hasattr(method, "reordering"):
            raise SearchError(
                f"{method.title} orders the channels of an export by engine, which would take "
                "apart the groups of NMPruning; they cannot be in one search"
            )


def _refuse_searched_kernel(search: Search, layer: NMLayer, module: nn.Module, name: str) -> None:
    """Refuse a kernel along which there are groups and from which another method takes taps."""
    transforms = module.__dict__.get(TRANSFORMS, {}).get(name, ())
    masks = [t.mask for t in transforms if isinstance(t, WeightMask)]
    factors = [factor for mask in masks for factor in mask.masks.factors[mask.number]]
    if any(int(factor.max()) >= search.channels.n_classes for factor in factors):
        raise SearchError(
            f"layer {layer.path!r}: NMPruning(depthwise=True) prunes along a kernel whose taps "
            "another method removes; leave the layer out of one of them, or use "
            "PIT(train_rf=False, train_dilation=False)"
        )


def _check(n: int, m: int, decay: float) -> None:
    for name, value, least in (("n", n, 1), ("m", m, 2)):
        if type(value) is not int or value < least:
            raise SearchError(f"{name} is {value!r}; expected a whole number, {least} or more")
    if n > m:
        raise SearchError(f"n is {n} and m is {m}; expected n of every m weights to stay, n <= m")
    if isinstance(decay, bool) or not isinstance(decay, int | float):
        raise SearchError(f"decay is {decay!r}; expected a number")
    if not (math.isfinite(decay) and decay >= 0):
        raise SearchError(f"decay is {decay!r}; expected 0 or more")


def _nothing(search: Search, selection: Selection, missed: Sequence[str]) -> str:
    left = f"; {'; '.join(missed[:3])}" if missed else ""
    name = type(search.model).__name__
    return f"{name} has no layer that NMPruning can prune{selection.why()}{left}"


class NMPruning(Search):
    """Prune weights to n of every m: the pattern that sparse engines run.

    A network's forward sees the n largest, by absolute value, of every m consecutive weights
    along a layer's input channels (at one position of a kernel). The others are 0 there, and
    still train: they get the gradient as if they were not, and ``decay`` times themselves.
    Pretrained weights are kept. Where channels are removed, groups are counted over those that
    are alive. Of the rest of a group, n/m stay, rounded up.

    The pattern is in ``density`` of the op table. ``export`` leaves zeros in the weights.

    Without a model it is one method for ``Search(model, example, [PIT(), NMPruning(n=2)])``.

    Args:
        model, example, cost, input_shape, input_example, seed: as for ``Search``.
        n: how many weights stay of ``m``.
        m: how many consecutive weights make a group.
        exclude_names: layers that stay as they are, by module path; of a container, all in it.
        exclude_types: classes of layers that stay as they are.
        depthwise: prune depthwise convolutions too, along the positions of their kernels.
        decay: how fast weights that do not stay shrink, in the units of a gradient.

    Raises:
        SearchError: no layer can be pruned, or ``n`` and ``m`` make no sense.
        UnknownName: an excluded name does not exist.

    Source:
        openreview K9bw7vqp_s.
    """

    method = NMMethod

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        cost: Any = "counts:params",
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
        n: int = 1,
        m: int = 4,
        exclude_names: Sequence[str] = (),
        exclude_types: Sequence[type[nn.Module]] = (),
        depthwise: bool = False,
        decay: float = 2e-4,
    ) -> None:
        method = NMMethod(
            n=n,
            m=m,
            exclude_names=exclude_names,
            exclude_types=exclude_types,
            depthwise=depthwise,
            decay=decay,
        )
        inputs = {"input_shape": input_shape, "input_example": input_example}
        super().__init__(model, example, [method], cost=cost, seed=seed, **inputs)
