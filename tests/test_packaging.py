"""The package list, the public names, and what a built wheel holds."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import hwcost

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]

#: Package -> its directory, as the tree has them: those at the top that hold an __init__.py.
PACKAGES = {
    "hwcost" if path.parent.name == "hwcost" else f"hwcost.{path.parent.name}": path.parent
    for path in sorted(ROOT.glob("*/__init__.py"))
}

PUBLIC = {
    *("load", "available", "Platform", "CostModel", "Workload", "trace"),
    *("report", "compare", "table", "zoo"),
    *("HwcostError", "DescriptorError", "FormulaError", "UnitError", "UnknownName"),
    *("WorkloadError", "TraceError", "UnsupportedOp", "PrecisionError", "CostError", "SearchError"),
    "HwcostWarning",
}


def package_files(package: str) -> list[Path]:
    """The files that a package has to bring along, links and caches left out."""
    files = [path for path in PACKAGES[package].iterdir() if path.is_file()]
    return [path for path in files if not path.is_symlink() and path.suffix != ".pyc"]


def test_the_package_list_is_the_tree() -> None:
    assert set(SETUPTOOLS["packages"]) == set(PACKAGES)
    assert SETUPTOOLS["package-dir"] == {name: path.name for name, path in PACKAGES.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_flat(package: str) -> None:
    below = [path for path in PACKAGES[package].glob("*/*") if not path.parent.is_symlink()]
    assert [path for path in below if path.suffix in {".py", ".yaml"}] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_code_or_package_data(package: str) -> None:
    globs = SETUPTOOLS["package-data"].get(package, [])
    others = [path for path in package_files(package) if path.suffix != ".py"]
    assert [path for path in others if not any(path.match(glob) for glob in globs)] == []


@pytest.mark.parametrize("name", ["search", "platforms"])
def test_the_links_lead_to_the_top_level(name: str) -> None:
    link = ROOT / "hwcost" / name
    if not link.is_symlink():
        pytest.skip("a copy without links")
    assert link.resolve() == ROOT / name


def test_the_public_names_are_these() -> None:
    assert set(hwcost.__all__) == PUBLIC
    assert set(dir(hwcost)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"zoo"}))
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(hwcost, name)
    assert callable(value)
    assert getattr(import_module(value.__module__), name) is value


def test_zoo_is_a_module() -> None:
    assert isinstance(hwcost.zoo, ModuleType)


@pytest.mark.parametrize("path", sorted((ROOT / "hwcost").glob("*.py")), ids=lambda path: path.stem)
def test_no_module_takes_the_place_of_a_public_name(path: Path) -> None:
    assert path.stem not in PUBLIC - {"zoo"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hwcost' has no attribute 'lod'"):
        getattr(hwcost, "lod")  # noqa: B009 (mypy knows that the name is wrong)


def test_search_has_one_name_only() -> None:
    spec = importlib.util.spec_from_file_location("search", ROOT / "search" / "__init__.py")
    assert spec is not None and spec.loader is not None
    with pytest.raises(ImportError, match=r"write `import hwcost\.search`"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_search_says_what_it_offers() -> None:
    module = import_module("hwcost.search")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def pins() -> dict[str, str]:
    """Name -> pinned version, read from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert max(Counter(normal(name) for name, _ in pairs).values()) == 1
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_a_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[normal(requirement.name)])


def test_torch_is_pinned_without_naming_a_build() -> None:
    assert pins()["torch"] == "2.13.0"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_lists_the_targets() -> None:
    run = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True)
    listed = {line.split()[0] for line in run.stdout.splitlines()}
    assert listed == {"help", "demo", "test", "lint", "docs", "bench", "clean"}


BUILD = """
import sys
from setuptools.build_meta import build_sdist, build_wheel
out = sys.argv[1]  # which the first build overwrites
build_sdist(out)
build_wheel(out)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source archive of a copy without links."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in PACKAGES.values():
        shutil.copytree(path, source / path.name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, out], cwd=source, capture_output=True, check=True)
    return out


def ignored(folder: str, names: list[str]) -> set[str]:
    return {n for n in names if n == "__pycache__" or (Path(folder) / n).is_symlink()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """The names in the wheel."""
    return zipfile.ZipFile(next(built.glob("*.whl"))).namelist()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_once(wheel: list[str]) -> None:
    expected = [f"{p.replace('.', '/')}/{f.name}" for p in PACKAGES for f in package_files(p)]
    assert sorted(n for n in wheel if ".dist-info/" not in n) == sorted(expected)
    assert "hwcost/py.typed" in expected


@pytest.mark.slow
def test_the_wheel_holds_the_licence(wheel: list[str]) -> None:
    assert [name for name in wheel if name.endswith(".dist-info/licenses/LICENSE")]


@pytest.mark.slow
def test_the_source_archive_holds_every_file_of_the_packages(built: Path) -> None:
    archive = built / f"hwcost-{hwcost.__version__}.tar.gz"
    shutil.unpack_archive(archive, built / "unpacked", filter="data")
    top = built / "unpacked" / archive.name.removesuffix(".tar.gz")
    files = [f"{PACKAGES[p].name}/{f.name}" for p in PACKAGES for f in package_files(p)]
    assert [name for name in files if not (top / name).is_file()] == []


USE = """
import sys
sys.path.insert(0, sys.argv[1])
import hwcost, hwcost.search
from importlib.resources import files
print(hwcost.__file__, hwcost.search.__file__, hwcost.errors.__file__, sep="\\n")
print(*sorted(path.name for path in files("hwcost.platforms").iterdir()))
"""


@pytest.mark.slow
def test_the_wheel_works_where_it_is_unpacked(built: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(tmp_path)
    command = [sys.executable, "-I", "-c", USE, str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *modules, platforms = run.stdout.splitlines()
    assert [m for m in modules if tmp_path not in Path(m).parents] == []
    written = {path.name for path in package_files("hwcost.platforms")}
    assert set(platforms.split()) - {"__pycache__"} == written
