"""Plan: which engine and which formula prices each row, and at which bits.

Decided once for a table's structure, on the traced sizes, so that a search which changes
sizes cannot move a layer from one formula to another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from hwcost.compile import Formula, compile_formula
from hwcost.errors import DescriptorError, PrecisionError, UnknownName, UnsupportedOp, did_you_mean
from hwcost.ops import BITS, KINDS
from hwcost.platform import Engine, Entry, Platform
from hwcost.workload import KIND_CODES, Structure

STATUSES = ("unsupported", "default", "free", "modelled")
UNSUPPORTED, DEFAULT, FREE, MODELLED = range(4)

#: How well an engine knows a row: an entry that matches beats the engine's fallback.
_RANK = {MODELLED: 2, FREE: 2, DEFAULT: 1, UNSUPPORTED: 0}


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
    """

    groups: tuple[Group, ...]
    engine: Tensor
    status: Tensor
    bits: Mapping[str, Tensor]
    problems: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One engine's offer for every row.

    Attributes:
        entry: index into ``entries`` of the row's entry, -1 for none; int64, shape ``(rows,)``.
        bits: the bits it would compute with.
        rank: how well it knows the row, int64, shape ``(rows,)``; 0 for not at all.
        refused: rows whose bits it cannot compute with; bool, shape ``(rows,)``.
    """

    engine: Engine | None
    entries: tuple[Entry, ...]
    entry: Tensor
    bits: Mapping[str, Tensor]
    rank: Tensor
    refused: Tensor


#: (rows, engine index, candidate) -> what the rows would cost there; shape of rows.
Price = Callable[[Tensor, int, Candidate], Tensor]


@cache
def _compiled(condition: object) -> Formula:
    return compile_formula(condition)


def make_plan(platform: Platform, structure: Structure, price: Price) -> Plan:
    """Return the plan of a structure; a row open to several engines goes where ``price`` is least.

    Raises:
        UnknownName: a row names an engine that the platform lacks.
        PrecisionError: no engine computes with a row's bits.
        DescriptorError: two entries of an engine match a row equally.
    """
    offers = [_offer(platform, engine, structure) for engine in platform.engines.values()]
    rank = torch.stack([offer.rank for offer in offers])
    placed = _placed(platform, structure)
    for index in range(len(offers)):
        rank[index][(placed >= 0) & (placed != index)] = 0
    best = rank.amax(0)
    chosen = _chosen(offers, rank, best, price)
    _check_precision(platform, structure, offers, placed, best)
    return _assembled(platform, structure, offers, chosen, best)


def bits_text(plan: Plan) -> str:
    """Return the precisions of the priced rows, such as ``w8a8`` or ``w2a8, w8a8``."""
    priced = (plan.status == MODELLED) | (plan.status == DEFAULT)
    pairs = torch.stack([plan.bits["w_bits"], plan.bits["a_bits"]], 1)[priced & ~plan.bits["a_bits"].isnan()]
    return ", ".join(f"w{w:g}a{a:g}" for w, a in torch.unique(pairs, dim=0).tolist())


def plan_by_size(platform: Platform, structure: Structure, counts_macs: bool) -> Plan:
    """Return the plan of a metric over sizes alone: every row is priced, engines play no part.

    Args:
        counts_macs: whether the metric reads MACs, which an unknown op does not tell.
    """
    codes = structure.kind_codes
    groups, status = [], torch.full(codes.shape, MODELLED, dtype=torch.int8)
    for kind in _kinds_of(codes):
        rows = _rows(codes == KIND_CODES[kind])
        if kind != "unknown" or not counts_macs:
            groups.append(Group(-1, kind, None, rows))
    problems = _unknown_rows(structure) if counts_macs else {}
    for row in problems:
        status[row] = UNSUPPORTED
    engine = torch.full((len(codes),), -1)
    return Plan(tuple(groups), engine, status, _bits(platform, None, structure), problems)


def _unknown_rows(structure: Structure) -> dict[int, str]:
    rows = (structure.kind_codes == KIND_CODES["unknown"]).nonzero().flatten().tolist()
    return {
        row: f"layer {structure.layers[row]!r}: {_function(structure, row)} is an op that hwcost does not know"
        for row in rows
    }


def _function(structure: Structure, row: int) -> str:
    return repr(structure.functions[row]) if structure.functions else repr(structure.kinds[row])


def _kinds_of(codes: Tensor) -> list[str]:
    names = list(KINDS)
    return [names[code] for code in torch.bincount(codes).nonzero().flatten().tolist()]


def _rows(mask: Tensor) -> Tensor | None:
    """Indices where ``mask`` holds, None where it holds everywhere."""
    return None if bool(mask.all()) else mask.nonzero().flatten()


def _bits(platform: Platform, engine: Engine | None, structure: Structure) -> dict[str, Tensor]:
    """The row's own bits; where open, the engine's only ones or the platform's ``deploy``."""
    bits = {}
    for name in ("w_bits", "a_bits"):
        own = engine.precision.get(name, ()) if engine else ()
        usual = own[0] if len(own) == 1 else platform.deploy.get(name, float("nan"))
        traced = structure.traced[name]
        bits[name] = torch.where(traced.isnan(), torch.tensor(usual, dtype=traced.dtype), traced)
    output = structure.traced["o_bits"]
    bits["o_bits"] = torch.where(output.isnan(), bits["a_bits"], output)
    return bits


def _offer(platform: Platform, engine: Engine, structure: Structure) -> Candidate:
    codes = structure.kind_codes
    bits = _bits(platform, engine, structure)
    entries: list[Entry] = []
    entry, rank = torch.full(codes.shape, -1), torch.zeros(codes.shape, dtype=torch.int64)
    for kind in _kinds_of(codes):
        rows = _rows(codes == KIND_CODES[kind])
        match = _match(platform, engine, kind, {**structure.traced, **bits}, structure, rows)
        found = [*engine.entries[kind], *([engine.default[kind]] if kind in engine.default else [])]
        ranks = torch.tensor([_RANK[_status(engine, one)] for one in found] + [0])
        where = slice(None) if rows is None else rows
        entry[where] = torch.where(match >= 0, match + len(entries), -1)
        rank[where] = ranks[match]
        entries += found
    refused = _refused(engine, structure, bits) & (rank > 0) & _computes(entries, entry)
    rank[refused] = 0
    return Candidate(engine, tuple(entries), entry, bits, rank, refused)


def _status(engine: Engine | None, entry: Entry) -> int:
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
    """Index of the entry that prices each of ``rows``: most conditions first, then the fallback, or -1.

    Args:
        columns: sizes and resolved bits of the whole table.
    """
    entries = engine.entries[kind]
    fallback = len(entries) if kind in engine.default else -1
    shape = (len(structure.kind_codes) if rows is None else len(rows),)
    match, conditions = torch.full(shape, fallback), torch.full(shape, -1)
    numbers = platform.numbers(engine)
    for index, entry in enumerate(entries):
        where = _compiled(entry.where.xreplace(numbers))
        read = {name: columns[name] if rows is None else columns[name][rows] for name in where.names}
        holds = where(read).expand(shape)
        clash = holds & (conditions == entry.conditions)
        if bool(clash.any()):
            first = int(clash.nonzero()[0, 0])
            row = first if rows is None else int(rows[first])
            other = entries[int(match[first])]
            raise DescriptorError(
                f"layer {structure.layers[row]!r} ({kind}): two entries of {platform.name}/{engine.name}"
                f" match it equally: {other.at} and {entry.at}; make one 'where' more specific"
            )
        better = holds & (conditions < entry.conditions)
        match = torch.where(better, index, match)
        conditions = torch.where(better, entry.conditions, conditions)
    return match


def _refused(engine: Engine, structure: Structure, bits: Mapping[str, Tensor]) -> Tensor:
    refused = torch.zeros(structure.kind_codes.shape, dtype=torch.bool)
    weighted = torch.tensor([has_weights(kind) for kind in KINDS])[structure.kind_codes]
    for name, known in engine.precision.items():
        wrong = ~torch.isin(bits[name], torch.tensor(known, dtype=torch.float64)) & ~bits[name].isnan()
        refused |= wrong & weighted if name == "w_bits" else wrong
    return refused


def has_weights(kind: str) -> bool:
    """Whether ops of a kind multiply by trained weights."""
    return "bias" in KINDS[kind].sizes


def _placed(platform: Platform, structure: Structure) -> Tensor:
    """Index of the engine that each row asks for, -1 where it leaves the choice open."""
    if not any(structure.engines):
        return torch.full(structure.kind_codes.shape, -1)
    names = {name: index for index, name in enumerate(platform.engines)}
    for row, engine in enumerate(structure.engines):
        if engine is not None and engine not in names:
            hint = did_you_mean(engine, names) or f"; known: {', '.join(names)}"
            raise UnknownName(f"layer {structure.layers[row]!r}: {platform.name} has no engine {engine!r}{hint}")
    return torch.tensor([-1 if e is None else names[e] for e in structure.engines])


def _chosen(offers: Sequence[Candidate], rank: Tensor, best: Tensor, price: Price) -> Tensor:
    """Index of the engine of each row; the first of equals."""
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
    platform: Platform, structure: Structure, offers: Sequence[Candidate], placed: Tensor, best: Tensor
) -> None:
    """Raise where bits alone keep a row from being priced."""
    for index, offer in enumerate(offers):
        wrong = offer.refused & (best == 0) & ((placed < 0) | (placed == index))
        if bool(wrong.any()):
            assert offer.engine is not None
            row = int(wrong.nonzero()[0, 0])
            found = f"w{offer.bits['w_bits'][row].item():g}a{offer.bits['a_bits'][row].item():g}"
            known = "; ".join(
                f"{name} {', '.join(map(str, values))}" for name, values in offer.engine.precision.items()
            )
            raise PrecisionError(
                f"layer {structure.layers[row]!r} is {found}, which {platform.name}/{offer.engine.name}"
                f" cannot compute; known: {known}"
            )


def _assembled(
    platform: Platform, structure: Structure, offers: Sequence[Candidate], chosen: Tensor, best: Tensor
) -> Plan:
    status = torch.full(chosen.shape, UNSUPPORTED, dtype=torch.int8)
    groups = []
    bits = {name: torch.full(chosen.shape, float("nan"), dtype=torch.float64) for name in BITS}
    for name in BITS:
        for index, offer in enumerate(offers):
            # An unsupported row keeps the first engine's bits: its activations are still in memory.
            mine = (chosen == index) | ((chosen < 0) & (index == 0))
            bits[name] = torch.where(mine, offer.bits[name], bits[name])
    for index, offer in enumerate(offers):
        for number, entry in enumerate(offer.entries):
            mask = (chosen == index) & (offer.entry == number)
            if not bool(mask.any()):
                continue
            state = _status(offer.engine, entry)
            status[mask] = state
            if state in (MODELLED, DEFAULT):
                groups.append(Group(index, entry.kind, entry, _rows(mask)))
    problems = _problems(platform, structure, offers, chosen)
    return Plan(tuple(groups), chosen, status, bits, problems)


def _problems(
    platform: Platform, structure: Structure, offers: Sequence[Candidate], chosen: Tensor
) -> dict[int, str]:
    problems = _unknown_rows(structure) if bool((chosen < 0).any()) else {}
    for row in (chosen < 0).nonzero().flatten().tolist():
        if row in problems:
            continue
        kind = structure.kinds[row]
        engines = [platform.engines[structure.engines[row]]] if structure.engines[row] else platform.engines.values()  # type: ignore[index]
        reasons = [
            offer.entries[int(offer.entry[row])].unsupported
            for offer in offers
            if offer.engine in engines and int(offer.entry[row]) >= 0 and offer.entries[int(offer.entry[row])].unsupported
        ]
        names = "/".join(e.name for e in engines)
        known = sorted({k for e in engines for k, found in e.entries.items() if any(not f.unsupported for f in found)})
        why = f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
        problems[row] = (
            f"layer {structure.layers[row]!r}: {platform.name}/{names} has no formula for {kind!r}{why};"
            f" known: {', '.join(known) or 'none'}"
        )
    return problems


def require_supported(plan: Plan) -> None:
    """Raise for the first unsupported row.

    Raises:
        UnsupportedOp: names the layer, the op, the platform and what it knows.
    """
    if plan.problems:
        more = f" (and {len(plan.problems) - 1} more)" if len(plan.problems) > 1 else ""
        raise UnsupportedOp(plan.problems[min(plan.problems)] + more)
