"""Rows to measure, and the order in which they are: in rounds, each through everything."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial

from hwcost.errors import FitError
from hwcost.measure_calls import ModuleCall, modules_of
from hwcost.measure_ops import Op, ops_of
from hwcost.measure_places import time_in_place
from hwcost.measure_subject import Subject
from hwcost.measure_time import ROUNDS, Settings, time_alone
from hwcost.progress import Progress


@dataclass(frozen=True, eq=False)
class Row:
    """An op of a network, or a whole network where it has no op.

    Attributes:
        key: equal for what takes equally long and is measured once.
    """

    net: str
    op: Op | None
    key: Hashable


#: Several times of each of the rows that it measures.
_Times = dict[Hashable, list[float]]


class Session:
    """Collects rows and what measures them, then measures in turn, several rounds.

    Attributes:
        times: key of a row -> times of one run, s.
        left_out: what cannot be measured, with the reason.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows: list[Row] = []
        self.times: _Times = {}
        self.left_out: list[str] = []
        self.interrupted = False
        self._jobs: list[tuple[str, Callable[[], _Times]]] = []

    def add(self, subject: Subject, *, ops: bool, net: bool, single: bool = False) -> None:
        """Add a network's rows and what is to be measured for them.

        On a CPU, modules are measured in their place in the network; other ops, and all on a
        GPU, which must have done before a clock is read, alone.

        Args:
            single: only modules count, and they are of no network.
        """
        found = self._known(subject, ops_of(subject))
        if net and found:
            whole: Hashable = ("net", subject.name)
            self.rows.append(Row(subject.name, None, whole))
            self._alone(whole, subject.name, subject)
        in_place: dict[Hashable, tuple[ModuleCall, ...]] = {}
        for op in found:
            key = op.key
            modules = () if op.replay is None else modules_of(op.replay)
            if single and not modules:
                continue
            if single:
                op = replace(op, layer=f"{subject.name} {op.layer}")
            self.rows.append(Row("" if single else subject.name, op, key))
            if op.replay is None:
                self.left_out.append(f"{subject.name}: {op.name}: {op.why}")
            elif not ops or key in self.times:
                continue
            elif modules and self.settings.device == "cpu":
                self.times[key] = []
                in_place[key] = modules
            else:
                self._alone(key, f"{subject.name} {op.name}", op.replay)
        if in_place:
            self._jobs.append((subject.name, partial(self._in_place, subject, in_place)))

    def _known(self, subject: Subject, ops: list[Op]) -> list[Op]:
        """The ops of a network, none where no platform could price all of them."""
        unknown = [op.name for op in ops if op.kind == "unknown"]
        if not unknown:
            return ops
        more = f" and {len(unknown) - 1} more" * (len(unknown) > 1)
        self.left_out.append(f"{subject.name}: hwcost does not know the op {unknown[0]!r}{more}")
        return []

    def _alone(self, key: Hashable, name: str, function: Callable[[], object]) -> None:
        self.times[key] = []
        self._jobs.append((name, lambda: {key: time_alone(function, self.settings)}))

    def _in_place(self, subject: Subject, ops: dict[Hashable, tuple[ModuleCall, ...]]) -> _Times:
        return dict(zip(ops, time_in_place(subject, [*ops.values()], self.settings), strict=True))

    def run(self, progress: Progress | None) -> None:
        """Measure all, in rounds; what fails in one of them is left out of the next."""
        failed: set[int] = set()
        for turn in range(ROUNDS):
            for i, (name, job) in enumerate(self._jobs):
                if progress is not None:
                    progress(name, turn * len(self._jobs) + i, self.total)
                if i in failed:
                    continue
                try:
                    found = job()
                except Exception as error:  # whatever a model raises
                    failed.add(i)
                    self._fails(name, error)
                    continue
                for key, times in found.items():
                    self.times[key] += times

    def _fails(self, name: str, error: Exception) -> None:
        said = "" if isinstance(error, FitError) else f"a later run raised {type(error).__name__}: "
        line = f"{name}: {said}{' '.join(str(error).split())[:200]}"
        self.left_out += [line] if line not in self.left_out else []

    @property
    def total(self) -> int:
        """How many measurements there are, over all rounds."""
        return ROUNDS * len(self._jobs)
