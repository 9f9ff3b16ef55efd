"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def _complete_platform(incomplete: str) -> list[str]:
    from hwcost.cli_list import names

    return [name for name in names() if name.startswith(incomplete)]


Model = Annotated[str, typer.Argument(metavar="MODEL", help="Zoo name or file.py:factory.")]
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="Zoo names or file.py:factory.")]
_PLATFORM: dict[str, Any] = {"autocompletion": _complete_platform, "metavar": "PLATFORM"}
PlatformName = Annotated[
    str,
    typer.Argument(
        help="Shipped name, or path of a YAML file; @POINT selects a point.", **_PLATFORM
    ),
]
OnePlatform = Annotated[
    str,
    typer.Option(
        "--platform",
        "-p",
        help="Shipped name, or path of a YAML file; @POINT selects a point.",
        **_PLATFORM,
    ),
]
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform", "-p", help="Repeatable; all shipped ones by default; NAME@POINT.", **_PLATFORM
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="3x32x32", help="Input shape without the batch; repeatable."
    ),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", "-m", metavar="NAME", help="Repeatable.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", metavar="w8a8", help="Bits of every op.")
]
Maps = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="LAYER=ENGINE", help="Place a layer on an engine; repeatable."),
]
EngineName = Annotated[
    str | None, typer.Option("--engine", metavar="NAME", help="Place all layers on one engine.")
]
PlaceBy = Annotated[
    str | None,
    typer.Option("--place-by", metavar="METRIC", help="Metric that places ops on engines."),
]
Unsupported = Annotated[
    Literal["error", "warn"],
    typer.Option("--on-unsupported", help="An op without a formula: stop, or price the rest."),
]
Json = Annotated[bool, typer.Option("--json", help="Raw numbers in SI units.")]
Format = Annotated[
    Literal["text", "md", "csv", "latex", "html", "json", "parquet"] | None,
    typer.Option("--format", "-f", help="Format, where the output's suffix does not say it."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a file.")
]
