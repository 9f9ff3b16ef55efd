"""How much of a network a platform prices: shares of MACs and of bytes, kinds left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.formula import symbol
from hwcost.offers import DEFAULT, MODELLED, STATUSES
from hwcost.plan import Plan
from hwcost.schema_measured import DEPTHWISE
from hwcost.structure import KIND_CODES, KIND_NAMES
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


def percent(share: float) -> str:
    """A share between 0 and 1 as ``99.8 %``: 100 % and 0 % only where it is all or nothing."""
    if math.isnan(share):
        return "-"
    digits = f"{100 * share:.3g}"
    if share < 1 and float(digits) >= 100:
        return "> 99.9 %"
    return (
        "< 0.01 %"
        if 0 < share < 1e-4
        else f"{float(f'{100 * share:.2f}' if share < 0.01 else digits):g} %"
    )


def signed_percent(share: float) -> str:
    """A relative difference as ``+3.1 %``, without false digits; empty for NaN."""
    if math.isnan(share):
        return ""
    shown = f"{100 * share:+.1f}" if abs(share) < 0.1 else f"{100 * share:+.3g}"
    return "0 %" if float(shown) == 0 else f"{shown} %"


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


def derived(workload: Workload, bits: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a derived size (``macs``, ``w_bytes``, ...) of one execution of each row.

    Args:
        bits: resolved bits of a plan; shape ``(rows,)``.

    Returns:
        Shape ``(rows,)``, NaN where a row lacks a size.
    """
    values = torch.full((len(workload),), math.nan, dtype=torch.float64)
    for code in torch.unique(workload.structure.kind_codes).tolist():
        rows = (workload.structure.kind_codes == code).nonzero().flatten()
        formula = _formula(KIND_NAMES[code], name)
        columns = {n: _column(workload, bits, n)[rows] for n in formula.names}
        values[rows] = formula(columns).double().expand(rows.shape)
    return values


def measured_kinds(workload: Workload) -> list[str]:
    """Return the kind of each row as a calibration names it: depthwise convolutions apart."""
    depthwise = derived(workload, {}, DEPTHWISE).tolist()
    return [
        DEPTHWISE if kind == "conv" and apart == 1 else kind
        for kind, apart in zip(workload.kinds, depthwise, strict=True)
    ]


def _column(workload: Workload, bits: Mapping[str, Tensor], name: str) -> Tensor:
    if name in bits:
        return bits[name]
    return workload.column(name).detach().cpu()


@cache
def _formula(kind: str, name: str) -> Formula:
    assert kind in KIND_CODES
    return compile_formula(derived_exprs(kind)[symbol(name)])
