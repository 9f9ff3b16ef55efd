"""The command ``hwcost measure``: times of ops and networks on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwcost.cli_options import Inputs

if TYPE_CHECKING:
    from hwcost.measure import Measured
    from hwcost.measure_time import Settings

#: Exit status of what Ctrl-C ended.
_INTERRUPTED = 130

#: What could not be measured is listed up to so many.
_LISTED = 8


Rows = Annotated[
    Path, typer.Option("--output", "-o", metavar="ROWS.csv", help="Write the measurements.")
]
Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Zoo names or file.py:factory; default: all."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of the CPU.")]
Seconds = Annotated[
    float, typer.Option("--seconds", help="For each network, and for its ops together.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples at once.")]
OpsOnly = Annotated[bool, typer.Option("--ops-only", help="No whole networks.")]
NetsOnly = Annotated[bool, typer.Option("--nets-only", help="No ops.")]
NoGrid = Annotated[bool, typer.Option("--no-grid", help="No ops beside those of the networks.")]
CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="Count time of the process: for a machine that is busy.")
]
Day = Annotated[
    str | None,
    typer.Option("--date", metavar="2026-01-31", help="Of the rows; today if not given."),
]


def measure(
    output: Rows,
    models: Models = None,
    inputs: Inputs = None,
    device: Device = "cpu",
    threads: Threads = 1,
    seconds: Seconds = 1.0,
    batch: Batch = 1,
    ops_only: OpsOnly = False,
    nets_only: NetsOnly = False,
    no_grid: NoGrid = False,
    cpu_time: CpuTime = False,
    date: Day = None,
) -> None:
    """Time ops and networks on this machine."""
    from hwcost.errors import FitError
    from hwcost.measure_time import Settings
    from hwcost.writing import check_writable, day_text

    if ops_only and nets_only:
        raise FitError("--ops-only and --nets-only leave nothing to measure; give one of them")
    settings = Settings(device, threads, seconds, batch, cpu_time)
    settings.check()
    written = day_text(date)
    check_writable(output)
    grid = not (nets_only or no_grid)
    found = _measured(_models(models, inputs), settings, not nets_only, not ops_only, grid)
    _finish(found, output, written)


def _measured(
    models: dict[str, Any], settings: "Settings", ops: bool, nets: bool, grid: bool
) -> "Measured":
    """What was measured, while a bar shows how much of it."""
    from hwcost.cli_progress import progress_bar
    from hwcost.measure import measure as measured_on
    from hwcost.measure_grid import grid as made

    singles = made() if grid else None
    with progress_bar() as step:
        return measured_on(models, settings, singles=singles, ops=ops, nets=nets, progress=step)


def _finish(found: "Measured", output: Path, date: str) -> None:
    """Write what was measured and say so."""
    from hwcost.cli_output import say
    from hwcost.errors import FitError

    _warn(found)
    if not found.timings:
        raise FitError("nothing was measured")
    found.write(output, date)
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
