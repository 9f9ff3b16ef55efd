"""Derived sizes of each row of a table, and what a calibration calls its kinds of op."""

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.formula import symbol
from hwcost.schema_measured import DEPTHWISE, WITH_KERNELS
from hwcost.structure import KIND_CODES, KIND_NAMES
from hwcost.workload import Workload


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


def kernels(workload: Workload) -> list[str]:
    """Return the kernel of each convolution, ``3x3`` or in 3-D ``3x3x3``; empty for other ops."""
    sizes = zip(*(workload.column(n).detach().tolist() for n in ("kd", "kh", "kw")), strict=True)
    return [
        "x".join(f"{k:g}" for k in (three if three[0] != 1 else three[1:]))
        if kind in WITH_KERNELS
        else ""
        for kind, three in zip(workload.kinds, sizes, strict=True)
    ]


def _column(workload: Workload, bits: Mapping[str, Tensor], name: str) -> Tensor:
    if name in bits:
        return bits[name]
    return workload.column(name).detach().cpu()


@cache
def _formula(kind: str, name: str) -> Formula:
    assert kind in KIND_CODES
    return compile_formula(derived_exprs(kind)[symbol(name)])
