"""A bar that shows how far a run over data is."""

import sys
from collections.abc import Collection, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T", covariant=True)

_WIDTH = 30


class Counted(Protocol[T]):
    """What can be read from the start, and may know how long it is."""

    def __iter__(self) -> Iterator[T]: ...

    def __len__(self) -> int: ...


def progressing(items: "Counted[T] | Collection[T]", title: str, shown: bool) -> Iterator[T]:
    """Return items one by one; with ``shown``, with a bar on the standard error stream."""
    total = len(items)
    for done, item in enumerate(items):
        if shown:
            _show(title, done, total)
        yield item
    if shown:
        _show(title, total, total)
        print(file=sys.stderr)


def _show(title: str, done: int, total: int) -> None:
    filled = _WIDTH * done // total if total else 0
    bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{total}" if total else f"{done}"
    print(f"\r{title} {bar}", end="", file=sys.stderr, flush=True)
