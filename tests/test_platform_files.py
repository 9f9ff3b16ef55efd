"""What a platform file may say, and the one line that each mistake gets."""

import textwrap
from pathlib import Path

import jsonschema
import pytest

from hwcost.costmodel import CostModel
from hwcost.descriptor import read
from hwcost.errors import DescriptorError, PrecisionError, UnknownName, UnsupportedOp
from hwcost.loading import available, load, loads
from hwcost.platform import Platform
from hwcost.schema import json_schema
from hwcost.workload import Workload

BOARD = """\
hwcost: 1
name: board
title: a board
status: datasheet
sources: {sheet: "a datasheet, table 3"}
params:
  clock: {value: 100 MHz, source: sheet}
  power: {value: 50 mW, source: sheet}
  bus: {value: 4 B/cycle, source: sheet}
  budget: {value: 5 mJ, source: sheet}
let:
  taps: kh*kw*cin
tables:
  rate: {unit: op/cycle, axes: {w_bits: [4, 8]}, values: [2, 1], source: sheet}
memories:
  ram: {size: 64 KiB, holds: [activations]}
engines:
  core:
    precision: {w_bits: [4, 8], a_bits: [8]}
    ops:
      - {match: conv, cycles: "macs/rate[w_bits] + w_bytes/bus"}
      - {match: conv, where: depthwise, cycles: "2*macs/rate[w_bits]"}
      - {match: linear, as: {match: conv, kh: 1, kw: 1, oh: 1, ow: positions}}
      - {match: activation, free: fused}
    default: {cycles: "(in_bytes + out_bytes)/bus"}
metrics:
  latency: {unit: ms, row: cycles/clock}
  energy: {unit: mJ, row: power*busy}
deploy: {w_bits: 8, a_bits: 8}
limits: {fits: energy <= budget}
"""


def board(*changes: tuple[str, str]) -> Platform:
    """The board with lines of its file replaced."""
    text = BOARD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return loads(text, "board.yaml")


def line_of(text: str) -> int:
    return BOARD[: BOARD.index(text)].count("\n") + 1


def conv(**sizes: float | list[float]) -> Workload:
    usual = {"cin": 4, "cout": 8, "kh": 3, "kw": 3, "oh": 5, "ow": 6, "ih": 5, "iw": 6}
    return Workload.from_columns("conv", **(usual | sizes))


def test_cycles_are_those_of_the_formula_by_hand() -> None:
    macs, weights = 4 * 8 * 9 * 30, 4 * 8 * 9
    expected_ms = (macs + weights / 4) / 100e6 * 1e3
    assert CostModel(board()).total(conv()).item() == pytest.approx(expected_ms, rel=1e-14)


def test_the_table_is_read_at_the_bits_of_the_row() -> None:
    four, eight = (CostModel(board()).total(conv(w_bits=b, a_bits=8)).item() for b in (4, 8))
    macs, weights = 4 * 8 * 9 * 30, 4 * 8 * 9
    assert four == pytest.approx((macs / 2 + weights / 8) / 1e5, rel=1e-14)
    assert eight == pytest.approx((macs + weights / 4) / 1e5, rel=1e-14)


def test_the_entry_with_more_conditions_wins() -> None:
    depthwise = conv(cin=8, cout=8, groups=8)
    assert CostModel(board()).total(depthwise).item() == pytest.approx(2 * 8 * 9 * 30 / 1e5)


def test_an_alias_prices_as_the_other_kind() -> None:
    linear = Workload.from_columns("linear", cin=4, cout=8, positions=6)
    as_conv = conv(kh=1, kw=1, oh=1, ow=6)
    model = CostModel(board())
    assert model.total(linear).item() == model.total(as_conv).item()


def test_the_default_prices_what_no_entry_matches() -> None:
    add = Workload.from_columns("elementwise", elements=100, reads=2)
    assert CostModel(board()).total(add).item() == pytest.approx((200 + 100) / 4 / 1e5)


def test_energy_is_power_times_the_latency_of_the_row() -> None:
    seconds = CostModel(board()).total(conv()).item() * 1e-3
    assert CostModel(board(), "energy").total(conv()).item() == pytest.approx(50 * seconds)


def test_a_formula_prices_one_sample_and_the_row_all_samples() -> None:
    fixed = board(('cycles: "macs/rate[w_bits] + w_bytes/bus"', 'cycles: "100 + macs"'))
    one, four = (CostModel(fixed).total(conv(batch=b)).item() for b in (1, 4))
    assert four == 4 * one


def test_a_formula_that_reads_batch_prices_all_samples() -> None:
    fixed = board(('cycles: "macs/rate[w_bits] + w_bytes/bus"', 'cycles: "100 + batch*cin"'))
    assert CostModel(fixed).total(conv(batch=4)).item() == pytest.approx((100 + 16) / 1e5)


def test_with_params_changes_a_number() -> None:
    twice = board().with_params(clock="200 MHz")
    assert CostModel(twice).total(conv()).item() == CostModel(board()).total(conv()).item() / 2


#: (text of the file, what stands in its place, the line that is named, words of the message).
MISTAKES = [
    ("title: a board", "titel: a board", "title", "unknown key 'titel'; did you mean 'title'"),
    ("status: datasheet", "status: guess", None, "'status' is 'guess'"),
    (
        "clock: {value: 100 MHz,",
        "clock: {valeu: 100 MHz,",
        None,
        "unknown key 'valeu'; did you mean",
    ),
    ("100 MHz", "100 MHZ", None, "unknown unit 'MHZ'"),
    ("100 MHz", "100", "latency: {unit", "'latency' is in"),
    ("100 MHz", "100 ms", "latency: {unit", "'latency' is in"),
    ("100 MHz", "-100 MHz", None, "not negative"),
    ("100 MHz, source: sheet", "100 MHz", "clock:", "key 'source' is missing"),
    ("power: {value", "cin: {value", None, "a param is named 'cin', which is a size"),
    ("power: {value", "len: {value", None, "'len' is a Python builtin"),
    ("power: {value", "ceil: {value", None, "'ceil' is a function of formulas"),
    ("taps: kh*kw*cin", "taps: kh*taps", None, "go in a circle: taps"),
    ("taps: kh*kw*cin", "taps: kh*kx*cin", None, "unknown name 'kx'"),
    ("values: [2, 1]", "values: [2]", None, "a list of 1 where the axis has 2 values"),
    ("axes: {w_bits", "axes: {wbits", None, "axis 'wbits' is not a size; did you mean 'w_bits'"),
    ("64 KiB", "0 KiB", None, "expected more than 0 B"),
    ("64 KiB", "64 ms", None, "ram.size' is in s; expected B"),
    ("rate[w_bits] + w_bytes", "rate[w_bits] + w_byte", None, "did you mean 'w_bytes'"),
    ("rate[w_bits] + w_bytes", "rate[w_bits, a_bits] + w_bytes", None, "'rate' has 1 axes"),
    ("macs/rate[w_bits] + w_bytes/bus", "macs*bus", None, "'cycles' is in"),
    ("macs/rate[w_bits] + w_bytes/bus", "__import__('os')", None, "unexpected"),
    ("macs/rate[w_bits] + w_bytes/bus", "sqr(macs)", None, "unknown function 'sqr'"),
    ("where: depthwise,", "", None, "two entries match 'conv' equally"),
    ("kh: 1, kw: 1", "kh: 1, kx: 1", None, "'conv' has no size 'kx'"),
    ("free: fused", "free: fused, cycles: 1", None, "exactly one of"),
    ("match: activation", "match: activations", None, "did you mean 'activation'"),
    ("unit: ms, row: cycles/clock", "unit: ms", None, "expected one of row, op, reduce"),
    (
        "unit: ms, row: cycles/clock",
        "unit: J, row: cycles/clock",
        None,
        "'latency' is in s; expected J",
    ),
    ("row: power*busy", "row: power*bussy", None, "did you mean 'busy'"),
    ("row: power*busy", "row: power*span*cin", None, "reads span"),
    ("energy <=", "enery <=", None, "did you mean 'energy'"),
    ("a_bits: 8}\nlimits", "a_bits: 99}\nlimits", None, "deploy"),
    ("name: board", "name: board\nname: board", None, "name"),
    ("title: a board", "title: &x a board", None, "board.yaml:3"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_line(
    old: str, new: str, line: str | None, message: str
) -> None:
    with pytest.raises(DescriptorError) as caught:
        board((old, new))
    text = str(caught.value)
    assert text.startswith("board.yaml:"), text
    assert "\n" not in text
    assert message in text
    if line is not None:
        assert text.startswith(f"board.yaml:{line_of(line)}:"), text


def test_entries_that_overlap_name_an_example() -> None:
    overlapping = ('where: depthwise, cycles: "2*macs', 'where: kh > 1, cycles: "2*macs')
    with pytest.raises(DescriptorError, match="equally at"):
        board(
            overlapping,
            ('{match: conv, cycles: "macs', '{match: conv, where: kw > 1, cycles: "macs'),
        )


def test_bits_that_an_engine_lacks_name_the_layer() -> None:
    row: dict[str, list[object]] = {"layer": ["stem"], "kind": ["conv"], "w_bits": [2]}
    table = Workload.from_frame(row | {n: [1] for n in ("cin", "cout", "kh", "kw", "oh", "ow")})
    with pytest.raises(
        PrecisionError, match=r"layer 'stem' is w2a8, which board/core cannot compute"
    ):
        CostModel(board()).total(table)


def test_an_op_without_a_formula_names_layer_op_platform_and_what_is_known() -> None:
    text = textwrap.dedent(BOARD).replace(
        '    default: {cycles: "(in_bytes + out_bytes)/bus"}\n', ""
    )
    table = Workload.from_columns("matmul", m=2, n=3, k=4)
    with pytest.raises(
        UnsupportedOp,
        match=r"layer 'matmul 0': board/core has no formula for 'matmul'; known: activation, conv",
    ):
        CostModel(loads(text)).total(table)


def test_an_unknown_platform_suggests_a_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'diana'"):
        load("dianna")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UnknownName, match=r"no platform file 'nowhere/x.yaml'"):
        load("nowhere/x.yaml")


def test_an_unknown_metric_suggests_a_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'latency'"):
        CostModel("diana", "latencies")


def test_extends_changes_one_number(tmp_path: Path) -> None:
    file = tmp_path / "faster.yaml"
    file.write_text("extends: gap8_compute\nname: faster\nparams: {clock: {value: 350 MHz}}\n")
    assert (
        CostModel(file).total(conv()).item() == CostModel("gap8_compute").total(conv()).item() / 2
    )


def test_extends_in_a_circle_is_an_error(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}.yaml\nname: {name}\n")
    with pytest.raises(DescriptorError, match=r"'extends' goes in a circle: a.yaml -> b.yaml"):
        load(tmp_path / "a.yaml")


def test_a_mistake_in_the_extended_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BOARD.replace("taps: kh*kw*cin", "taps: kh*kx"))
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nname: child\n")
    with pytest.raises(DescriptorError, match=rf"^base.yaml:{line_of('taps')}: unknown name 'kx'"):
        load(tmp_path / "child.yaml")


def test_null_deletes_a_key_of_the_extended_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BOARD)
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nname: child\nmemories: null\n")
    assert not load(tmp_path / "child.yaml").memories


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    file.write_text(BOARD)
    before = load(file)
    assert load(file) is before
    file.write_text(BOARD.replace("100 MHz", "1000 MHz"))
    assert load(file) is not before


def test_scratch_may_be_a_plain_number_of_bytes() -> None:
    scratch = board(('macs/rate[w_bits] + w_bytes/bus"', 'macs", scratch: "2*cin*kh*kw"'))
    assert scratch.engines["core"].entries["conv"][-1].scratch is not None


def test_a_param_without_unit_is_named_where_the_dimension_is_wrong() -> None:
    with pytest.raises(DescriptorError, match=r"expected s; 'clock' has no unit"):
        board(("100 MHz", "100"))


def test_bits_off_a_table_name_layer_and_line() -> None:
    wide = board(("precision: {w_bits: [4, 8]", "precision: {w_bits: [2, 4, 8]"))
    line = line_of("{match: conv, cycles")
    with pytest.raises(
        DescriptorError,
        match=rf"^board.yaml:{line}: layer 'conv 1' \(conv\): rate\[2\]: w_bits has no 2; known",
    ):
        CostModel(wide).total(conv(w_bits=[8, 2]))


def schema_problems(text: str) -> list[str]:
    checker = jsonschema.Draft202012Validator(json_schema())
    return [error.message for error in checker.iter_errors(read(text, "file.yaml").data)]


@pytest.mark.parametrize("name", available())
def test_the_schema_accepts_a_shipped_platform(name: str) -> None:
    assert not schema_problems(
        (Path(__file__).parents[1] / "platforms" / f"{name}.yaml").read_text()
    )


def test_the_schema_accepts_part_of_a_platform_that_extends_another() -> None:
    text = "extends: diana\nname: x\nmetrics: {latency: {engines: sum}, energy: null}\nnote: null\n"
    assert not schema_problems(text)


@pytest.mark.parametrize(
    "text",
    [BOARD.replace("title:", "titel:"), BOARD.replace("cycles:", "cycels:", 1), "extends: 3\n"],
)
def test_the_schema_refuses_a_wrong_file(text: str) -> None:
    assert schema_problems(text)


@pytest.mark.parametrize("name", available())
def test_every_number_of_a_shipped_platform_has_a_source(name: str) -> None:
    platform = load(name)
    assert all(param.source for param in platform.params.values())
    for engine in platform.engines.values():
        priced = [e for found in engine.entries.values() for e in found if e.cycles is not None]
        assert priced


@pytest.mark.parametrize("name", available())
def test_a_shipped_platform_points_to_the_schema_and_has_its_files_name(name: str) -> None:
    path = Path(load(name).document.name)
    assert path.stem == load(name).name == name


def many(count: int, line: str) -> str:
    return "".join(line.replace("N", str(i)) for i in range(count))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "let:\n" + many(200, f"  aN: {'+'.join(f'ceil(cin/{i + 2})' for i in range(180))}\n"),
            "formulas have",
        ),
        (
            "let:\n  a0: cin\n" + many(300, "  bN: aN\n  aN1: a0\n"),
            "already|circle|limit|keys|twice",
        ),
        (
            "engines:\n  e:\n    ops:\n"
            + many(2000, "    - {match: conv, where: kh == N, cycles: cin}\n"),
            "op entries; at most 300",
        ),
    ],
    ids=["long lets", "many lets", "many ops"],
)
def test_a_file_that_would_take_minutes_is_refused(section: str, message: str) -> None:
    head = "hwcost: 1\nname: x\ntitle: t\nstatus: published\n"
    with pytest.raises(DescriptorError, match=message):
        loads(head + section + "metrics: {a: {unit: '1', row: cin}}\n")
