"""Params fitted to measured rows."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import hwcost
from hwcost.costmodel import CostModel
from hwcost.errors import FitError
from hwcost.fit import Fit, fit
from hwcost.loading import loads
from hwcost.units import parse_quantity
from tests.fitcases import (
    BOARD,
    TRUE,
    TWO,
    Row,
    cost,
    measured,
    ops,
    true_board,
    two_rows,
    write_board,
    write_rows,
)

Fitter = Callable[..., Fit]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitter:
    """Fits a board's text to rows, once for all tests that do it."""
    folder, known = tmp_path_factory.mktemp("fit"), dict[str, Fit]()

    def run(rows: Sequence[Row], text: str = BOARD) -> Fit:
        key = f"{text}{rows}"
        if key not in known:
            board = write_board(folder / "board.yaml", text)
            known[key] = fit(board, write_rows(folder / "rows.csv", rows))
        return known[key]

    return run


def value(found: Fit, name: str) -> float:
    return next(f.value for f in found.params if f.param.name == name)


def note(found: Fit, name: str) -> str:
    return next(f.note for f in found.params if f.param.name == name)


def off(found: Fit) -> dict[str, float]:
    """How far each param is from the one that made the rows, relative."""
    due = {name: float(parse_quantity(text).value) for name, text in TRUE.items()}
    return {name: abs(value(found, name) / v - 1) for name, v in due.items()}


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))]


@pytest.mark.parametrize("seed", SEEDS)
def test_params_come_back_from_noisy_rows(fitted: Fitter, seed: int) -> None:
    assert max(off(fitted(measured(120, seed=seed))).values()) < 0.03


@pytest.mark.parametrize("factor", [pytest.param(6, marks=pytest.mark.slow), 3, 0.2])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenth_of_outliers_moves_params_little(fitted: Fitter, seed: int, factor: float) -> None:
    """On one side: 6 or 3 times slower, or 5 times faster."""
    rows = measured(240, outliers=10, factor=factor, seed=seed)
    assert max(off(fitted(rows)).values()) < 0.03


def test_exact_rows_give_the_params_back(fitted: Fitter) -> None:
    assert max(off(fitted(measured(18, noise=0))).values()) < 1e-3


def test_two_fits_are_equal_to_the_bit(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", measured(24, nets=2))
    files = write_board(tmp_path / "b.yaml"), rows
    one, other = (fit(*files) for _ in range(2))
    assert one.params == other.params and torch.equal(one.predicted, other.predicted)
    assert one.unseen is not None and other.unseen is not None
    assert torch.equal(one.unseen, other.unseen)


def test_the_number_of_threads_makes_no_difference(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", measured(150))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(fit(write_board(tmp_path / "b.yaml"), rows))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0].params == found[1].params
    assert torch.equal(found[0].predicted, found[1].predicted)


def test_the_start_makes_no_difference(fitted: Fitter) -> None:
    far = BOARD.replace("value: 2 op/cycle", "value: 30 op/cycle")
    texts = [[f.text for f in fitted(measured(), text).params] for text in (BOARD, far)]
    assert texts[0] == texts[1]


def test_a_row_made_by_noise_is_within_three_standard_errors(fitted: Fitter) -> None:
    found = fitted(measured(60))
    errors = {f.param.name: f.error for f in found.params}
    assert all(share < 3 * (errors[name] or 0) for name, share in off(found).items())


def test_a_value_has_one_digit_more_than_its_error_makes_certain(fitted: Fitter) -> None:
    text = next(f.text for f in fitted(measured(60)).params if f.param.name == "rate")
    assert len(text.split()[0].replace(".", "")) == 3


PRODUCT = BOARD.replace(
    "  setup:", "  share: {value: 0.5, fit: true, bounds: [0.1, 1], source: guess}\n  setup:"
).replace("macs/rate}", "macs/(share*rate)}")


def test_a_product_is_said_to_be_known_only_together(fitted: Fitter) -> None:
    assert note(fitted(measured(), PRODUCT), "share") == "known only together with rate"


def test_a_param_that_is_not_identified_keeps_its_value(fitted: Fitter) -> None:
    kept = next(f for f in fitted(measured(), PRODUCT).params if f.param.name == "share")
    assert (kept.text, kept.value, kept.error) == ("", 0.5, None)


def test_the_other_factor_makes_up_for_it(fitted: Fitter) -> None:
    assert value(fitted(measured(60), PRODUCT), "rate") == pytest.approx(2 * 3.3, rel=0.03)


def test_the_other_factor_is_said_to_be_right_only_with_it(fitted: Fitter) -> None:
    rate = next(f for f in fitted(measured(), PRODUCT).params if f.param.name == "rate")
    assert (rate.given, rate.note) == (("share",), "")
    assert "right only with share as kept" in str(fitted(measured(), PRODUCT))


def test_a_param_that_no_row_reads_is_named(fitted: Fitter) -> None:
    rows = [row for row in measured() if "groups" not in row]
    assert note(fitted(rows), "dw_rate") == "no row depends on it"


def test_a_param_that_hardly_matters_is_not_identified(fitted: Fitter) -> None:
    tiny = BOARD.replace("linear, cycles: setup", "linear, cycles: setup + 1e-4*tail").replace(
        "  setup:",
        "  tail: {value: 1 cycle, fit: true, bounds: [0.1 cycle, 9 cycle], source: x}\n  setup:",
    )
    assert note(fitted(measured(), tiny), "tail") == "too little depends on it"


def test_a_param_at_its_bound_says_so(fitted: Fitter) -> None:
    low = BOARD.replace("32 op/cycle]", "2.5 op/cycle]")
    found = fitted(measured(), low)
    assert (note(found, "rate"), value(found, "rate")) == ("at its upper bound", 2.5)


def test_an_overhead_may_turn_out_to_be_nothing(fitted: Fitter) -> None:
    rows = measured(24, noise=0, platform=true_board(values={**TRUE, "setup": "0 cycle"}))
    found = fitted(rows)
    assert (value(found, "setup"), note(found, "setup")) == (0, "at its lower bound")


def test_an_overhead_that_may_be_nothing_says_so(fitted: Fitter) -> None:
    rows = measured(48, seed=2, platform=true_board(values={**TRUE, "setup": "5 cycle"}))
    assert note(fitted(rows), "setup") in ("at its lower bound", "too small to tell it from 0")


STEP = BOARD.replace(
    "  setup:", "  lanes: {value: 2, fit: true, bounds: [1, 4.5], source: x}\n  setup:"
).replace("ceil(cout/4)*4/cout*macs/rate", "macs/rate*(5 - lanes)/floor(lanes)")


def test_a_value_beside_a_step_has_the_digits_that_it_needs(fitted: Fitter) -> None:
    """To as many digits as are known it would be 4, where the formula takes its next step."""
    board = loads(STEP).with_params(**TRUE, lanes="3.99996")
    found = fitted(measured(36, noise=0, platform=board), STEP)
    assert next(f.text for f in found.params if f.param.name == "lanes") == "3.99996"


def test_a_cost_that_starts_at_nothing_is_fitted(fitted: Fitter) -> None:
    text = BOARD.replace("value: 500 cycle", "value: 0 cycle").replace(
        "linear, cycles: setup + macs/rate", "linear, cycles: setup"
    )
    rows = measured(36, noise=0, platform=loads(text).with_params(**TRUE))
    assert value(fitted(rows, text), "setup") == pytest.approx(2000, rel=1e-3)


def test_a_condition_on_a_param_is_decided_by_the_fitted_value(fitted: Fitter) -> None:
    """By the file's rate, linear layers take the slow formula; by the fitted one, the other."""
    text = BOARD.replace(
        "{match: linear, cycles",
        "{match: linear, cycles: 9*macs/rate}\n      - {match: linear, where: rate > 2.5, cycles",
    )
    rows = measured(24, noise=0, platform=loads(text).with_params(**TRUE))
    assert max(off(fitted(rows, text)).values()) < 1e-3


def test_a_limit_that_never_bites_is_kept_from_it(fitted: Fitter) -> None:
    """The file's value would slow every row down; any that is small enough fits."""
    text = BOARD.replace("setup + macs/rate", "'setup + max(macs/rate, macs*step)'").replace(
        "  setup:",
        "  step: {value: 9 cycle/op, fit: true, bounds: [0.001 cycle/op,"
        " 10 cycle/op], source: guess}\n  setup:",
    )
    found = fitted(measured(), text)
    assert note(found, "step") == "the data only keep it from the file's value"


def nets_of(rows: Sequence[Row]) -> list[Row]:
    """Whole networks: the ops without their latencies, and the sums."""
    names = list(dict.fromkeys(row["net"] for row in rows))
    bare: list[Row] = [{k: v for k, v in row.items() if k != "latency"} for row in rows]
    sums = {net: sum(float(row["latency"]) for row in rows if row["net"] == net) for net in names}
    return [*bare, *({"net": net, "latency": total} for net, total in sums.items())]


def test_whole_networks_are_enough(fitted: Fitter) -> None:
    found = fitted(nets_of(measured(45, nets=5, noise=0)))
    assert max(off(found).values()) < 1e-3
    assert [(e.of, e.rows) for e in found.errors] == [("nets", 5)]


def test_layers_and_networks_are_fitted_together(fitted: Fitter) -> None:
    rows = measured(36, nets=4, noise=0)
    found = fitted([*rows, *nets_of(rows)[36:]])
    assert [(e.of, e.rows) for e in found.errors] == [("layers", 36), ("nets", 4)]
    assert max(off(found).values()) < 1e-3


def test_a_network_of_the_zoo_needs_no_rows(fitted: Fitter) -> None:
    nets = ("resnet8", "ds_cnn", "autoencoder", "mobilenet_v1")
    model = CostModel(true_board())
    rows: list[Row] = [
        {"net": n, "latency": 1e-3 * float(model.total(hwcost.trace(*hwcost.zoo.ZOO[n]())))}
        for n in nets
    ]
    assert max(off(fitted(rows)).values()) < 1e-3


def test_cycles_are_fitted_without_the_clock(fitted: Fitter) -> None:
    rows: list[Row] = [
        {**{k: v for k, v in row.items() if k != "latency"}, "cycles": 1e8 * float(row["latency"])}
        for row in measured(noise=0)
    ]
    assert max(off(fitted(rows)).values()) < 1e-3


def test_a_unit_in_the_header_scales_the_column(fitted: Fitter) -> None:
    rows: list[Row] = [
        {
            **{k: v for k, v in row.items() if k != "latency"},
            "latency [us]": 1e6 * float(row["latency"]),
        }
        for row in measured(noise=0)
    ]
    assert max(off(fitted(rows)).values()) < 1e-3


POINTS = (
    BOARD.replace(
        "  # multiply",
        "  p_run: {value: 10 mW, fit: true, bounds: [1 mW, 1 W], source: guess}\n  # multiply",
    )
    .replace(
        "engines:",
        "points:\n  fast: {p_run: 10 mW}\n  slow: {clock: 50 MHz, p_run: 5 mW}\nengines:",
    )
    .replace("row: cycles/clock}", "row: cycles/clock}\n  energy: {unit: mJ, row: p_run*busy}")
)


def at_points() -> list[Row]:
    """Latency and energy of the same ops at two points, 40 mW and 15 mW."""
    rows: list[Row] = []
    for point, power in (("fast", 0.04), ("slow", 0.015)):
        board = loads(POINTS).with_params(**TRUE).at(point)
        for op in ops(12):
            seconds = cost(board, op)
            rows.append(
                {
                    "net": "n",
                    "point": point,
                    **op,
                    "latency": seconds,
                    "energy": power * seconds,
                }
            )
    return rows


def test_a_param_is_fitted_at_each_point_that_replaces_it(fitted: Fitter) -> None:
    found = fitted(at_points(), POINTS)
    powers = (value(found, "p_run"), value(found, "p_run@slow"))
    assert powers == pytest.approx((0.04, 0.015), rel=1e-3)


def test_the_fitted_platform_has_its_points(fitted: Fitter) -> None:
    slow = fitted(at_points(), POINTS).platform.at("slow")
    assert float(slow.params["p_run"].number) == pytest.approx(0.015, rel=1e-3)


def test_ops_move_to_the_engine_that_the_fit_makes_faster(fitted: Fitter) -> None:
    rows = [
        {**r, "engine": "npu" if r["kind"] == "conv" and i < 3 else ""}
        for i, r in enumerate(two_rows())
    ]
    found = fitted(rows, TWO)
    rates = (value(found, "npu.rate"), value(found, "cpu.rate"))
    assert rates == pytest.approx((20, 2), rel=1e-3)


def test_params_of_a_formula_of_whole_ops_are_fitted(fitted: Fitter) -> None:
    rows = [{**r, "engine": "npu" if r["kind"] == "conv" else "cpu"} for r in two_rows()]
    found = fitted(rows, TWO)
    powers = (value(found, "p_run"), value(found, "p_wait"))
    assert powers == pytest.approx((0.04, 0.008), rel=1e-3)


def test_kinds_of_rows_have_the_engine_that_runs_them(fitted: Fitter) -> None:
    rows = [{**r, "engine": "npu" if r["kind"] == "conv" else "cpu"} for r in two_rows()]
    found = fitted(rows, TWO)
    kinds = {("conv 3x3 on npu",), ("depthwise 3x3 on npu",), ("linear on cpu",)}
    assert set(found.kinds) == kinds
    assert " on npu" in str(found)


def test_a_network_left_out_is_predicted_by_the_others(fitted: Fitter) -> None:
    rows = measured(36, nets=4, noise=0)
    slower: list[Row] = [
        {**r, "latency": 2 * float(r["latency"])} if r["net"] == "net0" else r for r in rows
    ]
    found = fitted(slower)
    assert found.unseen is not None
    half = [r.net == "net0" for r in found.measurements.readings]
    ratios = (found.unseen / found.measured)[torch.tensor(half)]
    assert ratios.tolist() == pytest.approx([0.5] * 9, rel=0.05)


def test_one_network_is_not_cross_validated(fitted: Fitter) -> None:
    found = fitted(measured(12, nets=1))
    assert found.unseen is None and "all rows are of one network" in str(found)


def test_errors_are_those_of_the_fitted_platform(fitted: Fitter) -> None:
    found = fitted(measured(12))
    off = [
        abs(
            cost(
                found.platform,
                {
                    k: v
                    for k, v in row.items()
                    if k in ("kind", "cin", "cout", "groups", "kh", "kw", "oh", "ow")
                },
            )
            / float(row["latency"])
            - 1
        )
        for row in measured(12)
    ]
    middle = sorted(off)[5:7]
    assert found.errors[0].median == pytest.approx(sum(middle) / 2)


def test_progress_goes_up_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    board = write_board(tmp_path / "board.yaml")
    rows = write_rows(tmp_path / "rows.csv", measured(12))
    fit(board, rows, progress=lambda *step: seen.append(step))
    assert all(a[1] < b[1] for a, b in pairwise(seen)) and seen[-1][1] == seen[-1][2]


def test_a_platform_is_fitted_by_value_too(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", measured(12))
    assert fit(loads(BOARD), rows).platform.params["rate"].number != 2


SMALL = measured(12)

WRONG: dict[str, tuple[str, list[Row], str]] = {
    "too few rows": (
        BOARD,
        SMALL[:3],
        r"rows.csv: 3 measured values are too few for 3 params \(rate, dw_rate, setup\); at least"
        " 4 are needed",
    ),
    "nothing to fit": (
        BOARD.replace("fit: true", "fit: false"),
        SMALL,
        "'board' has no param with 'fit: true'",
    ),
    "nothing that rows depend on": (
        BOARD.replace("setup + macs/rate", "macs/(1 op/cycle)").replace(
            "fit: true", "fit: false", 2
        ),
        [{"kind": "pool", "elements": 3, "latency": 1}],
        "",
    ),
    "an op without a formula": (
        BOARD,
        [*SMALL, {"net": "n", "layer": "att", "kind": "rnn", "cin": 3, "latency": 1}],
        r"rows.csv:14: layer 'att': board/core has no formula for 'rnn'",
    ),
    "an op without a formula in a net": (
        BOARD,
        [*SMALL, {"net": "n", "layer": "att", "kind": "rnn", "cin": 3}, {"net": "n", "latency": 1}],
        r"rows.csv:15: layer 'att': board/core has no formula for 'rnn'",
    ),
    "an op that is free": (
        BOARD,
        [*SMALL, {"net": "n", "layer": "act", "kind": "activation", "elements": 3, "latency": 1}],
        "rows.csv:14: 'n act' costs nothing on 'board'",
    ),
    "an op without a size": (
        BOARD,
        [*SMALL, {"net": "n", "layer": "fc", "kind": "linear", "cin": 3, "latency": 1}],
        "rows.csv:14: layer 'fc' .linear. has no size 'cout'",
    ),
    "mixed units": (
        BOARD,
        [*SMALL[:-2], *({**row, "latency": 1e3 * float(row["latency"])} for row in SMALL[-2:])],
        "times what the best fit predicts.*are both in the unit of the header",
    ),
    "all in another unit": (
        BOARD,
        [{**row, "latency": 1e3 * float(row["latency"])} for row in SMALL],
        "times what the best fit predicts, as that of other rows; is the column in the unit",
    ),
    "cycles of another clock": (
        BOARD,
        [{**row, "cycles": 2e8 * float(row["latency"])} for row in SMALL],
        r"rows.csv:2: .* cycles in .* s are 200 MHz; the platform has 100 MHz",
    ),
    "cycles that contradict the latency in a row": (
        BOARD,
        [{**r, "cycles": (1 + (i == 7)) * 1e8 * float(r["latency"])} for i, r in enumerate(SMALL)],
        r"rows.csv:9: .* cycles in .* s are 200 MHz; the platform has 100 MHz",
    ),
    "an unknown point": (
        BOARD,
        [{**row, "point": "1.2V"} for row in SMALL],
        "rows.csv:2: platform 'board' has no operating point '1.2V'",
    ),
    "an unknown engine": (
        BOARD,
        [{**row, "engine": "npu"} for row in SMALL],
        "rows.csv:2: layer 'l0': board has no engine 'npu'",
    ),
}
WRONG.pop("nothing that rows depend on")


@pytest.mark.parametrize(("text", "rows", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_fitted_is_one_clear_error(
    fitted: Fitter, text: str, rows: list[Row], message: str
) -> None:
    with pytest.raises(FitError, match=message):
        fitted(rows, text)
