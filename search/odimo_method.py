"""ODiMO as a method: each output channel's engine as a trainable choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hwcost.costmodel import CostModel
from hwcost.errors import UnknownName
from hwcost.platform import Platform
from hwcost.search.base import Search
from hwcost.search.fold import plain_weights
from hwcost.search.method import Trace
from hwcost.search.odimo_forms import Forms
from hwcost.search.odimo_offers import LayerOffers, offers_by_weight, precisions, refuse_none
from hwcost.search.odimo_reorder import Reordering, reordering
from hwcost.search.options import GRANULARITIES, Option, check_known
from hwcost.search.pit_layers import Selection, layer_of
from hwcost.search.points import Points
from hwcost.search.quantize import QUANTIZERS, WEIGHT_RULES
from hwcost.search.quantized import QuantizedMethod
from hwcost.search.quantized_install import PointPlan
from hwcost.search.quantized_layers import Weight
from hwcost.search.quantized_now import Now
from hwcost.search.variants import Variant, expanded
from hwcost.workload import Workload

#: Bits of the network's outputs, which no engine reads.
OUTER_BITS = 8

#: The p of the norm over engines that stands for their maximum in a loss: at most 9 % above the
#: maximum of two, and a slope for the one that waits.
SMOOTH = 8.0


class ODiMOMethod(QuantizedMethod):
    """ODiMO as one of several methods of a search; for its arguments see ``ODiMO``."""

    title = "ODiMO"

    def __init__(
        self,
        platform: str | Path | Platform = "diana",
        metric: str = "latency",
        *,
        granularity: str = "channel",
        w_bits: Mapping[str, int] | None = None,
        a_bits: int | None = None,
        start: Mapping[str, float] | None = None,
        weight: str = "auto",
        activation: str = "pact",
        smooth: float = SMOOTH,
        exclude_names: Sequence[str] = (),
        exclude_types: Sequence[type[nn.Module]] = (),
    ) -> None:
        super().__init__()
        check_known("granularity", granularity, GRANULARITIES, UnknownName)
        check_known("weight", weight, WEIGHT_RULES, UnknownName)
        check_known("activation", activation, QUANTIZERS, UnknownName)
        self.costs = CostModel(platform, metric)
        self.platform = self.costs.platform
        self.bits = precisions(self.platform, w_bits, a_bits)
        self.start = dict(start or {})
        for name in self.start:
            check_known("start", name, self.platform.engines, UnknownName)
        self.granularity, self.rule, self.activation, self.smooth = (
            granularity,
            weight,
            activation,
            smooth,
        )
        self.selection = Selection(exclude_names, exclude_types)
        self.offers: dict[str, LayerOffers] = {}
        self.forms = Forms(self)
        self._order: Reordering | None = None

    def prepare(self, model: nn.Module, trace: Trace) -> None:
        plain_weights(model)
        self.selection.check(model)
        traced = trace(model)
        found = offers_by_weight(self.platform, traced, self.bits)
        self.offers = {
            name: self.forms.possible(model, traced.recording, name, offers)
            for name, offers in found.items()
            if self._takes(model, name)
        }
        self.forms.turn_dense(model)
        super().prepare(model, trace)
        self.forms.add_kernels(model)

    def _takes(self, model: nn.Module, weight: str) -> bool:
        path = layer_of(weight)
        return self.selection.takes(path, model.get_submodule(path))

    def plan_points(self, points: Points) -> list[PointPlan]:
        read = {layer.point for layer in points.layers}
        return [
            PointPlan(
                point,
                (OUTER_BITS if point.fixed and number not in read else self.bits.a_bits,),
                self.activation,
            )
            for number, point in enumerate(points.points)
        ]

    def weights_for(self, search: Search, points: Points) -> list[Weight]:
        taken = [layer for layer in points.layers if self._takes(search.model, layer.weight)]
        options = {
            layer.weight: self._options(layer.weight, self.offers.get(layer.weight))
            for layer in taken
        }
        self.options = tuple(sorted({o for own in options.values() for o in own}, key=self._rank))
        return self._weights(search, [(one, options[one.weight], self.rule) for one in taken])

    def _options(self, weight: str, offers: LayerOffers | None) -> tuple[Option, ...]:
        title = layer_of(weight) or weight
        found = [offer.option for offer in refuse_none(self.platform, title, offers)]
        return tuple(sorted(found, key=self._rank))

    def _rank(self, option: Option) -> tuple[int, int]:
        """Return where an option stands: the first of equally probable ones is taken."""
        return -option.bits, list(self.platform.engines).index(option.engine)

    def start_logits(self) -> Tensor:
        return torch.tensor([float(self.start.get(o.engine, 0.0)) for o in self.options])

    def attach(self, search: Search) -> None:
        super().attach(search)
        self._channels = [search.channels]
        self._row_variants = self.forms.variants(search, self._variants)

    def variants(self) -> Mapping[int, Sequence[Variant]]:
        return self._row_variants

    def reference(self, workload: Workload) -> Workload:
        assert self._entries is not None
        rows = self._entries.of_row.items()
        best = {row: [self.forms.usual(part.number)] for row, part in rows}
        return expanded(workload, [], best)[0]

    def finish(self, search: Search) -> None:
        super().finish(search)
        self.forms.refuse_removal(search)

    # The step.

    def weight(self, number: int, parameter: Tensor) -> Tensor:
        if not self.rounds or number not in self.forms.kernels:
            return super().weight(number, parameter)
        now = self._current()
        now.scales[number] = self._weight_scales(number, parameter, now)
        return self.forms.mixed(number, parameter, now)

    def _weight_scales(self, number: int, parameter: Tensor, now: Now) -> Tensor:
        scales = super()._weight_scales(number, parameter, now)
        if number not in self.forms.kernels:
            return scales
        of_kernel = super()._weight_scales(number, self.forms.kernel(number), now)
        return self.forms.scales(number, scales, of_kernel)

    # What comes out.

    def kept(self, number: int) -> Tensor:
        """Return the output channels of a weight that an export keeps, in its order, int64."""
        kept = super().kept(number)
        if self._order is None:
            return kept
        layer = self.layers[number].layer
        return kept[self._order.index(layer.weight, layer.axis, len(kept))]

    def export(self, model: nn.Module) -> nn.Module:
        self._order = self.reordering()
        try:
            self._order.apply(model)
            exported = super().export(model)
            return self.forms.export(exported, self._order)
        finally:
            self._order = None

    def reordering(self) -> Reordering:
        """Return in which order an export has its channels: those of one engine together."""
        return reordering(self, self._channels[0], self._alive[0].hard(), self.chosen())
