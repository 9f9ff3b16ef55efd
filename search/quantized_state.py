"""What a method that quantizes a network knows, and the ranges that it learns from data."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hwcost.errors import SearchError
from hwcost.search.alive import Alive
from hwcost.search.choices import ChoiceBank
from hwcost.search.method import Method
from hwcost.search.options import Option
from hwcost.search.quantize import Calibration, Grid, ScaleBank, activation_grid
from hwcost.search.quantized_install import PointPlan, observed
from hwcost.search.quantized_layers import Weight
from hwcost.search.quantized_now import Now
from hwcost.search.quantized_pruning import Removal
from hwcost.search.quantized_table import Entries


class QuantizedState(Method):
    """Points, weights, their choices and scales."""

    def __init__(self) -> None:
        super().__init__()
        #: Weights whose channels an option may remove.
        self.prunable: set[str] = set()
        #: One of ``GRANULARITIES``.
        self.granularity = "layer"
        self.plans: tuple[PointPlan, ...] = ()
        self.missed: tuple[str, ...] = ()
        self.layers: tuple[Weight, ...] = ()
        self.options: tuple[Option, ...] = ()
        self.scales = ScaleBank()
        self.activations: ChoiceBank | None = None
        self.weights: ChoiceBank | None = None
        #: Learned scales of weights, base-2 logarithms, shape (channels, options), by layer.
        self.steps = nn.ParameterDict()
        self.signed: list[bool] = []
        self.calibrated = False
        #: Name of a weight -> its place among the layers.
        self.numbers: dict[str | None, int] = {}
        #: By point, the places of its precisions in the bank's options.
        self.point_columns: list[tuple[int, ...]] = []
        self._alive: list[Alive] = []
        self._removal: Removal | None = None
        self._entries: Entries | None = None
        self._model: list[nn.Module] = []
        self._inputs: tuple[Any, Any] = ((), {})
        self._traced = True
        self._calibration: Calibration | None = None
        self._now: Now | None = None
        self._last: Now | None = None

    @property
    def removes(self) -> bool:
        """Whether an option removes channels; it is then the first."""
        return bool(self.options) and self.options[0].bits == 0

    @property
    def rounds(self) -> bool:
        """Whether tensors are rounded now, not traced or observed."""
        return not self._traced and self._calibration is None

    def begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set the ranges by the first batch, unless data did."""
        if self.calibrated:
            return
        with self._observing() as calibration:
            observed(model, args, kwargs)
        self._set_ranges(_in_all_processes(self._ends(calibration, 100.0)))
        self.calibrated = True

    def calibrate(self, data: Iterable[Any], percentile: float = 100.0) -> None:
        """Set the ranges of all tensors by running batches; see ``QuantizedSearch.calibrate``."""
        model = self._model[0]
        with self._observing() as calibration:
            for batch in data:
                observed(model, *_arguments(batch, self._inputs))
        ends = _in_all_processes(self._ends(calibration, percentile))
        if not bool(ends.isfinite().any()):
            raise SearchError("calibrate(data) got no batches")
        self._set_ranges(ends)
        self.calibrated = True

    @contextmanager
    def _observing(self) -> Iterator[Calibration]:
        self._calibration = Calibration()
        try:
            yield self._calibration
        finally:
            self._calibration = None

    def _ends(self, calibration: Calibration, percentile: float) -> Tensor:
        """Return what was seen of each point: the least value without its sign, and the range.

        Returns:
            Shape ``(points, 2)``, float64; -inf for the point of a branch that did not run. The
            maximum of several is what was seen in all of them.
        """
        names = [plan.point.name for plan in self.plans]
        ends = [
            (-calibration.low(name), calibration.range(name, percentile))
            if name in calibration
            else (-torch.inf, -torch.inf)
            for name in names
        ]
        return torch.tensor(ends, dtype=torch.float64).view(-1, 2)

    def _set_ranges(self, ends: Tensor) -> None:
        """Set the ranges of those points that were seen, see ``_ends``."""
        for number, (below, largest) in enumerate(ends.tolist()):
            if largest == -torch.inf:
                continue
            point = self.plans[number].point
            if point.given:
                self._sign(number, below > 0)
            self.scales.set_range(point.name, largest)

    def _sign(self, number: int, signed: bool) -> None:
        if self.signed[number] != signed:
            self.signed[number] = signed
            plan = self.plans[number]
            self.scales.regrid(plan.point.name, grids_of(plan, signed))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_now": None, "_last": None, "_calibration": None}

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the ``state_dict`` holds beside parameters."""
        return {"signed": list(self.signed), "calibrated": self.calibrated}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on where a ``state_dict`` was made."""
        for number, signed in enumerate(state["signed"]):
            self._sign(number, signed)
        self.calibrated = state["calibrated"]


def _in_all_processes(ends: Tensor) -> Tensor:
    """Return the maxima of what each process of a distributed run has; all must call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ends
    ends = ends.cuda() if distributed.get_backend() == "nccl" else ends
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return ends.cpu()


def grids_of(plan: PointPlan, signed: bool) -> tuple[Grid, ...]:
    """Return the grid of each precision of a point."""
    return tuple(activation_grid(bits, signed) for bits in plan.bits)


def _arguments(batch: Any, example: tuple[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the network takes of a batch, which may hold labels too."""
    args, kwargs = example
    if isinstance(batch, Mapping):
        return (), {name: value for name, value in batch.items() if name in kwargs}
    if isinstance(batch, (tuple, list)):
        return tuple(batch[: max(len(args), 1)]), {}
    return (batch,), {}
