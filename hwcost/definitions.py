"""What a platform file has defined so far: names, their dimensions, their places."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import sympy

from hwcost.derived import size_dimensions
from hwcost.descriptor import Document
from hwcost.dimensions import dimension_of, require
from hwcost.errors import DescriptorError, FormulaError, UnitError
from hwcost.formula import TableLookup, check_name, symbol
from hwcost.ops import DERIVED, SIZES
from hwcost.tile import TILE_NAMES, tile_dimensions
from hwcost.units import Dimension

#: What ``taken`` says of a param.
PARAM = "a param"

#: What ``taken`` says of a name such as ``tcout``.
TILE_SIZE = "a size of tiles"

#: Names that metric formulas may read beside sizes and params.
METRIC_NAMES = ("cycles", "busy", "span")


def _sizes() -> dict[str, sympy.Basic]:
    return {name: symbol(name) for name in (*SIZES, *DERIVED)}


def _taken() -> dict[str, str]:
    sizes = dict.fromkeys((*SIZES, *DERIVED), "a size")
    return sizes | dict.fromkeys(METRIC_NAMES, "a name of metric formulas")


@dataclass(frozen=True)
class Definitions:
    """Names that formulas may use; it grows while a file is read from top to bottom.

    Attributes:
        names: name -> what it stands for.
        dims: name -> its dimension.
        tables: name -> its look-up function.
        taken: name -> what has it already.
    """

    document: Document
    names: dict[str, sympy.Basic] = field(default_factory=_sizes)
    dims: dict[str, Dimension] = field(default_factory=lambda: dict(size_dimensions()))
    tables: dict[str, type[TableLookup]] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=_taken)

    @contextmanager
    def at(self, *loc: str | int) -> Iterator[None]:
        """Add file and line to an error that states only the fact."""
        try:
            yield
        except DescriptorError as error:
            raise type(error)(f"{self.document.where(loc)}: {error}") from None

    def check_dimension(
        self,
        expr: sympy.Basic,
        due: Dimension,
        what: str,
        dims: Mapping[str, Dimension] | None = None,
    ) -> None:
        """Check that a formula has the dimension that is due.

        Args:
            what: the key, for messages.
            dims: name -> dimension, where it differs from ``dims`` of the file.

        Raises:
            UnitError: it has another; params without a unit are named, as they may be the cause.
        """
        try:
            require(dimension_of(expr, self.dims if dims is None else dims), due, what)
        except UnitError as error:
            bare = sorted(s.name for s in expr.free_symbols if self._has_no_unit(s.name))
            if not bare:
                raise
            names = ", ".join(map(repr, bare))
            have = "has" if len(bare) == 1 else "have"
            raise UnitError(f"{error}; {names} {have} no unit") from None

    def _has_no_unit(self, name: str) -> bool:
        return self.taken.get(name) == PARAM and self.dims[name] == Dimension.none()

    def claim_tiles(self) -> None:
        """Make the sizes of tiles known, for a file that has some."""
        self.names.update({name: symbol(name) for name in TILE_NAMES})
        self.dims.update(tile_dimensions())
        self.taken.update(dict.fromkeys(TILE_NAMES, TILE_SIZE))

    def tile_names(self, expr: sympy.Basic) -> list[str]:
        """Return the sizes of tiles that a formula reads."""
        names = (s.name for s in expr.free_symbols)
        return sorted(n for n in names if self.taken.get(n) == TILE_SIZE)

    def check_no_tile(self, expr: sympy.Basic) -> None:
        """Check that a formula of no tile reads no size of one.

        Raises:
            FormulaError: it does.
        """
        wrong = self.tile_names(expr)
        if wrong:
            fact = f"{wrong[0]!r} is the size of a tile"
            raise FormulaError(f"{fact}; only formulas of an op entry with 'tile' may read it")

    def claim(self, name: str, what: str) -> None:
        """Check a name that the file defines, and that nothing else has it.

        Raises:
            DescriptorError: it is not a plain name, or is taken.
        """
        check_name(name)
        if self.taken.setdefault(name, what) != what:
            raise DescriptorError(f"{what} is named {name!r}, which is {self.taken[name]}")
