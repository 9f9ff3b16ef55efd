"""The peak_live metric: activations alive at once, at the bits of a platform."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import sympy
import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.evaluate import Bound, bind, changed_key, row_values
from hwcost.formula import symbol
from hwcost.memory import Peak, buffer_bytes, live, overwritten, peak_live
from hwcost.ops import KINDS
from hwcost.plan import Group
from hwcost.platform import Entry
from hwcost.structure import Structure
from hwcost.tile_now import with_tiles
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.costmodel import CostModel

_Memory = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None, list[Tensor]]


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
        return self._working(workload, "scratch", lambda entry: entry.scratch)

    def reserved(self, workload: Workload) -> dict[str, Tensor]:
        """Return what each row uses of each buffer that is there all the time, in bytes.

        Returns:
            Name of the buffer -> shape ``(rows,)``.
        """
        entries = [group.entry for group in self.model.plan(workload).groups if group.entry]
        names = dict.fromkeys(name for entry in entries for name in entry.reserved)
        return {name: self._used(workload, name) for name in names}

    def _used(self, workload: Workload, name: str) -> Tensor:
        used = self._working(workload, f"reserved {name}", lambda entry: entry.reserved.get(name))
        assert used is not None
        return used

    def in_place(self, workload: Workload) -> Tensor | None:
        """Return whether each row writes over its input, shape ``(rows,)``; None if none does."""
        flags = torch.zeros(len(workload), dtype=torch.bool)
        for group in self.model.plan(workload).groups:
            if group.entry is not None and group.entry.in_place:
                flags[slice(None) if group.rows is None else group.rows.cpu()] = True
        return flags if bool(flags.any()) else None

    def overwritten(self, workload: Workload) -> Tensor:
        """Return the bytes of its input that each op overwrites, shape ``(ops,)``."""
        out_bytes, in_bytes, _, weight, in_place, _ = self._sizes(workload)
        sizes = buffer_bytes(workload.structure, out_bytes, in_bytes, weight)
        flags = torch.zeros(len(workload)) if in_place is None else in_place
        return overwritten(workload.structure, sizes, flags)

    def _working(
        self, workload: Workload, what: str, part: Callable[[Entry], sympy.Expr | None]
    ) -> Tensor | None:
        """Return a formula of entries for each row; None if no entry has it."""
        found = [
            (group, expr)
            for group in self.model.plan(workload).groups
            if group.entry is not None and (expr := part(group.entry)) is not None
        ]
        if not found:
            return None

        def made() -> tuple[list[Group], list[Formula]]:
            return [g for g, _ in found], [self._working_formula(g, expr) for g, expr in found]

        workload = with_tiles(self.model.plan(workload), workload)
        return row_values(self._bound(what, workload, made), workload)

    def _sizes(self, workload: Workload) -> _Memory:
        out_bytes = self.out_bytes(workload)
        a_bits = self.model.plan(workload).bits["a_bits"].to(out_bytes.device)
        weight = workload.column("weight").to(out_bytes.device)
        reserved = list(self.reserved(workload).values())
        scratch, in_place = self.scratch(workload), self.in_place(workload)
        return out_bytes, a_bits / 8, scratch, weight, in_place, reserved

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

    def _working_formula(self, group: Group, expr: sympy.Expr) -> Formula:
        assert group.entry is not None
        engine = list(self.model.platform.engines.values())[group.engine]
        numbers = self.model.platform.numbers(engine)
        return compile_formula(group.entry.expanded(expr).xreplace(numbers))
