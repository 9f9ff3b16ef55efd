"""Where a command's result goes: a file, a terminal, a pipe."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hwcost.errors import UnknownName

if TYPE_CHECKING:
    from hwcost.reports_tabular import Tabular


def emit(report: "Tabular", format: str | None, output: Path | None, as_json: bool) -> None:
    """Write a report to a file, or print it: drawn on a terminal, plain text in a pipe.

    Raises:
        UnknownName: an unknown format, or one that only files have.
    """
    chosen = "json" if as_json else format
    if output is not None:
        try:
            report.write(output, chosen)
        except OSError as error:
            raise UnknownName(f"cannot write {str(output)!r}: {error.strerror}") from None
    elif chosen is not None:
        say(report.formatted(chosen).rstrip("\n"))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False, width=width()).print(report)
    else:
        say(str(report))


def say(text: str) -> None:
    """Print, with a ``?`` for what the terminal's encoding cannot show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def width() -> int | None:
    """Return the characters of a terminal's line, None in a pipe."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None


def say_sections(text: str) -> None:
    """Print text; on a terminal, lines that are not indented are headings."""
    if not sys.stdout.isatty():
        say(text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=width())
    for line in text.splitlines():
        heading = bool(line) and not line.startswith(" ")
        console.print(Text(line, style="bold" if heading else ""), soft_wrap=True)
