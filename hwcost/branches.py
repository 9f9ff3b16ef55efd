"""Cases in a program: each is computed on the rows that take it, and on no others.

So a case that would be NaN elsewhere (1/x at x = 0) is so in no value and no slope.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwcost.program import Program, Reverse, Values, add_slope

#: A place in the values, or a tensor known in advance.
Source = int | Tensor


class Part(NamedTuple):
    """One case that some rows took.

    Attributes:
        case: its number.
        rows: indices of the rows; None for all.
        values: all that it computed, if recorded, else empty.
        result: shape ``(rows of the part,)``, or one value for all.
    """

    case: int
    rows: Tensor | None
    values: Values
    result: Tensor


class Parts(NamedTuple):
    """All cases that were taken, by ``rows`` rows together."""

    rows: int
    parts: list[Part]


@dataclass(frozen=True, eq=False)
class Branches:
    """Programs of which each row takes one.

    Attributes:
        conditions: masks of shape ``(rows,)``; the first that holds decides, the last program
            is for rows where none does.
        programs: one for each condition, one more for the rest.
        sources: what each program reads, in order.
        groups: the rows of each program where they are known in advance, else empty.
    """

    conditions: tuple[Source, ...]
    programs: tuple[Program, ...]
    sources: tuple[tuple[Source, ...], ...]
    groups: tuple[Tensor, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """The places that the conditions and the programs read."""
        sources = (*self.conditions, *(s for each in self.sources for s in each))
        return tuple({s for s in sources if isinstance(s, int)})

    def run(self, values: Values) -> Parts:
        """Return the results of the cases taken."""
        return self._parts(values, lambda program, inputs: ([], program.run(values[0], inputs)))

    def trace(self, values: Values) -> Parts:
        """Return the results of the cases taken, differentiable by torch."""
        return self._parts(values, lambda program, inputs: ([], program.trace(values[0], inputs)))

    def record(self, values: Values) -> Parts:
        """Return the results of the cases taken with all that led to them."""

        def record(program: Program, inputs: Sequence[Tensor]) -> tuple[Values, Tensor]:
            inner = program.record(values[0], inputs)
            return inner, inner[program.output]

        return self._parts(values, record)

    def _parts(
        self,
        values: Values,
        compute: Callable[[Program, Sequence[Tensor]], tuple[Values, Tensor]],
    ) -> Parts:
        count, groups = self._grouped(values)
        parts = []
        for case, rows in groups:
            inputs = [_picked(_source(s, values), rows) for s in self.sources[case]]
            parts.append(Part(case, rows, *compute(self.programs[case], inputs)))
        return Parts(count, parts)

    def _grouped(self, values: Values) -> tuple[int, list[tuple[int, Tensor | None]]]:
        """How many rows there are, and which cases they take."""
        if self.groups:
            return sum(map(len, self.groups)), list(enumerate(self.groups))
        count = len(_source(self.conditions[0], values))
        groups: list[tuple[int, Tensor | None]] = []
        for case, mask in enumerate(_first_to_hold([_source(c, values) for c in self.conditions])):
            rows = mask.nonzero().squeeze(1)
            if len(rows) == count:
                return count, [(case, None)]
            if len(rows):
                groups.append((case, rows))
        return count, groups

    def reverse(self, place: int, active: frozenset[int]) -> Reverse:
        """Return what adds the slopes of the merged result at ``place`` to those of its sources."""
        needed = [tuple(s in active for s in map(_place, sources)) for sources in self.sources]

        def add(values: Values, slopes: list[Tensor | None]) -> None:
            upstream = slopes[place]
            parts: Parts = values[place - 1]
            assert upstream is not None
            for part in parts.parts:
                above = _picked(upstream, part.rows)
                found = self.programs[part.case].slopes(part.values, above, needed[part.case])
                for source, slope in zip(self.sources[part.case], found, strict=True):
                    if slope is not None:
                        add_slope(slopes, _place(source), _spread(slope, part.rows, parts.rows))

        return add


def merged(parts: Parts) -> Tensor:
    """Return the results of all cases in the order of the rows, shape ``(rows,)``."""
    if len(parts.parts) == 1 and parts.parts[0].rows is None:
        return parts.parts[0].result.expand(parts.rows)
    dtype = reduce(torch.promote_types, [p.result.dtype for p in parts.parts])
    whole = parts.parts[0].result.new_zeros(parts.rows, dtype=dtype)
    for part in parts.parts:
        assert part.rows is not None
        result = part.result.to(dtype).expand(len(part.rows))
        whole = whole.index_copy(0, part.rows, result)
    return whole


def first_groups(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return the indices of the rows for which each mask is the first to hold, then the rest."""
    return [mask.nonzero().squeeze(1) for mask in _first_to_hold(masks)]


def _first_to_hold(masks: Sequence[Tensor]) -> Iterator[Tensor]:
    yield masks[0]
    rest = ~masks[0]
    for mask in masks[1:]:
        yield mask & rest
        rest = rest & ~mask
    yield rest


def _place(source: Source) -> int:
    return source if isinstance(source, int) else -1


def _source(source: Source, values: Values) -> Any:
    return values[source] if isinstance(source, int) else source


def _picked(value: Tensor, rows: Tensor | None) -> Tensor:
    return value if rows is None else value.index_select(0, rows)


def _spread(slope: Tensor, rows: Tensor | None, count: int) -> Tensor:
    return slope if rows is None else slope.new_zeros(count).index_copy_(0, rows, slope)
