"""One reading of a recording: what its code may mean where it can mean several things."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hwcost.recorder_values import Recording
from hwcost.search.channels_flow import Flow
from hwcost.search.channels_result import result
from hwcost.search.channels_values import Axis, Channels
from hwcost.search.channels_walk import walk

#: How reasons begin that lie in sizes which the model's code computes or states.
_CODE = "the model's code fixes"


class Kind(NamedTuple):
    """Calls that are read in the same way: of one operator in one class of modules.

    Attributes:
        op: the operator.
        cls: the modules' class.
        options: how many ways there are to read it.
        before: how many dimensions its input has; after: those of its output.
    """

    op: str
    cls: str
    options: int
    before: int
    after: int


@dataclass(eq=False)
class Reading:
    """One way to read a recording.

    Attributes:
        recording: the run.
        fixed: names of parameters that must stay whole.
        choices: index of a call -> which way to read it.
        kept: name of a weight -> why its output channels stay.
        faults: name of a weight -> why it could not shrink in earlier readings.
        tried: calls, and ways to read them that failed.
    """

    recording: Recording
    fixed: frozenset[str] = frozenset()
    choices: dict[int, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    tried: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        self.flow: Flow = walk(self.recording, self.choices, self.kept, self.fixed)
        channels, self._classes = result(self.flow)
        self.channels = replace(channels, frozen={**channels.frozen, **self._faulty(channels)})

    @property
    def score(self) -> tuple[int, int]:
        """How many weights have channels that can go, and how many of these there are."""
        weights = sum(len(axis.producers) for axis in self.channels.axes)
        return weights, self.channels.n_classes

    def kind(self, index: int) -> "Kind":
        """Return what a call that can be read in several ways has in common with others."""
        call, site = self.recording.calls[index], self.flow.sites[index]
        ranks = (len(self.flow.shape(ref)) for ref in (call.inputs[0], call.outputs[0]))
        return Kind(call.op.name, self.recording.scopes[call.scope].cls, site.options, *ranks)

    def is_frozen(self, index: int) -> bool:
        """Whether no channel that a call can divide in several ways can go."""
        return bool((self._classes[self.flow.sites[index].labels] < 0).all())

    def read_as(self, kind: "Kind", way: int) -> "Reading":
        """Return a reading with calls of one kind read in one way."""
        sites = [i for i in self.flow.sites if self.kind(i) == kind]
        choices = self.choices | dict.fromkeys(sites, way)
        return replace(self, choices=choices)

    def without(self, culprits: Mapping[Axis, str]) -> "Reading":
        """Return a reading in which these axes are read in another way, or stay."""
        choices, faults, kept = dict(self.choices), dict(self.faults), dict(self.kept)
        tried = self.tried | {(i, choices.get(i, 0)) for i in self.flow.sites}
        for axis, fault in culprits.items():
            kinds = {self.kind(index) for index in self._sites(axis)}
            moves = {i: w for i in self.flow.sites if self.kind(i) in kinds for w in self._left(i)}
            choices |= moves
            reasons = dict.fromkeys(axis.producers, f"{_CODE} the size: {fault}")
            faults |= reasons
            kept |= {} if moves else reasons
        return replace(self, choices=choices, kept=kept, faults=faults, tried=tried)

    def without_all(self) -> "Reading":
        """Return a reading in which all channels stay."""
        kept = dict.fromkeys(self.flow.producers, f"{_CODE} the sizes")
        return replace(self, kept=kept, tried=frozenset())

    def _faulty(self, channels: Channels) -> dict[str, str]:
        """Return why weights stay whose removal failed: not for what this reading says of them."""
        guessed = [n for n, why in channels.frozen.items() if not why.startswith(_CODE)]
        return {name: self.faults[name] for name in guessed if name in self.faults}

    def _sites(self, axis: Axis) -> list[int]:
        found = []
        for index, site in self.flow.sites.items():
            classes = self._classes[site.labels]
            if bool(((classes >= axis.start) & (classes < axis.start + axis.size)).any()):
                found.append(index)
        return found

    def _left(self, index: int) -> list[int]:
        """Return the next way to read a call, none if all failed."""
        now = self.choices.get(index, 0)
        ways = range(self.flow.sites[index].options)
        return [way for way in ways if way != now and (index, way) not in self.tried][:1]


def best(first: Reading) -> Reading:
    """Return a reading, or one that frees more layers where it freezes some."""
    for kind in dict.fromkeys(first.kind(i) for i in first.flow.sites if first.is_frozen(i)):
        others = [first.read_as(kind, way) for way in range(1, kind.options - 1)]
        first = max(first, *others, key=lambda reading: reading.score) if others else first
    return first
