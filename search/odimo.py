"""ODiMO: which engine of a platform computes which output channels of a network.

Source:
    Risso et al., Precision-aware latency and energy balancing on multi-accelerator platforms for
    DNN inference, arXiv:2306.05060 (engines of different precision); Optimizing DNN inference on
    multi-accelerator SoCs at training-time, arXiv:2409.18566 (engines of different operations).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hwcost.platform import Platform
from hwcost.search.odimo_baselines import BaselineTable, baselines
from hwcost.search.odimo_mapping import MappingTable, mapping
from hwcost.search.odimo_method import SMOOTH, ODiMOMethod
from hwcost.search.odimo_timeline import timeline
from hwcost.search.quantized_search import QuantizedSearch


class ODiMO(QuantizedSearch):
    """Search over the engines of a platform: each output channel of each layer goes to one.

    An engine brings its own precision of weights, and some compute a convolution only as a
    depthwise one: such a layer becomes dense, depthwise, or a split of both. What an engine can
    compute is read from the platform's file. The copy of the network is quantized, as by ``MPS``.

    In the loss the time of engines in parallel is a smooth maximum (see ``CostModel.total``), in
    reports and with ``hard=True`` the exact one.

    Without a model it is one method for ``Search(model, example, [ODiMO(platform=...), ...])``.

    Args:
        model, example, input_shape, input_example, seed: as for ``Search``.
        platform: whose engines; a name, a path or a Platform.
        metric: what the search's cost is, ``"latency"`` or ``"energy"`` usually, and what the
            baselines are compared by.
        cost: other costs, in place of the platform's metric.
        granularity: ``"channel"``, or ``"layer"`` for one engine for all of a layer.
        w_bits: engine -> bits of weights, where they are not the most that it knows.
        a_bits: bits of tensors, where they are not the most that all engines know.
        start: engine -> logit at the start; 0 for the others: all are as probable.
        weight: the rule for the scales of weights.
        activation: the quantizer of tensors.
        smooth: the p of the norm that stands for the maximum over engines in a loss.
        exclude_names: layers that stay as they are, in floating point, by module path.
        exclude_types: classes of layers that stay as they are.

    Raises:
        SearchError: no engine computes some layer, or the engines have no bits of tensors in
            common.
        UnknownName: an engine, a layer or a rule is not known.

    Source:
        arXiv:2306.05060, arXiv:2409.18566.
    """

    method = ODiMOMethod

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        platform: str | Path | Platform = "diana",
        metric: str = "latency",
        *,
        cost: Any = None,
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
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
        method = ODiMOMethod(
            platform,
            metric,
            granularity=granularity,
            w_bits=w_bits,
            a_bits=a_bits,
            start=start,
            weight=weight,
            activation=activation,
            smooth=smooth,
            exclude_names=exclude_names,
            exclude_types=exclude_types,
        )
        inputs = {"input_shape": input_shape, "input_example": input_example}
        cost = method.costs if cost is None else cost
        super().__init__(model, example, [method], cost=cost, seed=seed, **inputs)

    @property
    def odimo(self) -> ODiMOMethod:
        """The method."""
        found = next(self.each_method())
        assert isinstance(found, ODiMOMethod)
        return found

    def mapping(self) -> MappingTable:
        """Return who computes what in the network that ``export`` returns now; print it."""
        return mapping(self.odimo, self.workload(hard=True))

    def baselines(self) -> BaselineTable:
        """Return what the mapping costs now, beside mappings that need no search; print it."""
        return baselines(self.odimo, self._table.workload, self.workload(hard=True))

    def timeline(self, path: str | Path | None = None) -> Any:
        """Return a picture of the engines over time, a matplotlib figure.

        Args:
            path: also save it there.

        Raises:
            SearchError: matplotlib is not installed.
        """
        return timeline(self.odimo, self.workload(hard=True), path)


#: An older spelling.
ODiMO_MPS = ODiMO
