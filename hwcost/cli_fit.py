"""The command ``hwcost fit``: a platform's params from measured rows."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hwcost.cli_options import Json, PlatformName

Measured = Annotated[
    Path, typer.Argument(metavar="MEASUREMENTS.csv", help="Measured layers and networks.")
]
NewFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="NEW.yaml", help="Write the fitted platform."),
]
Rows = Annotated[
    Path | None,
    typer.Option("--rows", metavar="FILE.csv", help="Write measured and predicted by row."),
]
Day = Annotated[
    str | None, typer.Option("--date", metavar="2026-01-31", help="Of the fit; today if not given.")
]
Simulated = Annotated[
    bool, typer.Option("--simulated", help="The rows are of a simulator; sets the file's status.")
]


def fit(
    platform: PlatformName,
    measurements: Measured,
    output: NewFile = None,
    rows: Rows = None,
    date: Day = None,
    simulated: Simulated = False,
    as_json: Json = False,
) -> None:
    """Fit a platform's params to measurements."""
    from hwcost.cli_output import say, width
    from hwcost.cli_progress import progress_bar
    from hwcost.fit import Status
    from hwcost.fit import fit as fit_to
    from hwcost.fit_report import rows_csv, summary, text
    from hwcost.writing import check_writable, day_text, writing

    written = day_text(date)
    for path in filter(None, (output, rows)):
        check_writable(path)
    with progress_bar() as step:
        fitted = fit_to(platform, measurements, progress=step)
    # Files first: what reads the output may go away, as a pager does.
    if rows is not None:
        with writing(rows):
            rows.write_text(rows_csv(fitted), encoding="utf-8")
    if output is not None:
        status: Status = "simulated" if simulated else "measured"
        fitted.write(output, written, status)
    say(json.dumps(summary(fitted), indent=2) if as_json else text(fitted, width()))
    if output is not None and not as_json:
        say(f"\nwritten to {output}")
