"""What each engine of a platform offers for the rows of a table: which entry, at which bits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.derived import derived_exprs
from hwcost.errors import DescriptorError
from hwcost.ops import KINDS
from hwcost.platform import Engine, Entry, Platform
from hwcost.structure import KIND_CODES, Structure
from hwcost.tile_rows import tiles_of

STATUSES = ("unsupported", "default", "free", "modelled")
UNSUPPORTED, DEFAULT, FREE, MODELLED = range(4)

#: How well an engine knows a row: an entry that matches beats the engine's fallback.
_RANK = {MODELLED: 2, FREE: 2, DEFAULT: 1, UNSUPPORTED: 0}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One engine's offer for every row.

    Attributes:
        entry: index into ``entries`` of the row's entry, -1 for none; int64, shape ``(rows,)``.
        bits: the bits it would compute with.
        rank: how well it knows the row, int64, shape ``(rows,)``; 0 for not at all.
        refused: rows whose bits it cannot compute with; bool, shape ``(rows,)``.
        tiles: column -> the row's solved tile, float64, shape ``(rows,)``; NaN where it has none.
        unfit: rows of which not even the smallest tile fits; bool, shape ``(rows,)``.
    """

    engine: Engine | None
    entries: tuple[Entry, ...]
    entry: Tensor
    bits: Mapping[str, Tensor]
    rank: Tensor
    refused: Tensor
    tiles: Mapping[str, Tensor]
    unfit: Tensor

    @property
    def columns(self) -> dict[str, Tensor]:
        """What is known of the rows beside their sizes."""
        return {**self.bits, **self.tiles}


@cache
def _compiled(condition: object) -> Formula:
    return compile_formula(condition)


def kinds_of(codes: Tensor) -> list[str]:
    """Return the kinds that occur among codes."""
    names = list(KINDS)
    return [names[code] for code in torch.bincount(codes).nonzero().flatten().tolist()]


def rows_where(mask: Tensor) -> Tensor | None:
    """Indices where ``mask`` holds, None where it holds everywhere."""
    return None if bool(mask.all()) else mask.nonzero().flatten()


def _by_value(function: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """``function`` of columns; of their one value where each repeats one without memory."""
    rows = columns[0].shape
    if len(columns[0]) > 1 and all(c.stride(0) == 0 for c in columns):
        return function(*(c[:1] for c in columns)).expand(rows)
    return function(*columns).expand(rows)


def resolved_bits(
    platform: Platform, engine: Engine | None, structure: Structure
) -> dict[str, Tensor]:
    """The row's own bits; where open, the engine's only ones or the platform's ``deploy``."""
    bits = {}
    for name in ("w_bits", "a_bits"):
        own = engine.precision.get(name, ()) if engine else ()
        usual = own[0] if len(own) == 1 else platform.deploy.get(name, float("nan"))
        bits[name] = _by_value(lambda own, usual=usual: _filled(own, usual), structure.traced[name])
    bits["o_bits"] = _by_value(_filled, structure.traced["o_bits"], bits["a_bits"])
    return bits


def _filled(column: Tensor, usual: Tensor | float) -> Tensor:
    return torch.where(column.isnan(), torch.as_tensor(usual, dtype=column.dtype), column)


def offer(platform: Platform, engine: Engine, structure: Structure) -> Candidate:
    """Return what an engine would do with every row.

    Raises:
        DescriptorError: two entries of the engine match a row equally.
    """
    codes = structure.kind_codes
    bits = resolved_bits(platform, engine, structure)
    sizes = {**structure.traced, **structure.unsplit, **bits}
    entries: list[Entry] = []
    entry, rank = torch.full(codes.shape, -1), torch.zeros(codes.shape, dtype=torch.int64)
    for kind in kinds_of(codes):
        rows = rows_where(codes == KIND_CODES[kind])
        match = _match(platform, engine, kind, sizes, structure, rows)
        found = [*engine.entries[kind], *([engine.default[kind]] if kind in engine.default else [])]
        ranks = torch.tensor([_RANK[status_of(engine, one)] for one in found] + [0])
        where = slice(None) if rows is None else rows
        entry[where] = torch.where(match >= 0, match + len(entries), -1)
        rank[where] = ranks[match]
        entries += found
    refused = _refused(engine, structure, bits) & (rank > 0) & _computes(entries, entry)
    rank[refused] = 0
    numbers = platform.numbers(engine)
    tiles, unfit = tiles_of(entries, entry, {**structure.traced, **bits}, numbers)
    rank[unfit] = 0
    return Candidate(engine, tuple(entries), entry, bits, rank, refused, tiles, unfit)


def status_of(engine: Engine | None, entry: Entry) -> int:
    """Return the index in ``STATUSES`` of rows that an entry prices."""
    if entry.unsupported:
        return UNSUPPORTED
    if entry.free:
        return FREE
    is_default = engine is not None and engine.default.get(entry.kind) is entry
    return DEFAULT if is_default else MODELLED


def _computes(entries: Sequence[Entry], entry: Tensor) -> Tensor:
    priced = torch.tensor([e.cycles is not None for e in entries] + [False])
    return priced[entry]


def _match(
    platform: Platform,
    engine: Engine,
    kind: str,
    columns: Mapping[str, Tensor],
    structure: Structure,
    rows: Tensor | None,
) -> Tensor:
    """Index of the entry that prices each of ``rows``, that of the fallback, or -1.

    Args:
        columns: sizes and resolved bits of the whole table.
    """
    entries = engine.entries[kind]
    fallback = len(entries) if kind in engine.default else -1
    shape = (len(structure.kind_codes) if rows is None else len(rows),)
    match, conditions = torch.full(shape, fallback), torch.full(shape, -1)
    numbers = platform.numbers(engine)
    for index, entry in enumerate(entries):
        where = _compiled(entry.where.xreplace(derived_exprs(kind)).xreplace(numbers))
        read = {
            name: columns[name] if rows is None else columns[name][rows] for name in where.names
        }
        holds = _holds(where, read, shape)
        clash = holds & (conditions == entry.conditions)
        if bool(clash.any()):
            first = int(clash.nonzero()[0, 0])
            row = first if rows is None else int(rows[first])
            other = entries[int(match[first])]
            raise DescriptorError(
                f"layer {structure.layers[row]!r} ({kind}): two entries of"
                f" {platform.name}/{engine.name} match it equally: {other.at} and"
                f" {entry.at}; make one 'where' more specific"
            )
        better = holds & (conditions < entry.conditions)
        match = torch.where(better, index, match)
        conditions = torch.where(better, entry.conditions, conditions)
    return match


def _holds(where: Formula, columns: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    if not columns:
        return where({}).expand(shape)
    names = list(columns)
    return _by_value(lambda *read: where(dict(zip(names, read, strict=True))), *columns.values())


def _refused(engine: Engine, structure: Structure, bits: Mapping[str, Tensor]) -> Tensor:
    refused = torch.zeros(structure.kind_codes.shape, dtype=torch.bool)
    weighted = _by_value(
        torch.tensor([has_weights(kind) for kind in KINDS]).__getitem__, structure.kind_codes
    )
    for name, known in engine.precision.items():
        able = torch.tensor(known, dtype=torch.float64)
        wrong = _by_value(lambda own, able=able: ~torch.isin(own, able) & ~own.isnan(), bits[name])
        refused |= wrong & weighted if name == "w_bits" else wrong
    return refused


def has_weights(kind: str) -> bool:
    """Whether ops of a kind multiply by trained weights."""
    return "bias" in KINDS[kind].sizes
