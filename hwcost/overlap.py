"""Entries of one engine that would price the same op: found when a platform is loaded."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

import sympy

from hwcost.errors import DescriptorError
from hwcost.ops import BITS, SIZES
from hwcost.platform import Entry

if TYPE_CHECKING:
    from torch import Tensor

#: Random ops on which conditions are compared, and the values that their sizes take.
PROBES = 4096
_VALUES = (1, 1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 64, 100, 128, 256, 512, 1000)
_BIT_VALUES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32)


def check_overlaps(
    entries: Sequence[Entry], numbers: Mapping[sympy.Symbol, sympy.Rational]
) -> None:
    """Check that no op is matched by two entries with equally many conditions.

    Conditions are compared on random ops, so an overlap on rare sizes alone is found only when
    such an op is priced.

    Args:
        entries: those of one kind.
        numbers: values of the params that conditions may read.

    Raises:
        DescriptorError: names both entries and sizes for which both hold.
    """
    equals = [[e for e in entries if e.conditions == n] for n in {e.conditions for e in entries}]
    for rivals in (r for r in equals if len(r) > 1):
        holds = [_holds(entry, numbers) for entry in rivals]
        for (i, first), (j, second) in combinations(enumerate(rivals), 2):
            both = (holds[i] & holds[j]).nonzero()
            if len(both):
                example = _example((first, second), int(both[0, 0]))
                raise DescriptorError(
                    f"two entries match {first.kind!r} equally{example}: {first.at} and"
                    f" {second.at}; add a condition to the 'where' of one of them"
                )


def _holds(entry: Entry, numbers: Mapping[sympy.Symbol, sympy.Rational]) -> "Tensor":
    # Here, not above: a file without rivals loads without torch, which takes a second.
    from hwcost.compile import compile_formula

    formula = compile_formula(entry.where.xreplace(dict(numbers)))
    return formula({name: _probe(name) for name in formula.names}).expand(PROBES)


def _example(entries: Sequence[Entry], row: int) -> str:
    """The sizes of a probe that conditions read, as text."""
    names = {s.name for e in entries for s in e.where.free_symbols if s.name in SIZES}
    sizes = ", ".join(f"{name}={_probe(name)[row].item():g}" for name in sorted(names))
    return f" at {sizes}" if sizes else ""


@cache
def _probe(name: str) -> "Tensor":
    """Values of a size over all probes; half of them are depthwise, with equal channel counts."""
    import torch

    values = torch.tensor(_BIT_VALUES if name in BITS else _VALUES, dtype=torch.float64)
    together = "channels" if name in ("cin", "cout", "groups") else name
    return torch.cat([_draw(values, name, PROBES // 2), _draw(values, together, PROBES // 2)])


def _draw(values: "Tensor", seed: str, count: int) -> "Tensor":
    import torch

    generator = torch.Generator().manual_seed(int.from_bytes(seed.encode()[:7], "big"))
    return values[torch.randint(len(values), (count,), generator=generator)]
