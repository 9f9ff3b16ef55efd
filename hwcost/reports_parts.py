"""The rows of a cost table: one network on one platform, priced block by block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.calibration import MeasuredError
from hwcost.costmodel import CostModel
from hwcost.ops import BITS
from hwcost.platform import Metric, Platform
from hwcost.reports_costs import gathered_warnings, usual_place_by
from hwcost.workload import Workload

#: Rows that are priced at a time.
BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one network on one platform; tensors have shape ``(rows,)``.

    Attributes:
        engine: index in the platform's order, -1 for none.
        status: index into ``STATUSES``.
        costs: metric -> cost in the metric's unit of one execution of the row.
    """

    model: str
    platform: Platform
    workload: Workload
    engine: Tensor
    status: Tensor
    bits: Mapping[str, Tensor]
    costs: Mapping[str, Tensor]

    def metric(self, name: str) -> Metric:
        """Return a metric of the platform."""
        return self.platform.metrics[name]

    def error(self, name: str) -> MeasuredError | None:
        """Return the measured error of a row by a metric, None where it is not known."""
        return self.platform.error(name, "layers")


def priced_part(
    name: str,
    workload: Workload,
    platform: Platform,
    metrics: Sequence[str],
    place_by: str | None,
    on_unsupported: str,
) -> Part:
    """Return the costs of each row, computed block by block where the table is long.

    Raises:
        UnsupportedOp, PrecisionError, WorkloadError: as CostModel.
    """
    place_by = place_by or usual_place_by(platform, metrics)
    models = {
        m: CostModel(platform, m, place_by=place_by, on_unsupported=on_unsupported) for m in metrics
    }
    planner = next((m for m in models.values() if m.by_engine), models[metrics[0]])
    blocks = []
    with gathered_warnings():
        for block in _blocks(workload):
            costs = {n: model.rows(block).detach() for n, model in models.items()}
            blocks.append((planner.plan(block), costs))
    plans = [plan for plan, _ in blocks]
    return Part(
        name,
        platform,
        workload,
        _joined([plan.engine for plan in plans]),
        _joined([plan.status for plan in plans]),
        {bits: _joined([plan.bits[bits] for plan in plans]) for bits in BITS},
        {m: torch.cat([costs[m] for _, costs in blocks]) for m in metrics},
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts one after another; a column that is the same everywhere takes no memory."""
    first = parts[0][:1]
    if len(first) and all(bool((part == first).all()) for part in parts):
        return first.expand(sum(map(len, parts)))
    return torch.cat(list(parts))


def _blocks(workload: Workload) -> Iterator[Workload]:
    # Ops with several rows, and activation memory, need the table as a whole.
    if (
        len(workload) <= BLOCK
        or not workload.structure.one_row_per_op
        or workload.structure.buffers
    ):
        yield workload
        return
    for start in range(0, len(workload), BLOCK):
        yield workload.slice(start, start + BLOCK)
