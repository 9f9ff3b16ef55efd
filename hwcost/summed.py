"""All rows of a table priced as one autograd node.

A training loop asks for one scalar in every step. Gathering, pricing and putting together as
separate nodes would spend most of the time between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.compile import Formula
from hwcost.program import Program, is_plain, slopes_again


@dataclass(frozen=True, eq=False)
class Part:
    """A formula bound to its rows; sizes that do not change are already inside.

    Attributes:
        rows: indices of the rows, None for all in order.
        formula: reads only columns that change; None where nothing changes.
        fixed: the values where nothing changes; shape ``(rows of the part,)``.
        weight: expected executions, shape ``(rows of the part,)``; None where all are 1.
    """

    rows: Tensor | None
    count: int
    formula: Formula | None
    fixed: Tensor | None
    weight: Tensor | None = None


#: Values of each part -> the result; differentiable.
Join = Callable[[Sequence[Tensor]], Tensor]


class Joint:
    """The changing parts of a table, with what it takes to price them at once.

    Args:
        parts: no row is in two of them.
        rows: how many the table has.
        device: of the columns.

    Attributes:
        names: the columns that the parts read.
    """

    def __init__(self, parts: Sequence[Part], rows: int, device: torch.device) -> None:
        self.parts = tuple(parts)
        formulas = [part.formula for part in parts if part.formula is not None]
        self.names = tuple(sorted({name for f in formulas for name in f.names}))
        self.programs: list[Program] = [f.program for f in formulas]
        self.places = [tuple(map(self.names.index, f.names)) for f in formulas]
        self.zero = torch.zeros(1, dtype=torch.float64, device=device)
        self._suits = bool(formulas) and all(f.names for f in formulas)
        self._homes = [self._home(i, rows, device) for i in range(len(self.names))]

    def priced(self, columns: Mapping[str, Tensor], join: Join, weighted: bool) -> Tensor | None:
        """Return ``join`` of the values; None where it takes more than a plain evaluation.

        That is where ``torch.func`` or forward mode are active.

        Args:
            columns: float64, shape ``(rows,)``.
            join: a sum where ``weighted``, else the table's rows in order.
        """
        if not self._suits or not is_plain():
            return None
        inputs = [columns[name] for name in self.names]
        if torch.is_grad_enabled() and any(c.requires_grad for c in inputs):
            return _Priced.apply(self, join, weighted, *inputs)  # type: ignore[no-any-return,no-untyped-call]
        gathered = self.gathered(inputs)
        return join([p.run(g[0], g) for p, g in zip(self.programs, gathered, strict=True)])

    def gathered(self, columns: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return for each part the columns that it reads, at its rows."""
        return [
            [
                columns[i].clone() if p.rows is None else columns[i].index_select(0, p.rows)
                for i in at
            ]
            for p, at in zip(self.parts, self.places, strict=True)
        ]

    def upstream(self, slope: Tensor, weighted: bool) -> list[Tensor]:
        """Return the slope to each part's values from that to the result."""
        if not weighted:
            return [slope if p.rows is None else slope.index_select(0, p.rows) for p in self.parts]
        return [slope.expand(p.count) if p.weight is None else slope * p.weight for p in self.parts]

    def spread(self, found: Sequence[Sequence[Tensor | None]], column: int) -> Tensor:
        """Return the slope to a column from those to each part's rows of it."""
        pieces = [
            self.zero.expand(p.count) if s is None else s
            for p, at, slopes in zip(self.parts, self.places, found, strict=True)
            for i, s in zip(at, slopes, strict=True)
            if i == column
        ]
        home = self._homes[column]
        return pieces[0] if home is None else torch.cat([*pieces, self.zero]).index_select(0, home)

    def _home(self, column: int, rows: int, device: torch.device) -> Tensor | None:
        """Of each row the position of its slope among those of the parts, then a 0."""
        parts = [p for p, at in zip(self.parts, self.places, strict=False) if column in at]
        if any(p.rows is None for p in parts):
            return None
        home = torch.full((rows,), sum(p.count for p in parts), device=device)
        position = 0
        for part in parts:
            home[part.rows] = torch.arange(position, position + part.count, device=device)
            position += part.count
        return home


class _Priced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joint: Joint, join: Join, weighted: bool, *columns: Tensor) -> Tensor:
        ctx.joint, ctx.join, ctx.weighted = joint, join, weighted
        ctx.save_for_backward(*columns)
        gathered = joint.gathered(columns)
        pairs = list(zip(joint.programs, gathered, strict=True))
        ctx.recorded = [program.record(inputs[0], inputs) for program, inputs in pairs]
        results = [v[p.output] for p, v in zip(joint.programs, ctx.recorded, strict=True)]
        # Not a recorded tensor itself, which would hold its own history: a leak.
        return join(results).detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        columns, needed = ctx.saved_tensors, ctx.needs_input_grad[3:]
        joint: Joint = ctx.joint
        if torch.is_grad_enabled():
            return (None, None, None, *_second_order(joint, ctx.join, columns, needed, grads[0]))
        found = [
            program.slopes(values, upstream, tuple(needed[i] for i in place))
            for program, values, upstream, place in zip(
                joint.programs,
                ctx.recorded,
                joint.upstream(grads[0], ctx.weighted),
                joint.places,
                strict=True,
            )
        ]
        slopes = [joint.spread(found, i) if need else None for i, need in enumerate(needed)]
        return (None, None, None, *slopes)


def _second_order(
    joint: Joint,
    join: Join,
    columns: Sequence[Tensor],
    needed: Sequence[bool],
    upstream: Tensor,
) -> list[Tensor | None]:
    """Slopes that can be differentiated again."""
    result = join(
        [
            part.formula(dict(zip(part.formula.names, inputs, strict=True)))
            for part, inputs in zip(joint.parts, joint.gathered(columns), strict=True)
            if part.formula is not None
        ]
    )
    return slopes_again(result, columns, upstream, needed)
