"""Imports point down, heavy libraries stay where they belong, and no text is run as code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hwcost

ROOT = Path(__file__).parent.parent

#: Lowest first. A module imports from its own layer and the ones below; `formula_x` is `formula`,
#: and what is not named here lies as high as its imports.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "errors zoo",
        "units descriptor formula ops",
        "compile schema platform loading",
        "workload recorder tracing memory costmodel",
        "reports",
        "__main__ cli",
    )
)
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}

#: What search may use of hwcost: no formulas, no YAML, no reports.
FOR_SEARCH = frozenset({"errors", "ops", "units", "platform", "loading", "structure", "offers"})
FOR_SEARCH |= LAYERS[3]

#: Library -> the only modules that import it.
OWNERS = {
    "pint": {"units"},
    "yaml": {"descriptor"},
    "pandas": {"reports", "workload"},
    "matplotlib": {"reports", "odimo"},
    "typer": {"__main__", "cli"},
}

HEAVY = ("sympy", "pint", "pandas", "pydantic", "yaml", "typer", "rich", "matplotlib")

#: Modules that `import hwcost` and a training loop load; they import none of HEAVY.
LIGHT = ("__init__", "errors", "ops", "workload", "recorder", "tracing")

#: Names that turn text into code, or let sympy do so.
RUNS_TEXT = {"eval", "exec", "__import__", "sympify", "parse_expr", "lambdify", "unsafe_load"}

SEARCH = sorted((ROOT / "search").glob("*.py"))
CORE = sorted((ROOT / "hwcost").glob("*.py"))
MODULES = [pytest.param(path, id=f"{path.parent.name}/{path.stem}") for path in (*CORE, *SEARCH)]
LAYERED = [path for path in CORE if path.stem != "__init__"]

each_module = pytest.mark.parametrize("path", MODULES)
each_core_module = pytest.mark.parametrize("path", LAYERED, ids=lambda path: path.stem)
each_search_module = pytest.mark.parametrize("path", SEARCH, ids=lambda path: path.stem)


def family(path: Path) -> str:
    """The stem without what follows its first underscore, `formula` for `formula_x.py`."""
    return path.stem if path.stem.startswith("_") else path.stem.split("_")[0]


def imports_in(nodes: Iterator[ast.AST]) -> set[str]:
    """Dotted names of the modules imported; for `from a import b`, both `a` and `a.b`."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def imports(path: Path) -> set[str]:
    return imports_in(ast.walk(ast.parse(path.read_text())))


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: no function body, no TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import_time(child)


def libraries(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def siblings(names: set[str]) -> set[Path]:
    """The modules of the core among imported names."""
    return {path for path in LAYERED if f"hwcost.{path.stem}" in names}


def reached(path: Path, seen: set[Path]) -> set[str]:
    """The named modules that a module imports, itself or through modules without a layer."""
    found = siblings(imports(path)) - seen
    seen |= found
    named = {family(p) for p in found if family(p) in LAYER_OF}
    return named.union(*(reached(p, seen) for p in found if family(p) not in LAYER_OF))


@pytest.mark.parametrize(
    "path", [p for p in LAYERED if family(p) in LAYER_OF], ids=lambda p: p.stem
)
def test_imports_point_down(path: Path) -> None:
    layer = LAYER_OF[family(path)]
    assert [name for name in reached(path, {path}) if LAYER_OF[name] > layer] == []


def test_imports_make_no_cycle() -> None:
    trees = {path.stem: ast.parse(path.read_text()) for path in LAYERED}
    graph = {n: {p.stem for p in siblings(imports_in(at_import_time(t)))} for n, t in trees.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


@each_core_module
def test_core_imports_nothing_from_search(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[:2] == ["hwcost", "search"]]


@each_search_module
def test_search_imports_only_what_it_may(path: Path) -> None:
    names = imports(path)
    parts = {name.split(".")[1].split("_")[0] for name in names if name.startswith("hwcost.")}
    may = FOR_SEARCH | set(hwcost.__all__) - {"report", "compare", "table"} | {"search"}
    assert parts - may == set()
    assert libraries(names) & set(HEAVY) - {"matplotlib"} == set()


@each_module
def test_libraries_are_imported_by_their_owners_only(path: Path) -> None:
    used = libraries(imports(path))
    assert [lib for lib in used & set(OWNERS) if family(path) not in OWNERS[lib]] == []


@each_module
def test_plots_are_imported_when_drawn(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert "matplotlib" not in libraries(imports_in(at_import_time(tree)))


@pytest.mark.parametrize("path", [p for p in CORE if family(p) in LIGHT], ids=lambda p: p.stem)
def test_light_modules_import_nothing_heavy(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert libraries(imports_in(at_import_time(tree))) & set(HEAVY) == set()


@each_module
def test_no_text_is_run_as_code(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    # model.eval() sets a mode; the function of this name is reached through builtins only.
    methods = {node.attr for node in attributes if ast.unparse(node.value) != "builtins"} - {"eval"}
    reached = {node.attr for node in attributes if ast.unparse(node.value) == "builtins"}
    imported = {name.rpartition(".")[2] for name in imports_in(iter(nodes))}
    assert (names | methods | reached | imported) & RUNS_TEXT == set()


@each_module
def test_no_text_reaches_sympy_as_an_expression(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [ast.unparse(c) for c in calls if ast.unparse(c.func) in {"S", "sympy.S"}] == []


def test_the_directories_are_read() -> None:
    assert {"__init__", "errors", "ops", "workload"} <= {path.stem for path in CORE}
    assert "__init__" in {path.stem for path in SEARCH}


PROBE = """
import sys
import torch
before = set(sys.modules)
import hwcost
print(*sorted(set(sys.modules) - before))
for name in sys.argv[1:]:
    __import__(name)
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def probe() -> list[str]:
    """What importing the light modules adds to a process that has imported torch."""
    names = [f"hwcost.{path.stem}" for path in LAYERED if family(path) in LIGHT]
    command = [sys.executable, "-c", PROBE, *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_import_of_hwcost_loads_two_modules(probe: list[str]) -> None:
    ours = {name for name in probe[0].split() if name.startswith("hwcost")}
    assert ours == {"hwcost", "hwcost.errors"}
    assert libraries(set(probe[0].split())) & set(HEAVY) == set()


def test_import_loads_no_heavy_library(probe: list[str]) -> None:
    added = set(probe[1].split())
    assert "hwcost.workload" in added
    assert libraries(added) & set(HEAVY) == set()
