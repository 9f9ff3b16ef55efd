"""The tables that pages of the documentation take from the code."""

from typing import Any

from docs import accuracy
from docs.markdown import table as _table
from hwcost import ops, tile
from hwcost.loading import available, load


def _default(name: str, value: float | None) -> str:
    usual = {"o_bits": "`a_bits`", "dv": "`dhead`", "hidden": "`cout`"}
    if name in usual:
        return usual[name]
    return "needed" if value is None else f"{value:g}"


def _sizes() -> str:
    rows = [(f"`{n}`", s.meaning, _default(n, s.default)) for n, s in ops.SIZES.items()]
    return _table(("size", "meaning", "if left out"), rows)


def _derived() -> str:
    return _table(("name", "meaning"), [(f"`{n}`", text) for n, text in ops.DERIVED.items()])


def _tiles() -> str:
    return _table(("name", "meaning"), [(f"`{n}`", text) for n, text in tile.TILE_NAMES.items()])


def _cuts() -> str:
    rows = [(f"`{k}`", ", ".join(f"`{s}`" for s in cut)) for k, cut in tile.CUTS.items()]
    return _table(("kind", "may be cut along"), rows)


def _kinds() -> str:
    return "\n\n".join(_kind_section(name, kind) for name, kind in ops.KINDS.items())


def _kind_section(name: str, kind: ops.Kind) -> str:
    never = {"depthwise": "1 == 0"}
    same = {**ops.BYTES, **never}
    rows = [(f"`{n}`", f"`{text}`") for n, text in kind.derived.items() if same.get(n) != text]
    sizes = ", ".join(f"`{size}`" for size in kind.sizes)
    table = _table(("name", "formula"), rows)
    meaning = f"{kind.meaning[0].upper()}{kind.meaning[1:]}."
    return f"### {name}\n\n{meaning}\n\nSizes: {sizes}.\n\n{table}"


def _platforms() -> str:
    found = [load(name) for name in available()]
    rows = [(f"`{p.name}`", p.title, ", ".join(p.metrics), p.status) for p in found]
    return _table(("platform", "what it is", "metrics", "status"), rows)


def _commands() -> str:
    """Each command of the command line with its options, as its own help states them."""
    from typer.main import get_group

    from hwcost.__main__ import app

    return "\n\n".join(_command(name, c) for name, c in get_group(app).commands.items())


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["hwcost", name, *(a.metavar or a.name.upper() for a in arguments)])
    rows = [(f"`{', '.join(o.opts)}`", o.help or "") for o in options]
    table = f"\n\n{_table(('option', 'meaning'), rows)}" if rows else ""
    return f"### {name}\n\n`{usage}`\n\n{command.help}{table}"


def _bytes() -> str:
    return _table(("name", "formula"), [(f"`{n}`", f"`{text}`") for n, text in ops.BYTES.items()])


#: Name in ``<!-- table NAME -->`` -> what writes it.
TABLES = {
    "sizes": _sizes,
    "derived": _derived,
    "bytes": _bytes,
    "kinds": _kinds,
    "tiles": _tiles,
    "cuts": _cuts,
    "platforms": _platforms,
    "commands": _commands,
    "statuses": accuracy.statuses,
    "errors": accuracy.overview,
    "compared": accuracy.sections,
    "limits": accuracy.limits,
}
