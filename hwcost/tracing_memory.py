"""Which memory each tensor of a recording takes, from when to when."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from hwcost.recorder_values import Ref
from hwcost.structure import Buffers
from hwcost.tracing_facts import Facts


@dataclass(slots=True)
class _Buffer:
    producer: int
    elements: float
    first: int
    last: int
    share: float = 1.0
    reader: int = -1


@dataclass(eq=False)
class Memory:
    """Buffers of a schedule while its rows are made; one row is one op.

    A tensor lives until the last op that reads it or a view of it, a result of the model until
    the end.

    Attributes:
        facts: the tensors.
        reads: storage -> how many calls read it, the model's result counted as one.
    """

    facts: Facts
    reads: Counter[int]
    buffers: list[_Buffer] = field(default_factory=list)
    of_storage: dict[int, list[_Buffer]] = field(default_factory=dict)
    of_row: dict[int, _Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._extents: dict[int, int] = {}
        for info in self.facts.recording.tensors:
            self._extents[info.storage] = max(self._extents.get(info.storage, 0), info.numel)
        for ref in self.facts.recording.inputs:
            storage = self.facts.storage(ref)
            if storage not in self.of_storage:
                self._add(storage, _Buffer(-1, self._extents[storage], 0, 0))

    def _add(self, storage: int, buffer: _Buffer) -> None:
        self.buffers.append(buffer)
        self.of_storage.setdefault(storage, []).append(buffer)

    def read(self, refs: Iterable[Ref], row: int) -> None:
        """Keep what the tensors lie in until ``row``."""
        for storage in {self.facts.storage(r) for r in refs}:
            _read(self.of_storage.get(storage, ()), row)

    def read_rows(self, rows: Iterable[int], row: int) -> None:
        """Keep what rows of the same call wrote until ``row``."""
        _read([self.of_row[r] for r in rows if r in self.of_row], row)

    def write_row(self, row: int, numbers: int) -> None:
        """Take memory for what a row passes on to other rows of its call."""
        self.of_row[row] = _Buffer(row, numbers, row, row)
        self.buffers.append(self.of_row[row])

    def write(self, ref: Ref, rows: Mapping[int, int]) -> None:
        """Take memory for a tensor that rows write together: row -> how many numbers it writes."""
        storage = self.facts.storage(ref)
        elements = self._extents[storage] / len(rows)
        for row, out in rows.items():
            share = elements / out if out else 0.0
            self._add(storage, _Buffer(row, elements, row, row, share))

    def share(self, source: Ref, refs: Iterable[Ref]) -> None:
        """Let tensors lie in the memory of ``source``."""
        self.share_any([source], refs)

    def share_all(self, source: Ref, refs: Iterable[Ref]) -> None:
        """Let tensors be ``source``: what may not be done to one may not be done to the other."""
        self.share(source, refs)
        storage = self.facts.storage(source)
        for other in {self.facts.storage(ref) for ref in refs}:
            self.reads[other] += self.reads[storage] - 1
            self._extents[other] = self._extents[storage]

    def share_any(self, sources: Iterable[Ref], refs: Iterable[Ref]) -> None:
        """Let tensors lie in the memory of one of ``sources``: all of it is kept for them."""
        storages = dict.fromkeys(self.facts.storage(source) for source in sources)
        held = [buffer for s in storages for buffer in self.of_storage.get(s, ())]
        if len(storages) == 1:  # what is written there later is shared too
            held = self.of_storage.get(next(iter(storages)), held)
        for ref in refs:
            self.of_storage[self.facts.storage(ref)] = held

    def has(self, ref: Ref) -> bool:
        """Whether the tensor has memory already."""
        return bool(self.of_storage.get(self.facts.storage(ref)))

    def may_overwrite(self, source: Ref, out: Ref) -> bool:
        """Whether ``out`` may lie where ``source`` does: only its op reads that, all of it."""
        storage = self.facts.storage(source)
        held = self.of_storage.get(storage, ())
        return (
            len(held) > 0
            and all(b.producer >= 0 for b in held)
            and self.reads[storage] == 1
            and self._extents[storage] == self.facts.info(out).numel
        )

    def finished(self, rows: int) -> Buffers:
        """Return all buffers; the model's results last until the end."""
        for ref in self.facts.recording.outputs:
            for buffer in self.of_storage.get(self.facts.storage(ref), ()):
                buffer.last = rows

        def column(name: str, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([getattr(b, name) for b in self.buffers], dtype=dtype)

        return Buffers(
            producer=column("producer", torch.int64),
            elements=column("elements", torch.float64),
            first=column("first", torch.int64),
            last=column("last", torch.int64),
            share=column("share", torch.float64),
            reader=column("reader", torch.int64),
        )


def _read(buffers: Iterable[_Buffer], row: int) -> None:
    for buffer in buffers:
        buffer.last = max(buffer.last, row)
        buffer.reader = row if buffer.reader < 0 else buffer.reader
