"""The op table of a searched network: every size as a product of what is alive.

A size that depends on a decision is a *cell*: a number times, for each *count* in it, the share
of that count that is alive. A count is a sum over entries of one long vector, in which every
class of channels, every tap of a searched kernel and every probability of a choice has its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwcost.ops import SIZES
from hwcost.workload import Workload


@dataclass(frozen=True)
class Count:
    """A sum over entries of the vector of decisions, plus what no decision touches.

    Attributes:
        entries: positions in the vector, each as often as it counts, sorted.
        fixed: channels (taps, ...) that are always there.
    """

    entries: tuple[int, ...]
    fixed: float = 0

    @property
    def full(self) -> float:
        """Its value while nothing is removed."""
        return self.fixed + len(self.entries)


@dataclass(frozen=True)
class Term:
    """A part of a size: ``amount`` while nothing is removed, in proportion to the counts then."""

    amount: float
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A size of a row: the sum of terms, divided by another sum where ``per`` is given."""

    row: int
    column: str
    terms: tuple[Term, ...]
    per: tuple[Term, ...] = ()


@dataclass(eq=False)
class Table:
    """Cells compiled to a few operations on whole vectors.

    Args:
        workload: the traced table, the network before the search.
        cells: the sizes that depend on decisions; one cell at most for a row and column.
        length: of the vector of decisions.
    """

    workload: Workload
    cells: Sequence[Cell]
    length: int
    _devices: dict[torch.device, "_Compiled"] = field(default_factory=dict, repr=False)
    _repeated: dict[int, Workload] = field(default_factory=dict, repr=False)

    def __call__(self, decisions: Tensor) -> Workload:
        """Return the op table for a vector of shape ``(length,)``, gradients kept."""
        if not self.cells:
            return self.workload
        return self.workload.with_columns(**self._compiled(decisions.device)(decisions))

    def shrinking(self, decisions: Tensor, order: Tensor, counts: Tensor) -> Workload:
        """Return op tables, one after another: of a vector whose first entries in order are 0.

        Args:
            decisions: shape ``(length,)``, on the CPU.
            order: entries, int64, shape ``(n,)``.
            counts: how many of them are 0 in each table, 0 to n; int64, shape ``(tables,)``.
        """
        repeated = self._repeated.get(len(counts))
        if repeated is None:
            repeated = Workload.concat([self.workload] * len(counts))
            self._repeated = {len(counts): repeated}
        if not self.cells:
            return repeated
        columns = self._compiled(decisions.device).shrinking(decisions, order, counts)
        return repeated.with_columns(**{n: c.T.reshape(-1) for n, c in columns.items()})

    def _compiled(self, device: torch.device) -> "_Compiled":
        if device not in self._devices:
            self._devices[device] = _compile(self, device)
        return self._devices[device]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_devices": {}, "_repeated": {}}


@dataclass(frozen=True, eq=False)
class _Compiled:
    """Tensors of the compiled table.

    Attributes:
        pieces: the piece of each entry of the vector; entries that always count alike are one.
        sums: shape (counts, pieces): how often a piece is in a count.
        fixed: shape (counts,); the first count is the constant 1.
        factors: index of a count for each factor of each term, shape (factors, terms).
        scale: shape (terms,): a term is its factors' product times ``amount``, over ``scale``.
        cell: the sum that each term belongs to, shape (terms,), None where it is its own.
        n_sums: how many sums there are; the cells come first, then the divisors.
        divided: cells that have a divisor; ``divisor``: which sum that is.
        columns: names of the changed columns; ``base``: their traced values, flat; ``places``:
            where in them the cells stand.
    """

    pieces: Tensor
    n_pieces: int
    sums: Tensor
    fixed: Tensor
    factors: Tensor
    amount: Tensor
    scale: Tensor
    cell: Tensor | None
    n_sums: int
    n_cells: int
    divided: Tensor
    divisor: Tensor
    columns: tuple[str, ...]
    base: Tensor
    places: Tensor

    def __call__(self, decisions: Tensor) -> dict[str, Tensor]:
        """Return the changed columns, shape ``(rows,)``."""
        return self._columns(self._summed(decisions))

    def shrinking(self, decisions: Tensor, order: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Return columns of shape ``(rows, tables)``; see ``Table.shrinking``."""
        gone = self.amount.new_zeros(self.n_pieces, len(order) + 1)
        gone[self.pieces[order], torch.arange(1, len(order) + 1)] = decisions[order].to(gone)
        return self._columns(self._summed(decisions)[:, None] - gone.cumsum(1)[:, counts])

    def _summed(self, decisions: Tensor) -> Tensor:
        zeros = self.amount.new_zeros(self.n_pieces)
        return zeros.index_add(0, self.pieces, decisions.to(torch.float64))

    def _columns(self, pieces: Tensor) -> dict[str, Tensor]:
        """Return columns, shape ``(rows, *more)``, for sums of shape ``(pieces, *more)``."""
        more = pieces.shape[1:]
        counts = _tall(self.fixed, more) + self.sums @ pieces
        terms = _tall(self.amount, more)
        for index in self.factors:
            terms = terms * counts.index_select(0, index)
        # Multiplied first, divided once: whole numbers stay exact.
        terms = terms / _tall(self.scale, more)
        if self.cell is not None:
            terms = self.amount.new_zeros(self.n_sums, *more).index_add(0, self.cell, terms)
        values = terms[: self.n_cells] if self.n_sums > self.n_cells else terms
        if len(self.divided):
            quotients = terms.index_select(0, self.divided) / terms.index_select(0, self.divisor)
            values = values.index_copy(0, self.divided, quotients)
        base = _tall(self.base, more).expand(-1, *more)
        changed = base.index_copy(0, self.places, values.expand(-1, *more))
        rows = changed.view(len(self.columns), -1, *more).unbind()
        return dict(zip(self.columns, rows, strict=True))


def _tall(vector: Tensor, more: torch.Size) -> Tensor:
    """Return a vector as a column for what has ``more`` dimensions."""
    return vector.view(-1, *[1] * len(more))


def _compile(table: Table, device: torch.device) -> _Compiled:
    cells = list(table.cells)
    divided = [i for i, cell in enumerate(cells) if cell.per]
    groups = [cell.terms for cell in cells] + [cells[i].per for i in divided]
    terms = [(term, number) for number, group in enumerate(groups) for term in group]
    counts = _numbered(count for term, _ in terms for count in term.counts)
    pieces, sums = _pieces(list(counts), table.length)
    columns = tuple(name for name in SIZES if any(cell.column == name for cell in cells))
    rows = len(table.workload)
    depth = max((len(term.counts) for term, _ in terms), default=0)
    factors = [
        [counts[t.counts[d]] if d < len(t.counts) else 0 for t, _ in terms] for d in range(depth)
    ]
    numbers = [number for _, number in terms]
    one_each = numbers == list(range(len(groups)))
    compiled = {
        "pieces": pieces,
        "sums": sums,
        "fixed": _float([c.fixed for c in counts]),
        "factors": torch.tensor(factors, dtype=torch.int64).view(depth, len(terms)),
        "amount": _float([term.amount for term, _ in terms]),
        "scale": _float([_product(c.full for c in term.counts) for term, _ in terms]),
        "divided": torch.tensor(divided, dtype=torch.int64),
        "divisor": torch.arange(len(cells), len(groups)),
        "base": torch.cat([table.workload.column(name) for name in columns]),
        "places": torch.tensor([columns.index(c.column) * rows + c.row for c in cells]),
    }
    return _Compiled(
        **{name: tensor.to(device) for name, tensor in compiled.items()},
        cell=None if one_each else torch.tensor(numbers, device=device),
        n_pieces=sums.shape[1],
        n_sums=len(groups),
        n_cells=len(cells),
        columns=columns,
    )


#: The count that pads products: always 1.
_ONE = Count((), 1)


def _numbered(counts: Iterable[Count]) -> dict[Count, int]:
    numbers = {_ONE: 0}
    for count in counts:
        numbers.setdefault(count, len(numbers))
    return numbers


def _pieces(counts: Sequence[Count], length: int) -> tuple[Tensor, Tensor]:
    """Return the piece of each entry, and how often each count holds each piece."""
    holders: list[list[int]] = [[] for _ in range(length)]
    for number, count in enumerate(counts):
        for entry in count.entries:
            holders[entry].append(number)
    numbers: dict[tuple[int, ...], int] = {}
    pieces = [numbers.setdefault(tuple(held), len(numbers)) for held in holders]
    sums = torch.zeros(len(counts), max(len(numbers), 1), dtype=torch.float64)
    for held, piece in numbers.items():
        for number in held:
            sums[number, piece] += 1
    return torch.tensor(pieces, dtype=torch.int64), sums


def _float(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _product(values: Iterable[float]) -> float:
    total = 1.0
    for value in values:
        total *= value
    return total
