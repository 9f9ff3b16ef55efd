"""Cases of an op, parts of a channel, and engines that overlap smoothly."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, Workload, trace
from hwcost.errors import WorkloadError
from hwcost.loading import loads
from hwcost.memory import buffer_bytes
from hwcost.oplevel import p_norm
from hwcost.platform import Platform
from hwcost.structure import Structure

SIZES = {"kind": "conv", "cin": 16, "kh": 3, "kw": 3, "oh": 8, "ow": 8, "a_bits": 8}


def table(*rows: tuple[str, int, float, float, float], **more: object) -> Workload:
    """Convolutions: (op, case, bits of weights, output channels, weight)."""
    names = ("op", "case", "w_bits", "cout", "weight")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    same = {name: [value] * len(rows) for name, value in {**SIZES, **more}.items()}
    return Workload.from_frame({"layer": [op for op, *_ in rows], **same, **columns})


#: Layer a: 16 channels split over both arrays, or, more likely, all digital; layer b: one case.
SPLIT = [
    ("a", 0, 2.0, 10.0, 0.3),
    ("a", 0, 8.0, 6.0, 0.3),
    ("a", 1, 8.0, 16.0, 0.7),
    ("b", 0, 2.0, 12.0, 1.0),
    ("b", 0, 8.0, 4.0, 1.0),
]


def diana_times(rows: Sequence[tuple[str, int, float, float, float]] = SPLIT) -> list[float]:
    """Each row's time alone."""
    return CostModel("diana").rows(table(*rows)).tolist()


def test_an_op_costs_the_expectation_of_the_slowest_engine_over_its_cases() -> None:
    t = diana_times()
    due = 0.3 * max(t[0], t[1]) + 0.7 * t[2] + max(t[3], t[4])
    assert CostModel("diana").plan(table(*SPLIT)).engine.tolist() == [1, 0, 0, 1, 0]
    assert CostModel("diana").total(table(*SPLIT)).item() == pytest.approx(due, rel=1e-14)


def test_a_formula_of_an_op_prices_each_case() -> None:
    t = diana_times()

    def energy(digital: float, analog: float) -> float:
        both = 42.39e-3 - 24.96e-3 - 28.74e-3
        return 24.96e-3 * digital + 28.74e-3 * analog + both * min(digital, analog)

    due = 0.3 * energy(t[1], t[0]) + 0.7 * energy(t[2], 0) + energy(t[4], t[3])
    model = CostModel("diana", "energy")
    assert model.total(table(*SPLIT)).item() == pytest.approx(due, rel=1e-12)
    assert model.rows(table(*SPLIT)).sum().item() == pytest.approx(due, rel=1e-12)
    assert model.rows(table(*SPLIT)).nonzero().flatten().tolist() == [0, 2, 3]


def test_one_case_for_all_is_as_no_cases() -> None:
    rows = [(op, 0, bits, cout, 1.0) for op, _, bits, cout, _ in SPLIT]
    plain = table(*rows)
    without = plain.to_frame().drop(columns="case")
    assert CostModel("diana").total(plain) == CostModel("diana").total(Workload.from_frame(without))


PIPELINE = """\
hwcost: 1
name: duo
title: two engines
status: published
engines:
  one: {precision: {w_bits: [2], a_bits: [8]}, ops: [{match: conv, cycles: 7 + macs/64}]}
  two: {precision: {w_bits: [8], a_bits: [8]}, ops: [{match: conv, cycles: 50 + macs/16}]}
metrics:
  latency: {unit: UNIT, row: cycles, engines: max, ops: OPS}
"""


def duo(ops: str = "sum", unit: str = "cycle") -> Platform:
    return loads(PIPELINE.replace("OPS", ops).replace("UNIT", unit))


def test_the_slowest_op_is_that_of_the_largest_expectation() -> None:
    t = CostModel(duo()).rows(table(*SPLIT)).tolist()
    due = max(0.3 * max(t[0], t[1]) + 0.7 * t[2], max(t[3], t[4]))
    assert CostModel(duo("max")).total(table(*SPLIT)).item() == pytest.approx(due)


def differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function."""
    slopes = []
    for i in range(len(at)):
        delta = torch.zeros_like(at)
        delta[i] = step
        slopes.append((function(at + delta) - function(at - delta)) / (2 * step))
    return torch.stack(slopes).detach()


@pytest.mark.parametrize("metric", ["latency", "energy"])
@pytest.mark.parametrize("smooth", [None, 4.0])
@pytest.mark.parametrize("column", ["weight"])
def test_the_slope_to_probabilities_is_a_difference(
    metric: str, smooth: float | None, column: str
) -> None:
    work, model = table(*SPLIT), CostModel("diana", metric)
    at = work.column(column).clone().requires_grad_()

    def cost(values: Tensor) -> Tensor:
        return model.total(work.with_columns(**{column: values}), smooth=smooth) * 1e6

    (slope,) = torch.autograd.grad(cost(at), at)
    torch.testing.assert_close(slope, differences(cost, at.detach()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smooth", [None, 4.0])
def test_the_slope_to_channels_is_a_difference(smooth: float | None) -> None:
    work, model = table(*SPLIT), CostModel(duo())
    at = (work.column("cout") + 0.25).requires_grad_()

    def cost(values: Tensor) -> Tensor:
        return model.total(work.with_columns(cout=values), smooth=smooth)

    (slope,) = torch.autograd.grad(cost(at), at)
    torch.testing.assert_close(slope, differences(cost, at.detach()), rtol=1e-5, atol=1e-6)
    assert smooth is None or bool((slope > 0).all())


def test_cases_survive_a_frame_a_slice_and_a_concat() -> None:
    work = table(*SPLIT)
    again = Workload.from_frame(work.to_frame())
    joined = Workload.concat([table(*SPLIT[3:]), work, trace(nn.Linear(2, 2), torch.ones(1, 2))])
    for cases in (again.structure.cases, joined.structure.cases, work.slice(1, 4).structure.cases):
        assert cases is not None
    assert CostModel("diana").total(again) == CostModel("diana").total(work)
    assert joined.structure.slot_ops.tolist() == [0, 1, 1, 2, 3]
    halves = (table(*SPLIT[3:]), work, trace(nn.Linear(2, 2), torch.ones(1, 2)))
    due = sum(CostModel("diana").total(half).item() for half in halves)
    assert CostModel("diana").total(joined).item() == pytest.approx(due)
    assert "case" not in Workload.from_columns("linear", cin=1, cout=1).to_frame()


def test_memory_takes_the_expectation_over_cases() -> None:
    plain = trace(nn.Linear(10, 8), torch.ones(1, 10)).structure
    structure = Structure(
        layers=["a"] * 3,
        kind_codes=plain.kind_codes.repeat(3),
        traced={name: values.repeat(3) for name, values in plain.traced.items()},
        ops=torch.tensor([0, 0, 0]),
        engines=(None,) * 3,
        buffers=plain.buffers,
        cases=torch.tensor([0, 0, 1]),
    )
    out, weight = torch.tensor([3.0, 5.0, 4.0]), torch.tensor([0.25, 0.25, 0.75])
    in_bytes = torch.tensor([1.0, 1.0, 0.5])
    found = buffer_bytes(structure, out, in_bytes, weight).tolist()
    assert found == [10 * (0.25 * 1 + 0.75 * 0.5), 0.25 * (3 + 5) + 0.75 * 4]


@pytest.mark.parametrize("cout", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_less_than_a_channel_costs_its_share_of_the_first(cout: float) -> None:
    work, model = table(("a", 0, 8.0, 5.0, 1.0)), CostModel(duo())
    first = 50 + 8 * 8 * 9 * 16 / 16
    column = torch.tensor([cout], dtype=torch.float64, requires_grad=True)
    total = model.total(work.with_columns(cout=column))
    (slope,) = torch.autograd.grad(total * 3, column)
    assert total.item() == pytest.approx(cout * first, rel=1e-14)
    assert slope.item() == pytest.approx(3 * (first if cout < 1 else first - 50), rel=1e-14)


def test_parts_of_several_sizes_multiply() -> None:
    work, model = table(("a", 0, 8.0, 5.0, 1.0)), CostModel(duo())
    cout, cin = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.5, 0.25))
    total = model.total(work.with_columns(cout=cout, cin=cin))
    first = 50 + 8 * 8 * 9 / 16
    assert total.item() == pytest.approx(first / 8)
    slopes = torch.autograd.grad(total, (cout, cin))
    assert [s.item() for s in slopes] == pytest.approx([first / 4, first / 2])


def test_other_sizes_have_the_slope_of_the_share() -> None:
    work, model = table(("a", 0, 8.0, 5.0, 1.0)), CostModel(duo())
    cout, oh = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.5, 8.0))
    (slope,) = torch.autograd.grad(model.total(work.with_columns(cout=cout, oh=oh)), oh)
    assert slope.item() == pytest.approx(0.5 * 8 * 9 * 16 / 16)


@pytest.mark.parametrize("channels", [0.0, 0.5, 1.0])
def test_a_depthwise_channel_counts_once(channels: float) -> None:
    work = table(("a", 0, 8.0, 16.0, 1.0), groups=16)
    model = CostModel("ne16_compute")
    n = torch.tensor([channels], dtype=torch.float64, requires_grad=True)
    total = model.total(work.with_columns(cin=n, cout=n, groups=n))
    first = 9 * (31 + (6 + 1) + (6 + 8) + 2 + 9 + 1 + 13)  # 3 x 3 tiles, one channel
    assert total.item() == pytest.approx(channels * first)
    (slope,) = torch.autograd.grad(total, n)
    assert channels == 1 or slope.item() == pytest.approx(first)


def test_a_unit_of_a_recurrent_layer_counts_once() -> None:
    work = Workload.from_columns("rnn", cin=8, cout=16, gates=4, positions=3)
    n = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    total = CostModel("counts", "macs").total(work.with_columns(cout=n, hidden=n))
    (slope,) = torch.autograd.grad(total, n)
    first = 3 * 4 * (8 + 1)
    assert (total.item(), slope.item()) == (0.25 * first, first)


@pytest.mark.parametrize("rows", [3, 500])
def test_shares_are_found_in_tables_of_any_length(rows: int) -> None:
    work = Workload.from_columns("conv", cin=[2.0] * rows, cout=4.0, kw=1, oh=1, ow=1)
    cout = torch.full((rows,), 4.0, dtype=torch.float64)
    cout[-1] = 0.5
    model = CostModel("gap8_compute")
    one = model.total(Workload.from_columns("conv", cin=2, cout=1, kw=1, oh=1, ow=1)).item()
    assert model.rows(work.with_columns(cout=cout))[-1].item() == pytest.approx(0.5 * one)


def test_a_size_below_1_that_does_not_change_counts_likewise() -> None:
    work = table(("a", 0, 8.0, 0.5, 1.0), ("b", 0, 8.0, 4.0, 1.0))
    cin = work.column("cin").clone().requires_grad_()
    per_channel = 8 * 8 * 9 * 16 / 16
    due = 0.5 * (50 + per_channel) + 50 + 4 * per_channel
    assert CostModel(duo()).total(work).item() == due
    total = CostModel(duo()).total(work.with_columns(cin=cin))
    (slope,) = torch.autograd.grad(total, cin)
    assert total.item() == due
    assert slope.tolist() == [0.5 * 36, 4 * 36]


def test_smooth_time_is_exact_for_an_engine_alone() -> None:
    work = table(("a", 0, 8.0, 16.0, 1.0), ("b", 0, 2.0, 12.0, 1.0))
    for metric in ("latency", "energy"):
        model = CostModel("diana", metric)
        assert model.total(work, smooth=3.0).item() == model.total(work).item()


def test_smooth_time_does_not_depend_on_the_unit() -> None:
    cycles, kilo = (
        CostModel(duo(unit=u)).total(table(*SPLIT), smooth=5.0) for u in ("cycle", "kcycle")
    )
    assert kilo.item() * 1000 == pytest.approx(cycles.item(), rel=1e-14)


def test_smooth_time_is_bounded_by_the_number_of_engines() -> None:
    exact = CostModel("diana").total(table(*SPLIT)).item()
    for p in (1.5, 4.0, 32.0):
        smooth = CostModel("diana").total(table(*SPLIT), smooth=p).item()
        assert exact < smooth <= 2 ** (1 / p) * exact


def test_engines_of_equal_times_reach_the_bound() -> None:
    values = torch.tensor([[3e-9], [3e-9], [0.0]], dtype=torch.float64)
    assert p_norm(values, 4.0).item() == pytest.approx(2**0.25 * 3e-9)


def test_smooth_time_has_a_slope_for_each_engine() -> None:
    times = torch.tensor([[2.0, 0.0, 1e-200], [1.0, 0.0, 1e200]], dtype=torch.float64)
    times.requires_grad_()
    norm = p_norm(times, 2.0)
    norm.sum().backward()
    assert norm.tolist() == [5**0.5, 0, 1e200]
    assert times.grad is not None
    assert times.grad[:, 0].tolist() == pytest.approx([2 / 5**0.5, 1 / 5**0.5])
    assert times.grad[:, 1].tolist() == [1, 1]
    assert bool(times.grad.isfinite().all())


@pytest.mark.parametrize("p", [1.0, 0.0, -2.0, float("nan")])
def test_smooth_must_be_above_1(p: float) -> None:
    with pytest.raises(ValueError, match="expected a number above 1"):
        CostModel("diana").total(table(*SPLIT), smooth=p)


def test_the_error_of_open_bits_names_the_searches_that_set_them() -> None:
    text = PIPELINE.replace("OPS", "sum").replace("UNIT", "cycle")
    text = text.replace("precision: {w_bits: [2], a_bits: [8]}, ", "")
    work = trace(nn.Conv2d(2, 2, 1), torch.ones(1, 2, 4, 4)).with_engines("one")
    reads = loads(text.replace("7 + macs/64", "macs*w_bits"))
    with pytest.raises(WorkloadError, match=r"'deploy', or let a search decide it \(MPS\)"):
        CostModel(reads).total(work)
