"""Compiled formulas: values against sympy's exact arithmetic."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, combinations
from types import SimpleNamespace
from typing import Any

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwcost.compile import CHUNK, compile_formula
from hwcost.errors import CostError, FormulaError, WorkloadError

NAMES = ("x", "y", "z")
X, Y, Z = sp.symbols("x y z", nonnegative=True)
OH, OW, KH, KW, CIN, COUT = sp.symbols("oh ow kh kw cin cout", nonnegative=True)
GAP8 = (
    sp.ceiling(OH / 2)
    * sp.ceiling(OW / 8)
    * (2 * KH * KW * CIN + sp.ceiling(COUT / 4) * (15 + 14 * sp.ceiling(KH * KW * CIN / 4)))
)


def column(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def value(expr: sp.Basic, **columns: Tensor | float) -> list[Any]:
    """The compiled formula's values as a list."""
    tensors = {n: c if isinstance(c, Tensor) else column(c) for n, c in columns.items()}
    found: list[Any] = compile_formula(expr)(tensors).tolist()
    return found


def sizes(count: int, names: tuple[str, ...] = NAMES, most: int = 40) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {n: torch.randint(1, most, (count,), generator=generator).double() for n in names}


def exact(expr: sp.Basic, columns: dict[str, Tensor]) -> list[Any]:
    """Sympy's values, row by row."""
    rows = zip(*(c.tolist() for c in columns.values()), strict=True)
    points = [
        {sp.Symbol(n, nonnegative=True): sp.Integer(v) for n, v in zip(columns, row, strict=True)}
        for row in rows
    ]
    # subs puts in one symbol after another, and floor(Piecewise(...)) is then 0 at times.
    found = [expr.xreplace(point) for point in points]
    return [bool(f) if f.is_Boolean else float(f) for f in found]


def table(name: str, **axes: list[int]) -> Callable[..., sp.Expr]:
    """A look-up of 1/10, 2/10, ... in row-major order."""
    count = 1
    for known in axes.values():
        count *= len(known)
    data = SimpleNamespace(
        name=name,
        axes=tuple((n, tuple(map(Fraction, known))) for n, known in axes.items()),
        values=tuple(Fraction(i + 1, 10) for i in range(count)),
    )
    made: Callable[..., sp.Expr] = type(name, (sp.Function,), {"table": data})
    return made


RATE = table("rate", a_bits=[2, 4, 8], w_bits=[8, 2])


def expressions(divisors: tuple[Any, ...] = ()) -> st.SearchStrategy[sp.Expr]:
    """Rational formulas of three sizes, every function of the language in them."""
    rational = st.builds(sp.Rational, st.integers(0, 12), st.integers(1, 12))
    leaves = st.sampled_from([X, Y, Z]) | rational
    relation = st.sampled_from([sp.Gt, sp.Ge, sp.Lt, sp.Le, sp.Eq, sp.Ne])

    def grow(inner: st.SearchStrategy[sp.Expr]) -> st.SearchStrategy[sp.Expr]:
        condition = st.builds(lambda r, a, b: r(a, b), relation, inner, inner)
        joint = st.builds(
            lambda f, a, b: f(a, b), st.sampled_from([sp.And, sp.Or]), condition, condition
        )
        return st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: a - b, inner, inner),
            st.builds(lambda a, b: a * b, inner, leaves),
            st.builds(lambda a, n: a / n, inner, st.sampled_from([3, 7, 8, 10, 49, *divisors])),
            st.builds(lambda f, a: f(a), st.sampled_from([sp.ceiling, sp.floor, sp.Abs]), inner),
            st.builds(lambda f, a, b: f(a, b), st.sampled_from([sp.Max, sp.Min]), inner, inner),
            st.builds(lambda a, n: a - n * sp.floor(a / n), inner, st.sampled_from([2, 3, 5])),
            st.builds(
                lambda c, a, b: sp.Piecewise((a, c), (b, True)), condition | joint, inner, inner
            ),
        )

    return st.recursive(leaves, grow, max_leaves=7)


POINTS = {"x": [0, 1, 3, 7, 16, 49], "y": [1, 2, 3, 21, 5, 98], "z": [2, 0, 9, 4, 128, 31]}
COLUMNS = {n: column(*values) for n, values in POINTS.items()}


@settings(max_examples=80, deadline=None)
@given(expressions())
def test_every_formula_gives_what_sympy_gives(expr: sp.Expr) -> None:
    found = compile_formula(expr)(COLUMNS).expand(6)
    assert found.tolist() == exact(expr, COLUMNS)


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_what_is_rounded_is_exact(expr: sp.Expr) -> None:
    rounded = sp.ceiling(expr) + 1000 * sp.floor(expr)
    assert compile_formula(rounded)(COLUMNS).expand(6).tolist() == exact(rounded, COLUMNS)


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_every_choice_of_static_columns_gives_the_same(expr: sp.Expr) -> None:
    formula = compile_formula(expr)
    expected = formula(COLUMNS).expand(6).tolist()
    for chosen in chain.from_iterable(combinations(formula.names, n) for n in range(4)):
        remaining = formula.specialize({n: COLUMNS[n] for n in chosen})
        assert remaining.names == tuple(n for n in formula.names if n not in chosen)
        assert remaining(COLUMNS).expand(6).tolist() == expected


def test_gap8_formula_equals_sympy() -> None:
    columns = sizes(30, ("oh", "ow", "kh", "kw", "cin", "cout"))
    assert compile_formula(GAP8)(columns).tolist() == exact(GAP8, columns)


def test_division_is_not_by_the_reciprocal() -> None:
    x = torch.arange(1, 5000, dtype=torch.float64)
    assert value(sp.floor(X / 49), x=49 * x) == x.tolist()


def test_numbers_above_and_below_the_line_become_one_division() -> None:
    assert value(sp.floor(X / 3 + Y / 7 + sp.Rational(11, 21)), x=1, y=1) == [1]


def test_a_sum_over_symbolic_denominators_is_rounded_once() -> None:
    expr = sp.ceiling(X / Y + Z / (3 * Y))
    columns = sizes(200)
    assert compile_formula(expr)(columns).tolist() == exact(expr, columns)


def test_a_comparison_of_quotients_is_exact() -> None:
    thirds = sp.Add(*[X / 3] * 1, evaluate=False)
    assert value(sp.Eq(thirds + X / 7, sp.Rational(10, 21) * Y), x=3, y=3) == [True]


def test_decimal_tables_divide_exactly() -> None:
    # 6.6 / 2.2 is 2.9999999999999996 in floating point
    data = SimpleNamespace(name="t", axes=(("bits", (Fraction(8),)),), values=(Fraction("2.2"),))
    look_up = type("t", (sp.Function,), {"table": data})
    assert value(sp.Rational("6.6") * X / look_up(Y), x=1, y=8) == [3]


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_roots_of_perfect_powers_are_whole(degree: int) -> None:
    whole = torch.arange(0, 500, dtype=torch.float64)
    power = sp.Pow(X, sp.Rational(1, degree))
    assert value(sp.ceiling(power), x=whole**degree) == whole.tolist()


def test_roots_of_products_are_taken_last() -> None:
    assert value(sp.ceiling(sp.sqrt(8 * X)), x=column(2, 8, 0)) == [4, 8, 0]


@pytest.mark.parametrize("base", [2, 3, 10])
def test_logarithms_of_powers_are_whole(base: int) -> None:
    powers = [base**n for n in range(15)]
    assert value(sp.ceiling(sp.log(X) / sp.log(base)), x=column(*powers)) == list(range(15))


def test_whole_powers_are_exact() -> None:
    assert value(X**5 + 2**Y, x=column(3, 11), y=column(40, 7)) == [3**5 + 2**40, 11**5 + 2**7]


def test_half_and_negative_powers() -> None:
    assert value(X ** sp.Rational(-3, 2) + X ** sp.Rational(3, 2), x=4) == [8.125]


def test_exponentials_and_constants() -> None:
    assert value(sp.exp(X) + sp.pi * sp.sqrt(2), x=1) == pytest.approx(
        [float(sp.E + sp.pi * sp.sqrt(2))]
    )


def test_huge_rational_constants_cancel() -> None:
    expr = sp.Mul(X, sp.Rational(10**400, 10**399 * 3), evaluate=False)
    assert value(expr, x=3) == [10]


@pytest.mark.parametrize("number", [sp.Integer(10) ** 400, sp.Rational(1, 10**400)])
def test_constants_beyond_floating_point_are_refused(number: sp.Rational) -> None:
    with pytest.raises(FormulaError, match="too large or too small"):
        compile_formula(X * number)


@pytest.mark.parametrize(
    "expr", [sp.sin(X), X * sp.I, sp.gamma(X), sp.Symbol("A", commutative=False) ** sp.I]
)
def test_what_formulas_do_not_have_is_refused(expr: sp.Expr) -> None:
    with pytest.raises(FormulaError, match="formulas have no"):
        compile_formula(expr)


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(FormulaError, match="division by zero"):
        compile_formula(X + sp.zoo)


def test_text_is_not_compiled() -> None:
    with pytest.raises(TypeError, match="expected a sympy expression, not str"):
        compile_formula("x + 1")


def test_names_are_the_sorted_free_symbols() -> None:
    assert compile_formula(GAP8).names == ("cin", "cout", "kh", "kw", "oh", "ow")


def test_conditions_give_booleans() -> None:
    expr = sp.And(X > 1, sp.Or(sp.Eq(Y, 2), sp.Not(Z <= 3)))
    columns = sizes(50, most=5)
    assert compile_formula(expr)(columns).tolist() == exact(expr, columns)


def test_true_is_a_formula() -> None:
    assert compile_formula(sp.true)({}).item() is True


def test_a_constant_has_no_rows() -> None:
    assert compile_formula(sp.Integer(256))({}).shape == ()


def test_the_branch_not_taken_is_not_computed() -> None:
    expr = sp.Piecewise((RATE(X, 8), X > 0), (0, True))
    assert value(expr, x=column(0, 4)) == [0, 0.3]


def test_later_conditions_are_not_computed_where_an_earlier_one_holds() -> None:
    expr = sp.Piecewise((0, sp.Eq(X, 0)), (1, RATE(X, 8) > sp.Rational(2, 10)), (2, True))
    assert value(expr, x=column(0, 2, 8)) == [0, 2, 1]


def test_the_first_condition_that_holds_decides() -> None:
    expr = sp.Piecewise((X / 3, X > 8), (Y / 7, X > 4), (X * Y, X > 1), (Z, True))
    columns = sizes(100, most=12)
    assert compile_formula(expr)(columns).tolist() == exact(expr, columns)


def test_no_case_for_a_row_is_an_error() -> None:
    with pytest.raises(CostError, match="none of the formula's cases applies"):
        value(sp.Piecewise((1, X > 1)), x=column(2, 0))


def test_cases_for_all_rows_are_no_error() -> None:
    assert value(sp.Piecewise((X, X > 1), (1 / X, X > 0)), x=column(2, 4)) == [2, 4]


def test_look_ups_match_every_axis() -> None:
    columns = {"x": column(2, 2, 4, 4, 8, 8), "y": column(8, 2, 8, 2, 8, 2)}
    found = compile_formula(RATE(X, Y))(columns).tolist()
    assert found == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_a_look_up_beside_its_axis_names_the_axis() -> None:
    message = r"^rate\[3, 8\]: a_bits has no 3; known: 2, 4, 8$"
    with pytest.raises(FormulaError, match=message):
        value(RATE(X, Y), x=column(2, 3), y=column(8, 8))


def test_a_look_up_with_a_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises(FormulaError, match="'rate' has 2 axes, not 1"):
        compile_formula(RATE(X))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(WorkloadError, match="no column 'y'; the formula reads x, y"):
        value(X + Y, x=1)


def test_unequal_columns_are_an_error() -> None:
    with pytest.raises(WorkloadError, match=r"x \(2,\), y \(3,\)"):
        value(X + Y, x=column(1, 2), y=column(1, 2, 3))


def test_static_and_dynamic_columns_of_unequal_length_are_an_error() -> None:
    formula = compile_formula(X + Y).specialize({"x": column(1, 2)})
    with pytest.raises(WorkloadError, match="do not fit"):
        formula({"y": column(1, 2, 3)})


@pytest.mark.parametrize("shape", [(), (1,), (4,)])
def test_columns_are_repeated_to_all_rows(shape: tuple[int, ...]) -> None:
    found = compile_formula(X / Y)({"x": torch.full(shape, 6.0).double(), "y": column(1, 2, 3, 4)})
    assert found.tolist() == [6, 3, 2, 1.5]


def test_scalars_give_a_scalar() -> None:
    assert compile_formula(sp.ceiling(X / 4))({"x": torch.tensor(7.0)}).shape == ()


def test_no_rows_give_no_rows() -> None:
    expr = sp.Piecewise((1 / X, X > 0), (RATE(X, 8) + sp.Max(X, 3), True))
    assert value(expr, x=column()) == []


def test_repeated_columns_need_no_memory_of_their_own() -> None:
    x = torch.tensor(8.0, dtype=torch.float64).expand(5)
    assert value(RATE(X, 8) + X, x=x) == [8.5] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_has_the_columns_dtype(dtype: torch.dtype) -> None:
    expr = sp.Piecewise((2, X > 3), (5, True)) * X / 3 + sp.Max(X, 7) + RATE(8, 2)
    assert compile_formula(expr)({"x": column(1, 5, dtype=dtype)}).dtype == dtype


def test_float32_is_exact_while_numbers_are_small() -> None:
    columns = sizes(30, ("oh", "ow", "kh", "kw", "cin", "cout"), most=9)
    narrow = {n: c.float() for n, c in columns.items()}
    assert compile_formula(GAP8)(narrow).tolist() == exact(GAP8, columns)


def test_static_float32_columns_keep_the_dtype() -> None:
    expr = sp.Piecewise((2, X > 3), (5, True)) * Y
    formula = compile_formula(expr).specialize({"x": column(1, 5, dtype=torch.float32)})
    assert formula({"y": column(1, 1, dtype=torch.float32)}).dtype == torch.float32


def test_whole_number_tensors_are_computed_in_float64() -> None:
    found = compile_formula(X / 3)({"x": torch.tensor([2**40 + 1])})
    assert found.tolist() == [(2**40 + 1) / 3]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_in_every_grad_mode(mode: Callable[[], Any]) -> None:
    with mode():
        assert value(sp.ceiling(X / Y), x=column(7, 9), y=column(2, 3)) == [4, 3]


def test_many_rows_equal_few_rows() -> None:
    columns = sizes(CHUNK + 1000, ("x", "y"))
    formula = compile_formula(sp.Piecewise((X / Y, X > Y), (sp.ceiling(Y / 3), True)))
    ends = torch.cat(
        [formula({n: c[i : i + 900] for n, c in columns.items()}) for i in (0, CHUNK + 100)]
    )
    whole = formula(columns)
    assert torch.equal(torch.cat([whole[:900], whole[CHUNK + 100 :]]), ends)


def test_static_columns_that_the_formula_does_not_read_are_ignored() -> None:
    formula = compile_formula(X + 1)
    assert formula.specialize({"oh": column(3)}) is formula


def test_specialising_in_two_steps_equals_one() -> None:
    columns = sizes(10, ("oh", "ow", "kh", "kw", "cin", "cout"))
    formula = compile_formula(GAP8)
    half = formula.specialize({n: columns[n] for n in ("oh", "kw")})
    full = half.specialize({n: columns[n] for n in ("ow", "kh", "cin")})
    assert full(columns).tolist() == formula(columns).tolist()


def test_a_static_condition_selects_its_rows_in_advance() -> None:
    formula = compile_formula(sp.Piecewise((1 / Y, X > 0), (Y / 3, True)))
    static = formula.specialize({"x": column(0, 1, 0)})
    assert static({"y": column(0, 4, 6)}).tolist() == [0, 0.25, 2]


def test_a_static_condition_that_holds_everywhere_drops_the_other_branch() -> None:
    formula = compile_formula(sp.Piecewise((Y, X > 0), (sp.sqrt(Y), True)))
    static = formula.specialize({"x": column(1, 1)})
    assert len(static.program.steps) == 0


def test_a_formula_that_became_constant_still_has_all_rows() -> None:
    formula = compile_formula(sp.Piecewise((3, X > 0), (Y, True)))
    program = formula.specialize({"x": column(1)}).program
    assert program.run(column(7, 8), [column(7, 8)]).tolist() == [3, 3]


def test_shared_parts_are_computed_once() -> None:
    shared = sp.ceiling(X * Y / 7)
    once = compile_formula(shared + 1)
    twice = compile_formula((shared + 1) * (shared + 2))
    assert len(twice.program.steps) == len(once.program.steps) + 2


def test_formulas_pickle() -> None:
    formula = compile_formula(sp.Piecewise((RATE(X, 8) / Y, Y > 1), (3, True)))
    static = formula.specialize({"y": column(2, 1)})
    again = pickle.loads(pickle.dumps(static))
    assert again({"x": column(2, 4)}).tolist() == [0.05, 3]


def test_formulas_serve_several_threads() -> None:
    formula = compile_formula(GAP8)
    tables = [sizes(100 + i, ("oh", "ow", "kh", "kw", "cin", "cout")) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(formula, tables))
    assert all(torch.equal(f, formula(t)) for f, t in zip(found, tables, strict=True))


def test_columns_are_not_changed() -> None:
    columns = sizes(20)
    before = {n: c.clone() for n, c in columns.items()}
    compile_formula(sp.Max(sp.ceiling(X / 3), Y, Z) * X)(columns)
    assert all(torch.equal(columns[n], before[n]) for n in columns)


def test_deep_formulas_compile() -> None:
    expr: sp.Expr = X
    for i in range(3000):
        expr = sp.Add(sp.Mul(expr, Y, evaluate=False), sp.Integer(i % 3), evaluate=False)
    assert value(expr, x=1, y=0) == [2999 % 3]


def test_shared_parts_do_not_multiply_the_work() -> None:
    expr: sp.Expr = X
    for _ in range(60):
        expr = sp.Add(
            sp.Mul(expr, sp.Rational(1, 2), evaluate=False),
            sp.floor(expr, evaluate=False),
            evaluate=False,
        )
    assert len(compile_formula(expr).program.steps) < 300


def test_cases_that_all_need_a_part_share_it() -> None:
    expr: sp.Expr = X
    for i in range(20):
        expr = sp.Piecewise((expr + 1, i < Y), (expr * 2, True), evaluate=False)
    assert value(expr, x=1, y=20) == [21]


def test_cases_that_would_multiply_are_refused() -> None:
    expr: sp.Expr = X
    for i in range(30):
        one = sp.Piecewise((expr, i < Y), (0, True), evaluate=False)
        expr = sp.Add(one, sp.Piecewise((expr, i < Z), (1, True), evaluate=False), evaluate=False)
    with pytest.raises(FormulaError, match="too large"):
        compile_formula(expr)


def test_few_rows_are_computed_like_many() -> None:
    x, y = sp.symbols("x y", nonnegative=True)
    case = sp.Piecewise((sp.ceiling(x / 3) * y, x > y), (sp.Max(x, 7) / y, True))
    formula = compile_formula(sp.Min(case, 40) + sp.Mod(x, 5))
    many = {
        n: torch.randint(1, 50, (3000,), dtype=torch.float64).requires_grad_() for n in ("x", "y")
    }
    few = {n: c[:20].detach().requires_grad_() for n, c in many.items()}
    of_many = torch.autograd.grad(formula(many).sum(), list(many.values()))
    of_few = torch.autograd.grad(formula(few).sum(), list(few.values()))
    assert torch.equal(formula(few), formula(many)[:20])
    assert all(torch.equal(a, b[:20]) for a, b in zip(of_few, of_many, strict=True))


def test_slopes_that_are_one_array_become_two_tensors() -> None:
    x, y = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    formula = compile_formula(sp.Symbol("x") + sp.Symbol("y"))
    formula({"x": x, "y": y}).sum().backward()
    assert x.grad is not None and y.grad is not None
    x.grad += 1
    assert y.grad.tolist() == [1, 1, 1]
