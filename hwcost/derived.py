"""The derived sizes of each kind (``macs``, ``w_bytes``, ...) as sympy expressions."""

from functools import cache

import sympy

from hwcost.formula import Scope, parse, parse_condition, symbol
from hwcost.ops import DERIVED, KINDS, SIZES
from hwcost.units import Dimension, parse_unit

_DIMENSIONS = {"macs": "op", "w_bytes": "B", "in_bytes": "B", "out_bytes": "B"}


@cache
def derived_exprs(kind: str) -> dict[sympy.Symbol, sympy.Basic]:
    """Return derived size -> expression over the size columns of ``kind``, nothing else inside."""
    names: dict[str, sympy.Basic] = {name: symbol(name) for name in SIZES}
    for name, text in KINDS[kind].derived.items():
        scope = Scope(names, {})
        names[name] = parse_condition(text, scope) if name == "depthwise" else parse(text, scope)
    return {symbol(name): names[name] for name in DERIVED}


@cache
def size_dimensions() -> dict[str, Dimension]:
    """Return size or derived size -> its dimension: op for macs, B for bytes, else none."""
    return {name: parse_unit(_DIMENSIONS.get(name, "1")).dimension for name in (*SIZES, *DERIVED)}
