"""Scores of units that stand or fall together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from hwcost.errors import UnknownName
from hwcost.recorder_values import without_compiler
from hwcost.search.attributions_data import Batch
from hwcost.search.coupling import Coupling, find_coupling

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Member:
    """A module of a group.

    Attributes:
        path: of the module; module: itself.
        classes: the class of each of its units, -1 for those that stay.
    """

    path: str
    module: nn.Module
    classes: Sequence[int]


def members_of(model: nn.Module, path: str, batch: Batch) -> list[Member]:
    """Return the modules whose units stand or fall with those of a module, itself first."""
    coupling = find_coupling(model, batch.args, batch.kwargs)
    modules = {without_compiler(name): (name, m) for name, m in model.named_modules()}
    own = without_compiler(path)
    found = []
    for name in dict.fromkeys((own, *coupling.members(own))):
        classes = _classes(coupling, name, modules[name][1])
        if name == own or set(classes) - {-1}:
            found.append(Member(*modules[name], classes))
    return found


def _classes(coupling: Coupling, path: str, module: nn.Module) -> list[int]:
    try:
        units: list[int] = coupling.units(path).tolist()
    except UnknownName:
        return []
    if isinstance(module, nn.MultiheadAttention):  # its units are heads, not what it returns
        return []
    return units


def grouped(scores: Sequence["Array"], members: Sequence[Member], how: str) -> "Array":
    """Return the scores of the first member's units, each together with its class.

    Args:
        scores: of each member, units last.
        members: who they are.
        how: ``"sum"``, ``"mean"`` or ``"max"`` over all units of a class.
    """
    import numpy as np

    own = scores[0].copy()
    together: dict[int, list[Array]] = {}
    for score, member in zip(scores, members, strict=True):
        for unit, number in enumerate(member.classes):
            together.setdefault(number, []).append(score[..., unit])
    reduce: Any = {"sum": np.sum, "mean": np.mean, "max": np.max}[how]
    for unit, number in enumerate(members[0].classes):
        if number >= 0:
            own[..., unit] = reduce(together[number], axis=0)
    return own
