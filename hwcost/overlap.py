"""Entries of one engine that would price the same op: found when a platform is loaded."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations

import sympy
import torch
from torch import Tensor

from hwcost.compile import compile_formula
from hwcost.errors import DescriptorError
from hwcost.ops import BITS
from hwcost.platform import Entry

#: Random ops on which conditions are compared, and the values that their sizes take.
PROBES = 4096
_VALUES = (1, 1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 64, 100, 128, 256, 512, 1000)
_BIT_VALUES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32)


def check_overlaps(entries: Sequence[Entry], numbers: Mapping[sympy.Symbol, sympy.Rational]) -> None:
    """Check that no op is matched by two entries with equally many conditions.

    Conditions are compared on random ops, so an overlap on rare sizes alone is found only when
    such an op is priced.

    Args:
        entries: those of one kind.
        numbers: values of the params that conditions may read.

    Raises:
        DescriptorError: names both entries and sizes for which both hold.
    """
    for first, second in combinations(entries, 2):
        if first.conditions != second.conditions:
            continue
        both = sympy.And(first.where, second.where).xreplace(dict(numbers))
        example = _example(both)
        if example is not None:
            at = f" at {example}" if example else ""
            raise DescriptorError(
                f"two entries match {first.kind!r} equally{at}: {first.at} and {second.at};"
                " add a condition to the 'where' of one of them"
            )


def _example(condition: sympy.Basic) -> str | None:
    """Sizes for which a condition holds, as text; None where it holds for no probe."""
    if condition == sympy.false:
        return None
    formula = compile_formula(condition)
    columns = {name: _probe(name) for name in formula.names}
    holds = formula(columns).expand(PROBES)
    if not bool(holds.any()):
        return None
    row = int(holds.nonzero()[0, 0])
    return ", ".join(f"{name}={columns[name][row].item():g}" for name in formula.names)


@cache
def _probe(name: str) -> Tensor:
    """Values of a size over all probes; half of them are depthwise, with equal channel counts."""
    values = torch.tensor(_BIT_VALUES if name in BITS else _VALUES, dtype=torch.float64)
    together = "channels" if name in ("cin", "cout", "groups") else name
    return torch.cat([_draw(values, name, PROBES // 2), _draw(values, together, PROBES // 2)])


def _draw(values: Tensor, seed: str, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(seed.encode()[:7], "big"))
    return values[torch.randint(len(values), (count,), generator=generator)]
