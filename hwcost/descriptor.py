"""Strict YAML: plain data in which every key knows its file and line.

YAML 1.2 core scalars (``1e6`` is a number; ``12:30``, ``no`` and ``on`` are text), no duplicate
keys, no anchors, aliases or tags, one document. The data is built from parser events without
recursion, so a hostile file costs no more than its size.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hwcost.errors import DescriptorError, did_you_mean

Loc = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 30
MAX_NODES = 20_000
MAX_KEYS = 500
_MAX_DIGITS = 60
_MAX_KEY = 100


class Place(NamedTuple):
    """A line of a file."""

    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.name}:{self.line}"


@dataclass(frozen=True)
class Document:
    """The data of a file.

    Attributes:
        data: dicts with text keys, lists, str, int, float, bool, None.
        lines: keys and indices from the top -> the place of that key or item; ``()`` is the top.
        name: what messages call the file.
    """

    data: dict[str, Any]
    lines: Mapping[Loc, Place]
    name: str

    def where(self, loc: Loc) -> str:
        """Return ``file:line`` of a key, or of the nearest thing above it that is in the file.

        Parts of ``loc`` that the file does not have are passed over.
        """
        found: Loc = ()
        for part in loc:
            if (*found, part) in self.lines:
                found = (*found, part)
        return str(self.lines.get(found, Place(self.name, 1)))


def read(source: Path | str, name: str) -> Document:
    """Return the document in a file, or in a text.

    Raises:
        DescriptorError: the file cannot be read, or is not a mapping in the YAML described above;
            the message starts with ``name:line``.
    """
    text = _file_text(source, name) if isinstance(source, Path) else source
    if len(text) > MAX_BYTES:
        raise DescriptorError(f"{name}: larger than {MAX_BYTES} bytes")
    odd = _ODD.search(text)
    if odd:
        place = Place(name, text.count("\n", 0, odd.start()) + 1)
        raise DescriptorError(f"{place}: control character {odd.group()!r}")
    try:
        return _built(_events(text), name)
    except yaml.MarkedYAMLError as error:
        raise DescriptorError(_syntax_message(error, text, name)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, DescriptorError):
            raise
        raise DescriptorError(f"{name}: {' '.join(str(error).split())}") from None


#: Control characters, surrogates, and separators that YAML 1.1 takes for line ends.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def _file_text(path: Path, name: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise DescriptorError(f"{name}: not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return data.decode("utf-8-sig") if len(data) <= MAX_BYTES else "x" * len(data)
    except UnicodeDecodeError as error:
        place = Place(name, data.count(b"\n", 0, error.start) + 1)
        raise DescriptorError(f"{place}: not UTF-8 text") from None
    except OSError as error:
        raise DescriptorError(f"{name}: {(error.strerror or str(error)).lower()}") from None


def _events(text: str) -> Iterator[yaml.Event]:
    # libyaml is 10 times faster; wheels of PyYAML have it on every platform.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(yaml.parse(text, Loader=loader))


def _syntax_message(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    if line <= len(lines) and re.match(r" *\t", lines[line - 1]):
        return f"{Place(name, line)}: a tab indents the line; use spaces"
    problem = " ".join((error.problem or error.context or "not YAML").split())
    if error.problem and error.context and error.context_mark:
        problem += f", {error.context} that starts in line {error.context_mark.line + 1}"
    return f"{Place(name, line)}: {problem}; formulas and text with signs need quotes"


class _Open:
    """A mapping or list that is being read; ``key`` is the one whose value comes next."""

    def __init__(self, holder: dict[str, Any] | list[Any], loc: Loc) -> None:
        self.holder, self.loc = holder, loc
        self.key: str | None = None

    @property
    def wants_key(self) -> bool:
        return isinstance(self.holder, dict) and self.key is None

    def add(self, value: Any) -> None:
        if isinstance(self.holder, list):
            self.holder.append(value)
        else:
            assert self.key is not None
            self.holder[self.key], self.key = value, None

    def next_loc(self) -> Loc:
        return (*self.loc, len(self.holder) if self.key is None else self.key)


def _built(events: Iterator[yaml.Event], name: str) -> Document:
    lines: dict[Loc, Place] = {}
    top: list[Any] = []
    stack = [_Open(top, ())]
    for event in events:
        place = Place(name, event.start_mark.line + 1 if event.start_mark else 1)
        if isinstance(event, yaml.DocumentStartEvent) and top:
            raise DescriptorError(f"{place}: a second document; a file holds one platform")
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            stack.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        _check_node(event, place, len(stack), len(lines))
        if stack[-1].wants_key:
            stack[-1].key = _key(event, stack[-1], place, lines)
            lines[stack[-1].next_loc()] = place
            continue
        loc = stack[-1].next_loc()
        lines.setdefault(loc, place)
        value = _value(event, place)
        stack[-1].add(value)
        if isinstance(value, dict | list):
            stack.append(_Open(value, loc))
    return _document(top, lines, name)


def _document(top: list[Any], lines: dict[Loc, Place], name: str) -> Document:
    if not top or top[0] is None:
        raise DescriptorError(f"{name}:1: the file is empty")
    if not isinstance(top[0], dict):
        place = lines.get((0,), Place(name, 1))
        raise DescriptorError(f"{place}: expected keys such as 'name: ...' at the top")
    # Everything was read as item 0 of a list of documents.
    return Document(top[0], {loc[1:]: place for loc, place in lines.items()}, name)


def _check_node(event: yaml.NodeEvent, place: Place, depth: int, nodes: int) -> None:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
        shown = f"{sign}{event.anchor}"[:40]
        fact = f"{shown!r} is an anchor or alias"
        raise DescriptorError(f"{place}: {fact}; write it out, use 'let', or put text in quotes")
    tag = getattr(event, "tag", None)
    if tag is not None:
        fact = f"{tag[:40]!r} is a tag"
        raise DescriptorError(f"{place}: {fact}; put text that starts with '!' in quotes")
    if depth > MAX_DEPTH:
        raise DescriptorError(f"{place}: nested deeper than {MAX_DEPTH} levels")
    if nodes >= MAX_NODES:
        raise DescriptorError(f"{place}: more than {MAX_NODES} keys and items")


def _key(event: yaml.NodeEvent, parent: _Open, place: Place, lines: Mapping[Loc, Place]) -> str:
    key = _value(event, place)
    if not isinstance(key, str):
        shown = event.value[:40] if isinstance(event, yaml.ScalarEvent) else "a list or mapping"
        raise DescriptorError(f"{place}: key {shown!r} is not text; put it in quotes")
    if len(parent.holder) >= MAX_KEYS:
        raise DescriptorError(f"{place}: more than {MAX_KEYS} keys in one mapping")
    if len(key) > _MAX_KEY:
        shown = key[:40] + "..."
        raise DescriptorError(f"{place}: key {shown!r} is longer than {_MAX_KEY} characters")
    if key in parent.holder:
        first = lines[(*parent.loc, key)].line
        raise DescriptorError(f"{place}: key {key!r} is given twice; first in line {first}")
    return key


def _value(event: yaml.NodeEvent, place: Place) -> Any:
    if isinstance(event, yaml.MappingStartEvent):
        return {}
    if isinstance(event, yaml.SequenceStartEvent):
        return []
    assert isinstance(event, yaml.ScalarEvent)
    if event.style is None or event.style == "":
        return _plain_scalar(event.value, place)
    odd = _ODD.search(event.value)  # escapes such as "\e" bring them in
    if odd:
        raise DescriptorError(f"{place}: control character {odd.group()!r}")
    return event.value


_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "": None, "~": None}
_CONSTANTS: dict[str, bool | None] = {
    spelling: value for w, value in _WORDS.items() for spelling in (w, w.title(), w.upper())
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def _plain_scalar(text: str, place: Place) -> str | int | float | bool | None:
    """A scalar without quotes, by the core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        raise DescriptorError(f"{place}: {text!r} is not a finite number")
    is_int = _INT.fullmatch(text)
    if not is_int and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:
        raise DescriptorError(f"{place}: {text[:20] + '...'!r} has more than {_MAX_DIGITS} digits")
    if is_int:
        return int(text, {"o": 8, "x": 16}.get(text[1:2], 10))
    number = float(text)
    if number in (float("inf"), -float("inf")):
        raise DescriptorError(f"{place}: {text!r} is not a finite number")
    return number


def merge(base: Document, over: Document) -> Document:
    """Return ``base`` with the keys of ``over`` in their place; each keeps its file and line.

    Mappings merge key by key, anything else is replaced, and null deletes a key.

    Raises:
        DescriptorError: null stands at a key that ``base`` does not have.
    """
    lines: dict[Loc, Place] = {(): over.lines.get((), Place(over.name, 1))}
    return Document(_merged(base, over, base.data, over.data, (), lines), lines, over.name)


def _merged(
    base: Document, over: Document, old: Any, new: Any, loc: Loc, lines: dict[Loc, Place]
) -> dict[str, Any]:
    merged = {}
    for key in [*old, *(key for key in new if key not in old)]:
        here = (*loc, key)
        if key not in new:
            merged[key] = _kept(base, old[key], here, lines)
        elif new[key] is None:
            if key not in old:
                shown, hint = ".".join(map(str, here)), did_you_mean(key, old)
                fact = f"null deletes {shown!r}, which {base.name} does not have{hint}"
                raise DescriptorError(f"{over.where(here)}: {fact}")
        elif isinstance(old.get(key), dict) and isinstance(new[key], dict):
            lines[here] = over.lines[here]
            merged[key] = _merged(base, over, old[key], new[key], here, lines)
        else:
            merged[key] = _kept(over, new[key], here, lines)
    return merged


def _kept(document: Document, value: Any, loc: Loc, lines: dict[Loc, Place]) -> Any:
    """``value``, with the places of everything in it noted."""
    lines[loc] = document.lines[loc]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _kept(document, item, (*loc, key), lines)
    return value
