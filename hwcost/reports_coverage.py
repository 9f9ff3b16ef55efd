"""How much of a network a platform prices: shares of MACs and of bytes, kinds left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwcost.derived_rows import derived
from hwcost.offers import DEFAULT, MODELLED, STATUSES
from hwcost.percent import percent
from hwcost.plan import Plan
from hwcost.structure import KIND_NAMES
from hwcost.workload import Workload


@dataclass(frozen=True)
class Coverage:
    """Shares between 0 and 1, NaN where the network has none or its sizes do not tell.

    Attributes:
        macs: share of the MACs that a formula prices, fallback formulas included.
        bytes: share of the bytes read and written by such ops.
        default_macs: the part of ``macs`` that only a fallback formula prices.
        kinds: status -> kind of op -> number of ops.
    """

    macs: float
    bytes: float
    default_macs: float = 0.0
    default_bytes: float = 0.0
    kinds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(self.sentences())

    def sentences(self) -> list[str]:
        """What is priced, and what is not."""
        parts = [
            f"{percent(self.macs)} of MACs and {percent(self.bytes)} of bytes priced by formulas"
        ]
        if self.default_macs > 0 or self.default_bytes > 0:
            shares = f"{percent(self.default_macs)} of MACs, {percent(self.default_bytes)} of bytes"
            parts.append(f"of these by the platform's default formula: {shares}")
        for status in ("free", "unsupported"):
            if self.kinds.get(status):
                parts.append(f"{status}: {_counted(self.kinds[status])}")
        return parts


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def coverage(workload: Workload, plan: Plan) -> Coverage:
    """Return what of a network a plan prices."""
    times = workload.column("weight").detach().cpu()
    macs = times * derived(workload, plan.bits, "macs")
    moved = torch.zeros_like(macs)
    for name in ("in_bytes", "out_bytes", "w_bytes"):
        moved += times * derived(workload, plan.bits, name)
    by_default = plan.status == DEFAULT
    priced = by_default | (plan.status == MODELLED)
    return Coverage(
        macs=_share(macs, priced),
        bytes=_share(moved, priced),
        default_macs=_share(macs, by_default),
        default_bytes=_share(moved, by_default),
        kinds=_kinds(workload, plan),
    )


def _share(amounts: Tensor, of: Tensor) -> float:
    known = amounts.nan_to_num()
    total = float(known.sum())
    return float(known[of].sum()) / total if total > 0 else math.nan


def _kinds(workload: Workload, plan: Plan) -> dict[str, dict[str, int]]:
    codes = len(KIND_NAMES)
    counts = torch.bincount(
        plan.status.long() * codes + workload.structure.kind_codes, minlength=codes * len(STATUSES)
    )
    found: dict[str, dict[str, int]] = {status: {} for status in STATUSES}
    for index in counts.nonzero().flatten().tolist():
        found[STATUSES[index // codes]][KIND_NAMES[index % codes]] = int(counts[index])
    return found
