"""What is known about channels while a recording is walked: labels of tensors, and who is tied.

Every channel that may go has an *atom*, a number above 0; atom 0 stays always. A tensor carries
*lines*: along one of its dimensions, the atom of each entry. An entry of a tensor goes if one of
its lines' atoms does. Pairs of atoms that stand or fall together, and atoms that must stay, are
collected on the way and resolved at the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hwcost.recorder_values import Call, Recording, Ref
from hwcost.search.channels_constants import Constants
from hwcost.search.channels_live import dead_calls
from hwcost.search.channels_values import Barrier

Role = Literal["in", "out", "follow"]

#: The atom that stays always.
STAYS = 0


class Line(NamedTuple):
    """Atoms along a dimension of a tensor: int64, shape (size of the dimension,)."""

    dim: int
    labels: Tensor


class Hold(NamedTuple):
    """Atoms that must stay, and why."""

    labels: Tensor
    barrier: Barrier
    shown: bool


@dataclass
class CutLine:
    """Atoms along a dimension of a parameter, while they are collected."""

    labels: Tensor
    role: Role


class Site(NamedTuple):
    """A call that can be read in several ways; the last one freezes what it touches."""

    labels: Tensor
    options: int


@dataclass(eq=False)
class Flow:
    """The state of one walk.

    Attributes:
        recording: what is walked.
        choices: index of a call -> which way to read it, where there are several.
        lines: of every tensor that has any.
        cuts: (name, dimension) -> atoms of a parameter or buffer.
        producers: name of a weight -> atoms of its output channels.
        norms: path -> atoms of the features, and the number of groups.
        inputs: path of a recurrent module -> atoms of its input features.
        features: path of a normalisation -> atoms of its channels.
        united: pairs of atoms, as tensors of equal length.
        holds: atoms that stay.
        unsearched: name of a weight -> why it has no channels to search at all.
        sites: index of a call -> how it can be read.
        dead: indices of calls whose results nobody reads; they hold nothing.
    """

    recording: Recording
    choices: Mapping[int, int]
    lines: dict[Ref, tuple[Line, ...]] = field(default_factory=dict)
    cuts: dict[tuple[str, int], CutLine] = field(default_factory=dict)
    producers: dict[str, list[Tensor]] = field(default_factory=dict)
    norms: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    united: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    unsearched: dict[str, str] = field(default_factory=dict)
    sites: dict[int, Site] = field(default_factory=dict)
    index: int = -1
    atoms: int = 1

    def __post_init__(self) -> None:
        self.constants = Constants(self.recording)
        self.dead = dead_calls(self.recording)
        self._pinned: set[str] = set()
        self._grown: set[int] = set()

    # Facts

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return a tensor's sizes."""
        return self.recording.tensors[ref].shape

    def path(self, call: Call) -> str:
        """Return the path of the module that a call ran in."""
        return self.recording.scopes[call.scope].path if self.recording.scopes else ""

    # Atoms

    def fresh(self, count: int) -> Tensor:
        """Return new atoms, shape ``(count,)``."""
        self.atoms += count
        return torch.arange(self.atoms - count, self.atoms)

    def grow(self, count: int) -> Tensor:
        """Return new atoms for what is repeated as often as something else wants it."""
        labels = self.fresh(count)
        self._grown.update(labels.tolist())
        return labels

    def is_grown(self, labels: Tensor) -> bool:
        """Whether atoms are such, and were not united with others in what carries them."""
        return int(labels[0]) in self._grown

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Let atoms stand or fall together, one by one; shapes broadcast."""
        if first is not second:
            first, second = torch.broadcast_tensors(first, second)
            self.united.append((first.reshape(-1), second.reshape(-1)))

    def unite_rows(self, table: Tensor) -> Tensor:
        """Let each column of atoms be one; return one of each, shape ``(columns,)``."""
        if len(table) > 1:
            self.unite(table[1:], table[:1])
        return table[0]

    def hold(self, labels: Tensor, call: Call | None, reason: str, shown: bool = True) -> None:
        """Keep atoms alive, for a reason; one that is not ``shown`` is no barrier."""
        if call is not None and self.index in self.dead:
            return
        layer = "" if call is None else self.path(call)
        what = "output" if call is None else call.op.name
        self.holds.append(Hold(labels, Barrier(layer, what, reason), shown))

    def keep_produced(self, name: str, labels: Tensor, reason: str) -> None:
        """Keep channels that a weight makes, for a reason that lies in no single call."""
        barrier = Barrier(name.rpartition(".")[0], name, reason)
        self.holds.append(Hold(labels, barrier, shown=True))

    def choose(self, labels: Tensor, options: int) -> int:
        """Return which way to read the present call, ``options`` - 1 for none of them."""
        self.sites[self.index] = Site(labels, options)
        return min(self.choices.get(self.index, 0), options - 1)

    # Tensors

    def put(self, ref: Ref, lines: Iterable[Line]) -> None:
        """Give a tensor its lines; a dimension of size 1 has no channels that could go."""
        kept = tuple(line for line in lines if len(line.labels) > 1)
        if kept:
            self.lines[ref] = kept

    def read(self, ref: Ref) -> tuple[Line, ...]:
        """Return a tensor's lines; if it is made of parameters alone, these must stay whole."""
        if ref in self.constants.flexible:
            self.pin(ref)
        return self.lines.get(ref, ())

    def pin(self, ref: Ref) -> None:
        """Keep every entry of the parameters that a tensor is made of."""
        for name in self.constants.names(ref) - self._pinned:
            self._pinned.add(name)
            for dim, size in enumerate(self.constants.shape_of(name)):
                self.cut(name, dim, torch.zeros(size, dtype=torch.int64), "follow")

    def cut(self, name: str, dim: int, labels: Tensor, role: Role) -> None:
        """Tie a dimension of a parameter to atoms, shape ``(size of the dimension,)``."""
        known = self.cuts.get((name, dim))
        if known is None:
            self.cuts[name, dim] = CutLine(labels, role)
            return
        self.unite(known.labels, labels)
        if role == "in" or known.role == "follow":
            known.role = role

    def tie(self, ref: Ref | None, dim: int, labels: Tensor, role: Role, call: Call) -> bool:
        """Tie a dimension of a tensor that is made of parameters; hold the atoms if it is not."""
        if ref is None or self.shape(ref)[dim] == 1:
            return True
        places = self.constants.places(ref, dim, labels)
        if places is None:
            self.hold(labels, call, f"'{short(call)}' with a tensor that keeps all its channels")
            self.read(ref)
            return False
        for name, own_dim, own_labels in places:
            own_labels[own_labels < 0] = self.fresh(int((own_labels < 0).sum()))
            self.cut(name, own_dim, own_labels, role)
        return True


def short(call: Call) -> str:
    """Return an operator's name without its namespace."""
    return call.op.name.partition(".")[2].strip("_")


def only(lines: Sequence[Line], dim: int, flow: Flow, call: Call) -> Tensor | None:
    """Return the atoms along a dimension, None if there are none or several lines tell of it."""
    found = [line.labels for line in lines if line.dim == dim]
    if len(found) == 1:
        return found[0]
    for labels in found:
        flow.hold(labels, call, f"'{short(call)}' over channels and positions in one dimension")
    return None
