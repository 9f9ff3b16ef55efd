import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwcost.descriptor import MAX_BYTES, MAX_DEPTH, MAX_KEYS, MAX_NODES, Document, merge, read
from hwcost.errors import DescriptorError, HwcostError


def value(text: str) -> Any:
    return read(f"key: {text}\n", "f.yaml").data["key"]


def refused(text: str) -> str:
    with pytest.raises(DescriptorError) as error:
        read(text, "f.yaml")
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e6", 1e6),
        ("1.5e-3", 1.5e-3),
        ("3.", 3.0),
        (".5", 0.5),
        ("-7", -7),
        ("+7", 7),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("260 MHz", "260 MHz"),
        ("'8'", "8"),
        ('"null"', "null"),
        ("!", None),
        ("[1, two, {three: 3}]", [1, "two", {"three": 3}]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object) -> None:
    if text == "!":
        assert "is a tag" in refused("key: !\n")
    else:
        assert value(text) == expected
        assert type(value(text)) is type(expected)


def test_a_block_scalar_keeps_its_lines() -> None:
    assert value("|\n  a\n  b") == "a\nb\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml:1: the file is empty"),
        ("# nothing\n", "f.yaml:1: the file is empty"),
        ("- 1\n", "f.yaml:1: expected keys such as 'name: ...' at the top"),
        ("text", "f.yaml:1: expected keys"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: key 'a' is given twice; first in line 1"),
        ("a: {b: 1,\n b: 2}\n", "f.yaml:2: key 'b' is given twice; first in line 1"),
        ("a: 1\nb: &x 2\n", "f.yaml:2: '&x' is an anchor or alias"),
        ("a: 1\nb: *x\n", "f.yaml:2: '*x' is an anchor or alias"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: 'tag:yaml.org,2002:python/object"),
        ("a: ! 1\n", "f.yaml:1: '!' is a tag"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document"),
        ("a: 1\nb: .nan\n", "f.yaml:2: '.nan' is not a finite number"),
        ("b: -.inf\n", "f.yaml:1: '-.inf' is not a finite number"),
        ("b: 1e999\n", "f.yaml:1: '1e999' is not a finite number"),
        ("b: " + "9" * 100, "f.yaml:1: '99999999999999999999...' has more than 60 digits"),
        ("1: 2\n", "f.yaml:1: key '1' is not text; put it in quotes"),
        ("~: 2\n", "f.yaml:1: key '~' is not text; put it in quotes"),
        ("[a]: 2\n", "f.yaml:1: key 'a list or mapping' is not text"),
        ("a:\n\tb: 1\n", "f.yaml:2: a tab indents the line; use spaces"),
        ("a: b\n\x01: c\n", "f.yaml:2: control character '\\x01'"),
        ('a: "\\e[31m"\n', "f.yaml:1: control character '\\x1b'"),
        ("a: b: c\n", "f.yaml:1: mapping values are not allowed"),
        ("a: 1\nb: {c: 1\n", "f.yaml:3: "),
        ("a: " + "[" * 40 + "]" * 40, f"f.yaml:1: nested deeper than {MAX_DEPTH} levels"),
        ("a: [" + "1, " * (MAX_NODES + 9) + "]", f"f.yaml:1: more than {MAX_NODES} keys"),
        (
            "k" * 200 + ": 1",
            "f.yaml:1: key 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...' is longer than",
        ),
        (
            "".join(f"k{i}: 1\n" for i in range(MAX_KEYS + 1)),
            f"f.yaml:{MAX_KEYS + 1}: more than {MAX_KEYS} keys in one mapping",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_a_file_is_read_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "duo.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: duo\r\nops:\r\n- {match: conv}\r\n- match: linear\r\n")
    document = read(path, path.name)
    assert document.data == {"name": "duo", "ops": [{"match": "conv"}, {"match": "linear"}]}
    assert document.where(("ops", 1, "match")) == "duo.yaml:4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xff\n", "f.yaml:2: not UTF-8 text"),
        (b"\xff\xfea\x00", "f.yaml:1: not UTF-8 text"),
        (b"a" * (MAX_BYTES + 1), "f.yaml: larger than"),
    ],
)
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DescriptorError, match=message):
        read(tmp_path / "f", "f.yaml")


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "f.yaml: not a file"),
        (tmp_path / "pipe", "f.yaml: not a file"),
        (Path("/dev/zero"), "f.yaml: not a file"),
        (tmp_path / "none", "f.yaml: no such file or directory"),
        (tmp_path / ("x" * 5000), "f.yaml: file name too long"),
    ]:
        with pytest.raises(DescriptorError, match=message):
            read(path, "f.yaml")


TEXT = """\
name: a
engines:
  core:
    ops:
    - match: conv
      cycles: 1
"""


@pytest.mark.parametrize(
    ("loc", "line"),
    [
        ((), 1),
        (("name",), 1),
        (("engines", "core"), 3),
        (("engines", "core", "ops", 0), 5),
        (("engines", "core", "ops", 0, "cycles"), 6),
        (("engines", "core", "ops", 0, "missing"), 5),
        (("engines", "core", "ops", 7, "cycles"), 4),
        (("engines", "union", "core", "ops"), 4),
        (("nothing",), 1),
    ],
)
def test_a_place_is_that_of_the_nearest_key(loc: tuple[str | int, ...], line: int) -> None:
    assert read(TEXT, "f.yaml").where(loc) == f"f.yaml:{line}"


def test_the_slow_parser_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = read(TEXT, "f.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert read(TEXT, "f.yaml") == fast


def merged() -> Document:
    base = "a: 1\nb: {c: 2, d: [1, 2], e: {f: 3}}\ng: 4\n"
    over = "g: null\nb:\n  d: [9]\n  h: 5\n  e: {f: null}\n"
    return merge(read(base, "base.yaml"), read(over, "over.yaml"))


def test_extending_merges_deeply_replaces_lists_and_deletes_by_null() -> None:
    assert merged().data == {"a": 1, "b": {"c": 2, "d": [9], "e": {}, "h": 5}}


@pytest.mark.parametrize(
    ("loc", "place"),
    [
        (("a",), "base.yaml:1"),
        (("b",), "over.yaml:2"),
        (("b", "c"), "base.yaml:2"),
        (("b", "d"), "over.yaml:3"),
        (("b", "d", 1), "over.yaml:3"),
        (("b", "h"), "over.yaml:4"),
        (("b", "e", "f"), "over.yaml:5"),
        (("g",), "over.yaml:1"),
    ],
)
def test_merged_keys_keep_their_file_and_line(loc: tuple[str | int, ...], place: str) -> None:
    assert merged().where(loc) == place


def test_a_merge_of_a_merge_keeps_the_files() -> None:
    top = merge(merged(), read("b: {c: 7}\n", "top.yaml"))
    assert top.data["b"]["c"] == 7
    places = [top.where(loc) for loc in (("a",), ("b", "h"), ("b", "c"))]
    assert places == ["base.yaml:1", "over.yaml:4", "top.yaml:1"]


def test_deleting_what_is_not_there_is_an_error() -> None:
    base, over = read("a: {clock: 1}\n", "base.yaml"), read("a:\n  clok: null\n", "over.yaml")
    message = "over.yaml:2: null deletes 'a.clok', which base.yaml does not have"
    with pytest.raises(DescriptorError, match=message + "; did you mean 'clock'"):
        merge(base, over)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9)
    | st.text("ab :#'\"-", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1), plain, min_size=1), st.booleans())
def test_what_yaml_writes_is_read_back(data: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow)
    if "&id" not in text:
        assert read(text, "f.yaml").data == data


@given(st.text("ab:{}[],&*!#|>'\"%@`-? \n\t019.e~\\x", max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        assert isinstance(read(text, "f.yaml").data, dict)
    except HwcostError as error:
        assert str(error).startswith("f.yaml:") and "\n" not in str(error)
