"""Turn what a walk collected into classes, axes and cuts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hwcost.recorder_values import Ref
from hwcost.search.channels_flow import STAYS, Flow, Hold
from hwcost.search.channels_values import Axis, Barrier, Channels, Cut, Field, Norm


def components(count: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the smallest member of each node's component, int64, shape ``(count,)``."""
    root = torch.arange(count)
    if not pairs:
        return root
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    while True:
        one, other = root[first], root[second]
        apart = one != other
        if not bool(apart.any()):
            return root
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        root.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while not torch.equal(root, higher := root[root]):
            root = higher


class Groups:
    """Atoms as groups that stand or fall together, some of which stay.

    Attributes:
        group: of each atom, shape ``(atoms,)``.
        stays: whether it stays, by atom, shape ``(atoms,)``.
        reasons: producer -> why all its channels stay.
        axes: lists of producers that share groups, with the groups, in order of first use.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.group = components(flow.atoms, flow.united)
        self.producers = {name: torch.cat(made) for name, made in flow.producers.items()}
        produced = torch.zeros(flow.atoms, dtype=torch.bool)
        for labels in self.producers.values():
            produced[self.group[labels]] = True
        self.produced = produced[self.group]
        held = torch.zeros(flow.atoms, dtype=torch.bool)
        held[self.group[STAYS]] = True
        for hold in flow.holds:
            held[self.group[hold.labels.reshape(-1)]] = True
        self.stays = held[self.group] | ~self.produced
        self.axes = [axis for axis in self._axes() if self._is_divisible(axis[1])]
        self.reasons = {name: self._why(name) for name in self._whole()}

    def _axes(self) -> list[tuple[list[str], Tensor]]:
        """Return producers that share groups, and these groups in order of first use."""
        free = {n: x[~self.stays[x]] for n, x in self.producers.items()}
        own = {name: self.group[labels] for name, labels in free.items() if len(labels)}
        pairs = [(groups[:1].expand_as(groups), groups) for groups in own.values()]
        root = components(len(self.group), pairs)
        found: dict[int, list[str]] = {}
        for name, groups in own.items():
            found.setdefault(int(root[groups[0]]), []).append(name)
        return [(names, _distinct([own[n] for n in names])) for names in found.values()]

    def _is_divisible(self, groups: Tensor) -> bool:
        if len(groups) == 1:
            self.stays |= self.group == groups[0]
        return len(groups) > 1

    def _whole(self) -> Iterable[str]:
        """Return producers none of whose channels can go."""
        searched = {name for names, _ in self.axes for name in names}
        trained = set(self.flow.recording.parameters.values())
        names = dict.fromkeys((*self.producers, *self.flow.unsearched))
        return [name for name in names if name in trained and name not in searched]

    def _why(self, name: str) -> str:
        if name in self.flow.unsearched:
            return self.flow.unsearched[name]
        own = set(self.group[self.producers[name]].tolist())
        for hold in self.flow.holds:
            if not own.isdisjoint(self.group[hold.labels.reshape(-1)].tolist()):
                return hold.barrier.reason
        if int(self.group[STAYS]) in own:
            return "they meet channels that stay"
        return "all its channels stand or fall together"

    def matters(self, hold: Hold) -> bool:
        """Whether something held is made by some layer."""
        return hold.shown and bool(self.produced[hold.labels.reshape(-1)].any())


def _distinct(parts: Sequence[Tensor]) -> Tensor:
    """Return distinct numbers in order of first appearance."""
    return torch.tensor(list(dict.fromkeys(torch.cat(list(parts)).tolist())))


def result(flow: Flow) -> tuple[Channels, Tensor]:
    """Return the channels of a network that was walked, and the class of each atom."""
    groups = Groups(flow)
    axes, classes, start = [], torch.full((flow.atoms,), -1), 0
    titles = _titles([names[0] for names, _ in groups.axes])
    for title, (names, members) in zip(titles, groups.axes, strict=True):
        classes[members] = torch.arange(start, start + len(members))
        axes.append(Axis(title, start, len(members), tuple(names)))
        start += len(members)
    classes = torch.where(groups.stays, -1, classes[groups.group])
    channels = Channels(
        axes=tuple(axes),
        cuts=_cuts(flow, classes),
        fields=_fields(flow, classes),
        norms={p: Norm(c, n) for p, (c, n) in _known(classes, flow.norms).items()},
        inputs={p: c for p, x in flow.inputs.items() if _is_any(c := classes[x])},
        frozen=groups.reasons,
        barriers=_barriers(groups),
        n_classes=start,
        features={p: c for p, x in flow.features.items() if _is_any(c := classes[x])},
    )
    return channels, classes


def _titles(weights: Sequence[str]) -> list[str]:
    """Return different names of axes: of modules, or of their weights where one has several."""
    paths = [weight.partition(".parametrizations.")[0] for weight in weights]
    paths = [p if p != w else w.rpartition(".")[0] for p, w in zip(paths, weights, strict=True)]
    several = {path for path, times in Counter(paths).items() if times > 1}
    return [w if path in several else path for w, path in zip(weights, paths, strict=True)]


def _is_any(classes: Tensor) -> bool:
    return bool((classes >= 0).any())


def _known(
    classes: Tensor, norms: Mapping[str, tuple[Tensor, int]]
) -> dict[str, tuple[Tensor, int]]:
    found = {path: (classes[labels], groups) for path, (labels, groups) in norms.items()}
    return {path: norm for path, norm in found.items() if _is_any(norm[0])}


def _cuts(flow: Flow, classes: Tensor) -> dict[str, tuple[Cut, ...]]:
    cuts: dict[str, tuple[Cut, ...]] = {}
    for (name, dim), line in flow.cuts.items():
        own = classes[line.labels]
        if _is_any(own):
            cuts[name] = (*cuts.get(name, ()), Cut(dim, own, line.role))
    return cuts


def _fields(flow: Flow, classes: Tensor) -> dict[Ref, tuple[Field, ...]]:
    fields: dict[Ref, tuple[Field, ...]] = {}
    known: dict[tuple[int, int, int], Field | None] = {}
    flexible = flow.constants.flexible
    for number, info in enumerate(flow.recording.tensors):
        ref, rank = Ref(number), len(info.shape)
        if ref in flexible:
            continue
        own = []
        for line in flow.lines.get(ref, ()):
            key = id(line.labels), line.dim, rank
            if key not in known:
                labels = classes[line.labels]
                shape = [-1 if d == line.dim else 1 for d in range(rank)]
                known[key] = Field(labels.view(shape)) if _is_any(labels) else None
            found = known[key]
            if found is not None:
                own.append(found)
        fields[ref] = tuple(own)
    return fields


def _barriers(groups: Groups) -> tuple[Barrier, ...]:
    return tuple(dict.fromkeys(h.barrier for h in groups.flow.holds if groups.matters(h)))
