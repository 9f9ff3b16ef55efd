"""What must hold for every metric of whole ops: one that reads several engines' times."""

import pickle

import pytest
import sympy
import torch

from hwcost.costmodel import CostModel
from hwcost.formula import symbol
from hwcost.loading import available, load
from hwcost.ops import KINDS
from hwcost.platform import Platform
from hwcost.workload import Workload
from tests.subjects import Subject, as_table, subjects

METRICS = [
    (name, metric.name)
    for name in available()
    for metric in load(name).metrics.values()
    if metric.needs_ops
]
every_metric = pytest.mark.parametrize(("platform", "metric"), METRICS)
OPS = 12


def shared_ops(platform: str) -> Workload:
    """Convolutions of which each engine does a part, where it can."""
    parts = []
    for engine in load(platform).engines:
        table = Subject(platform, "latency", engine, "conv").table
        names = [*KINDS["conv"].sizes, "w_bits", "a_bits"]
        rows = [{n: float(table.column(n)[i]) for n in names} for i in range(OPS)]
        parts.append(as_table("conv", rows, engine).to_frame())
    frame = {str(n): [v for part in parts for v in part[n]] for n in parts[0]}
    return Workload.from_frame(frame | {"op": [*range(OPS)] * len(parts)})


def exact(platform: Platform, metric: str, busy: list[float]) -> float:
    """The cost of one op by sympy, from each engine's time in seconds or cycles."""
    found, times = platform.metrics[metric], [sympy.Rational(b) for b in busy]
    parallel = platform.metrics["latency"].engines == "max"
    span = max(times) if parallel else sum(times)
    if found.op is not None:
        at = {symbol(f"busy_{e}"): t for e, t in zip(platform.engines, times, strict=True)}
        return float(found.op.xreplace(at | {symbol("span"): span}).xreplace(platform.numbers()))
    assert found.row is not None
    costs = [
        found.row.xreplace({symbol("busy"): t, symbol("span"): span}).xreplace(platform.numbers(e))
        for e, t in zip(platform.engines.values(), times, strict=True)
    ]
    return float(max(costs) if found.engines == "max" else sum(costs))


def test_there_are_metrics_to_test() -> None:
    assert METRICS
    assert any(s.engine for s in subjects())


@every_metric
def test_the_total_equals_sympy_op_by_op(platform: str, metric: str) -> None:
    table = shared_ops(platform)
    times = CostModel(platform, "latency").rows(table).reshape(-1, OPS).T.tolist()
    expected = sum(exact(load(platform), metric, busy) for busy in times)
    assert CostModel(platform, metric).total(table).item() == pytest.approx(expected, rel=1e-12)


@every_metric
def test_the_gradient_equals_a_small_difference(platform: str, metric: str) -> None:
    table, model = shared_ops(platform), CostModel(platform, metric)
    weight = torch.full((len(table),), 0.75, dtype=torch.float64, requires_grad=True)
    total = model.total(table.with_columns(weight=weight))
    (slope,) = torch.autograd.grad(total, weight)
    for row in range(0, len(table), 5):
        step = torch.zeros(len(table), dtype=torch.float64).index_fill(0, torch.tensor([row]), 1e-6)
        up, down = (model.total(table.with_columns(weight=0.75 + s)) for s in (step, -step))
        assert slope[row].item() == pytest.approx((up - down).item() / 2e-6, rel=1e-5)


@every_metric
def test_every_size_has_a_finite_gradient(platform: str, metric: str) -> None:
    table = shared_ops(platform)
    cin, cout = (table.column(n).clone().requires_grad_() for n in ("cin", "cout"))
    CostModel(platform, metric).total(table.with_columns(cin=cin, cout=cout)).backward()
    for size in (cin, cout):
        assert size.grad is not None
        assert bool(size.grad.isfinite().all())


@every_metric
def test_no_channels_cost_nothing(platform: str, metric: str) -> None:
    nothing = shared_ops(platform).with_columns(cout=0.0)
    assert CostModel(platform, metric).total(nothing).item() == 0


@every_metric
def test_the_model_survives_pickle(platform: str, metric: str) -> None:
    model, table = CostModel(platform, metric), shared_ops(platform)
    assert pickle.loads(pickle.dumps(model)).total(table) == model.total(table)


@every_metric
def test_the_rows_add_up_to_the_total(platform: str, metric: str) -> None:
    model, table = CostModel(platform, metric), shared_ops(platform)
    assert model.rows(table).sum().item() == pytest.approx(model.total(table).item(), rel=1e-12)
