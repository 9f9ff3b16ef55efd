"""explain(): every number in it, which side won, what is idle."""

import re

import pytest
import sympy
from torch import nn

from hwcost.costmodel import CostModel
from hwcost.errors import UnknownName
from hwcost.explain import explain, latex
from hwcost.explain_text import filled, formula_text
from hwcost.explain_tree import Term, decisions, roundings, terms, value_of
from hwcost.formula import Scope, make_table, parse, symbol
from hwcost.formula_nodes import Table
from hwcost.loading import available, load, loads
from hwcost.platform import Platform
from hwcost.tracing import trace
from hwcost.units import Dimension
from hwcost.workload import Workload

CHIP = """
hwcost: 1
name: chip
title: a chip
status: published
sources: {paper: "Someone, A paper, 2024"}
params:
  clock: {value: 100 MHz, source: paper, note: at 1 V}
  p_on: {value: 2 mW, source: paper}
let: {tiles: "ceil(cout/4)", work: "tiles*cin"}
tables:
  rate: {unit: op/cycle, axes: {w_bits: [2, 8]}, values: [4, 1], source: paper}
engines:
  big:
    title: the big one
    ops:
    - {match: conv, cycles: "oh*(work + max(10, cout)) + 3", source: paper, note: as printed}
    - {match: conv, where: "kh == 1", cycles: "macs/rate[w_bits]"}
    - {match: linear, as: {match: conv, kh: 1, kw: 1, oh: positions, ow: 1}}
    - {match: norm, free: folded}
  small:
    precision: {w_bits: [2], a_bits: [8]}
    ops: [{match: conv, cycles: "1000*cout"}]
metrics:
  latency: {unit: s, row: cycles/clock, engines: max}
  energy: {unit: J, row: p_on*busy}
  joint: {unit: J, op: "p_on*(busy_big + busy_small)"}
  waiting: {unit: J, row: "p_on*(span - busy)"}
  peak: {unit: B, reduce: peak_live}
  size: {unit: B, row: w_once*w_bytes}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.fixture(scope="module")
def chip() -> Platform:
    return loads(CHIP, "chip.yaml")


@pytest.fixture(scope="module")
def net() -> Workload:
    layers = [nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.Flatten(), nn.Linear(160, 5)]
    model = nn.Sequential(*layers)
    return trace(model, input_shape=(3, 6, 6))


def text_of(chip: Platform, net: Workload, layer: str = "0", metric: str = "latency") -> str:
    return explain(CostModel(chip, metric), net, layer)


def line(text: str, start: str) -> str:
    """The rest of the line that starts with a word, spaces squeezed."""
    found = re.search(rf"^ *{re.escape(start)} +(.*)$", text, re.MULTILINE)
    assert found is not None, f"{start!r} in\n{text}"
    return " ".join(found.group(1).split())


def test_the_formula_is_as_in_the_file_with_its_place_and_source(
    chip: Platform, net: Workload
) -> None:
    text = text_of(chip, net)
    assert line(text, "cycles") == "oh*(work + max(10, cout)) + 3"
    assert re.match(r"chip.yaml:\d+ \[paper\]", line(text, "from"))
    assert line(text, "note") == "as printed"
    assert line(text, "paper") == "Someone, A paper, 2024"


def test_let_formulas_have_text_and_value(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net)
    assert line(text, "tiles") == "ceil(cout/4) = 3"
    assert line(text, "work") == "tiles*cin = 9"


def test_numbers_stand_where_the_names_stood(chip: Platform, net: Workload) -> None:
    assert line(text_of(chip, net), "in numbers") == "4*(9 + max(10, 10)) + 3"


def test_cycles_and_seconds_are_those_of_the_model(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net)
    assert line(text, "is") == "79 cycles"
    assert line(text, "this op") == "790 ns"
    assert float(CostModel(chip).rows(net)[0]) == pytest.approx(790e-9)


def test_names_are_written_out(chip: Platform, net: Workload) -> None:
    written = line(text_of(chip, net), "written out")
    expr = parse(written, Scope({n: symbol(n) for n in ("oh", "cin", "cout")}, {}))
    assert expr.xreplace({symbol("oh"): 4, symbol("cin"): 3, symbol("cout"): 10}) == 79


def test_each_param_has_unit_meaning_and_source(chip: Platform, net: Workload) -> None:
    assert line(text_of(chip, net), "clock") == "100 MHz, at 1 V [paper]"


def test_each_size_has_value_and_meaning(chip: Platform, net: Workload) -> None:
    assert "cout = 10  output channels (features)" in text_of(chip, net)


def test_terms_add_up(chip: Platform, net: Workload) -> None:
    section = text_of(chip, net).split("Terms of the cycles\n")[1].split("\n\n")[0]
    found = re.findall(r"([\d.]+) %\s+([\d,.]+) cycles: (.*)", section)
    assert [text for _, _, text in found] == ["oh*max(10, cout)", "oh*work", "3"]
    assert [float(value) for _, value, _ in found] == [40, 36, 3]
    assert sum(float(share) for share, _, _ in found) == pytest.approx(100, abs=0.1)


def test_a_tie_of_a_maximum_is_named(chip: Platform, net: Workload) -> None:
    assert "max(10, cout): cout = 10; a tie of 10 and cout" in text_of(chip, net)


def test_what_rounding_leaves_idle_is_named(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net)
    assert "ceil(cout/4) = ceil(2.5) = 3: 16.7 % idle; cout = 12 costs the same as 10" in text


def test_one_more_channel_is_the_slope(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net)
    slopes = text.split("rounding averaged out\n")[1]
    assert line(slopes, "cin") == "+120 ns"  # oh*tiles cycles
    # oh*(cin/4 + 1/2): a tie of the maximum gives each side half of the slope.
    assert line(slopes, "cout") == "+50 ns"


def test_other_engines_are_named_with_their_cost(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net)
    assert line(text, "big") == "790 ns at w8a8: chosen, its latency is least (the big one)"
    assert line(text, "small") == "100 us at w2a8"


def test_an_engine_that_cannot_says_why(chip: Platform, net: Workload) -> None:
    assert "no formula for 'linear'" in line(text_of(chip, net, "3"), "small")


def test_an_engine_that_was_asked_for_is_so_named(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net.with_engines({"0": "small"}))
    assert line(text, "small").startswith("100 us at w2a8: as the mapping asks")


def test_an_alias_says_what_stands_for_what(chip: Platform) -> None:
    one = Workload.from_columns("linear", cin=6, cout=8, positions=2)
    text = text_of(chip, one, "linear 0")
    assert line(text, "priced as").endswith("kh = 1, kw = 1, oh = positions, ow = 1")


def test_an_alias_fills_in_its_own_sizes() -> None:
    one = Workload.from_columns("linear", cin=64, cout=10, positions=3)
    text = explain(CostModel("diana"), one.with_engines("digital"), "linear 0")
    assert line(text, "in numbers") == "ceil(10/1/16)*64*ceil(3/16)*1*1*1 + 1*3*(10 + 64)/8"
    assert line(text, "is") == "91.75 cycles"  # 64 + 3*74/8


def test_a_table_shows_its_cell(chip: Platform) -> None:
    one = Workload.from_columns("conv", cin=4, cout=8, kh=1, kw=1, oh=1, ow=1, w_bits=2, a_bits=4)
    assert line(text_of(chip, one, "conv 0"), "rate") == "rate[w_bits] = [2] = 4 op/cycle [paper]"


def test_a_derived_size_is_written_out(chip: Platform) -> None:
    one = Workload.from_columns("conv", cin=4, cout=8, kh=1, kw=1, oh=1, ow=1)
    assert line(text_of(chip, one, "conv 0"), "macs") == (
        "batch*cin*cout*kd*kh*kw*od*oh*ow/groups = 32"
    )


def test_a_batch_multiplies_a_sample(chip: Platform) -> None:
    one = Workload.from_columns("conv", cin=3, cout=10, kh=3, kw=3, oh=4, ow=4, batch=5)
    text = text_of(chip, one, "conv 0")
    assert line(text, "is") == "79 cycles for one sample, 395 cycles for the batch of 5"
    assert line(text, "this op") == "3.95 us"


def test_busy_is_explained(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net, metric="energy")
    assert line(text, "busy") == "latency of the op, 790 ns"
    assert "2 mW*790 ns" in text
    assert line(text, "this op") == "1.58 nJ"


def test_a_metric_of_whole_ops_names_each_engines_time(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net, metric="joint")
    assert line(text, "busy_big") == "790 ns, work of big on this op"
    assert line(text, "busy_small") == "0 s, work of small on this op"
    assert "2 mW*(790 ns + 0 s)" in text
    assert line(text, "this op") == "1.58 nJ"


def test_a_metric_with_span_goes_engine_by_engine(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net, metric="waiting")
    assert line(text, "span") == "790 ns, the longest of them"
    assert "2 mW*(790 ns - 0 s) = 1.58 nJ" in text


def test_a_metric_over_sizes_needs_no_engine(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net, metric="size")
    assert "Engine" not in text
    assert line(text, "this op") == "270 B"


def test_a_peak_names_what_is_alive(chip: Platform, net: Workload) -> None:
    text = text_of(chip, net, metric="peak")
    assert line(text, "peak") == "268 B, this op holds it"  # 3*6*6 and 10*4*4
    assert "160 B  output of '0'" in text
    assert "108 B  input" in text


def test_a_free_op_says_why(chip: Platform, net: Workload) -> None:
    assert "chip prices it at 0: folded (chip.yaml:" in text_of(chip, net, "1")


def test_an_op_without_a_price_says_why(net: Workload) -> None:
    text = explain(CostModel("ne16_compute", on_unsupported="warn"), trace_of_7x7(), "0")
    assert "dense 3x3, dense 1x1" in text


def trace_of_7x7() -> Workload:
    return trace(nn.Sequential(nn.Conv2d(3, 4, 7)), input_shape=(3, 9, 9))


def test_ops_of_a_layer_that_cost_the_same_are_explained_once(chip: Platform) -> None:
    sizes = {"cin": [3, 3], "cout": [10, 10], "kh": [3, 3], "kw": [3, 3], "oh": [4, 4]}
    two = Workload.from_frame({"layer": ["a", "a"], "kind": ["conv", "conv"], **sizes})
    text = text_of(chip, two, "a")
    assert text.startswith("(2 calls that cost the same)")
    assert text.count("Formula") == 1


def test_different_ops_of_a_layer_are_counted(chip: Platform) -> None:
    sizes = {"cin": [3, 3], "cout": [10, 12], "kh": [3, 3], "kw": [3, 3], "oh": [4, 4]}
    two = Workload.from_frame({"layer": ["a", "a"], "kind": ["conv", "conv"], **sizes})
    text = text_of(chip, two, "a")
    assert "(1 of 2 ops of layer 'a')" in text
    assert "(2 of 2 ops of layer 'a')" in text


def test_an_unknown_layer_is_refused(chip: Platform, net: Workload) -> None:
    with pytest.raises(UnknownName, match="no layer 'conv'"):
        text_of(chip, net, "conv")


@pytest.mark.parametrize("width", [60, 100])
def test_lines_fold_at_the_width(chip: Platform, net: Workload, width: int) -> None:
    text = explain(CostModel(chip), net, "0", width)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("name", available())
def test_every_metric_of_every_platform_is_explained(name: str, net: Workload) -> None:
    for metric in load(name).metrics:
        model = CostModel(name, metric, on_unsupported="warn")
        for layer in ("0", "1", "3"):
            assert explain(model, net, layer)


@pytest.mark.parametrize("name", available())
def test_every_metric_of_every_platform_has_latex(name: str) -> None:
    for metric in load(name).metrics:
        text = latex(CostModel(name, metric))
        assert text.startswith("\\begin{align*}\n")
        assert text.count("{") == text.count("}")


# The parts


NAMES = {n: symbol(n) for n in ("a", "b", "c")}


def of(text: str) -> sympy.Expr:
    return parse(text, Scope(NAMES, {}))


def at(**values: int) -> dict[sympy.Symbol, sympy.Expr]:
    return {symbol(name): sympy.Integer(value) for name, value in values.items()}


@pytest.mark.parametrize(
    "text",
    [
        "ceil(a/b) + 1",
        "where(a > 2 and b == 1, a, b)",
        "18.2*a",
        "a % b",
        "sqrt(a)",
        "min(a, b, 3)",
    ],
)
def test_a_printed_formula_parses_to_itself(text: str) -> None:
    assert of(formula_text(of(text))) == of(text)


def test_a_branch_that_is_not_taken_is_not_computed() -> None:
    assert value_of(of("where(a == 0, 0, b/a)"), at(a=0, b=1)) == 0


def test_a_look_up_off_its_axis_in_a_branch_not_taken_is_no_error() -> None:
    rate = make_table(Table("rate", (("a", (2, 4)),), (1, 2), Dimension.none()))  # type: ignore[arg-type]
    expr = parse("where(a == 0, 0, b/rate[a])", Scope(NAMES, {"rate": rate}))
    assert value_of(expr, at(a=0, b=1)) == 0


def test_a_factor_is_spread_over_a_sum() -> None:
    assert terms(of("a*(b + 2*c)"), at(a=2, b=3, c=5)) == [Term("2*a*c", 20), Term("a*b", 6)]


def test_the_winner_of_a_maximum_is_named() -> None:
    found = decisions(of("max(a, b)"), at(a=2, b=3), {})
    assert found == ["max(a, b): a = 2, b = 3; b wins"]


def test_a_condition_is_named_with_its_outcome() -> None:
    assert decisions(of("where(a > 1, b, c)"), at(a=1, b=2, c=3), {}) == [
        "a > 1 does not hold: c = 3"
    ]


def test_a_maximum_in_a_branch_not_taken_is_not_named() -> None:
    assert len(decisions(of("where(a > 1, max(b, c), c)"), at(a=1, b=2, c=3), {})) == 1


def test_a_ceil_that_fits_is_not_named() -> None:
    assert roundings(of("ceil(a/4) + ceil(b/4)"), at(a=8, b=9), {}) == [
        "ceil(b/4) = ceil(2.25) = 3: 25 % idle; b = 12 costs the same as 9"
    ]


def test_a_quotient_stays_one_when_numbers_are_filled_in() -> None:
    assert filled("a/b", {"a": "3", "b": "16 op/cycle"}) == "3/(16 op/cycle)"
