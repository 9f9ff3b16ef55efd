"""Files that a command is asked to write, and the day that stands in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date as day
from pathlib import Path

from hwcost.errors import FitError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the system says of a file as an error with the file's name.

    Raises:
        FitError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise FitError(f"cannot write {str(path)!r}: {said}") from None


def check_writable(path: Path) -> None:
    """Check that a file can be written, before what is to be written takes minutes.

    Raises:
        FitError: it cannot.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else "there is no such folder"
        raise FitError(f"cannot write {str(path)!r}: {what}")
    existed = path.exists()
    with writing(path), path.open("a", encoding="utf-8"):
        pass
    if not existed:
        path.unlink()


def day_text(date: str | None) -> str:
    """Return a day such as ``2026-01-31``; today for None.

    Raises:
        FitError: it is no day.
    """
    try:
        return (day.fromisoformat(date) if date else day.today()).isoformat()
    except ValueError:
        raise FitError(f"date is {date!r}; expected a day such as 2026-11-21") from None
