"""A progress bar on stderr that appears when work takes more than a second."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hwcost.progress import Progress

#: Seconds before the bar appears.
PATIENCE = 1.0


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Yield a function of (what, done, in all) that draws the bar; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Drawing

    bar = Drawing(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    begun, task = time.monotonic(), bar.add_task("")

    def step(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)
        if time.monotonic() - begun > PATIENCE and not bar.live.is_started:
            bar.start()

    try:
        yield step
    finally:
        if bar.live.is_started:
            bar.stop()
