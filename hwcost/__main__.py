"""The command line: ``hwcost compare resnet8 -p gap8_compute``."""

import json
from typing import Annotated

import typer

from hwcost.cli_checking import check as check_command
from hwcost.cli_errors import Commands
from hwcost.cli_fit import fit as fit_command
from hwcost.cli_measure import measure as measure_command
from hwcost.cli_options import (
    EngineName,
    Format,
    Inputs,
    Json,
    Maps,
    Metrics,
    Model,
    Models,
    OnePlatform,
    Output,
    PlaceBy,
    PlatformName,
    Platforms,
    Precision,
    Unsupported,
)
from hwcost.errors import UnknownName

HELP = """Price neural networks on hardware described by YAML files.

MODEL is the name of a network that comes with hwcost (resnet8, ds_cnn, ...), or your own:
file.py:factory or package.module:factory, where factory is a module, a class, or a function that
returns a module or (module, example). Without an example give --input 3x32x32.
PLATFORM is a shipped platform's name or the path of a YAML file."""


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import hwcost

        print(f"hwcost {hwcost.__version__}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")
    ] = False,
) -> None:
    pass


@app.command()
def platforms(as_json: Json = False) -> None:
    """List the platforms that come with hwcost."""
    from hwcost.cli_list import as_table, listed
    from hwcost.cli_output import say, width

    found = listed()
    say(json.dumps(found, indent=2) if as_json else as_table(found, width()))


@app.command()
def show(platform: PlatformName, as_json: Json = False) -> None:
    """Show a platform's numbers, formulas and metrics."""
    from hwcost.cli_output import say, say_sections, width
    from hwcost.cli_platforms import shown
    from hwcost.loading import load

    loaded = load(platform)
    if as_json:
        say(json.dumps(loaded.document.data, indent=2))
    else:
        say_sections(shown(loaded, width()))


app.command(name="check")(check_command)


@app.command()
def trace(
    model: Model,
    inputs: Inputs = None,
    format: Format = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Show a network as a table of ops."""
    from hwcost.cli_input import resolve_all
    from hwcost.cli_output import emit
    from hwcost.reports_costs import no_own_warnings
    from hwcost.reports_models import named_models
    from hwcost.reports_ops import OpTable

    [named] = named_models(resolve_all([model], inputs))
    with no_own_warnings():
        ops = OpTable(named.name, named.workload)
    emit(ops, format, output, as_json)


@app.command()
def report(
    model: Model,
    platform: OnePlatform,
    metrics: Metrics = None,
    inputs: Inputs = None,
    precision: Precision = None,
    maps: Maps = None,
    engine: EngineName = None,
    place_by: PlaceBy = None,
    on_unsupported: Unsupported = "error",
    format: Format = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Show what each op of a network costs on a platform."""
    from hwcost.cli_input import parse_mapping, resolve_all
    from hwcost.cli_output import emit
    from hwcost.loading import load
    from hwcost.reports import report as report_on
    from hwcost.reports_costs import no_own_warnings

    loaded = load(platform)
    with no_own_warnings():
        made = report_on(
            resolve_all([model], inputs),
            loaded,
            metrics or None,
            mapping=parse_mapping(maps or (), engine),
            precision=precision,
            place_by=place_by,
            on_unsupported=on_unsupported,
        )
    emit(made, format, output, as_json)


@app.command()
def compare(
    models: Models,
    platforms: Platforms = None,
    metrics: Metrics = None,
    inputs: Inputs = None,
    precision: Precision = None,
    maps: Maps = None,
    engine: EngineName = None,
    place_by: PlaceBy = None,
    measured: Annotated[
        bool, typer.Option("--measured", help="Put published measurements beside the costs.")
    ] = False,
    format: Format = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Compare networks over platforms."""
    from hwcost.cli_input import parse_mapping, resolve_all
    from hwcost.cli_output import emit
    from hwcost.cli_progress import progress_bar
    from hwcost.loading import load
    from hwcost.reports import compare as compare_on

    loaded = [load(name) for name in platforms] if platforms else None
    with progress_bar() as step:
        made = compare_on(
            resolve_all(models, inputs),
            loaded,
            metrics or None,
            mapping=parse_mapping(maps or (), engine),
            precision=precision,
            place_by=place_by,
            measured=measured,
            progress=step,
        )
    emit(made, format, output, as_json)
    if not any(entry.costs for entry in made.entries):
        raise UnknownName("none of the platforms can price any of the models")


@app.command()
def table(
    models: Models,
    platforms: Platforms = None,
    metrics: Metrics = None,
    inputs: Inputs = None,
    precision: Precision = None,
    maps: Maps = None,
    engine: EngineName = None,
    place_by: PlaceBy = None,
    on_unsupported: Unsupported = "error",
    format: Format = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write a table of costs, a row for each op and platform."""
    from hwcost.cli_input import parse_mapping, resolve_all
    from hwcost.cli_output import emit
    from hwcost.loading import load
    from hwcost.reports import table as table_of

    loaded = [load(name) for name in platforms] if platforms else None
    made = table_of(
        resolve_all(models, inputs),
        loaded,
        metrics or None,
        mapping=parse_mapping(maps or (), engine),
        precision=precision,
        place_by=place_by,
        on_unsupported=on_unsupported,
    )
    emit(made, format, output, as_json)


@app.command()
def explain(
    platform: PlatformName,
    model: Model,
    layer: Annotated[
        str | None, typer.Argument(help="A layer; the most expensive one by default.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", "-m", metavar="NAME", help="The first one by default.")
    ] = None,
    inputs: Inputs = None,
    precision: Precision = None,
    maps: Maps = None,
    engine: EngineName = None,
    place_by: PlaceBy = None,
    latex: Annotated[bool, typer.Option("--latex", help="The metric's formulas as LaTeX.")] = False,
    as_json: Json = False,
) -> None:
    """Explain why a layer costs what it does."""
    from hwcost.cli_explain import explained
    from hwcost.cli_input import parse_mapping, resolve_all
    from hwcost.cli_output import say, say_sections, width
    from hwcost.costmodel import CostModel
    from hwcost.loading import load
    from hwcost.reports_costs import prepared
    from hwcost.reports_models import named_models

    loaded = load(platform)
    costs = CostModel(loaded, metric or next(iter(loaded.metrics)), place_by=place_by)
    if latex:
        say(costs.latex().rstrip("\n"))
        return
    [named] = named_models(resolve_all([model], inputs))
    workload = prepared(named.workload, parse_mapping(maps or (), engine), precision)
    chosen, text = explained(costs, workload, layer, width())
    if as_json:
        say(json.dumps({"layer": chosen, "metric": costs.metric.name, "text": text}, indent=2))
    else:
        say_sections(text)


@app.command()
def schema() -> None:
    """Print the JSON schema of platform files, for editors."""
    from hwcost.cli_output import say
    from hwcost.schema import json_schema

    say(json.dumps(json_schema(), indent=2))


app.command(name="fit")(fit_command)


app.command(name="measure")(measure_command)


def main() -> None:
    """Run the command line."""
    app(prog_name="hwcost")


if __name__ == "__main__":
    main()
