"""The command ``hwcost fit``: a platform's params from measured rows."""

import json
from datetime import date as day
from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli_options import Json, PlatformName
from hwcost.errors import FitError


def fit(
    platform: PlatformName,
    measurements: Annotated[
        Path, typer.Argument(metavar="MEASUREMENTS.csv", help="Measured layers and networks.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NEW.yaml", help="Write the fitted platform."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", metavar="FILE.csv", help="Write measured and predicted by row."),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="2026-01-31", help="Of the fit; today if not given."),
    ] = None,
    simulated: Annotated[
        bool,
        typer.Option("--simulated", help="The rows are of a simulator; sets the file's status."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a platform's params to measurements."""
    from hwcost.cli_output import say, width
    from hwcost.cli_progress import progress_bar
    from hwcost.fit import Status
    from hwcost.fit import fit as fit_to
    from hwcost.fit_report import rows_csv, summary, text

    written = _day(date)
    for path in filter(None, (output, rows)):
        _check_writable(path)
    with progress_bar() as step:
        fitted = fit_to(platform, measurements, progress=step)
    say(json.dumps(summary(fitted), indent=2) if as_json else text(fitted, width()))
    if rows is not None:
        _write(rows, rows_csv(fitted))
    if output is not None:
        status: Status = "simulated" if simulated else "measured"
        fitted.write(output, written, status)
        if not as_json:
            say(f"\nwritten to {output}")


def _day(date: str | None) -> str:
    """The date as in the file, before a fit that takes its time."""
    try:
        return (day.fromisoformat(date) if date else day.today()).isoformat()
    except ValueError:
        raise FitError(f"date is {date!r}; expected a day such as 2026-11-21") from None


def _check_writable(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else "there is no such folder"
        raise FitError(f"cannot write {str(path)!r}: {what}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FitError(f"cannot write {str(path)!r}: {error.strerror}") from None
