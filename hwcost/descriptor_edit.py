"""Change values in the text of a platform file; comments, order and layout stay."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from hwcost.descriptor import Loc, read

#: Keys -> the new value, a plain number or text, or None to delete the key.
Changes = Mapping[Loc, str | float | None]

#: Text that needs no quotes in either style of mapping.
_PLAIN = re.compile(r"[A-Za-z0-9.][A-Za-z0-9 ._+/*%()^-]*(?<! )", re.ASCII)


@dataclass(frozen=True)
class _Edit:
    """Replace what stands from ``start`` to ``end``."""

    start: int
    end: int
    text: str


def edited(text: str, changes: Changes, name: str = "<text>") -> str:
    """Return the text with other values; a key that is not there is added to its mapping.

    A new key stands behind the last one of a mapping. Its parents are made where they are missing.

    Args:
        text: a file that ``descriptor.read`` takes.
        name: what messages call the file.

    Raises:
        DescriptorError: the text is not such a file.
    """
    for loc, value in changes.items():
        read(text, name)
        text = _changed(text, loc, value)
    return text


def with_section(text: str, key: str, section: str) -> str:
    """Return the text with a top-level section of its own, in place of the present one or last.

    Args:
        section: YAML lines that start with ``key:``.
    """
    root = _composed(text)
    found = next((pair for pair in root.value if pair[0].value == key), None)
    section = section.rstrip("\n") + "\n"
    if found is None:
        gap = "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}{section}"
    start, end = found[0].start_mark.index, _line_end(text, _end(text, found[1]))
    return text[:start] + section.rstrip("\n") + text[end:]


def scalar(value: str | float) -> str:
    """Return a value as YAML, in quotes where it needs them."""
    if not isinstance(value, str):
        return repr(value)
    number = re.fullmatch(r"[-+.0-9eExXoO_]+|\.inf|\.nan|true|false|null|~", value, re.IGNORECASE)
    if _PLAIN.fullmatch(value) and not number:
        return value
    return json.dumps(value, ensure_ascii=False)


def _changed(text: str, loc: Loc, value: str | float | None) -> str:
    node: yaml.Node = _composed(text)
    for depth, key in enumerate(loc):
        pair = _pair(node, key)
        if pair is None:
            if value is None:
                return text
            return _applied(text, _insertion(text, node, loc[depth:], value))
        if depth == len(loc) - 1:
            if value is None:
                return _applied(text, _deletion(text, node, pair))
            return _applied(text, _replacement(text, pair[1], value))
        node = pair[1]
    return text


def _composed(text: str) -> yaml.MappingNode:
    # Not libyaml's loader: its marks count from the byte order mark.
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return node


def _pair(node: yaml.Node, key: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in node.value if pair[0].value == key), None)
    assert isinstance(node, yaml.SequenceNode) and isinstance(key, int)
    return node.value[key], node.value[key]


def _applied(text: str, edit: _Edit) -> str:
    return text[: edit.start] + edit.text + text[edit.end :]


def _replacement(text: str, node: yaml.Node, value: str | float) -> _Edit:
    start, end = node.start_mark.index, _end(text, node)
    if start == end and text[start - 1 : start] == ":":
        return _Edit(start, end, f" {scalar(value)}")
    return _Edit(start, end, scalar(value))


def _insertion(text: str, node: yaml.Node, keys: Loc, value: str | float) -> _Edit:
    """A new key behind the last one of a mapping, mappings around it as needed."""
    assert isinstance(node, yaml.MappingNode)
    line = _in_braces(keys, value)
    if not node.value:
        start = node.start_mark.index
        return _Edit(start, node.end_mark.index, f"{{{line}}}")
    last_key, last = node.value[-1]
    end = _end(text, last)
    if node.flow_style:
        return _Edit(end, end, f", {line}")
    end = _line_end(text, end)
    return _Edit(end, end, _in_lines(keys, value, last_key.start_mark.column))


def _in_braces(keys: Loc, value: str | float) -> str:
    """``a: {b: {c: 1}}``."""
    inner = scalar(value)
    for key in reversed(keys[1:]):
        inner = f"{{{key}: {inner}}}"
    return f"{keys[0]}: {inner}"


def _in_lines(keys: Loc, value: str | float, column: int) -> str:
    """A line for each mapping around the last one, which is in braces: ``a:``, ``  b: {c: 1}``."""
    outer, last = keys[:-2], keys[-2:]
    lines = [*(f"{key}:" for key in outer), _in_braces(last, value)]
    return "".join(f"\n{' ' * (column + 2 * depth)}{line}" for depth, line in enumerate(lines))


def _deletion(text: str, node: yaml.Node, pair: tuple[yaml.Node, yaml.Node]) -> _Edit:
    place = next(i for i, other in enumerate(node.value) if other[0] is pair[0])
    start, end = pair[0].start_mark.index, _end(text, pair[1])
    if not node.flow_style:  # type: ignore[attr-defined]
        start = text.rfind("\n", 0, start) + 1
        return _Edit(start, min(_line_end(text, end) + 1, len(text)), "")
    if place:
        return _Edit(_end(text, node.value[place - 1][1]), end, "")
    following = node.value[1][0].start_mark.index if len(node.value) > 1 else end
    return _Edit(start, following, "")


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's text ends; the mark of a block is behind the comments below it."""
    children = list(_children(node))
    if children and not node.flow_style:  # type: ignore[attr-defined]
        return _end(text, children[-1])
    start, end = int(node.start_mark.index), int(node.end_mark.index)
    return start + len(text[start:end].rstrip())


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end
