"""One row of a workload with everything that an explanation reads."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import sympy
import torch

from hwcost.costmodel import CostModel
from hwcost.errors import HwcostWarning
from hwcost.formula import symbol
from hwcost.ops import BITS, SIZES
from hwcost.plan import Group, Plan
from hwcost.platform import Engine, Entry, Platform
from hwcost.tile_now import with_tiles
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class Row:
    """One row, priced by one metric.

    Attributes:
        index: its place in the table.
        numbers: size -> value, NaN where the row lacks it, bits as resolved; its tile, too.
    """

    model: CostModel
    workload: Workload
    plan: Plan
    index: int
    numbers: dict[str, float]

    @classmethod
    def of(cls, model: CostModel, workload: Workload, index: int) -> "Row":
        """Return row ``index`` of a table."""
        plan = model.plan(workload)
        numbers = {n: float(workload.column(n)[index].detach()) for n in SIZES if n not in BITS}
        tiled = with_tiles(plan, workload).changed
        now = plan.columns | {n: tiled[n] for n in plan.tiles if n in tiled}
        numbers |= {n: float(column[index]) for n, column in now.items()}
        return cls(model, workload, plan, index, numbers)

    @property
    def platform(self) -> Platform:
        """The platform that prices the row."""
        return self.model.platform

    @property
    def layer(self) -> str:
        """The row's layer."""
        return self.workload.layers[self.index]

    @property
    def kind(self) -> str:
        """The row's kind."""
        return self.workload.kinds[self.index]

    @property
    def function(self) -> str:
        """The torch function that ran, empty if not known."""
        functions = self.workload.structure.functions
        return functions[self.index] if functions else ""

    @property
    def status(self) -> int:
        """Index into ``plan.STATUSES``."""
        return int(self.plan.status[self.index])

    @cached_property
    def values(self) -> dict[sympy.Symbol, sympy.Expr]:
        """Size -> exact number, those that the row has."""
        return {
            symbol(name): sympy.Integer(round(v)) if v == round(v) else sympy.Rational(v)
            for name, v in self.numbers.items()
            if math.isfinite(v)
        }

    @cached_property
    def group(self) -> Group | None:
        """The formula's group in the plan, None where the row has no price."""
        for group in self.plan.groups:
            if group.rows is None or bool((group.rows == self.index).any()):
                return group
        return None

    @property
    def engine(self) -> Engine | None:
        """The engine that runs the row, if any does."""
        number = int(self.plan.engine[self.index])
        return list(self.platform.engines.values())[number] if number >= 0 else None

    @cached_property
    def entry(self) -> Entry | None:
        """The op entry that prices the row, or that says it is free."""
        if self.group is not None:
            return self.group.entry
        if self.engine is None:
            return None
        free = [e for e in self.engine.entries[self.kind] if e.free]
        return free[0] if free else None

    @cached_property
    def alone(self) -> Workload:
        """A table of this row only, at its resolved bits and on its engine, without gradients."""
        one = self.workload.slice(self.index, self.index + 1)
        bits = {n: v for n in BITS if math.isfinite(v := self.numbers[n])}
        one = Workload(one.structure, {n: c.detach() for n, c in one.changed.items()})
        placed = one.with_precision(**bits)
        return placed if self.engine is None else placed.with_engines(self.engine.name)

    @cached_property
    def op_rows(self) -> list[int]:
        """All rows of the row's op: on several engines, or at several precisions."""
        ops = self.workload.structure.ops
        return (ops == ops[self.index]).nonzero().flatten().tolist()

    def cost(self) -> float:
        """What one execution of the row costs, or of its op if the metric is one of whole ops."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", HwcostWarning)
            if self.model.metric.needs_ops and len(self.op_rows) > 1:
                return float(self.model.rows(self.workload)[self.op_rows[0]])
            return float(self.model.rows(self.alone)[0])
