"""Errors of any command as one line on stderr, with an exit code."""

import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from hwcost.errors import HwcostError, HwcostWarning, UnsupportedOp


class Commands(TyperGroup):
    """Turns errors into one line on stderr and exit code 1; ``--debug`` shows where they rose."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` wherever it stands."""
        ctx.obj = "--debug" in args
        rest = [a for a in args if a != "--debug"]
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", HwcostWarning)
                warnings.showwarning = _show_warning  # type: ignore[assignment]
                return super().invoke(ctx)
        except HwcostError as error:
            if ctx.obj:
                raise
            hint = "; --on-unsupported warn prices the rest" * isinstance(error, UnsupportedOp)
            complain(f"{error}{hint}")
            raise typer.Exit(1) from None


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, HwcostWarning):
        print(f"warning: {message}", file=sys.stderr)


def complain(text: str) -> None:
    """Print an error on one line of stderr."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
