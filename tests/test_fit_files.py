"""The file that a fit writes, and the text that it is made of."""

from difflib import unified_diff
from pathlib import Path

import pytest

from hwcost.costmodel import CostModel
from hwcost.descriptor import read
from hwcost.descriptor_edit import edited, scalar, with_section
from hwcost.errors import DescriptorError, FitError
from hwcost.fit import Fit, fit
from hwcost.loading import load, loads
from tests.fitcases import BOARD, Row, measured, write_board, write_rows

DATE = "2026-11-21"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board, its rows, and the fitted board."""
    folder = tmp_path_factory.mktemp("fit")
    write_board(folder / "board.yaml")
    told = {"source": "bench", "software": "kernels 1.2", "conditions": "2 threads"}
    rows = [{**row, **told} for row in measured(24)]
    write_rows(folder / "rows.csv", rows)
    found = fit(folder / "board.yaml", folder / "rows.csv")
    found.write(folder / "fitted.yaml", DATE)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Fit:
    return fit(folder / "board.yaml", folder / "rows.csv")


def changed(folder: Path, old: str = "board.yaml", new: str = "fitted.yaml") -> list[str]:
    """Lines that a fit took away or added, with - or + before them."""
    before, after = ((folder / name).read_text().splitlines() for name in (old, new))
    return [line for line in list(unified_diff(before, after, n=0))[2:] if line[0] in "+-"]


def test_the_file_loads_with_the_fitted_values(folder: Path, found: Fit) -> None:
    params = load(folder / "fitted.yaml").params
    assert {f.param.name: f.value for f in found.params} == {
        name: float(params[name].number) for name in ("rate", "dw_rate", "setup")
    }


def test_only_status_params_and_calibration_change(folder: Path) -> None:
    gone = [line.lstrip("- ").split(":")[0] for line in changed(folder) if line[0] == "-"]
    assert gone == ["status", "rate", "dw_rate", "value", "source"]


def test_comments_stay(folder: Path) -> None:
    comments = [line.partition("#")[2] for line in BOARD.splitlines() if "#" in line]
    text = (folder / "fitted.yaml").read_text()
    assert [line.partition("#")[2] for line in text.splitlines() if "#" in line] == comments


def test_the_file_is_measured_and_says_by_what(folder: Path) -> None:
    platform = load(folder / "fitted.yaml")
    known = platform.calibration
    assert platform.status == "measured" and known is not None
    assert (known.data, known.rows, known.date) == ("rows.csv, bench", 24, DATE)
    assert (known.software, known.kinds) == ("kernels 1.2", ("conv 3x3", "depthwise 3x3", "linear"))
    assert known.note == "2 threads"


def test_the_file_states_the_errors_of_the_fit(folder: Path, found: Fit) -> None:
    stated = load(folder / "fitted.yaml").error("latency", "layers")
    assert stated is not None and stated.rows == 24
    assert stated.p90 == pytest.approx(found.errors[0].p90, rel=0.05)


def test_params_have_their_uncertainty_and_source(folder: Path, found: Fit) -> None:
    rate = load(folder / "fitted.yaml").params["rate"]
    assert rate.uncertainty == pytest.approx(found.params[0].error, rel=0.05)
    assert (rate.source, rate.fit) == ("calibration", True)


def test_a_second_fit_writes_the_same_file(folder: Path) -> None:
    fit(folder / "fitted.yaml", folder / "rows.csv").write(folder / "again.yaml", DATE)
    assert changed(folder, "fitted.yaml", "again.yaml") == []


def test_the_prices_of_the_file_are_the_predictions(folder: Path, found: Fit) -> None:
    model = CostModel(folder / "fitted.yaml")
    prices = [1e-3 * float(model.total(r.workload)) for r in found.measurements.readings]
    assert prices == pytest.approx(found.predicted.tolist())


def without_depthwise() -> list[Row]:
    return [row for row in measured(24) if "groups" not in row]


def test_what_is_not_identified_says_so_and_stays(tmp_path: Path) -> None:
    board = write_board(
        tmp_path / "board.yaml",
        BOARD.replace(
            "8 op/cycle], source: guess}", "8 op/cycle], source: guess, note: depthwise}"
        ),
    )
    rows = write_rows(tmp_path / "rows.csv", without_depthwise())
    param = fit(board, rows).write(tmp_path / "new.yaml", DATE).params["dw_rate"]
    assert param.note == "depthwise; not identified by the data: no row depends on it"
    assert (param.quantity.text, param.uncertainty, param.source) == ("0.5 op/cycle", None, "guess")


def test_a_later_fit_takes_the_remark_away(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board.yaml")
    fit(board, write_rows(tmp_path / "a.csv", without_depthwise())).write(tmp_path / "a.yaml", DATE)
    rows = write_rows(tmp_path / "b.csv", measured(24))
    param = fit(tmp_path / "a.yaml", rows).write(tmp_path / "b.yaml", DATE).params["dw_rate"]
    assert param.note == "" and param.uncertainty


def test_a_value_that_is_right_only_with_another_says_so(tmp_path: Path) -> None:
    share = "share: {value: 0.5, fit: true, bounds: [0.1, 1], source: guess}\n  setup:"
    text = BOARD.replace("setup:", share, 1).replace("macs/rate}", "macs/(share*rate)}")
    board = write_board(tmp_path / "board.yaml", text)
    rows = write_rows(tmp_path / "rows.csv", measured(24))
    rate = fit(board, rows).write(tmp_path / "new.yaml", DATE).params["rate"]
    assert rate.note == "right only with share, which the data do not identify"
    again = fit(tmp_path / "new.yaml", rows).write(tmp_path / "again.yaml", DATE)
    assert again.params["rate"].note == rate.note


CHILD = """\
hwcost: 1
name: child
extends: ../board.yaml
params:
  clock: {value: 50 MHz}
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A platform in a folder below that of the one that it extends."""
    write_board(tmp_path / "board.yaml")
    (tmp_path / "sub").mkdir()
    return write_board(tmp_path / "sub" / "child.yaml", CHILD)


def test_a_file_that_extends_gets_the_values_that_it_lacks(child: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", measured(24))
    found = fit(child, rows)
    written = found.write(tmp_path / "new.yaml", DATE)
    assert "extends: board.yaml" in (tmp_path / "new.yaml").read_text()
    assert float(written.params["rate"].number) == found.params[0].value
    assert written.params["rate"].bounds == load(child).params["rate"].bounds


def test_points_follow_their_param(tmp_path: Path) -> None:
    text = BOARD.replace("engines:", "points:\n  fast: {setup: 500 cycle}\nengines:")
    board = write_board(tmp_path / "board.yaml", text)
    rows = write_rows(tmp_path / "rows.csv", measured(24))
    written = fit(board, rows).write(tmp_path / "new.yaml", DATE)
    assert written.document.data["points"]["fast"]["setup"] == written.params["setup"].quantity.text


def test_a_metric_has_the_points_that_it_was_measured_at(tmp_path: Path) -> None:
    text = BOARD.replace("engines:", "points: {fast: {}, slow: {clock: 50 MHz}}\nengines:")
    text = text.replace("params:\n", "params:\n  e: {value: 1 nJ/cycle, source: bench}\n")
    text = text.replace("metrics:\n", "metrics:\n  energy: {unit: J, row: e*cycles}\n")
    fast = [{**row, "energy": 0.1 * float(row["latency"])} for row in measured(24)]
    slow = [{**row, "latency": 2 * float(row["latency"]), "point": "slow"} for row in measured(12)]
    rows = write_rows(tmp_path / "rows.csv", [*fast, *({**row, "energy": ""} for row in slow)])
    written = fit(write_board(tmp_path / "board.yaml", text), rows).write(tmp_path / "b.yaml", DATE)
    assert [written.at(p).error("energy") is None for p in ("fast", "slow")] == [False, True]
    assert written.at("slow").error("latency") is not None


def test_a_platform_without_a_file_cannot_be_written(tmp_path: Path) -> None:
    found = fit(loads(BOARD), write_rows(tmp_path / "rows.csv", measured(12)))
    with pytest.raises(FitError, match="was not loaded by name or path"):
        found.write(tmp_path / "new.yaml", DATE)


def test_a_folder_that_is_not_there_is_named(found: Fit, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"cannot write '.*new.yaml': no such file or directory"):
        found.write(tmp_path / "none" / "new.yaml", DATE)


TEXT = """\
# head
a: {x: 1, y: two}  # flow
b:
  c: old  # of c
  d: >-
    folded
    text

  # before e
  e: [1, 2]
f: end
"""

EDITS: dict[str, tuple[tuple[str, ...], str | float | None, str, str]] = {
    "a flow value": (("a", "x"), 7, "{x: 1,", "{x: 7,"),
    "a block value": (("b", "c"), "new", "c: old", "c: new"),
    "text that needs quotes": (("b", "c"), "x: y", "c: old", 'c: "x: y"'),
    "text that looks like a number": (("b", "c"), "1e3", "c: old", 'c: "1e3"'),
    "a folded value": (("b", "d"), "flat", ">-\n    folded\n    text\n", "flat\n"),
    "a new flow key": (("a", "z"), 3, "y: two}", "y: two, z: 3}"),
    "a new block key": (("b", "g"), 3, "e: [1, 2]\n", "e: [1, 2]\n  g: 3\n"),
    "a new top key": (("g",), 3, "f: end\n", "f: end\ng: 3\n"),
    "new mappings": (("g", "h", "i"), 3, "f: end\n", "f: end\ng:\n  h: {i: 3}\n"),
    "a flow key less": (("a", "y"), None, ", y: two}", "}"),
    "the first flow key less": (("a", "x"), None, "{x: 1, y", "{y"),
    "a block key less": (("b", "c"), None, "  c: old  # of c\n", ""),
    "a key less that is not there": (("b", "z"), None, "f: end", "f: end"),
}


@pytest.mark.parametrize(("loc", "value", "old", "new"), EDITS.values(), ids=EDITS)
def test_an_edit_changes_one_place(
    loc: tuple[str, ...], value: str | float | None, old: str, new: str
) -> None:
    assert TEXT.count(old) == 1
    assert edited(TEXT, {loc: value}) == TEXT.replace(old, new)


def test_an_edited_text_reads_as_changed() -> None:
    text = edited(TEXT, {("b", "c"): "5 %", ("b", "d"): None, ("a", "z"): "a # b"})
    data = read(text, "t").data
    assert data["b"] == {"c": "5 %", "e": [1, 2]} and data["a"]["z"] == "a # b"


def test_a_section_is_put_last_or_in_place_of_the_old_one() -> None:
    once = with_section(TEXT, "new", "new:\n  x: 1\n")
    assert once == TEXT + "\nnew:\n  x: 1\n"
    assert with_section(once, "b", "b: 1") == once.replace(
        TEXT[TEXT.index("b:") : TEXT.index("f:")], "b: 1\n"
    )


@pytest.mark.parametrize("value", ["12 MHz", "a: b", "- x", "#", "", "true", "1.5", "é", "{", 2.5])
def test_a_scalar_reads_as_itself(value: str | float) -> None:
    assert read(f"a: {{b: {scalar(value)}, c: 1}}", "t").data["a"]["b"] == value


@pytest.mark.parametrize("name", ["h743_start.yaml", "h743_taps.yaml"])
def test_the_page_shows_the_example(name: str) -> None:
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "calibration.md").read_text()
    block = page.partition(f"<!-- {name} -->\n```yaml\n")[2].partition("```")[0]
    assert block == (docs / "examples" / name).read_text()


WRONG = {
    "no bounds": (
        "fit: true",
        "t:5: 'rate' is to be fitted; give its bounds",
    ),
    "one bound": ("bounds: [1 op/cycle]", "t:5: 'params.rate.bounds' .* at least 2 items"),
    "a bound in another unit": (
        "bounds: [1 op/s, 9 op/cycle]",
        "t:5: 'a bound of rate' is in op/s; expected op/cycle",
    ),
    "a value out of bounds": (
        "bounds: [3 op/cycle, 9 op/cycle]",
        "t:5: 'rate': 2 op/cycle is not between 3 op/cycle and 9 op/cycle",
    ),
    "bounds that leave no choice": (
        "bounds: [2 op/cycle, 2 op/cycle]",
        "t:5: 'rate': bounds are 2 op/cycle and 2 op/cycle; expected a lower and an upper one",
    ),
    "an uncertainty with a unit": (
        "uncertainty: 1 op/cycle",
        "t:5: 'uncertainty' is in op/cycle; expected a plain number",
    ),
    "a negative uncertainty": (
        "uncertainty: -4 %",
        "t:5: uncertainty is -4 %; expected 0 % or more",
    ),
    "fit as text": ("fit: yes", "t:5: 'params.rate.fit' is 'yes'; expected a boolean"),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_wrong_keys_of_a_fitted_param_are_named(keys: str, message: str) -> None:
    text = f"""\
hwcost: 1
name: t
title: t
status: measured
params: {{rate: {{value: 2 op/cycle, {keys}, source: s}}}}
metrics: {{size: {{unit: B, row: w_bytes}}}}
"""
    with pytest.raises(DescriptorError, match=message):
        loads(text, "t")
