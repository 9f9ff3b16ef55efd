"""Write what the documentation shows from what the tool does.

    python -m docs.generate            rewrite platforms/schema.json, docs/figures, and what
                                       README.md and docs/ show: tables, and the output of every
                                       code block
    python -m docs.generate --check    change nothing; exit 1 where something is out of date

A page is text with fenced blocks. Every block runs, in order, in one folder and one Python
namespace for the page:

    python    runs; what it prints stands in the ``text`` block after it
    console   lines that start with ``$`` are commands; what they print stands below each
    yaml      a platform file, or, below ``<!-- NAME.yaml, continued -->``, more keys for one
    diff      a change to the example file that it names; the next console block runs on it

Markdown between ``<!-- hwcost ARGUMENTS -->`` and ``<!-- end -->`` is what that command prints;
between ``<!-- table NAME -->`` and ``<!-- end -->``, one of docs/tables.py. A block of any
other kind is an error.
"""

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from docs import plots
from docs.tables import TABLES
from hwcost.loading import loads
from hwcost.schema import json_schema

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
SCHEMA = ROOT / "platforms" / "schema.json"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"(?P<above><!-- (?P<remark>[^\n]*) -->\n)?"
    r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```$"
    r"|^<!-- (?P<command>(?:hwcost|table) [^\n]*) -->\n(?P<shown>.*?)^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)

#: Commands of a set-up; a test cannot run them, so each is checked in another way.
SETUP: dict[str, Callable[[list[str]], object]] = {
    "make": lambda words: subprocess.run(
        ["make", "-n", *words], cwd=ROOT, check=True, capture_output=True
    ),
    "pip": lambda words: _installable(words),
}


class Page:
    """One page: runs its blocks and writes down what they print."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text, self.folder = text, folder
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.printed: str | None = None
        self.files: dict[str, dict[str, Any]] = {}
        self.changed: dict[Path, str] = {}

    def run(self) -> str:
        """Return the page with the present output in the place of what it shows."""
        shutil.copytree(EXAMPLES, self.folder, dirs_exist_ok=True)
        with contextlib.chdir(self.folder):
            text = _BLOCK.sub(self._replaced, self.text)
        self._nothing_pending("the end of the page")
        return text

    def _replaced(self, match: re.Match[str]) -> str:
        try:
            return self._renewed(match)
        except Exception as error:
            line = self.text.count("\n", 0, match.start()) + 1
            error.add_note(f"in the block of line {line} of the page")
            raise

    def _renewed(self, match: re.Match[str]) -> str:
        if match["command"]:
            shown, _ = run_command(match["command"])
            return f"<!-- {match['command']} -->\n\n{shown.strip()}\n\n<!-- end -->"
        body = self._KINDS[self._kind(match)](self, match["body"], match["remark"] or "")
        return f"{match['above'] or ''}```{match['kind']}\n{body}```"

    def _kind(self, match: re.Match[str]) -> str:
        kind = match["kind"]
        if kind not in self._KINDS:
            raise ValueError(f"a block of kind {kind!r}; known: {', '.join(self._KINDS)}")
        if kind != "text":
            self._nothing_pending(f"a {kind} block")
        return kind

    def _nothing_pending(self, where: str) -> None:
        if self.printed:
            raise ValueError(
                f"python printed {self.printed!r}; expected a text block before {where}"
            )

    def _python(self, body: str, remark: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(body, "<page>", "exec"), self.namespace)
        self.printed = out.getvalue()
        return body

    def _text(self, body: str, remark: str) -> str:
        if self.printed is None:
            raise ValueError(f"a text block that no python block printed: {body!r}")
        shown, self.printed = self.printed, None
        return shown

    def _console(self, body: str, remark: str) -> str:
        commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        if not commands or not body.startswith("$ "):
            raise ValueError(f"a console block starts with '$ ': {body!r}")
        shown = "".join(f"$ {command}\n{self._ran(command)}" for command in commands)
        for path, text in self.changed.items():
            path.write_text(text)
        self.changed.clear()
        return shown

    def _ran(self, command: str) -> str:
        """What a command prints; it has to fail where it says so, or after a wrong change."""
        text, code = run_command(command)
        if bool(code) != (bool(self.changed) or "error: " in text):
            raise ValueError(f"{command!r} exits with {code} and prints {text!r}")
        return text

    def _yaml(self, body: str, remark: str) -> str:
        """Check a platform file; a file that goes on grows by the keys of the block."""
        import yaml

        name, _, how = remark.partition(", ")
        data = yaml.safe_load(body)
        if how == "continued":
            data = _grown(self.files[name], data)
        elif how or not name.endswith(".yaml"):
            raise ValueError(f"a yaml block needs <!-- NAME.yaml --> above it, not {remark!r}")
        loads(json.dumps(data), name)
        self.files[name] = data
        return body

    def _diff(self, body: str, remark: str) -> str:
        """Change a file: the ``-`` lines give way to the ``+`` lines."""
        path = self.folder / remark
        signed = [(line[0], f"{line[1:]}\n") for line in body.splitlines()]
        old = "".join(line for sign, line in signed if sign in " -")
        new = "".join(line for sign, line in signed if sign in " +")
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{remark} has {text.count(old)} times {old!r}; expected once")
        self.changed.setdefault(path, text)
        path.write_text(text.replace(old, new))
        return body

    _KINDS: ClassVar[dict[str, Callable[["Page", str, str], str]]] = {
        "python": _python,
        "text": _text,
        "console": _console,
        "yaml": _yaml,
        "diff": _diff,
    }


def _grown(old: Any, new: Any) -> Any:
    """``old`` with the keys and items of ``new`` after its own."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _grown(old.get(key), new.get(key)) for key in {**old, **new}}
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return old if new is None else new


def run_command(command: str) -> tuple[str, int]:
    """Return what a command prints, errors included, and its exit code."""
    program, *words = shlex.split(command)
    if program in SETUP:
        SETUP[program](words)
        return "", 0
    if program == "table":
        return TABLES[words[0]](), 0
    if program == "python":
        return _captured(lambda: runpy.run_path(words[0], run_name="__main__"), words)
    if program != "hwcost":
        raise ValueError(f"unknown command {command!r}; known: hwcost, python, {', '.join(SETUP)}")
    from hwcost.__main__ import main

    return _captured(main, ["hwcost", *words])


def _captured(function: Callable[[], object], argv: list[str]) -> tuple[str, int]:
    out, code = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        try:
            function()
        except SystemExit as exit:
            code = int(exit.code or 0)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines()), code


def _installable(words: list[str]) -> None:
    """Check that ``pip install`` names this project, and only extras that it has."""
    if words[:2] != ["install", "-c"] or words[2] != "constraints.txt":
        raise ValueError(f"pip {' '.join(words)}: expected install -c constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[3:]:
        extras = re.fullmatch(r"torch|\.(?:\[(.*)\])?", word)
        if extras is None or set(filter(None, [extras[1]])) - set(project["optional-dependencies"]):
            raise ValueError(f"pip install {word}: not this project, or an extra that it lacks")


def schema_text() -> str:
    """Return the JSON schema of platform files, to which the shipped ones point."""
    return json.dumps(json_schema(), indent=2) + "\n"


def outputs() -> Iterator[tuple[Path, str]]:
    """Yield each generated file with what should be in it."""
    yield SCHEMA, schema_text()
    yield from plots.outputs()
    for path in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            yield path, Page(path.read_text(), Path(folder)).run()


def main() -> int:
    """Write the files, or say which are out of date."""
    check, stale = "--check" in sys.argv[1:], 0
    for path, text in outputs():
        if not path.exists() or path.read_text() != text:
            stale += 1
            print(path.relative_to(ROOT), "is out of date" if check else "rewritten")
            if not check:
                path.write_text(text)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
