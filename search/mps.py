"""MPS: the bits of weights and tensors as trainable choices.

Source:
    Cai and Vasconcelos, EdMIPS, arXiv:2004.05795 (a choice for each layer); Motetti et al., Joint
    pruning and channel-wise mixed-precision quantization, arXiv:2407.01054 (for each channel, with
    0 bits to remove it).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.options import (
    GRANULARITIES,
    LayerQuant,
    MPSType,
    Option,
    Qinfo,
    check_known,
    check_qinfo,
    layer_quant,
)
from hwcost.search.pit_layers import layer_of
from hwcost.search.points import Layer, Point, Points
from hwcost.search.quantize import QUANTIZERS, WEIGHT_RULES
from hwcost.search.quantized import QuantizedMethod
from hwcost.search.quantized_install import PointPlan
from hwcost.search.quantized_layers import Weight, joined
from hwcost.search.quantized_search import QuantizedSearch

#: Bits of the network's inputs and outputs, which nothing decides about.
OUTER_BITS = 8


class MPSMethod(QuantizedMethod):
    """MPS as one of several methods of a search; for its arguments see ``MPS``."""

    title = "MPS"
    bits_hint = "; give such layers bits of their own by qinfo"

    def __init__(
        self,
        *,
        w_bits: Sequence[int] | int = (2, 4, 8),
        a_bits: Sequence[int] | int = (8,),
        granularity: str = "layer",
        qinfo: Qinfo | None = None,
        w_search_type: MPSType | None = None,
        outer_bits: int = OUTER_BITS,
    ) -> None:
        super().__init__()
        granularity = granularity if w_search_type is None else MPSType(w_search_type).value
        check_known("granularity", granularity, GRANULARITIES)
        self.granularity, self.outer_bits = granularity, outer_bits
        usual = LayerQuant(w_bits, a_bits)  # type: ignore[arg-type]  # it makes tuples of them
        self.qinfo: Mapping[str, LayerQuant] = {"default": usual} if qinfo is None else dict(qinfo)
        self._check()

    def _check(self) -> None:
        check_qinfo(self.qinfo)
        for name, quant in self.qinfo.items():
            check_known(f"qinfo[{name!r}]: weight", quant.weight, WEIGHT_RULES)
            check_known(f"qinfo[{name!r}]: activation", quant.activation, QUANTIZERS)
            if 0 in quant.w_bits and self.granularity == "layer":
                raise SearchError(
                    "w_bits holds 0, which removes channels: granularity must be 'channel'"
                )

    def plan_points(self, points: Points) -> list[PointPlan]:
        readers: dict[int, list[str]] = {}
        for layer in points.layers:
            readers.setdefault(layer.point, []).append(layer.weight)
        return [
            self._plan(point, [layer_of(name) for name in readers.get(number, ())])
            for number, point in enumerate(points.points)
        ]

    def _plan(self, point: Point, readers: Sequence[str]) -> PointPlan:
        """Return the precisions that all layers reading a point allow."""
        quants = [layer_quant(self.qinfo, path) for path in readers]
        quants = [q for q in quants if q.quantize] or [layer_quant(self.qinfo, "default")]
        quantizer = quants[0].activation
        if point.fixed:
            return PointPlan(point, (self.outer_bits,), quantizer)
        common = set(quants[0].a_bits).intersection(*(q.a_bits for q in quants))
        if not common:
            raise SearchError(
                f"layers {', '.join(map(repr, readers))} read one tensor, and qinfo gives them no"
                " a_bits in common"
            )
        return PointPlan(point, tuple(sorted(common)), quantizer)

    def weights_for(self, search: Search, points: Points) -> list[Weight]:
        paths = [path for path, _ in search.model.named_modules() if path]
        check_qinfo(self.qinfo, paths)
        taken = [(layer, q) for layer in points.layers if (q := self._quant(layer)).quantize]
        options = [[Option(bits) for bits in quant.w_bits] for _, quant in taken]
        self.options = joined(options)
        self.prunable = {layer.weight for layer, quant in taken if 0 in quant.w_bits}
        pairs = zip(taken, options, strict=True)
        return self._weights(search, [(layer, own, q.weight) for (layer, q), own in pairs])

    def _quant(self, layer: Layer) -> LayerQuant:
        return layer_quant(self.qinfo, layer_of(layer.weight))


class MPS(QuantizedSearch):
    """Search over the bits of weights and tensors: mixed precision, pruning by 0 bits, and QAT.

    The copy of the network is quantized: BatchNorm is folded into the layers before it, weights
    have a scale for each output channel, every tensor that is written to memory has one, biases
    have 32 bits. In training a weight or tensor is the mix of its roundings to each precision,
    by probability (see ``search.sampling``); in evaluation mode it has the most probable one.
    With one precision this is quantization-aware training.

    Without a model it is one method for ``Search(model, example, [MPS(...), ...])``.

    Args:
        model, example, cost, input_shape, input_example, seed: as for ``Search``.
        w_bits: precisions of weights. 0 removes channels, and needs ``granularity="channel"``.
        a_bits: precisions of tensors.
        granularity: ``"layer"``, one choice for each weight, or ``"channel"``, one for each of
            its output channels.
        qinfo: by layer, in place of ``w_bits`` and ``a_bits``; see ``get_default_qinfo``.
        w_search_type: ``MPSType``, in place of ``granularity``.
        outer_bits: bits of the network's inputs and outputs.

    Raises:
        SearchError: there is no layer to quantize, or an argument makes no sense.
        UnknownName: ``qinfo`` names no layer.
        PrecisionError: the cost's platform has no engine for some of the precisions.

    Source:
        arXiv:2004.05795, arXiv:2407.01054.
    """

    method = MPSMethod

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        cost: Any = "counts:weight_bytes",
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
        w_bits: Sequence[int] | int = (2, 4, 8),
        a_bits: Sequence[int] | int = (8,),
        granularity: str = "layer",
        qinfo: Qinfo | None = None,
        w_search_type: MPSType | None = None,
        outer_bits: int = OUTER_BITS,
    ) -> None:
        method = MPSMethod(
            w_bits=w_bits,
            a_bits=a_bits,
            granularity=granularity,
            qinfo=qinfo,
            w_search_type=w_search_type,
            outer_bits=outer_bits,
        )
        inputs = {"input_shape": input_shape, "input_example": input_example}
        super().__init__(model, example, [method], cost=cost, seed=seed, **inputs)
