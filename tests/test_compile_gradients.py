"""Compiled formulas: slopes against differences of the unrounded formula and exact rules."""

import gc
import weakref
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwcost.compile import compile_formula

X, Y, Z = sp.symbols("x y z", nonnegative=True)
OH, OW, KH, KW, CIN, COUT = sp.symbols("oh ow kh kw cin cout", nonnegative=True)
SIZES = ("oh", "ow", "kh", "kw", "cin", "cout")
GAP8_CONV = (
    sp.ceiling(OH / 2)
    * sp.ceiling(OW / 8)
    * (2 * KH * KW * CIN + sp.ceiling(COUT / 4) * (15 + 14 * sp.ceiling(KH * KW * CIN / 4)))
)
GAP8_DEPTHWISE = 4 * sp.ceiling(COUT / 4) * OH * OW * KH * KW
GAP8_LINEAR = sp.ceiling(CIN / 2) * sp.ceiling(COUT / 4)
GAP8 = {"conv": GAP8_CONV, "depthwise": GAP8_DEPTHWISE, "linear": GAP8_LINEAR}


def column(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def slopes(expr: sp.Basic, **columns: Tensor) -> dict[str, list[float]]:
    """The gradient of the summed result to each column."""
    total = compile_formula(expr)(columns).sum()
    names = [n for n, c in columns.items() if c.requires_grad]
    found = torch.autograd.grad(total, [columns[n] for n in names])
    return {n: slope.tolist() for n, slope in zip(names, found, strict=True)}


def slope_at(expr: sp.Expr, point: dict[str, int], name: str) -> float:
    """The slope to one size, 0 if the formula does not read it."""
    used = {n: column(v) for n, v in point.items() if n in {s.name for s in expr.free_symbols}}
    return slopes(expr, **used)[name][0] if name in used else 0.0


def smooth(expr: sp.Expr) -> sp.Expr:
    """The formula without its rounding."""
    return expr.replace(sp.ceiling, lambda x: x).replace(sp.floor, lambda x: x)


def exact_slope(expr: sp.Basic, at: dict[sp.Symbol, int], to: sp.Symbol) -> Fraction | float:
    """The chain rule by hand, exactly; rounding has slope 1, a condition none, a tie a half."""

    def slope(node: sp.Basic) -> Fraction | float:
        return exact_slope(node, at, to)

    def value(node: sp.Basic) -> sp.Rational:
        return node.subs(at)

    if expr.is_Symbol or expr.is_number:
        return Fraction(expr == to)
    if isinstance(expr, sp.Add):
        return sum(map(slope, expr.args), Fraction(0))
    if isinstance(expr, sp.Mul):
        rest = [sp.Mul(*expr.args[:i], *expr.args[i + 1 :]) for i in range(len(expr.args))]
        return sum(slope(a) * number(value(r)) for a, r in zip(expr.args, rest, strict=True))
    if isinstance(expr, sp.Pow):
        base, power = expr.args
        return slope(base) * number(power * value(base) ** (power - 1))
    if isinstance(expr, sp.ceiling | sp.floor):
        return slope(expr.args[0])
    if isinstance(expr, sp.Abs):
        return slope(expr.args[0]) * number(sp.sign(value(expr.args[0])))
    if isinstance(expr, sp.Max | sp.Min):
        best = [a for a in expr.args if value(a) == value(expr)]
        return sum(map(slope, best), Fraction(0)) / len(best)
    taken = next(branch for branch, condition in expr.args if value(condition))
    return slope(taken)


def number(value: sp.Rational) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def formulas() -> st.SearchStrategy[sp.Expr]:
    """Formulas of three sizes, two of them in each maximum: ties of three share differently."""
    leaves = st.sampled_from([X, Y, Z]) | st.builds(
        sp.Rational, st.integers(1, 9), st.integers(1, 9)
    )

    def grow(inner: st.SearchStrategy[sp.Expr]) -> st.SearchStrategy[sp.Expr]:
        return st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: a * b, inner, inner),
            st.builds(lambda a, n: a / n, inner, st.sampled_from([3, 8, X + 1, Y])),
            st.builds(lambda f, a: f(a), st.sampled_from([sp.ceiling, sp.floor]), inner),
            st.builds(lambda a, b: sp.Abs(a - b), inner, inner),
            st.builds(lambda a, n: a - n * sp.floor(a / n), inner, st.sampled_from([2, 3, 5])),
            st.builds(lambda c, a, b: sp.Piecewise((a, c > 3), (b, True)), inner, inner, inner),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@settings(max_examples=60)
@given(formulas())
def test_every_slope_follows_the_chain_rule(expr: sp.Expr) -> None:
    points = {"x": [1, 3, 7, 16], "y": [1, 2, 3, 21], "z": [2, 9, 4, 128]}
    columns = {
        n: column(*v)
        for n, v in points.items()
        if sp.Symbol(n, nonnegative=True) in expr.free_symbols
    }
    found = slopes(expr, **columns) if columns else {}
    for i, at in enumerate(zip(*points.values(), strict=True)):
        where = dict(zip((X, Y, Z), at, strict=True))
        for name, slope in found.items():
            expected = exact_slope(expr, where, sp.Symbol(name, nonnegative=True))
            assert slope[i] == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", GAP8)
@pytest.mark.parametrize("name", ["cin", "cout"])
def test_slopes_are_differences_of_the_unrounded_formula(kind: str, name: str) -> None:
    # at multiples of all divisors rounding changes nothing, and the slopes must agree
    point = {"oh": 8, "ow": 16, "kh": 3, "kw": 3, "cin": 64, "cout": 32}
    symbol, line = sp.Symbol(name, nonnegative=True), smooth(GAP8[kind])
    at = {sp.Symbol(n, nonnegative=True): v for n, v in point.items() if n != name}
    step = sp.Rational(1, 1000)
    ends = [line.subs(at).subs(symbol, point[name] + s) for s in (step, -step)]
    assert slope_at(GAP8[kind], point, name) == pytest.approx(
        float((ends[0] - ends[1]) / (2 * step)), rel=1e-9
    )


@pytest.mark.parametrize("kind", GAP8)
@pytest.mark.parametrize("cout", [1, 30, 61, 128])
def test_slope_to_cout_is_the_secant_over_a_rounding_period(kind: str, cout: int) -> None:
    point = {"oh": 7, "ow": 15, "kh": 3, "kw": 5, "cin": 17, "cout": cout}
    formula = compile_formula(GAP8[kind])
    ends = [
        formula({n: torch.tensor(float(v)) for n, v in (point | {"cout": c}).items()})
        for c in (cout, cout + 4)
    ]
    secant = float(ends[1] - ends[0]) / 4
    assert slope_at(GAP8[kind], point, "cout") == pytest.approx(secant, rel=0.01)


@pytest.mark.parametrize("cin", [1, 30, 61, 128])
def test_slope_to_cin_is_the_secant_over_a_rounding_period(cin: int) -> None:
    point = {"oh": 7, "ow": 15, "kh": 3, "kw": 5, "cin": cin, "cout": 33}
    formula = compile_formula(GAP8_CONV)
    ends = [
        formula({n: torch.tensor(float(v)).double() for n, v in (point | {"cin": c}).items()})
        for c in (cin, cin + 4)
    ]
    assert slope_at(GAP8_CONV, point, "cin") == pytest.approx(
        float(ends[1] - ends[0]) / 4, rel=0.01
    )


def test_rounding_has_the_slope_of_the_line() -> None:
    assert slopes(sp.ceiling(X / 16), x=column(1, 16, 17)) == {"x": [1 / 16] * 3}


def test_a_remainder_has_no_slope_to_the_dividend() -> None:
    assert slopes(X - 4 * sp.floor(X / 4), x=column(3, 4, 9)) == {"x": [0, 0, 0]}


def test_conditions_have_no_slope() -> None:
    expr = sp.Piecewise((1, X > 2), (5, True)) * Y
    assert slopes(expr, x=column(1, 3), y=column(1, 1)) == {"x": [0, 0], "y": [5, 1]}


def test_look_ups_have_no_slope() -> None:
    data = SimpleNamespace(
        name="t", axes=(("x", (Fraction(2), Fraction(4))),), values=(Fraction(5), Fraction(7))
    )
    look_up = type("t", (sp.Function,), {"table": data})
    assert slopes(look_up(X) * Y, x=column(4, 2), y=column(1, 1)) == {"x": [0, 0], "y": [7, 5]}


@pytest.mark.parametrize(
    "branch", [1 / X, sp.log(X), Y / X, X ** sp.Rational(-1, 2), 1 / sp.floor(X / 2)]
)
def test_the_branch_not_taken_makes_no_nan(branch: sp.Expr) -> None:
    columns = {"x": column(0, 2), "y": column(1, 0)}
    expr = sp.Piecewise((branch, X > 0), (0, True)) + Y
    result = compile_formula(expr)(columns)
    found = torch.autograd.grad(result.sum(), list(columns.values()))
    assert result.isfinite().all() and all(slope.isfinite().all() for slope in found)


def test_nan_in_a_column_stays_on_its_rows() -> None:
    expr = sp.Piecewise((X * Y, Z > 0), (Y, True))
    columns = {"x": column(float("nan"), 3), "y": column(1, 2), "z": column(0, 1)}
    assert slopes(expr, **columns)["y"] == [1, 3]


def test_slopes_pass_through_the_branch_taken() -> None:
    expr = sp.Piecewise((X * Y, X > 2), (sp.sqrt(Y), Y > 3), (3 * X, True))
    found = slopes(expr, x=column(1, 1, 3), y=column(4, 1, 5))
    assert found == {"x": [0, 3, 5], "y": [0.25, 0, 3]}


def test_a_maximum_gives_its_slope_to_the_winner() -> None:
    assert slopes(sp.Max(X, 2 * Y), x=column(3, 1), y=column(1, 1)) == {"x": [1, 0], "y": [0, 2]}


def test_a_tie_shares_its_slope() -> None:
    assert slopes(sp.Min(X, Y), x=column(2), y=column(2)) == {"x": [0.5], "y": [0.5]}


@pytest.mark.parametrize(
    "expr",
    [
        sp.sqrt(X * Y),
        X ** sp.Rational(1, 3) * Y,
        sp.sqrt(X) + Y,
        X**Y,
        Y**X,
        X ** sp.Rational(3, 2) * Y,
    ],
)
def test_slopes_at_zero_are_finite(expr: sp.Expr) -> None:
    found = slopes(expr, x=column(0, 0), y=column(2, 0))
    assert torch.tensor(list(found.values())).isfinite().all()


def test_powers_and_logarithms_have_their_slopes() -> None:
    expr = (
        X**3 + X**Y + sp.log(X) / sp.log(2) + sp.exp(Y) + X ** sp.Rational(1, 3) + sp.log(Y) + 2**Y
    )
    at = {X: 8, Y: 3}
    found = slopes(expr, x=column(8), y=column(3))
    assert found["x"] == pytest.approx([float(expr.diff(X).subs(at))])
    assert found["y"] == pytest.approx([float(expr.diff(Y).subs(at))])


def test_static_columns_get_no_slope() -> None:
    x, y = column(2, 4), column(3, 5)
    result = compile_formula(sp.Piecewise((X * Y, X > 3), (Y / X, True))).specialize({"x": x})(
        {"y": y}
    )
    assert torch.autograd.grad(result.sum(), [x, y], allow_unused=True)[0] is None


def test_a_specialised_formula_has_the_same_slopes() -> None:
    columns = {n: column(*(i + k for k in range(1, 5))) for i, n in enumerate(SIZES)}
    static = compile_formula(GAP8_CONV).specialize(
        {n: columns[n] for n in ("oh", "ow", "kh", "kw")}
    )
    found = torch.autograd.grad(static(columns).sum(), [columns["cin"], columns["cout"]])
    expected = slopes(GAP8_CONV, **columns)
    assert [f.tolist() for f in found] == [expected["cin"], expected["cout"]]


def test_one_value_for_all_rows_gets_the_sum_of_the_slopes() -> None:
    y = torch.tensor(5.0).double().requires_grad_()
    compile_formula(X * Y)({"x": column(2, 3, 4), "y": y}).sum().backward()
    assert y.grad is not None and y.grad.item() == 9


def test_only_the_needed_columns_get_slopes() -> None:
    x, y = column(2), column(3)
    compile_formula(X / Y)({"x": x, "y": y.detach()}).sum().backward()
    assert x.grad is not None and y.grad is None


def test_slopes_are_linear_in_what_comes_from_above() -> None:
    x = column(3, 5, 9)
    result = compile_formula(sp.Piecewise((X**2, X > 4), (X / 3, True)))({"x": x})
    above = torch.tensor([1.0, 2.0, 0.0]).double()
    once, thrice = (torch.autograd.grad(result, x, f * above, retain_graph=True)[0] for f in (1, 3))
    assert torch.allclose(3 * once, thrice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_have_the_columns_dtype(dtype: torch.dtype) -> None:
    x = column(3, 5, dtype=dtype)
    compile_formula(sp.Piecewise((2, X > 4), (3, True)) * X / 7 + sp.Max(X, 4))(
        {"x": x}
    ).sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype


ANYTHING = sp.Piecewise((sp.ceiling(X / 3) * X / Y, X > Y), (sp.sqrt(X * Y) ** 3, True)) + sp.Max(
    X**2, Y
)


def test_second_derivatives() -> None:
    columns = {"x": column(3, 2), "y": column(2, 8)}
    formula = compile_formula(sp.Piecewise((X**3 * Y, X > Y), (X / Y, True)))
    (slope,) = torch.autograd.grad(formula(columns).sum(), columns["x"], create_graph=True)
    assert slope.tolist() == [3 * 9 * 2, 1 / 8]
    assert torch.autograd.grad(slope.sum(), columns["y"])[0].tolist() == [27, -1 / 64]


# torch warns about its own use of torch.jit
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_equals_reverse_mode() -> None:
    columns = {"x": column(3, 2), "y": column(2, 8)}
    expected = slopes(ANYTHING, **columns)["x"]
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(columns["x"].detach(), torch.ones(2).double())
        result = compile_formula(ANYTHING)({"x": x, "y": columns["y"].detach()})
        tangent = torch.autograd.forward_ad.unpack_dual(result).tangent
    assert tangent is not None and tangent.tolist() == pytest.approx(expected)


def test_torch_func_differentiates() -> None:
    columns = {"x": column(3, 2).detach(), "y": column(2, 8).detach()}
    formula = compile_formula(ANYTHING)
    found = torch.func.grad(lambda c: formula(c).sum())(columns)
    expected = slopes(ANYTHING, **{n: c.requires_grad_() for n, c in columns.items()})
    assert {n: slope.tolist() for n, slope in found.items()} == {
        n: pytest.approx(s) for n, s in expected.items()
    }


def test_vmap_over_tables() -> None:
    formula = compile_formula(sp.ceiling(X / 3) * Y + sp.Max(X, 4))
    tables = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(2, 3)}
    found = torch.vmap(lambda x, y: formula({"x": x, "y": y}))(tables["x"], tables["y"])
    assert found.tolist() == [[4, 5, 5], [5, 6, 7]]


def test_gradients_through_the_program_agree_with_torch() -> None:
    columns = {"x": column(3, 2, 5), "y": column(2, 8, 1)}
    program = compile_formula(ANYTHING).program
    inputs = list(columns.values())
    expected = torch.autograd.grad(program.trace(inputs[0], inputs).sum(), inputs)
    assert list(slopes(ANYTHING, **columns).values()) == [
        pytest.approx(e.tolist()) for e in expected
    ]


def test_a_column_changed_before_the_backward_pass_is_an_error() -> None:
    x = column(2, 3)
    inside = x * 1
    result = compile_formula(X**2)({"x": inside})
    inside.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.parametrize("expr", [X * 3, sp.Piecewise((X, X > 0), (1, True))])
def test_results_are_freed_without_the_garbage_collector(expr: sp.Expr) -> None:
    gc.collect()
    gc.disable()
    try:
        result = compile_formula(expr)({"x": column(2, 3) * 1})
        alive = weakref.ref(result.grad_fn)
        del result
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("use", [torch.no_grad, torch.inference_mode])
def test_formulas_made_without_gradients_have_slopes_later(
    use: Callable[[], torch.no_grad],
) -> None:
    with use():
        static = compile_formula(X * Y / 3).specialize({"y": torch.ones(2).double() * 3})
    x = column(2, 3)
    (slope,) = torch.autograd.grad(static({"x": x}).sum(), x, create_graph=True)
    assert slope.tolist() == [1, 1]


def test_a_case_that_divides_by_zero_on_rows_of_another_spoils_no_slope() -> None:
    expr = sp.Piecewise((Y / X + sp.log(X), X > 0), (Y, True))
    assert slopes(expr, x=column(0, 2), y=column(3, 4)) == {"x": [0, -0.5], "y": [1, 0.5]}
