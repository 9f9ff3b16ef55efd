"""Names of rows: the module that ran, and the function where a module ran several.

- the only op of a module without modules inside has the module's path: ``layer1.0.conv1``;
- an op whose weight is registered in the module that runs it, or in one inside that it does not
  call, has the weight's place: ``attn.in_proj``, ``attn.out_proj``;
- any other has the module's path and the function: ``layer1.0.add``; in the model's own
  ``forward``, the function alone; a second one of the same name has ``_1`` after it;
- layers and directions of a recurrent network are ``lstm.l0``, ``lstm.l0_reverse``, ...;
- the second call of a module has ``#2`` after it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hwcost.recorder_values import Scope

#: Function -> what it is called in the name of a layer, where that is shorter.
_SHORT = {"scaled_dot_product_attention": "attention"}


class Named(NamedTuple):
    """What a row's name is made of: the module call, function, weight's name, part of the call."""

    scope: int
    function: str
    weight: str
    part: str


def names(scopes: Sequence[Scope], rows: Sequence[Named]) -> list[str]:
    """Return one name for each row, all different."""
    in_scope = Counter(row.scope for row in rows)
    used: dict[str, int] = {}
    return [_unique(_base(row, scopes, in_scope), scopes[row.scope].call, used) for row in rows]


def plain_name(parameter: str) -> str:
    """Return a parameter's name as it is without torch's parametrizations."""
    before, found, after = parameter.rpartition("parametrizations.")
    return before + after.partition(".")[0] if found else parameter


def _base(row: Named, scopes: Sequence[Scope], in_scope: Counter[int]) -> str:
    scope = scopes[row.scope]
    if scope.leaf and scope.path and in_scope[row.scope] == 1:
        return scope.path
    place = _place_of_weight(scope.path, row.weight)
    if place:
        return _joined(place, row.part)
    if row.part and scope.leaf and scope.path:
        return _joined(scope.path, row.part)
    function = _SHORT.get(row.function, row.function)
    return _joined(_joined(scope.path, function), row.part)


def _place_of_weight(path: str, weight: str) -> str:
    """Return the layer of a weight inside ``path``, "" where it is elsewhere or unnamed."""
    owner, _, own = weight.rpartition(".")
    if not weight or not (owner == path or owner.startswith(f"{path}." if path else "")):
        return ""
    stem = own.removesuffix("weight").rstrip("_")
    return _joined(owner, stem) if stem and not stem.startswith("weight_") else owner


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _unique(base: str, call: int, used: dict[str, int]) -> str:
    suffix = f"#{call + 1}" if call else ""
    name, count = base + suffix, 0
    while name in used:
        count = used[base + suffix] = used[base + suffix] + 1
        name = f"{base}_{count}{suffix}"
    used[name] = 0
    return name
