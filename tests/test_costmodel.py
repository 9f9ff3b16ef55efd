"""CostModel: rows and totals, weights, engines in parallel, gradients, errors."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hwcost.costmodel import CostModel
from hwcost.errors import CostError, HwcostWarning, UnknownName, UnsupportedOp, WorkloadError
from hwcost.loading import load, loads
from hwcost.platform import Platform
from hwcost.workload import Workload

TWO_ENGINES = """\
hwcost: 1
name: duo
title: two engines
status: published
params:
  idle: {value: 1 W, source: made up}
engines:
  fast:
    params: {power: {value: 10 W, source: made up}}
    ops:
      - {match: conv, where: groups == 1, cycles: macs/8}
      - {match: activation, free: fused}
  slow:
    params: {power: {value: 2 W, source: made up}}
    ops: [{match: conv, cycles: macs}]
metrics:
  latency: {unit: cycle, row: cycles, engines: HOW}
  energy: {unit: W*cycle, row: power*busy + idle*(span - busy)}
  work: {unit: op, row: macs}
"""


def duo(how: str = "max") -> Platform:
    return loads(TWO_ENGINES.replace("HOW", how))


def convs(rows: int = 3, **columns: object) -> Workload:
    """1x1 convolutions of 1, 2, ... input channels, 8 output channels and 10 positions."""
    frame: dict[str, object] = {
        "layer": [f"c{i}" for i in range(rows)],
        "kind": ["conv"] * rows,
        "cin": [1 + i for i in range(rows)],
    }
    usual = {"cout": 8, "kh": 1, "kw": 1, "oh": 1, "ow": 10, "w_bits": 8, "a_bits": 8}
    frame |= {name: [value] * rows for name, value in usual.items()}
    return Workload.from_frame(frame | columns)  # type: ignore[arg-type]


def macs(rows: int = 3) -> list[float]:
    return [80.0 * (1 + i) for i in range(rows)]


def test_rows_go_to_the_engine_that_is_best_for_the_metric() -> None:
    assert CostModel(duo()).rows(convs()).tolist() == [m / 8 for m in macs()]


def test_energy_may_prefer_the_slower_engine() -> None:
    # Per MAC: fast 10/8 + nothing idle; slow 2; the other engine idles at 1 W all the while.
    model = CostModel(duo(), "energy")
    assert model.rows(convs()).tolist() == pytest.approx([m / 8 * (10 + 1) for m in macs()])


def test_place_by_places_by_another_metric() -> None:
    model = CostModel(duo(), "energy", place_by="latency")
    assert model.plan(convs()).engine.tolist() == [0, 0, 0]


def test_a_given_engine_is_kept() -> None:
    table = convs().with_engines({"c1": "slow"})
    assert CostModel(duo()).rows(table).tolist() == [macs()[0] / 8, macs()[1], macs()[2] / 8]


def test_an_unknown_engine_names_the_layer() -> None:
    with pytest.raises(
        UnknownName, match=r"layer 'c0': duo has no engine 'fats'; did you mean 'fast'"
    ):
        CostModel(duo()).total(convs().with_engines("fats"))


@pytest.mark.parametrize(("how", "expected"), [("max", 160.0), ("sum", 170.0)])
def test_rows_of_one_op_run_in_parallel_or_one_after_another(how: str, expected: float) -> None:
    table = convs(2, op=["a", "a"], engine=["fast", "slow"])
    assert CostModel(duo(how)).total(table).item() == expected


def test_the_engine_that_waits_uses_idle_power() -> None:
    table = convs(2, op=["a", "a"], engine=["fast", "slow"])
    expected = (10 * 10 + 1 * (160 - 10)) + 2 * 160
    assert CostModel(duo(), "energy").total(table).item() == expected


def test_weight_counts_a_row_that_often() -> None:
    table = convs(weight=[0.25, 1.0, 2.0])
    expected = sum(w * m / 8 for w, m in zip([0.25, 1, 2], macs(), strict=True))
    assert CostModel(duo()).total(table).item() == expected


def test_a_weight_that_changes_gets_the_cost_as_its_slope() -> None:
    weight = torch.tensor([0.25, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    CostModel(duo()).total(convs().with_columns(weight=weight)).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [m / 8 for m in macs()]


def searched(table: Workload) -> tuple[Workload, Tensor, Tensor]:
    cin, cout = (table.column(n).clone().requires_grad_() for n in ("cin", "cout"))
    return table.with_columns(cin=cin, cout=cout), cin, cout


@pytest.mark.parametrize("platform", ["gap8_compute", "diana", "mpic"])
def test_the_total_has_the_slope_of_the_sum_of_rows(platform: str) -> None:
    model = CostModel(platform)
    table = convs(weight=[1, 2, 3])
    one, cin, cout = searched(table)
    by_total = torch.autograd.grad(model.total(one), (cin, cout))
    by_rows = torch.autograd.grad((model.rows(one) * table.column("weight")).sum(), (cin, cout))
    for a, b in zip(by_total, by_rows, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_the_total_can_be_differentiated_twice() -> None:
    table, cin, cout = searched(convs())
    (slope,) = torch.autograd.grad(CostModel("counts", "macs").total(table), cin, create_graph=True)
    (mixed,) = torch.autograd.grad(slope.sum(), cout)
    assert mixed.tolist() == [10.0, 10.0, 10.0]


def test_the_total_works_with_torch_func() -> None:
    model, table = CostModel("counts", "macs"), convs()
    slope = torch.func.grad(lambda c: model.total(table.with_columns(cin=c)))(table.column("cin"))
    assert slope.tolist() == [80.0, 80.0, 80.0]


def test_a_dead_layer_costs_nothing_and_keeps_a_slope() -> None:
    cout = torch.tensor([8.0, 0.0, 8.0], dtype=torch.float64, requires_grad=True)
    total = CostModel(duo()).total(convs().with_columns(cout=cout))
    total.backward()
    assert total.item() == (macs()[0] + macs()[2]) / 8
    assert cout.grad is not None
    assert cout.grad.tolist() == [10 * (1 + i) / 8 for i in range(3)]


def test_a_dead_layer_whose_formula_divides_by_its_channels_costs_nothing() -> None:
    text = TWO_ENGINES.replace("HOW", "max").replace("cycles: macs/8", "cycles: macs/cout + 1/cout")
    cout = torch.tensor([8.0, 0.0, 8.0], dtype=torch.float64, requires_grad=True)
    total = CostModel(loads(text)).total(convs().with_columns(cout=cout))
    total.backward()
    assert total.isfinite()
    assert cout.grad is not None
    assert cout.grad.isfinite().all()


def test_a_search_cannot_move_a_row_to_another_formula() -> None:
    table = convs(groups=[1, 1, 1])
    model = CostModel(duo())
    grown = table.with_columns(groups=2.0)
    assert model.plan(grown) is model.plan(table)


def test_an_unsupported_op_is_an_error() -> None:
    table = Workload.from_columns("linear", cin=1, cout=1)
    with pytest.raises(UnsupportedOp, match=r"duo/fast/slow has no formula for 'linear'"):
        CostModel(duo()).total(table)


def mixed() -> Workload:
    return Workload.concat([convs(1), Workload.from_columns("linear", cin=1, cout=1)])


def test_with_warn_an_unsupported_row_is_nan_and_the_total_that_of_the_others() -> None:
    model = CostModel(duo(), on_unsupported="warn")
    with pytest.warns(HwcostWarning, match="no formula for 'linear'"):
        rows = model.rows(mixed())
    assert rows[0] == 10
    assert rows[1].isnan()
    with pytest.warns(HwcostWarning):
        assert model.total(mixed()).item() == 10


def test_free_rows_cost_nothing() -> None:
    table = Workload.from_columns("activation", elements=5)
    assert CostModel(duo()).total(table).item() == 0


def test_a_metric_of_sizes_alone_counts_free_and_unsupported_rows_too() -> None:
    assert CostModel(duo(), "work").total(mixed()).item() == 80 + 1


def test_a_missing_size_names_layer_size_and_metric() -> None:
    table = Workload.from_frame(
        {"layer": ["stem"], "kind": ["conv"], "cin": [1], "cout": [1], "kw": [3]}
    )
    with pytest.raises(
        WorkloadError, match=r"layer 'stem' \(conv\) has no size 'oh', which latency of gap8"
    ):
        CostModel("gap8_compute").total(table)


def test_open_bits_are_an_error_where_a_formula_reads_them() -> None:
    text = TWO_ENGINES.replace("HOW", "max").replace("cycles: macs/8", "cycles: w_bytes")
    table = convs().with_precision(w_bits=8)
    assert CostModel(loads(text)).total(table).item() > 0
    open_bits = Workload.from_columns("conv", cin=1, cout=1, kw=1, oh=1, ow=1).with_engines("fast")
    with pytest.raises(WorkloadError, match="reads 'w_bits', which a float model leaves open"):
        CostModel(loads(text)).total(open_bits)


def test_an_infinite_cost_names_the_layer_and_its_sizes() -> None:
    text = TWO_ENGINES.replace("HOW", "max").replace("cycles: macs/8", "cycles: macs/(cin - 2)")
    with pytest.raises(CostError, match=r"layer 'c1': latency of duo is inf at batch=1, cin=2"):
        CostModel(loads(text)).total(convs().with_engines("fast"))


def test_costs_per_engine_add_up_to_the_total_of_separate_layers() -> None:
    table = convs().with_engines({"c1": "slow"})
    costs = CostModel(duo()).engines(table)
    assert {name: cost.item() for name, cost in costs.items()} == {"fast": 40.0, "slow": 160.0}


def test_a_long_table_in_parts_equals_the_same_rows_alone() -> None:
    rows = (1 << 18) + 5
    cout = torch.arange(rows, dtype=torch.float64) % 97 + 1
    table = Workload.from_columns("conv", cin=3, cout=cout, kh=3, kw=3, oh=4, ow=9)
    costs = CostModel("gap8_compute").rows(table)
    some = table.slice(rows - 7, rows)
    assert torch.equal(costs[-7:], CostModel("gap8_compute").rows(some))
    assert CostModel("gap8_compute").total(table).item() == pytest.approx(costs.sum().item())


def test_a_metric_can_be_the_slowest_op_of_a_pipeline() -> None:
    pipeline = loads(TWO_ENGINES.replace("engines: HOW", "engines: max, ops: max"))
    assert CostModel(pipeline).total(convs()).item() == max(macs()) / 8


def test_a_platform_is_taken_by_name_path_or_value() -> None:
    assert CostModel("diana").total(convs()) == CostModel(load("diana")).total(convs())


def test_weights_are_counted_at_the_bits_of_the_engine_that_runs_them() -> None:
    table = Workload.from_columns("conv", cin=64, cout=32, kh=1, kw=1, oh=4, ow=4)
    bytes_on = {
        e: CostModel("diana", "weight_bytes").total(table.with_engines(e)).item()
        for e in ("digital", "analog")
    }
    assert bytes_on == {"digital": 64 * 32, "analog": 64 * 32 / 4}


def test_peak_memory_has_a_slope_in_the_channels_of_the_layer_that_fills_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1))
    table = Workload.trace(net, torch.zeros(1, 3, 8, 8))
    cout = table.column("cout").clone().requires_grad_()
    peak = CostModel("counts", "peak_ram").total(table.with_columns(cout=cout))
    peak.backward()
    assert peak.item() == 8 * 64 + 4 * 64
    assert cout.grad is not None
    assert cout.grad.tolist() == [64, 64]


def test_a_row_without_inputs_costs_nothing_whatever_its_outputs_are() -> None:
    table = convs(cin=[1, 0, 3])
    cout = table.column("cout").clone().requires_grad_()
    overhead = loads(
        TWO_ENGINES.replace("HOW", "max").replace("cycles: macs/8", "cycles: 5 + macs/8")
    )
    total = CostModel(overhead).total(table.with_columns(cout=cout))
    assert total.item() == (5 + 80 / 8) + (5 + 240 / 8)


def test_a_copy_of_what_holds_a_model_compiles_nothing_anew() -> None:
    held = (CostModel(duo()), duo(), convs().structure)
    assert all(own is known for own, known in zip(copy.deepcopy(held), held, strict=True))
