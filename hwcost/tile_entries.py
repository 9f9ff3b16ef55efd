"""The ``tile`` clause of an op entry: checked, and put together with the entry's formulas."""

from collections.abc import Callable, Mapping

import sympy

from hwcost.definitions import Definitions
from hwcost.errors import DescriptorError, did_you_mean, suggestion
from hwcost.formula import Scope, parse, symbol
from hwcost.schema import OpSpec, TileSpec
from hwcost.tile import CUTS, Tile, op_form

#: Keys of an entry that have a meaning only beside ``tile``.
_BESIDE = ("load", "store", "once")

#: What one tile needs unless the file says otherwise.
_BYTES = "tile_in_bytes + tile_w_bytes + tile_out_bytes"

#: Text, key and due unit -> the formula, its dimension checked.
Formulas = Callable[[str | float, str, str], sympy.Expr]


def make_tile(
    spec: OpSpec, kind: str, cycles: sympy.Expr, formula: Formulas, known: Definitions
) -> Tile | None:
    """Return how the ops of an entry are cut into tiles; None where they are not.

    Args:
        cycles: of one tile.
        formula: parses another formula of the entry.

    Raises:
        DescriptorError: a size or memory that does not exist, or a formula that is wrong.
    """
    if spec.tile is None:
        return None
    _check_sizes(spec.tile, kind)
    _check_memory(spec.tile, known)
    parts = {"compute": (str(spec.cycles), cycles)}
    for part in _BESIDE:
        text = getattr(spec, part)
        if text is not None:
            parts[part] = str(text), formula(text, part, "cycle")
    text = _BYTES if spec.tile.bytes is None else str(spec.tile.bytes)
    need = formula(text, "bytes", "B")
    if not known.tile_names(need):
        raise DescriptorError(f"'bytes' is {text!r}, the same for any tile; expected e.g. {_BYTES}")
    double = spec.tile.double_buffer
    return Tile(
        kind=kind,
        row=kind,
        cut=tuple(spec.tile.sizes),
        memory=spec.tile.memory,
        copies=2 if double else 1,
        steps=dict(spec.tile.step),
        bytes=need,
        text=text,
        overlap=double if spec.tile.overlap is None else spec.tile.overlap,
        parts=parts,
        sizes={},
    )


def op_cycles(tile: Tile) -> sympy.Expr:
    """Return the cycles of one sample over sizes and tile names."""
    return op_formula(tile, {part: expr for part, (_, expr) in tile.parts.items()})


def op_formula(tile: Tile, parts: Mapping[str, sympy.Basic]) -> sympy.Expr:
    """Return the cycles of one sample over ``n_tiles`` and those of the parts."""
    names = {"n_tiles": symbol("n_tiles"), **parts}
    return parse(op_form(tile.parts, tile.overlap), Scope(names, {}))


def check_beside(spec: OpSpec) -> None:
    """Check that an entry without cycles has no tiles, and one without tiles no transfers.

    Raises:
        DescriptorError: names the key that has no meaning.
    """
    given = [key for key in _BESIDE if getattr(spec, key) is not None]
    if spec.tile is None and given:
        raise DescriptorError(f"{given[0]!r} has a meaning only beside 'tile'")
    if spec.tile is not None and spec.cycles is None:
        raise DescriptorError("an entry with 'tile' needs 'cycles', those of one tile")


def _check_sizes(spec: TileSpec, kind: str) -> None:
    known = CUTS.get(kind, ())
    if not known:
        raise DescriptorError(f"{kind!r} cannot be cut into tiles")
    for size in spec.sizes:
        if size not in known:
            hint = did_you_mean(size, known)
            raise DescriptorError(
                f"{kind!r} cannot be cut along {size!r}{hint}; known: {', '.join(known)}"
            )
        if spec.sizes.count(size) > 1:
            raise DescriptorError(f"'sizes' of the tile names {size!r} twice")
    for size in spec.step:
        if size not in spec.sizes:
            hint = did_you_mean(size, spec.sizes)
            raise DescriptorError(f"'step' names {size!r}, which is not cut{hint}")


def _check_memory(spec: TileSpec, known: Definitions) -> None:
    memories = [name.removesuffix(".size") for name in known.names if name.endswith(".size")]
    if spec.memory not in memories:
        raise DescriptorError(f"no memory {spec.memory!r}{suggestion(spec.memory, memories)}")
