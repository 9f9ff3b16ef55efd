"""The peak_live metric: activations alive at once, at the bits of a platform."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.evaluate import Bound, bind, changed_key, row_values
from hwcost.formula import symbol
from hwcost.memory import Peak, live, peak_live
from hwcost.ops import KINDS
from hwcost.plan import Group
from hwcost.structure import Structure
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.costmodel import CostModel


class MemoryMetric:
    """Evaluates peak_live for the cost model that owns it, in the metric's unit."""

    def __init__(self, model: "CostModel") -> None:
        self.model = model
        self.scale = float(model.metric.unit.value)
        self._bounds: WeakKeyDictionary[Structure, dict[tuple[Any, ...], Bound]] = (
            WeakKeyDictionary()
        )

    def peak(self, workload: Workload) -> Peak:
        """Return the peak and the op that holds it."""
        peak = peak_live(workload.structure, *self._sizes(workload))
        return Peak(peak.bytes / self.scale, peak.op)

    def rows(self, workload: Workload) -> Tensor:
        """Return what is alive while the op of each row runs, shape ``(rows,)``."""
        alive = live(workload.structure, *self._sizes(workload)) / self.scale
        return alive[workload.structure.ops.to(alive.device)]

    def out_bytes(self, workload: Workload) -> Tensor:
        """Return the bytes that each row writes, shape ``(rows,)``."""

        def made() -> tuple[list[Group], list[Formula]]:
            codes = workload.structure.kind_codes
            groups = [
                Group(-1, kind, None, (codes == code).nonzero().flatten())
                for code, kind in enumerate(KINDS)
                if bool((codes == code).any())
            ]
            return groups, [self._out_bytes[group.kind] for group in groups]

        return row_values(self._bound("out_bytes", workload, made), workload)

    def scratch(self, workload: Workload) -> Tensor | None:
        """Return the working memory of each row in bytes, shape ``(rows,)``; None without any."""
        plan = self.model.plan(workload)
        groups = [g for g in plan.groups if g.entry is not None and g.entry.scratch is not None]
        if not groups:
            return None

        def made() -> tuple[list[Group], list[Formula]]:
            return groups, [self._scratch_formula(group) for group in groups]

        return row_values(self._bound("scratch", workload, made), workload)

    def _sizes(self, workload: Workload) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        out_bytes = self.out_bytes(workload)
        a_bits = self.model.plan(workload).bits["a_bits"].to(out_bytes.device)
        weight = workload.column("weight").to(out_bytes.device)
        return out_bytes, a_bits / 8, self.scratch(workload), weight

    def _bound(
        self,
        what: str,
        workload: Workload,
        made: Callable[[], tuple[Sequence[Group], Sequence[Formula]]],
    ) -> Bound:
        """Return formulas bound to a table, those of an earlier one of its structure again."""
        key = (what, *changed_key(workload))
        bounds = self._bounds.setdefault(workload.structure, {})
        if key not in bounds:
            columns = self.model.plan(workload).columns
            bounds[key] = bind(workload, *made(), columns, "peak_live")
        return bounds[key]

    @cached_property
    def _out_bytes(self) -> dict[str, Formula]:
        return {kind: compile_formula(derived_exprs(kind)[symbol("out_bytes")]) for kind in KINDS}

    def _scratch_formula(self, group: Group) -> Formula:
        assert group.entry is not None and group.entry.scratch is not None
        engine = list(self.model.platform.engines.values())[group.engine]
        expr = group.entry.expanded(group.entry.scratch).xreplace(
            self.model.platform.numbers(engine)
        )
        return compile_formula(expr)
