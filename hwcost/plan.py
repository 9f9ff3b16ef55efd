"""Plan: which engine and which formula prices each row, and at which bits.

Decided once for a table's structure, on the traced sizes, so that a search which changes
sizes cannot move a layer from one formula to another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwcost.errors import PrecisionError, UnknownName, UnsupportedOp, suggestion
from hwcost.offers import (
    DEFAULT,
    MODELLED,
    UNSUPPORTED,
    Candidate,
    kinds_of,
    offer,
    resolved_bits,
    rows_where,
    status_of,
)
from hwcost.ops import BITS, KINDS
from hwcost.platform import Entry, Platform
from hwcost.structure import KIND_CODES, Structure
from hwcost.tile_rows import joined_tiles, rows_by_solver, unfit_text
from hwcost.tile_solver import Solver, solver


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that one formula prices.

    Attributes:
        engine: index of the engine in the platform's order; -1 for a platform without engines.
        rows: their indices, int64, or None for all rows of the table in order.
        entry: the op entry; None for a platform without engines.
    """

    engine: int
    kind: str
    entry: Entry | None
    rows: Tensor | None


@dataclass(frozen=True, eq=False)
class Plan:
    """Who prices each row of a structure.

    Attributes:
        groups: rows with a price; free and unsupported rows are in none.
        engine: index of the row's engine, -1 for none, int64, shape ``(rows,)``.
        status: index into ``STATUSES``, int8, shape ``(rows,)``.
        bits: resolved ``w_bits a_bits o_bits``, float64, shape ``(rows,)``; NaN where open.
        problems: row -> why it is unsupported.
        tiles: column -> the row's solved tile, float64, shape ``(rows,)``; NaN where it has none.
        solvers: what finds tiles -> the rows, int64, whose tiles it finds.
    """

    groups: tuple[Group, ...]
    engine: Tensor
    status: Tensor
    bits: Mapping[str, Tensor]
    problems: Mapping[int, str] = field(default_factory=dict)
    tiles: Mapping[str, Tensor] = field(default_factory=dict)
    solvers: Mapping[Solver, Tensor] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Tensor]:
        """What the formulas read of the rows beside their sizes."""
        return {**self.bits, **self.tiles}


#: (rows, engine index, candidate) -> what the rows would cost there; shape of rows.
Price = Callable[[Tensor, int, Candidate], Tensor]


def make_plan(platform: Platform, structure: Structure, price: Price) -> Plan:
    """Return the plan of a structure; a row open to several engines goes where ``price`` is least.

    Raises:
        UnknownName: a row names an engine that the platform lacks.
        PrecisionError: no engine computes with a row's bits.
        DescriptorError: two entries of an engine match a row equally.
    """
    offers = [offer(platform, engine, structure) for engine in platform.engines.values()]
    rank = torch.stack([offer.rank for offer in offers])
    placed = _placed(platform, structure)
    if placed.stride(0):
        for index in range(len(offers)):
            rank[index][(placed >= 0) & (placed != index)] = 0
    best = rank.amax(0)
    chosen = _chosen(offers, rank, best, price)
    _check_precision(platform, structure, offers, placed, best)
    return _assembled(platform, structure, offers, chosen, best)


def bits_text(plan: Plan) -> str:
    """Return the precisions of the priced rows, such as ``w8a8`` or ``w2a8, w8a8``."""
    priced = (plan.status == MODELLED) | (plan.status == DEFAULT)
    pairs = torch.stack([plan.bits["w_bits"], plan.bits["a_bits"]], 1)[
        priced & ~plan.bits["a_bits"].isnan()
    ]
    return ", ".join(f"w{w:g}a{a:g}" for w, a in torch.unique(pairs, dim=0).tolist())


def plan_by_size(platform: Platform, structure: Structure, counts_macs: bool) -> Plan:
    """Return the plan of a metric over sizes alone: every row is priced, engines play no part.

    Args:
        counts_macs: whether the metric reads MACs, which an unknown op does not tell.
    """
    codes = structure.kind_codes
    groups, status = [], torch.full(codes.shape, MODELLED, dtype=torch.int8)
    for kind in kinds_of(codes):
        rows = rows_where(codes == KIND_CODES[kind])
        if kind != "unknown" or not counts_macs:
            groups.append(Group(-1, kind, None, rows))
    problems = _unknown_rows(structure) if counts_macs else {}
    for row in problems:
        status[row] = UNSUPPORTED
    engine = torch.full((len(codes),), -1)
    return Plan(tuple(groups), engine, status, resolved_bits(platform, None, structure), problems)


def _unknown_rows(structure: Structure) -> dict[int, str]:
    rows = (structure.kind_codes == KIND_CODES["unknown"]).nonzero().flatten().tolist()
    return {
        row: f"layer {structure.layers[row]!r}: {_function(structure, row)} is an op"
        " that hwcost does not know"
        for row in rows
    }


def _function(structure: Structure, row: int) -> str:
    return repr(structure.functions[row]) if structure.functions else repr(structure.kinds[row])


def _placed(platform: Platform, structure: Structure) -> Tensor:
    """Index of the engine that each row asks for, -1 where it leaves the choice open."""
    if tuple(structure.engines).count(None) == len(structure.engines):
        return torch.tensor(-1).expand(structure.kind_codes.shape)
    names = {name: index for index, name in enumerate(platform.engines)}
    for row, engine in enumerate(structure.engines):
        if engine is not None and engine not in names:
            hint = suggestion(engine, names)
            raise UnknownName(
                f"layer {structure.layers[row]!r}: {platform.name} has no engine {engine!r}{hint}"
            )
    return torch.tensor([-1 if e is None else names[e] for e in structure.engines])


def _chosen(offers: Sequence[Candidate], rank: Tensor, best: Tensor, price: Price) -> Tensor:
    """Index of the engine of each row; the first of equals."""
    if len(offers) == 1:
        return best.clamp(max=1) - 1
    able = (rank == best) & (best > 0)
    contested = able.sum(0) > 1
    chosen = able.to(torch.int64).argmax(0)
    if bool(contested.any()):
        costs = torch.full(able.shape, float("inf"), dtype=torch.float64)
        for index, offer in enumerate(offers):
            rows = (contested & able[index]).nonzero().flatten()
            if len(rows):
                costs[index, rows] = price(rows, index, offer)
        cheapest = costs.argmin(0)
        chosen = torch.where(contested, cheapest, chosen)
    return torch.where(best > 0, chosen, -1)


def _check_precision(
    platform: Platform,
    structure: Structure,
    offers: Sequence[Candidate],
    placed: Tensor,
    best: Tensor,
) -> None:
    """Raise where bits alone keep a row from being priced."""
    for index, one in enumerate(offers):
        wrong = one.refused & (best == 0) & ((placed < 0) | (placed == index))
        if bool(wrong.any()):
            assert one.engine is not None
            row = int(wrong.nonzero()[0, 0])
            found = f"w{one.bits['w_bits'][row].item():g}a{one.bits['a_bits'][row].item():g}"
            known = "; ".join(
                f"{name} {', '.join(map(str, values))}"
                for name, values in one.engine.precision.items()
            )
            raise PrecisionError(
                f"layer {structure.layers[row]!r} is {found},"
                f" which {platform.name}/{one.engine.name}"
                f" cannot compute; known: {known}"
            )


def _assembled(
    platform: Platform,
    structure: Structure,
    offers: Sequence[Candidate],
    chosen: Tensor,
    best: Tensor,
) -> Plan:
    status = torch.full(chosen.shape, UNSUPPORTED, dtype=torch.int8)
    groups, cut = [], []
    # An unsupported row keeps the first engine's bits: its activations are still in memory.
    bits = dict(offers[0].bits)
    for index, one in enumerate(offers[1:], start=1):
        bits |= {name: torch.where(chosen == index, one.bits[name], bits[name]) for name in BITS}
    for index, one in enumerate(offers):
        for number, entry in enumerate(one.entries):
            mask = (chosen == index) & (one.entry == number)
            if not bool(mask.any()):
                continue
            state = status_of(one.engine, entry)
            status[mask] = state
            if state not in (MODELLED, DEFAULT):
                continue
            groups.append(Group(index, entry.kind, entry, rows_where(mask)))
            if entry.tile is not None:
                rows = mask.nonzero().squeeze(1)
                cut.append((solver(entry.tile, platform.numbers(one.engine)), rows))
    problems = _problems(platform, structure, offers, chosen)
    tiles = joined_tiles([one.tiles for one in offers], chosen)
    return Plan(tuple(groups), chosen, status, bits, problems, tiles, rows_by_solver(cut))


def _problems(
    platform: Platform, structure: Structure, offers: Sequence[Candidate], chosen: Tensor
) -> dict[int, str]:
    rows = (chosen < 0).nonzero().flatten().tolist()
    problems = _unknown_rows(structure) if rows else {}
    return problems | {
        row: _problem(platform, structure, offers, row) for row in rows if row not in problems
    }


def _problem(
    platform: Platform, structure: Structure, offers: Sequence[Candidate], row: int
) -> str:
    """Why no engine prices a row: the platform's reason, the sizes it looks at, what it knows."""
    kind, asked = structure.kinds[row], structure.engines[row]
    unfit = [o for o in offers if bool(o.unfit[row]) and _asks(structure, row, o)]
    if unfit:
        reasons = [_unfit(platform, structure, one, row) for one in unfit]
        return f"layer {structure.layers[row]!r}: {'; '.join(reasons)}"
    able = [o for o in offers if o.engine is not None and asked in (None, o.engine.name)]
    engines = [o.engine for o in able if o.engine is not None]
    matched = [o.entries[int(o.entry[row])] for o in able if int(o.entry[row]) >= 0]
    told = dict.fromkeys(entry.unsupported for entry in matched if entry.unsupported)
    reads = {s.name for e in engines for entry in e.entries[kind] for s in entry.where.free_symbols}
    sizes = [f"{n}={structure.traced[n][row].item():g}" for n in KINDS[kind].sizes if n in reads]
    known = {
        k
        for e in engines
        for k, found in e.entries.items()
        if any(not f.unsupported for f in found)
    }
    return (
        f"layer {structure.layers[row]!r}: {platform.name}/{'/'.join(e.name for e in engines)}"
        f" has no formula for {kind!r}{' with ' if sizes else ''}{', '.join(sizes)}"
        f"{': ' if told else ''}{'; '.join(told)};"
        f" known: {', '.join(sorted(known)) or 'none'}"
    )


def _unfit(platform: Platform, structure: Structure, offer: Candidate, row: int) -> str:
    """Why no tile of a row fits on an engine."""
    assert offer.engine is not None
    columns, entry = {**structure.traced, **offer.bits}, offer.entries[int(offer.entry[row])]
    reason = unfit_text(entry, columns, row, platform.numbers(offer.engine))
    return f"{platform.name}/{offer.engine.name}: {reason}"


def _asks(structure: Structure, row: int, offer: Candidate) -> bool:
    """Whether a row may run on the engine of an offer."""
    asked = structure.engines[row]
    return offer.engine is not None and asked in (None, offer.engine.name)


def require_supported(plan: Plan) -> None:
    """Raise for the first unsupported row.

    Raises:
        UnsupportedOp: names the layer, the op, the platform and what it knows.
    """
    if plan.problems:
        more = f" (and {len(plan.problems) - 1} more)" if len(plan.problems) > 1 else ""
        raise UnsupportedOp(plan.problems[min(plan.problems)] + more)
