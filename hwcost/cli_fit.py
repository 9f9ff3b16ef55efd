"""The command ``hwcost fit``: a platform's params from measured rows."""

import json
from datetime import date as day
from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli_options import Json, PlatformName


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
    as_json: Json = False,
) -> None:
    """Fit a platform's params to measurements."""
    from hwcost.cli_output import say, width
    from hwcost.cli_progress import progress_bar
    from hwcost.fit import fit as fit_to
    from hwcost.fit_report import rows_csv, summary, text

    with progress_bar() as step:
        fitted = fit_to(platform, measurements, progress=step)
    say(json.dumps(summary(fitted), indent=2) if as_json else text(fitted, width()))
    if rows is not None:
        _write(rows, rows_csv(fitted))
    if output is not None:
        fitted.write(output, date or day.today().isoformat())
        if not as_json:
            say(f"\nwritten to {output}")


def _write(path: Path, text: str) -> None:
    from hwcost.errors import FitError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FitError(f"cannot write {str(path)!r}: {error.strerror}") from None
