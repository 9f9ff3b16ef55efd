"""The peak_live metric: activations alive at once, at the bits of a platform."""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.evaluate import bind, evaluate, table_rows
from hwcost.formula import symbol
from hwcost.ops import KINDS
from hwcost.plan import Group
from hwcost.workload import KIND_CODES, Workload

if TYPE_CHECKING:
    from hwcost.costmodel import CostModel


class MemoryMetric:
    """Evaluates peak_live for the cost model that owns it; bytes in the metric's unit."""

    def __init__(self, model: "CostModel") -> None:
        self.model = model

    def out_bytes(self, workload: Workload) -> Tensor:
        """Return the bytes that each row writes, shape ``(rows,)``."""
        codes = workload.structure.kind_codes
        groups, formulas = [], []
        for code in torch.unique(codes).tolist():
            kind = list(KINDS)[code]
            groups.append(Group(-1, kind, None, (codes == KIND_CODES[kind]).nonzero().flatten()))
            formulas.append(self._formulas[kind])
        bits = self.model.plan(workload).bits
        bound = bind(workload, groups, formulas, bits, "peak_live")
        return table_rows(bound, evaluate(bound, workload))

    @cached_property
    def _formulas(self) -> dict[str, Formula]:
        return {kind: compile_formula(derived_exprs(kind)[symbol("out_bytes")]) for kind in KINDS}
