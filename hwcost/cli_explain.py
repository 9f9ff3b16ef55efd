"""The layer that ``hwcost explain`` explains, and its text."""

import math
import warnings

import torch

from hwcost.costmodel import CostModel
from hwcost.errors import HwcostWarning
from hwcost.explain import explain
from hwcost.workload import Workload


def explained(
    model: CostModel, workload: Workload, layer: str | None, width: int | None
) -> tuple[str, str]:
    """Return the layer and its explanation; without a layer, that of the most expensive one."""
    if layer is not None:
        return layer, explain(model, workload, layer, width)
    chosen = workload.layers[_dearest(model, workload)]
    text = explain(model, workload, chosen, width)
    return chosen, f"No layer was named; this one has the highest {model.metric.name}.\n\n{text}"


def _dearest(model: CostModel, workload: Workload) -> int:
    patient = CostModel(
        model.platform, model.metric.name, place_by=model.place_by, on_unsupported="warn"
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        costs = patient.rows(workload) * workload.column("weight")
    return int(costs.nan_to_num(-math.inf).argmax())
