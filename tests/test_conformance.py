"""What must hold for every formula of every shipped platform, found automatically."""

import pickle
from collections.abc import Mapping
from fractions import Fraction
from math import lcm

import pytest
import sympy
import torch

from hwcost.costmodel import CostModel
from hwcost.formula import symbol
from hwcost.loading import load
from hwcost.ops import KINDS
from hwcost.platform import Platform
from hwcost.workload import Workload
from tests.subjects import PLATFORMS, Subject, as_table, sizes_read, subjects

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

SUBJECTS = subjects()
every_formula = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
READING = [s for s in SUBJECTS if sizes_read(s)]
every_reading_formula = pytest.mark.parametrize("subject", READING, ids=str)
SEARCHED = [s for s in READING if set(sizes_read(s)) & set(KINDS[s.kind].extent)]
every_searched_formula = pytest.mark.parametrize("subject", SEARCHED, ids=str)

#: (platform or *, kind, size) -> why a larger size may cost less.
FALLING = {
    ("*", "conv", "groups"): "a conv with more groups multiplies less",
    ("*", "conv_transpose", "groups"): "a conv with more groups multiplies less",
} | {
    ("*", "conv_transpose", stride): "a tile of outputs that are further apart reads fewer inputs"
    for stride in ("sd", "sh", "sw")
}
FALLING |= {
    ("xg24", kind, size): "an odd number of channels is multiplied one by one, not in pairs"
    for kind, size in (("conv", "cin"), ("conv", "cout"), ("linear", "cin"), ("pool", "cout"))
}
for axis in "hw":
    FALLING["xg24", "conv", f"s{axis}"] = "fewer outputs are at an edge, which has its own programs"
    FALLING["gap8", "conv", f"k{axis}"] = "a larger size has a faster kernel, as 3x3 is to 2x2"


def moved(subject: Subject, steps: dict[str, float]) -> tuple[Workload, Workload, torch.Tensor]:
    """The table, the table with larger sizes, and the rows that keep their formula."""
    table, model = subject.table, subject.model
    other = {n: table.column(n) + step for n, step in steps.items()}
    columns = {name: column.tolist() for name, column in _columns(table, other).items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    larger = as_table(subject.kind, rows, subject.engine)
    same = (_formulas(model, table) == _formulas(model, larger)) & _cut_alike(model, table, larger)
    return table, larger, same


def _cut_alike(model: CostModel, *tables: Workload) -> torch.Tensor:
    """Whether the rows of two tables have the same tiles, shape (rows,)."""
    one, other = (model.plan(table).tiles for table in tables)
    same = torch.ones(len(tables[0]), dtype=torch.bool)
    for name in one:
        same &= (one[name] == other[name]) | one[name].isnan()
    return same


def _columns(table: Workload, other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = [*KINDS[table.kinds[0]].sizes, "w_bits", "a_bits"]
    return {name: other.get(name, table.column(name)) for name in names}


def _formulas(model: CostModel, table: Workload) -> torch.Tensor:
    """Which entry prices each row, -1 for none; shape (rows,)."""
    found = torch.full((len(table),), -1)
    for group in model.plan(table).groups:
        rows = torch.arange(len(table)) if group.rows is None else group.rows
        found[rows] = hash(id(group.entry)) % (1 << 40)
    return found


def exact(subject: Subject, table: Workload, row: int) -> sympy.Rational:
    """The row's cost by sympy, from the formulas before they are compiled."""
    model = subject.model
    plan = model.plan(table)
    group = next(g for g in plan.groups if g.rows is None or row in g.rows.tolist())
    engine = None if group.engine < 0 else list(model.platform.engines.values())[group.engine]
    sizes = {symbol(n): sympy.Integer(int(table.column(n)[row])) for n in KINDS[subject.kind].sizes}
    bits = {
        symbol(n): sympy.Integer(int(b[row]))
        for n, b in plan.columns.items()
        if bool(b[row].isfinite())
    }
    counted = {symbol(n): sympy.Integer(1) for n in ("w_once", "bias_once")} | {
        symbol("fused"): sympy.Integer(0)
    }
    value = (
        model.formulas.expr(group)
        .xreplace(model.platform.numbers(engine))
        .xreplace(sizes | bits | counted)
    )
    return value / sympy.Rational(
        model.metric.unit.value.numerator, model.metric.unit.value.denominator
    )


def test_there_are_formulas_to_test() -> None:
    assert {s.platform for s in SUBJECTS} == set(PLATFORMS)


@every_formula
def test_value_equals_sympy(subject: Subject) -> None:
    found = subject.model.rows(subject.table)
    for row in range(0, len(subject.table), 40):
        value = exact(subject, subject.table, row)
        assert value.is_Rational
        if value.is_Integer:
            assert found[row].item() == int(value)
        assert found[row].item() == pytest.approx(float(value), rel=4e-16, abs=0)


@every_formula
def test_value_is_finite_and_not_negative(subject: Subject) -> None:
    found = subject.model.rows(subject.table)
    assert bool((found >= 0).all())
    assert bool(found.isfinite().all())


@every_reading_formula
def test_value_does_not_fall_when_a_size_grows(subject: Subject) -> None:
    for size in sizes_read(subject):
        if any((name, subject.kind, size) in FALLING for name in ("*", subject.platform)):
            continue
        table, larger, same = moved(subject, {size: 1})
        before, after = subject.model.rows(table)[same], subject.model.rows(larger)[same]
        assert bool((after >= before * (1 - 1e-12)).all()), size


@every_reading_formula
def test_gradient_is_finite_in_every_size(subject: Subject) -> None:
    table = subject.table
    columns = {n: table.column(n).clone().requires_grad_() for n in sizes_read(subject)}
    subject.model.total(table.with_columns(**columns)).backward()
    for name, column in columns.items():
        assert column.grad is not None, name
        assert bool(column.grad.isfinite().all()), name


def directions(subject: Subject) -> list[tuple[str, ...]]:
    """Channel counts that a search changes, those of a depthwise convolution together."""
    sizes = KINDS[subject.kind].sizes
    if "groups" in sizes:
        return [("cin",), ("cout",), ("cin", "cout", "groups")]
    return [(n,) for n in ("cin", "cout", "m", "n", "k", "heads", "elements") if n in sizes]


def _eligible(table: Workload, direction: tuple[str, ...]) -> list[int]:
    """Rows that may move in a direction: depthwise ones all together, others one size at a time."""
    if table.kinds[0] not in ("conv", "conv_transpose", "pool"):
        return list(range(len(table)))
    groups, cin = table.column("groups"), table.column("cin")
    together = (groups == cin) & (groups > 1)
    wanted = together if len(direction) > 1 else ~together
    return wanted.nonzero().flatten().tolist()


def _period(
    expr: sympy.Expr, at: dict[sympy.Symbol, sympy.Integer], direction: tuple[str, ...]
) -> int | None:
    """Steps after which each rounding in ``expr`` has the same remainder, None if never."""
    periods = [1]
    for node in expr.atoms(sympy.ceiling, sympy.floor):
        values = [
            node.args[0].xreplace(at | {symbol(n): at[symbol(n)] + step for n in direction})
            for step in (0, 1, 2)
        ]
        first, second = values[1] - values[0], values[2] - values[1]
        if first != second or not first.is_Rational:
            return None
        periods.append(Fraction(int(first.p), int(first.q)).denominator)
    return lcm(*periods)


def _branches(expr: sympy.Expr, at: dict[sympy.Symbol, sympy.Integer]) -> list[bool]:
    conditions = expr.atoms(sympy.core.relational.Relational)
    extremes = expr.atoms(sympy.Max, sympy.Min)
    taken = [bool(c.xreplace(at)) for c in sorted(conditions, key=str)]
    for node in sorted(extremes, key=str):
        values = [a.xreplace(at) for a in node.args]
        taken += [v == node.xreplace(at) for v in values]
    return taken


@every_searched_formula
def test_gradient_equals_the_secant_over_one_rounding_period(subject: Subject) -> None:
    table, model, compared = subject.table, subject.model, 0
    plan = model.plan(table)
    for direction in directions(subject):
        rows = _eligible(table, direction)[:60]
        columns = {n: table.column(n).clone().requires_grad_() for n in direction}
        total = model.rows(table.with_columns(**columns)).sum()
        if not total.requires_grad:
            continue
        grads = torch.autograd.grad(total, list(columns.values()), allow_unused=True)
        slope = torch.stack([g for g in grads if g is not None]).sum(0)
        for group in plan.groups:
            mine = set(rows) & set(range(len(table)) if group.rows is None else group.rows.tolist())
            engine = (
                None if group.engine < 0 else list(model.platform.engines.values())[group.engine]
            )
            expr = model.formulas.expr(group).xreplace(model.platform.numbers(engine))
            for row in _some(mine, table, direction):
                at = {s: _size(subject, table, plan.columns, s, row) for s in expr.free_symbols}
                at |= {symbol(n): sympy.Integer(int(table.column(n)[row])) for n in direction}
                period = _period(expr, at, direction)
                if period is None or period > 2048:
                    continue
                beyond = at | {symbol(n): at[symbol(n)] + period for n in direction}
                if _branches(expr, at) != _branches(expr, beyond):
                    continue
                secant = (expr.xreplace(beyond) - expr.xreplace(at)) / period
                unit = float(model.metric.unit.value)
                assert slope[row].item() == pytest.approx(
                    float(secant) / unit, rel=0.01, abs=1e-18
                ), (direction, at)
                compared += 1
    assert compared


def _some(rows: set[int], table: Workload, direction: tuple[str, ...]) -> list[int]:
    """The largest rows, where no branch changes within a period, and some others."""
    ordered = sorted(rows, key=lambda row: -float(table.column(direction[0])[row]))
    return [*ordered[:6], *ordered[6::10][:6]]


def _size(
    subject: Subject,
    table: Workload,
    bits: Mapping[str, torch.Tensor],
    name: sympy.Symbol,
    row: int,
) -> sympy.Integer:
    return sympy.Integer(
        int((bits[name.name] if name.name in bits else table.column(name.name))[row])
    )


def searched_size(subject: Subject) -> str:
    """A size that the formula reads and that a search changes."""
    return next(n for n in sizes_read(subject) if n in KINDS[subject.kind].extent)


@every_searched_formula
def test_gradient_is_linear_in_the_upstream_gradient(subject: Subject) -> None:
    size = searched_size(subject)
    column = subject.table.column(size).clone().requires_grad_()
    total = subject.model.total(subject.table.with_columns(**{size: column}))
    (once,) = torch.autograd.grad(total, column, retain_graph=True)
    (thrice,) = torch.autograd.grad(total, column, torch.tensor(3.0, dtype=torch.float64))
    torch.testing.assert_close(thrice, 3 * once)


@every_formula
def test_no_channels_cost_nothing(subject: Subject) -> None:
    for size in KINDS[subject.kind].extent:
        nothing = torch.zeros(len(subject.table), dtype=torch.float64, requires_grad=True)
        cost = subject.model.total(subject.table.with_columns(**{size: nothing}))
        assert cost.item() == 0, size


@every_searched_formula
def test_float32_sizes_give_the_same_cost_and_a_float32_gradient(subject: Subject) -> None:
    size = searched_size(subject)
    column = subject.table.column(size).to(torch.float32).requires_grad_()
    cost = subject.model.total(subject.table.with_columns(**{size: column}))
    cost.backward()
    assert cost.item() == pytest.approx(subject.model.total(subject.table).item(), rel=1e-12)
    assert column.grad is not None
    assert column.grad.dtype == torch.float32


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_cost_model_survives_pickle(name: str) -> None:
    for subject in (s for s in SUBJECTS if s.platform == name):
        copy = pickle.loads(pickle.dumps(subject.model))
        assert torch.equal(copy.rows(subject.table), subject.model.rows(subject.table))


def rates(platform: Platform) -> list[str]:
    """Params that are so much per time: clocks and bandwidths."""
    below = {"s": -1, "cycle": -1}
    exponents = {n: str(p.quantity.dimension) for n, p in platform.params.items()}
    return [
        n
        for n, text in exponents.items()
        if any(f"/{unit}" in text for unit in below) and "J" not in text
    ]


@pytest.mark.parametrize("name", PLATFORMS)
def test_latency_does_not_rise_with_clock_or_bandwidth(name: str) -> None:
    platform = load(name)
    for param in rates(platform):
        quantity = platform.params[param].quantity
        unit = quantity.text.split(" ", 1)[1]
        faster = platform.with_params(
            **{param: f"{2 * float(quantity.text.split(' ', 1)[0])} {unit}"}
        )
        for subject in (s for s in SUBJECTS if s.platform == name and s.metric == "latency"):
            before = subject.model.rows(subject.table)
            after = CostModel(faster, "latency").rows(subject.table)
            assert bool((after <= before).all()), param
