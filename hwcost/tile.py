"""Tiles: the part of an op that fits into a small memory at once, and what its formulas read.

A tile is solved for whole sizes (``tile_solver``), for those that a search changes again and again
(``tile_now``), and is a constant for the gradient: a column such as ``tile.cout`` for each size
that is cut. What formulas see of it, ``tcout``, ``n_tiles``, ``tile_in_bytes`` and so on, are
expressions of the op's sizes and these constants, written here once as text.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import sympy

from hwcost.derived import derived_exprs
from hwcost.formula import Scope, parse, symbol
from hwcost.formula_nodes import Ceil, Where
from hwcost.ops import KINDS, SIZES
from hwcost.units import Dimension, parse_unit

_CONV_CUTS = ("cin", "cout", "od", "oh", "ow")

#: Kind -> the sizes along which an op can be cut; other kinds cannot.
CUTS: dict[str, tuple[str, ...]] = {
    "conv": _CONV_CUTS,
    "conv_transpose": _CONV_CUTS,
    "linear": ("cin", "cout", "positions"),
    "matmul": ("m", "n", "k"),
    "attention": ("heads", "lq"),
    "pool": ("cout", "od", "oh", "ow"),
} | {kind: ("elements",) for kind, op in KINDS.items() if "elements" in op.sizes}

#: Name -> meaning, for what formulas read of a tile beside ``t`` and a size.
PARTS: dict[str, str] = {
    "tid": "input planes that a tile reads, from tod, the stride and the kernel",
    "tih": "input rows that a tile reads, from toh, the stride and the kernel",
    "tiw": "input columns that a tile reads, from tow, the stride and the kernel",
    "n_tiles": "tiles of one sample",
    "tile_in_bytes": "bytes of the inputs of a tile",
    "tile_w_bytes": "bytes of the weights of a tile",
    "tile_out_bytes": "bytes of the outputs of a tile",
}

#: Every name that formulas may read of a tile -> its meaning.
TILE_NAMES: dict[str, str] = {
    f"t{size}": f"{size} of a tile" for size in SIZES if any(size in cut for cut in CUTS.values())
} | PARTS


def _window(axis: str) -> str:
    """Inputs that some outputs of a convolution read along an axis, at most all."""
    return f"min(i{axis}, (to{axis} - 1)*s{axis} + (k{axis} - 1)*d{axis} + 1)"


def _spread(axis: str) -> str:
    """Inputs that some outputs of a transposed convolution read along an axis, at most all."""
    return f"min(i{axis}, floor((to{axis} - 1 + (k{axis} - 1)*d{axis})/s{axis}) + 1)"


_OUT_BYTES = "tcout*tod*toh*tow*o_bits/8"
_CONV = {
    "tile_w_bytes": "kd*kh*kw*tcout*where(groups == 1, tcin, cin/groups)*w_bits/8",
    # From here on, all inputs of the groups that the tile's outputs belong to.
    "tcin": "where(groups == 1, tcin, cin/groups*ceil(tcout*groups/cout))",
    "tile_in_bytes": "tcin*tid*tih*tiw*a_bits/8",
    "tile_out_bytes": _OUT_BYTES,
}
_FLAT = {
    "tile_in_bytes": "telements*reads*a_bits/8",
    "tile_w_bytes": "0",
    "tile_out_bytes": "telements*o_bits/8",
}

#: Kind -> name -> formula over the sizes, the cut sizes and the names before it.
_FORMULAS: dict[str, dict[str, str]] = {
    "conv": {f"ti{a}": _window(a) for a in "dhw"} | _CONV,
    "conv_transpose": {f"ti{a}": _spread(a) for a in "dhw"} | _CONV,
    "linear": {
        "tile_in_bytes": "tpositions*tcin*a_bits/8",
        "tile_w_bytes": "tcin*tcout*w_bits/8",
        "tile_out_bytes": "tpositions*tcout*o_bits/8",
    },
    "matmul": {
        "tile_in_bytes": "(tm*tk + tk*tn)*a_bits/8",
        "tile_w_bytes": "0",
        "tile_out_bytes": "tm*tn*o_bits/8",
    },
    "attention": {
        "tile_in_bytes": "theads*(tlq*dhead + lk*dhead + lk*dv)*a_bits/8",
        "tile_w_bytes": "0",
        "tile_out_bytes": "theads*tlq*dv*o_bits/8",
    },
    "pool": {f"ti{a}": _window(a) for a in "dhw"}
    | {
        "tile_in_bytes": "tcout*tid*tih*tiw*a_bits/8",
        "tile_w_bytes": "0",
        "tile_out_bytes": _OUT_BYTES,
    },
} | {kind: _FLAT for kind, op in KINDS.items() if "elements" in op.sizes}


@cache
def tile_dimensions() -> dict[str, Dimension]:
    """Return tile name -> its dimension: B for bytes, else none."""
    return {n: parse_unit("B" if n.endswith("_bytes") else "1").dimension for n in TILE_NAMES}


def constant(size: str) -> sympy.Symbol:
    """Return the column that holds the solved tile along a size."""
    return symbol(f"tile.{size}")


def _part(whole: sympy.Expr, tile: sympy.Expr) -> sympy.Expr:
    """What a tile is along a size; a size below the solved tile, as in a search, is whole."""
    return Where((whole, whole < tile), (tile, True))


@cache
def tile_exprs(kind: str, cut: tuple[str, ...]) -> dict[sympy.Symbol, sympy.Expr]:
    """Return tile name -> expression over the sizes of ``kind`` and the solved tile.

    Args:
        cut: the sizes that are cut; the others are whole in each tile.
    """
    names: dict[str, sympy.Expr] = {n: symbol(n) for n in SIZES}
    tiles = sympy.Integer(1)
    for size in CUTS[kind]:
        whole, tile = symbol(size), constant(size)
        names[f"t{size}"] = _part(whole, tile) if size in cut else whole
        if size in cut:
            # A size below the tile, as in a search, is one smaller tile.
            tiles *= Where((sympy.Integer(1), whole < tile), (Ceil(whole / tile), True))
    for name, text in _FORMULAS[kind].items():
        names[name] = parse(text, Scope(names, {}))
    names["n_tiles"] = tiles
    return {symbol(n): e for n, e in names.items() if n in TILE_NAMES}


@dataclass(frozen=True, eq=False)
class Tile:
    """How the tiles of an op entry are found, and what the op's time is made of.

    Attributes:
        kind: the kind whose tiles they are: the entry's own, or that of its alias.
        row: the kind of the ops.
        cut: the sizes that are cut.
        memory: the memory that a tile must fit into.
        copies: 2 where one tile is moved while the other is computed, else 1.
        steps: size -> a tile is a multiple of it, or the whole size.
        bytes: what one tile needs, over sizes and the solved tile.
        text: that formula in the file.
        overlap: whether transfers run beside the computation.
        parts: ``compute``, ``load``, ``store``, ``once`` -> text and formula over tile names.
        sizes: size of ``kind`` -> what stands for it in an alias.
    """

    kind: str
    row: str
    cut: tuple[str, ...]
    memory: str
    copies: int
    steps: Mapping[str, int]
    bytes: sympy.Expr
    text: str
    overlap: bool
    parts: Mapping[str, tuple[str, sympy.Expr]]
    sizes: Mapping[sympy.Symbol, sympy.Expr]

    @cached_property
    def names(self) -> dict[sympy.Symbol, sympy.Expr]:
        """Tile name -> expression over the row's sizes and the solved tile."""
        found = tile_exprs(self.kind, self.cut)
        return {name: expr.xreplace(self.sizes) for name, expr in found.items()}

    @cached_property
    def need(self) -> sympy.Expr:
        """Bytes that all copies of a tile need, over the row's sizes and the solved tile."""
        whole = self.bytes.xreplace(self.names).xreplace(derived_exprs(self.row))
        return self.copies * whole

    @cached_property
    def moved(self) -> sympy.Expr:
        """Bytes that one tile moves."""
        return sympy.Add(*(self.names[symbol(f"tile_{part}_bytes")] for part in ("in", "w", "out")))

    @cached_property
    def reads(self) -> tuple[sympy.Symbol, ...]:
        """All that the tile depends on, beside the rules of the search."""
        whole = sympy.Tuple(self.need, self.moved, *map(self.whole, self.cut), self.whole("groups"))
        return (*whole.free_symbols, symbol(f"{self.memory}.size"))

    @cached_property
    def cuts(self) -> dict[sympy.Expr, sympy.Expr]:
        """What a tile is along a size that is cut -> the solved tile, which is never larger."""
        return {_part(self.whole(size), constant(size)): constant(size) for size in self.cut}

    @property
    def shown(self) -> dict[str, sympy.Expr]:
        """Tile name -> expression over sizes and tile names, for people."""
        names = {n: symbol(n) for n in (*SIZES, *TILE_NAMES)}
        texts = {"n_tiles": "*".join(f"ceil({size}/t{size})" for size in self.cut)}
        found = {n: parse(t, Scope(names, {})) for n, t in (texts | _FORMULAS[self.kind]).items()}
        return {n: e.xreplace(self.sizes) for n, e in found.items() if n != "tcin"}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the solved tile."""
        return tuple(constant(size).name for size in self.cut)

    def whole(self, size: str) -> sympy.Expr:
        """Return what a size that is cut is in the row."""
        return self.sizes.get(symbol(size), symbol(size))

    def without(self, expr: sympy.Expr) -> sympy.Expr:
        """Return a formula over tile names as one over sizes and the solved tile."""
        return expr.xreplace(self.names)

    def renamed(self, row: str, sizes: Mapping[sympy.Symbol, sympy.Expr]) -> "Tile":
        """Return the tiles of another kind of op, which has formulas in place of sizes."""
        parts = {n: (text, expr.xreplace(sizes)) for n, (text, expr) in self.parts.items()}
        own = self.bytes.xreplace(sizes)
        return replace(self, row=row, bytes=own, parts=parts, sizes=dict(sizes))


def op_form(given: Collection[str], overlap: bool) -> str:
    """Return the cycles of an op by those of its parts, as text.

    With overlap, the first load and the last store stand alone, and in between a tile takes as
    long as its computation or its transfers, whichever is longer.

    Args:
        given: those of load, store and once that the entry has.
    """
    moved = [part for part in ("load", "store") if part in given]
    if not moved:
        form = "n_tiles*compute"
    elif overlap:
        form = f"n_tiles*max(compute, {' + '.join(moved)})"
        form = form if "load" not in given else f"load + {form}"
        form = form if "store" not in given else f"{form} + store"
    else:
        form = f"n_tiles*({' + '.join(('compute', *moved))})"
    return f"once + {form}" if "once" in given else form
