"""The command ``hwcost measure``: times of ops and networks on this machine."""

import sys
from datetime import date as day
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli_options import Inputs

if TYPE_CHECKING:
    from hwcost.measure import Measured

#: Exit status of what Ctrl-C ended.
_INTERRUPTED = 130

#: What could not be measured is listed up to so many.
_LISTED = 8


def measure(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ROWS.csv", help="Write the measurements.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Zoo names or file.py:factory; default: all."),
    ] = None,
    inputs: Inputs = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the CPU.")] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", help="For each network, and for its ops together.")
    ] = 1.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples at once.")] = 1,
    ops_only: Annotated[bool, typer.Option("--ops-only", help="No whole networks.")] = False,
    nets_only: Annotated[bool, typer.Option("--nets-only", help="No ops.")] = False,
    no_grid: Annotated[
        bool, typer.Option("--no-grid", help="No ops beside those of the networks.")
    ] = False,
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time", help="Count time of the process: for a machine that is busy."),
    ] = False,
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="2026-01-31", help="Of the rows; today if not given."),
    ] = None,
) -> None:
    """Time ops and networks on this machine."""
    from hwcost.cli_output import say
    from hwcost.cli_progress import progress_bar
    from hwcost.errors import FitError
    from hwcost.measure import measure as measured_on
    from hwcost.measure_csv import check_writable
    from hwcost.measure_grid import grid
    from hwcost.measure_time import Settings

    if ops_only and nets_only:
        raise FitError("--ops-only and --nets-only leave nothing to measure; give one of them")
    settings = Settings(device, threads, seconds, batch, cpu_time)
    settings.check()
    check_writable(output)
    with progress_bar() as step:
        found = measured_on(
            _models(models, inputs),
            settings,
            singles=None if nets_only or no_grid else grid(),
            ops=not nets_only,
            nets=not ops_only,
            progress=step,
        )
    _warn(found)
    if not found.timings:
        raise FitError("nothing was measured")
    found.write(output, date or day.today().isoformat())
    say(f"{_counted(found)} written to {output}")
    if found.interrupted:
        raise typer.Exit(_INTERRUPTED)


def _models(models: list[str] | None, inputs: list[str] | None) -> dict[str, Any]:
    """Name -> (module, example); those of the zoo where none is named."""
    from hwcost.cli_input import resolve, resolve_all
    from hwcost.reports_models import zoo_names

    named = resolve_all(models or zoo_names(), inputs)
    return {n: resolve(m) if isinstance(m, str) else m for n, m in named.items()}


def _counted(found: "Measured") -> str:
    nets = sum(row.op is None and row.key in found.timings for row in found.rows)
    ops = len(found.timings) - nets
    return f"{ops} op{'s' * (ops != 1)} and {nets} network{'s' * (nets != 1)}"


def _warn(found: "Measured") -> None:
    for line in found.left_out[:_LISTED]:
        print(f"left out: {line}", file=sys.stderr)
    if len(found.left_out) > _LISTED:
        print(f"left out: {len(found.left_out) - _LISTED} more", file=sys.stderr)
    if found.disturbed > len(found.timings) // 10:
        print(
            f"warning: {found.disturbed} of {len(found.timings)} times are spread by more than"
            " 10 %: something else runs on this machine",
            file=sys.stderr,
        )
    if found.interrupted:
        print("interrupted: what was measured is kept", file=sys.stderr)
