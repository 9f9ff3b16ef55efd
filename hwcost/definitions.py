"""What a platform file has defined so far: names, their dimensions, their places."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sympy

from hwcost.derived import size_dimensions
from hwcost.descriptor import Document
from hwcost.errors import DescriptorError
from hwcost.formula import TableLookup, check_name, symbol
from hwcost.ops import DERIVED, SIZES
from hwcost.units import Dimension

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

    def claim(self, name: str, what: str) -> None:
        """Check a name that the file defines, and that nothing else has it.

        Raises:
            DescriptorError: it is not a plain name, or is taken.
        """
        check_name(name)
        if self.taken.setdefault(name, what) != what:
            raise DescriptorError(f"{what} is named {name!r}, which is {self.taken[name]}")
