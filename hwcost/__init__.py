"""Symbolic hardware cost models for neural networks, differentiable in torch.

The public names below are imported when they are first used, so that ``import hwcost`` is
cheap. No module of the package is named like a public function: importing a module binds its
name in the package, and would put the module in the function's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hwcost.errors import (
    CostError,
    DescriptorError,
    FormulaError,
    HwcostError,
    HwcostWarning,
    PrecisionError,
    SearchError,
    TraceError,
    UnitError,
    UnknownName,
    UnsupportedOp,
    WorkloadError,
)

if TYPE_CHECKING:
    from hwcost import zoo
    from hwcost.costmodel import CostModel
    from hwcost.loading import available, load
    from hwcost.platform import Platform
    from hwcost.reports import compare, report, table
    from hwcost.tracing import trace
    from hwcost.workload import Workload

__version__ = "0.1.0"

__all__ = [
    "CostError",
    "CostModel",
    "DescriptorError",
    "FormulaError",
    "HwcostError",
    "HwcostWarning",
    "Platform",
    "PrecisionError",
    "SearchError",
    "TraceError",
    "UnitError",
    "UnknownName",
    "UnsupportedOp",
    "Workload",
    "WorkloadError",
    "available",
    "compare",
    "load",
    "report",
    "table",
    "trace",
    "zoo",
]

#: Public name -> the module that defines it.
_HOME = {
    "CostModel": "hwcost.costmodel",
    "Platform": "hwcost.platform",
    "Workload": "hwcost.workload",
    "available": "hwcost.loading",
    "compare": "hwcost.reports",
    "load": "hwcost.loading",
    "report": "hwcost.reports",
    "table": "hwcost.reports",
    "trace": "hwcost.tracing",
}


if not TYPE_CHECKING:  # a type checker that saw it would take any name for a public one

    def __getattr__(name: str) -> object:
        if name == "zoo":
            return import_module("hwcost.zoo")
        if name not in _HOME:
            raise AttributeError(f"module 'hwcost' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
