"""Imports point down, heavy libraries stay where they belong, and no text is run as code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Lowest first. A module imports from its own layer and the ones below; `formula_x` is `formula`.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "zoo"}),
    frozenset({"ops", "units", "descriptor", "formula", "dimensions", "derived"}),
    frozenset({"compile", "schema", "platform", "entries", "builder", "loading"}),
    frozenset(
        {"workload", "recorder", "tracing", "memory", "plan", "evaluate", "oplevel", "costmodel"}
    ),
    frozenset({"reports"}),
    frozenset({"__main__"}),
)

#: What search may use of hwcost: no formulas, no YAML, no reports.
FOR_SEARCH = frozenset({"errors", "ops", "platform", "loading"}) | LAYERS[3]

#: Library -> the only modules that import it.
OWNERS = {
    "pint": {"units"},
    "yaml": {"descriptor"},
    "pandas": {"reports", "workload"},
    "matplotlib": {"reports"},
    "typer": {"__main__"},
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


def layer_of(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert found, f"{name!r} is in no layer; see LAYERS in {__file__}"
    return found[0]


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


@each_core_module
def test_imports_point_down(path: Path) -> None:
    layer = layer_of(family(path))
    assert [p.stem for p in siblings(imports(path)) if layer_of(family(p)) > layer] == []


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
    modules = {p.stem for p in siblings(names) if family(p) not in FOR_SEARCH}
    functions = names & {"hwcost.report", "hwcost.compare", "hwcost.table"}
    assert (modules, functions, libraries(names) & set(HEAVY)) == (set(), set(), set())


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
    # model.eval() and re.compile() are methods; builtins.eval is reached through its module.
    methods = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - {"eval"}
    imported = {name.rpartition(".")[2] for name in imports_in(iter(nodes))}
    assert (names | methods | imported) & RUNS_TEXT == set()
    assert "builtins" not in names | libraries(imports_in(iter(nodes)))


@each_module
def test_no_text_reaches_sympy_as_an_expression(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [ast.unparse(c) for c in calls if ast.unparse(c.func) in {"S", "sympy.S"}] == []


def test_the_directories_are_read() -> None:
    assert {"__init__", "errors", "ops", "workload"} <= {path.stem for path in CORE}
    assert "__init__" in {path.stem for path in SEARCH}


PROBE = """
import sys, time
import torch
before, start = set(sys.modules), time.process_time()
import hwcost
print(time.process_time() - start)
for name in sys.argv[1:]:
    __import__(name)
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def probe() -> list[str]:
    """What importing the light modules adds to a process that has imported torch."""
    names = [f"hwcost.{path.stem}" for path in LAYERED if family(path) in LIGHT]
    command = [sys.executable, "-c", PROBE, *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def test_import_adds_less_than_a_third_of_a_second_to_torch(probe: list[str]) -> None:
    assert float(probe[0]) < 0.3


def test_import_loads_no_heavy_library(probe: list[str]) -> None:
    added = set(probe[1].split())
    assert "hwcost.workload" in added
    assert libraries(added) & set(HEAVY) == set()
