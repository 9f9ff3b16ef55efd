"""Find, check and parse platform files: text in, ``Platform`` out."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwcost.budget import check_size
from hwcost.builder import Builder
from hwcost.descriptor import Document, merge, read
from hwcost.errors import DescriptorError, UnknownName, suggestion
from hwcost.platform import Platform
from hwcost.schema import PlatformSpec

_SHIPPED = Path(__file__).parent / "platforms"


def available() -> tuple[str, ...]:
    """Return the names of the platforms that come with hwcost."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.yaml")))


def load(platform: str | Path | Platform) -> Platform:
    """Return a platform by its shipped name or the path of its YAML file.

    ``@`` and a name select an operating point: ``gap8@1.0V``, ``my.yaml@1.0V``. A file is parsed
    once and again when it changes on disk.

    Raises:
        UnknownName: no shipped platform has this name, and no such file exists; or it has no such
            operating point.
        DescriptorError: the file is wrong; the message starts with file:line.
    """
    if isinstance(platform, Platform):
        return platform
    place, point = split_point(platform)
    path = _find(place, Path()).resolve()
    cached = _LOADED.get(path)
    if cached is None or any(_version(file) != version for file, version in cached[0].items()):
        files: dict[Path, tuple[int, int]] = {}
        cached = _LOADED[path] = files, {None: build(_read_extended(path, (), files))}
    at_points = cached[1]
    if point not in at_points:
        assert point is not None
        at_points[point] = at_points[None].at(point)
    return at_points[point]


#: File -> the versions of the files that it was read from, and point -> platform; None is default.
_LOADED: dict[Path, tuple[dict[Path, tuple[int, int]], dict[str | None, Platform]]] = {}


def split_point(platform: str | Path) -> tuple[str, str | None]:
    """Return name or path of ``gap8@1.0V`` and its operating point, None for the default one.

    A file whose own name has an ``@`` is a file.
    """
    place, sign, point = str(platform).rpartition("@")
    is_path = "/" in point or "\\" in point or point.endswith((".yaml", ".yml"))
    if not sign or is_path or Path(platform).is_file():
        return str(platform), None
    return place, point


def document(platform: str | Path) -> Document:
    """Return the data of a platform's file, what it extends merged in, without building it.

    Raises:
        UnknownName, DescriptorError: no such platform, or its file is not YAML.
    """
    return _read_extended(_find(split_point(platform)[0], Path()), (), {})


def path_of(platform: str | Path) -> Path:
    """Return the file of a platform that is named, or given by its path.

    Raises:
        UnknownName: there is none.
    """
    return _find(split_point(platform)[0], Path())


def _version(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def loads(text: str, name: str = "<text>") -> Platform:
    """Return the platform that a descriptor's text defines, at its default operating point.

    Raises:
        DescriptorError: the text is wrong; the message starts with ``name`` and the line.
    """
    return build(_extended(read(text, name), Path(), (), {}))


def build(document: Document, point: str | None = None) -> Platform:
    """Return the platform of a document that no longer extends another.

    Args:
        point: an operating point; the first one by default.

    Raises:
        UnknownName: the document has no such operating point.
        DescriptorError: a key, a value or a formula is wrong; the message starts with file:line.
    """
    try:
        spec = PlatformSpec.model_validate(document.data)
    except ValidationError as error:
        raise DescriptorError(_first_problem(error, document)) from None
    check_size(document, spec)
    return Builder(document, spec, point).platform()


def _shipped_folder() -> Path:
    return _SHIPPED if _SHIPPED.is_dir() else Path(__file__).parent.parent / "platforms"


def _find(platform: str | Path, folder: Path) -> Path:
    name = str(platform)
    shipped = _shipped_folder() / f"{name}.yaml"
    if "/" not in name and "\\" not in name and shipped.is_file():
        return shipped
    path = folder / name
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UnknownName(f"no platform file {name!r}")
    beside = next((f for f in (f"{name}.yaml", f"{name}.yml") if (folder / f).is_file()), None)
    if beside is not None:
        raise UnknownName(f"no shipped platform {name!r}; did you mean the file {beside!r}?")
    hint = suggestion(name, available())
    raise UnknownName(f"no platform {name!r}{hint}")


def _read_extended(
    path: Path, below: tuple[Path, ...], files: dict[Path, tuple[int, int]]
) -> Document:
    files[path] = _version(path)
    document = read(path, path.name)
    if path.resolve() in below:
        chain = " -> ".join(p.name for p in (*below, path))
        raise DescriptorError(
            f"{document.where(('extends',))}: 'extends' goes in a circle: {chain}"
        )
    return _extended(document, path.parent, (*below, path.resolve()), files)


def _extended(
    document: Document, folder: Path, below: tuple[Path, ...], files: dict[Path, tuple[int, int]]
) -> Document:
    parent = document.data.get("extends")
    if parent is None:
        return document
    where = document.where(("extends",))
    if not isinstance(parent, str):
        raise DescriptorError(
            f"{where}: 'extends' is {parent!r}; expected a platform's name or path"
        )
    try:
        path = _find(parent, folder)
    except UnknownName as error:
        raise DescriptorError(f"{where}: {error}") from None
    merged = merge(_inherited(_read_extended(path, below, files), document), document)
    data = {key: value for key, value in merged.data.items() if key != "extends"}
    return Document(data, merged.lines, merged.name)


def _inherited(parent: Document, child: Document) -> Document:
    """What a file passes on: all but the error that was measured with its own numbers."""
    if "calibration" not in parent.data or child.data.get("calibration", {}) is None:
        return parent
    data = {key: value for key, value in parent.data.items() if key != "calibration"}
    return Document(data, parent.lines, parent.name)


def _first_problem(error: ValidationError, document: Document) -> str:
    """The first validation error in file order, as ``file:line: message``."""
    problem = error.errors(include_url=False)[0]
    loc = tuple(part for part in problem["loc"] if _is_key(part))
    if problem["type"] == "unknown_key":
        loc = (*loc, problem["ctx"]["key"])
        return f"{document.where(loc)}: {problem['msg']}"
    if problem["type"] == "missing":
        return f"{document.where(loc[:-1])}: key {loc[-1]!r} is missing{_inside(loc[:-1])}"
    key = ".".join(str(part) for part in loc)
    message = problem["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "expected").replace("a valid ", "a ")
    return f"{document.where(loc)}: {key!r} is {_short(problem['input'])}; {message}"


def _is_key(part: str | int) -> bool:
    """Whether a part of pydantic's location is a key of the file, not a union's member."""
    return not (
        isinstance(part, str) and (part in ("str", "int", "float") or "[" in part or "-" in part)
    )


def _inside(loc: tuple[str | int, ...]) -> str:
    return f" in {'.'.join(str(part) for part in loc)!r}" if loc else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
