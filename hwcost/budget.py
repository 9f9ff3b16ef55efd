"""How much a platform file may hold: enough for any hardware, too little to keep a reader busy."""

from collections.abc import Iterator

from hwcost.descriptor import Document
from hwcost.errors import DescriptorError
from hwcost.schema import EngineSpec, OpSpec, PlatformSpec

#: Characters in all formulas of a file, and op entries in all its engines.
MOST_FORMULA_TEXT = 40_000
MOST_OPS = 300
MOST_POINTS = 30


def check_size(document: Document, spec: PlatformSpec) -> None:
    """Check that a file is small enough to parse and compile within a second or two.

    Raises:
        DescriptorError: its formulas or its op entries are too many.
    """
    length = sum(len(str(text)) for text in _formulas(spec))
    if length > MOST_FORMULA_TEXT:
        where = document.where(())
        raise DescriptorError(
            f"{where}: the formulas have {length} characters; at most {MOST_FORMULA_TEXT}"
        )
    ops = sum(len(engine.ops) for engine in spec.engines.values())
    if ops > MOST_OPS:
        where = document.where(("engines",))
        raise DescriptorError(f"{where}: the engines have {ops} op entries; at most {MOST_OPS}")
    if len(spec.points) > MOST_POINTS:
        where = document.where(("points",))
        found = len(spec.points)
        raise DescriptorError(f"{where}: {found} operating points; at most {MOST_POINTS}")


def _formulas(spec: PlatformSpec) -> Iterator[object]:
    yield from spec.let.values()
    yield from spec.limits.values()
    for metric in spec.metrics.values():
        yield from (metric.row or "", metric.op or "")
    for engine in spec.engines.values():
        yield from _engine_formulas(engine)


def _engine_formulas(engine: EngineSpec) -> Iterator[object]:
    if engine.default is not None:
        yield engine.default.cycles
    for op in engine.ops:
        kinds = 1 if isinstance(op.match, str) else len(op.match)
        for text in _op_formulas(op):
            # An entry for several kinds is parsed once and checked for each.
            yield "" if text is None else str(text) * kinds


def _op_formulas(op: OpSpec) -> Iterator[object]:
    yield from (op.where, op.cycles, op.scratch, op.load, op.store, op.once)
    yield from op.reserved.values()
    yield from (op.as_ or {}).values()
    yield op.tile.bytes if op.tile else None
