"""Time ops and whole networks on this machine: the measurements that ``hwcost fit`` reads.

found = measure({"resnet8": zoo.resnet8()}, Settings(threads=1))
found.write("rows.csv", date="2026-11-21")
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwcost.measure_session import Row, Session
from hwcost.measure_subject import Subject, subject_of
from hwcost.measure_time import (
    DISTURBED,
    Settings,
    Timing,
    steady,
    threads_set,
    timing_of,
)
from hwcost.progress import Progress


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
        rows: all ops and networks, measured or not.
        timings: key of a row -> how long it takes.
        left_out: what could not be measured, with the reason.
        interrupted: whether somebody stopped it before it was done.
        settings: how it was measured; so ``memory``.
    """

    rows: Sequence[Row]
    timings: Mapping[Hashable, Timing]
    left_out: Sequence[str]
    interrupted: bool
    settings: Settings
    memory: str

    @property
    def disturbed(self) -> int:
        """How many timings are spread so far that something else ran on the machine."""
        return sum(timing.spread > DISTURBED for timing in self.timings.values())

    def write(self, path: str | Path, date: str) -> None:
        """Write the rows as a CSV file.

        Args:
            date: of the measurement, such as ``2026-11-21``.

        Raises:
            FitError: the file cannot be written.
        """
        from hwcost.measure_csv import write

        write(self, Path(path), date)


def measure(
    models: Mapping[str, Any],
    settings: Settings | None = None,
    *,
    singles: Mapping[str, Any] | None = None,
    ops: bool = True,
    nets: bool = True,
    progress: Progress | None = None,
) -> Measured:
    """Return how long networks and their ops take on this machine.

    Ops with equal sizes that do the same are measured once. An interrupt (Ctrl-C) ends it, and
    what was measured is returned.

    Args:
        models: name -> (module, example).
        singles: the same, of which only the modules inside are measured; see
            ``measure_grid``.
        ops: whether to measure the ops.
        nets: whether to measure whole networks.

    Raises:
        FitError: the machine lacks what the settings ask for.
        TraceError: a model does not run.
    """
    settings = settings or Settings()
    settings.check()
    session = Session(settings)
    with ExitStack() as stack:
        memory = stack.enter_context(steady())
        stack.enter_context(threads_set(settings.threads))
        try:
            for subject in _ready(models, settings, stack):
                session.add(subject, ops=ops, net=nets)
            for subject in _ready(singles or {}, settings, stack):
                session.add(subject, ops=True, net=False, single=True)
            session.run(progress)
        except KeyboardInterrupt:
            session.interrupted = True
    return Measured(
        rows=session.rows,
        timings={key: timing_of(times) for key, times in session.times.items() if times},
        left_out=session.left_out,
        interrupted=session.interrupted,
        settings=settings,
        memory=memory,
    )


def _ready(models: Mapping[str, Any], settings: Settings, stack: ExitStack) -> Iterator[Subject]:
    """Each network ready to run, until the stack ends."""
    device = torch.device(settings.device)
    for name, (model, example) in models.items():
        yield stack.enter_context(subject_of(name, model, example, device, settings.batch))
