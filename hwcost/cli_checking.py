"""The command ``hwcost check``."""

import json
from typing import Annotated

import typer

from hwcost.cli_errors import complain
from hwcost.cli_options import Json
from hwcost.errors import HwcostError


def check(
    platforms: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLATFORM]...", help="Names or files; all shipped ones by default."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check platforms: their files, and what they predict of ops and networks with known costs."""
    from hwcost.cli_check import checked, summary
    from hwcost.cli_output import say, width
    from hwcost.loading import available

    found = []
    for platform in platforms or available():
        try:
            verdict = checked(platform, width())
        except HwcostError as error:
            complain(str(error))
            found.append({"file": platform, "ok": False, "error": str(error)})
            continue
        found.append(verdict.data)
        if not as_json:
            say("\n".join(verdict.lines))
    if as_json:
        say(json.dumps(found, indent=2))
    elif len(found) > 1:
        say(summary(found))
    if not all(one["ok"] for one in found):
        raise typer.Exit(1)
