"""INI files in the syntax of N2D2: sections that bring in others, macros, references.

A line is ``[section]``, ``[section] base``, ``key=value`` or a comment after ``;`` or ``#``. A
backslash at its end joins the next one to it. Keys before the first section are the file's own;
those that start with ``$`` are macros, which values use as ``${NAME}``. A value ``[section]Key``
is the value of that key.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hwcost.errors import SearchError, suggestion

#: A line up to its comment; ``;`` and ``#`` may stand in quotes.
_BEFORE_COMMENT = re.compile(r'(?:"[^"]*"|[^;#"])*')

_HEADER = re.compile(r"\[([^\]]*)\](.*)")
_MACRO = re.compile(r"\$\{(\w+)\}")
_REFERENCE = re.compile(r"\[([^\]]+)\](\S+)")


@dataclass(frozen=True)
class Entry:
    """One line ``key=value``."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """A section as it is written, without what it brings in.

    Attributes:
        bases: the sections after its header.
    """

    name: str
    line: int
    bases: tuple[str, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class IniFile:
    """A file's sections by name; those keys before the first section are in ``""``."""

    path: str
    sections: dict[str, Section]

    def error(self, line: int, fact: object) -> SearchError:
        """Return an error at a line of the file."""
        return SearchError(f"{self.path}:{line}: {fact}")

    def included(self) -> set[str]:
        """Return the names of the sections that others bring in."""
        return {name for section in self.sections.values() for name, _ in self._includes(section)}

    def merged(self, section: Section, trail: tuple[str, ...] = ()) -> dict[str, Entry]:
        """Return a section's entries and those that it brings in, which its own go before.

        Raises:
            SearchError: it brings in itself, or what does not exist.
        """
        if section.name in trail:
            circle = " -> ".join((*trail, section.name))
            raise self.error(section.line, f"sections bring in each other: {circle}")
        entries: dict[str, Entry] = {}
        for name, line in self._includes(section):
            entries |= self.merged(self._section(name, line), (*trail, section.name))
        return entries | section.entries

    def value(self, entry: Entry) -> str:
        """Return an entry's value with its macros and references replaced.

        Raises:
            SearchError: one does not exist, or the value is an expression.
        """
        return self._value(entry, ())

    def _value(self, entry: Entry, trail: tuple[int, ...]) -> str:
        if entry.line in trail:
            raise self.error(entry.line, f"{entry.key} is defined by itself")
        trail = (*trail, entry.line)
        text = _MACRO.sub(lambda match: self._macro(match[1], entry, trail), entry.value)
        if "$" in text:
            raise self.error(
                entry.line, f"{entry.key}={text}: expressions are not evaluated; write the number"
            )
        found = _REFERENCE.fullmatch(text)
        if not found:
            return text
        others = self.merged(self._section(found[1], entry.line))
        if found[2] not in others:
            fact = f"[{found[1]}] has no key {found[2]!r}{suggestion(found[2], others)}"
            raise self.error(entry.line, fact)
        return self._value(others[found[2]], trail)

    def _macro(self, name: str, user: Entry, trail: tuple[int, ...]) -> str:
        own = self.sections[""].entries
        entry = own.get(f"${name}", own.get(name))
        if entry is None:
            known = [key.lstrip("$") for key in own]
            raise self.error(user.line, f"unknown macro {name!r}{suggestion(name, known)}")
        return self._value(entry, trail)

    def _section(self, name: str, line: int) -> Section:
        if name not in self.sections:
            known = [one for one in self.sections if one]
            raise self.error(line, f"no section [{name}]{suggestion(name, known)}")
        return self.sections[name]

    def _includes(self, section: Section) -> Iterator[tuple[str, int]]:
        """Yield what a section brings in and where it says so; later ones go before."""
        for name in section.bases:
            yield name, section.line
        entry = section.entries.get("ConfigSection")
        if entry is not None:
            for name in self.value(entry).split(","):
                yield name.strip(), entry.line


def read_ini(path: str | os.PathLike[str]) -> IniFile:
    """Read a file.

    Raises:
        SearchError: it cannot be read, a line is neither a section nor ``key=value``, a section or
            a key is given twice, or the file needs N2D2's templates.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"{os.fspath(path)} cannot be read: {error}") from None
    file = IniFile(os.fspath(path), {"": Section("", 1)})
    current = file.sections[""]
    for number, line in _lines(text):
        current = _read(file, current, number, line)
    return file


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with the number of the first of those that a backslash joins."""
    first, joined = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not joined:
            first = number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        yield first, joined + line
        joined = ""
    if joined:
        yield first, joined


def _read(file: IniFile, current: Section, number: int, text: str) -> Section:
    """Read a line into the file; return the section that the next one belongs to."""
    known = _BEFORE_COMMENT.match(text)
    line = known[0].strip() if known else ""
    if known and text[known.end() :].startswith('"'):
        raise file.error(number, "a quote is not closed")
    if "{{" in line or "{%" in line:
        raise file.error(number, "templates are not read; expand them first")
    if line.startswith("["):
        return _read_header(file, number, line)
    if line:
        _read_entry(file, current, number, line)
    return current


def _read_header(file: IniFile, number: int, line: str) -> Section:
    header = _HEADER.fullmatch(line)
    name = header[1].strip() if header else ""
    if header is None or not name:
        raise file.error(number, f"{line!r} is no section; expected [name]")
    if "@" in name:
        raise file.error(number, f"[{name}] includes a template; expand it first")
    if name in file.sections:
        first = file.sections[name].line
        raise file.error(number, f"section [{name}] was given in line {first} already")
    file.sections[name] = Section(name, number, tuple(header[2].split()))
    return file.sections[name]


def _read_entry(file: IniFile, section: Section, number: int, line: str) -> None:
    key, found, value = (part.strip() for part in line.partition("="))
    if not found or not key:
        raise file.error(number, f"{line!r} is neither [section] nor key=value")
    if key in section.entries:
        first = section.entries[key].line
        raise file.error(number, f"{key} was given in line {first} already")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    section.entries[key] = Entry(key, value, number)
