import copy
import math
import pickle
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from hwcost.errors import DescriptorError, FormulaError
from hwcost.formula import (
    Scope,
    Table,
    check_name,
    make_table,
    measure,
    parse,
    parse_condition,
    symbol,
)
from hwcost.formula_nodes import Absolute, Ceil, Floor, Maximum, Minimum, Where
from hwcost.units import Dimension

BITS = (Fraction(2), Fraction(4), Fraction(8))
VALUES = tuple(map(Fraction, ("6.5", "4", "2.2", "3.9", "3.5", "2.1", "2.5", "2.3", "2.1")))
MPIC = Table("macs_per_cycle", (("a_bits", BITS), ("w_bits", BITS)), VALUES, Dimension.none())
SIZES = ("cin", "cout", "kh", "kw", "a_bits", "w_bits")
SCOPE = Scope(
    {name: symbol(name) for name in (*SIZES, "l2.size", "depthwise")}
    | {"taps": symbol("kh") * symbol("kw")},
    {"macs_per_cycle": make_table(MPIC)},
)
cin, cout, kh, kw, a_bits, w_bits = map(symbol, SIZES)


def at(text: str | float, **sizes: float) -> sympy.Expr:
    numbers = {symbol(name): sympy.Rational(str(value)) for name, value in sizes.items()}
    return parse(text, SCOPE).xreplace(numbers)


def refused(text: str) -> str:
    with pytest.raises(FormulaError) as error:
        parse(text, SCOPE)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cin + 2*cout - kh", cin + 2 * cout - kh),
        ("cin/cout/2", cin / cout / 2),
        ("2**3**2", 512),
        ("-2**2", -4),
        ("-7 // 2", -4),
        ("7 % -3", -2),
        ("cin // 4", Floor(cin / 4)),
        ("cin % 4", cin - 4 * Floor(cin / 4)),
        ("ceil(cout / 4)", Ceil(cout / 4)),
        ("18.2", sympy.Rational(91, 5)),
        (18.2, sympy.Rational(91, 5)),
        (1e-7, sympy.Rational(1, 10**7)),
        ("1e6", 10**6),
        ("0.1 + 0.2", sympy.Rational(3, 10)),
        ("12345678901234567890.125", sympy.Rational(98765431209876543121, 8)),
        (7, 7),
        ("l2.size / 2", symbol("l2.size") / 2),
        ("taps * cin", kh * kw * cin),
        ("sqrt(16)", 4),
        ("sqrt(cin)", sympy.sqrt(cin)),
        ("log2(8)", 3),
        ("ceil(log2(9))", 4),
        ("floor(log2(9007199254740991))", 52),
        ("exp(cin)", sympy.exp(cin)),
        ("2**a_bits", 2**a_bits),
        ("cin**0.5", sympy.sqrt(cin)),
        ("abs(cin - 3)", Absolute(cin - 3)),
        ("min(cin, 3, 2)", Minimum(cin, 2)),
        ("max(cin, 3, 2)", Maximum(cin, 3)),
        ("max(2, 3)", 3),
        ("abs(2 - 3)", 1),
        ("where(1 < 2, cin, cout)", cin),
        ("where(1 == 0, cin, cout)", cout),
        ("ceil(cin\n  / 4)\n", Ceil(cin / 4)),
        ("macs_per_cycle[2, 8]", sympy.Rational("2.2")),
        ("macs_per_cycle[8, 2]", sympy.Rational("2.5")),
    ],
)
def test_a_formula_is_what_it_says(text: str | float, expected: sympy.Expr) -> None:
    assert parse(text, SCOPE) == expected


def test_an_irrational_constant_has_30_digits() -> None:
    assert parse("sqrt(2)", SCOPE) == sympy.Rational(str(sympy.sqrt(2).evalf(30)))
    assert float(parse("exp(1)", SCOPE)) == math.e


def test_ceil_of_a_size_is_kept() -> None:
    assert at("ceil(cout)", cout=2.5) == 3


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("cin > 3", {"cin": 4}, {"cin": 3}),
        ("not cin > 3", {"cin": 3}, {"cin": 4}),
        ("2 < cin <= 4", {"cin": 4}, {"cin": 2}),
        ("not 2 < cin <= 4", {"cin": 5}, {"cin": 3}),
        ("cin == 3 or cout == 3", {"cin": 1, "cout": 3}, {"cin": 1, "cout": 1}),
        ("not (cin == 3 or cout == 3)", {"cin": 1, "cout": 1}, {"cin": 3, "cout": 1}),
        ("cin != 3 and cout >= 3", {"cin": 1, "cout": 3}, {"cin": 3, "cout": 3}),
        ("cin == cout", {"cin": 2, "cout": 2}, {"cin": 2, "cout": 3}),
        ("cin % 2 == 0", {"cin": 2}, {"cin": 3}),
    ],
)
def test_a_condition_is_what_it_says(
    text: str, holds: dict[str, int], fails: dict[str, int]
) -> None:
    condition = parse_condition(text, SCOPE)
    for sizes, truth in ((holds, True), (fails, False)):
        numbers = {symbol(name): sympy.Integer(size) for name, size in sizes.items()}
        assert condition.xreplace(numbers) == truth


def test_a_name_can_stand_for_a_condition() -> None:
    depthwise = symbol("depthwise")
    assert parse_condition("depthwise", SCOPE) == depthwise
    assert parse_condition("not depthwise", SCOPE) == sympy.Not(depthwise)
    chosen = parse("where(depthwise, cin, cout)", SCOPE)
    assert chosen.xreplace({depthwise: sympy.Gt(cin, 3)}).xreplace({cin: sympy.Integer(4)}) == 4


def test_joined_conditions_are_one_and() -> None:
    condition = parse_condition("cin > 1 and (kh > 1 and 1 < kw < 3)", SCOPE)
    assert isinstance(condition, sympy.And) and len(condition.args) == 4


DIANA = "largest(u in [8, 4, 2, 1], u*cout <= 512 and (u + kw - 1)*max(64, cin)*kh <= 1152)"


@pytest.mark.parametrize(
    ("cin", "cout", "k", "u"),
    [
        (3, 16, 1, 8),
        (3, 64, 3, 4),
        (16, 64, 3, 4),
        (128, 64, 3, 1),
        (3, 600, 1, 1),
        (64, 512, 3, 1),
    ],
)
def test_largest_is_the_largest_that_fits_or_the_smallest(
    cin: int, cout: int, k: int, u: int
) -> None:
    fits = [c for c in (8, 4, 2, 1) if c * cout <= 512 and (c + k - 1) * max(64, cin) * k <= 1152]
    assert max(fits, default=1) == u
    assert at(DIANA, cin=cin, cout=cout, kh=k, kw=k) == u


def test_largest_takes_its_list_in_any_order() -> None:
    assert at("largest(x in [1, 5, 3, 3], x <= cin)", cin=4) == 3
    assert at("largest(x in [1, 5, 3, 3], x <= cin)", cin=0) == 1
    assert at("largest(x in [7], x <= cin)", cin=0) == 7


def test_largest_nests_and_its_name_ends_with_it() -> None:
    text = "largest(x in [1, 2, 3], largest(y in [1, 2, 3], x*y <= cin) >= x)"
    assert at(text, cin=4) == 2
    assert "unknown name 'x'" in refused("largest(x in [1, 2], x < cin) + x")


def test_arguments_of_min_and_max_stay_in_order() -> None:
    assert str(parse("max(kw, cin, 3)", SCOPE)) == "max(kw, cin, 3)"


def test_where_keeps_its_conditions_as_they_are_written() -> None:
    text = "where(2*cin - 2 > 4, cin, 1)"
    assert str(parse(text, SCOPE)) == text


def test_where_takes_nothing_from_the_branch_not_taken() -> None:
    assert at("where(cin > 0, 1/cin, 0)", cin=0) == 0


def test_a_lookup_stays_symbolic_until_its_indices_are_numbers() -> None:
    lookup = parse("cin / macs_per_cycle[a_bits, w_bits]", SCOPE)
    assert lookup.free_symbols == {cin, a_bits, w_bits}
    numbers = {cin: sympy.Integer(13), a_bits: sympy.Integer(2), w_bits: sympy.Integer(2)}
    assert lookup.xreplace(numbers) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs_per_cycle[3, 8]", "macs_per_cycle[3, 8]: a_bits has no 3; known: 2, 4, 8"),
        ("macs_per_cycle[a_bits, 3]", "macs_per_cycle[a_bits, 3]: w_bits has no 3; known: 2, 4, 8"),
        ("macs_per_cycle[2]", "'macs_per_cycle' has 2 axes, not 1"),
        ("macs_per_cycle[2, 4, 8]", "'macs_per_cycle' has 2 axes, not 3"),
        ("macs_per_cycle", "'macs_per_cycle' is a table; write macs_per_cycle[a_bits, w_bits]"),
        ("mac_per_cycle[2, 4]", "unknown table 'mac_per_cycle'"),
    ],
)
def test_a_wrong_lookup_says_what_is_right(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_a_lookup_off_its_axes_is_an_error_when_sizes_are_put_in() -> None:
    with pytest.raises(FormulaError, match="a_bits has no 16"):
        at("macs_per_cycle[a_bits, w_bits]", a_bits=16, w_bits=2)


def test_a_lookup_prints_as_it_is_written() -> None:
    lookup = parse("2*macs_per_cycle[a_bits, w_bits]", SCOPE)
    assert str(lookup) == "2*macs_per_cycle[a_bits, w_bits]"
    assert r"\mathrm{macs\_per\_cycle}\left[a_{bits}, w_{bits}\right]" in sympy.latex(lookup)


def test_two_tables_alike_are_one() -> None:
    first = make_table(MPIC)(a_bits, w_bits)
    make_table.cache_clear()
    again = make_table(MPIC)(a_bits, w_bits)
    assert first == again and hash(first) == hash(again)
    other = make_table(Table("macs_per_cycle", MPIC.axes, VALUES[::-1], MPIC.dimension))
    assert other(a_bits, w_bits) != first


@pytest.mark.parametrize(
    ("axes", "values", "message"),
    [
        ((("a_bits", BITS),), VALUES, "'t' has 9 values; expected 3"),
        ((("a_bits", ()),), (), "'t' has 0 values"),
        ((("a_bits", (*BITS, BITS[0])),), VALUES[:4], "axis 'a_bits' of 't' has a value twice"),
    ],
)
def test_a_table_has_one_value_for_each_combination(
    axes: tuple[tuple[str, tuple[Fraction, ...]], ...],
    values: tuple[Fraction, ...],
    message: str,
) -> None:
    with pytest.raises(DescriptorError, match=message):
        Table("t", axes, values, Dimension.none())


EVERYTHING = (
    "where(cin > 3 and kw != 1, max(cin, kh), min(2*cin, kw))/macs_per_cycle[a_bits, w_bits]"
    " + ceil(cout/4)**2 + abs(cin - cout) + exp(-cin) + log2(cin) + 2**a_bits + cin % 7"
)


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_a_formula_survives_pickle_and_copy(copied: Callable[[sympy.Expr], sympy.Expr]) -> None:
    expr = parse(EVERYTHING, SCOPE)
    assert copied(expr) == expr
    assert copied(expr).atoms(Where) == expr.atoms(Where)


def test_a_formula_prints_in_latex() -> None:
    text = sympy.latex(
        parse("max(cin, 2)**2 + abs(cin - 3) + where(cin > 1, 2, 3)**2 + min(kh, kw)", SCOPE)
    )
    assert r"\max\left(cin, 2\right)^{2}" in text
    assert r"\left|cin - 3\right|" in text
    assert r"\begin{cases}" in text
    assert r"\min\left(kh, kw\right)" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ceil(couts / 4)", "unknown name 'couts' in 'ceil(couts / 4)'; did you mean 'cout'?"),
        ("l2.sizes", "unknown name 'l2.sizes'; did you mean 'l2.size'?"),
        ("celi(cin)", "unknown function 'celi' in 'celi(cin)'; did you mean 'ceil'?"),
        ("round(cin)", "unknown function 'round' in 'round(cin)'; known: ceil, floor"),
        ("ceil", "'ceil' is a function; write ceil(...)"),
        ("2cin", "'2cin' is neither number nor name in '2cin'; a product is written 2*x"),
        ("cin = 2", "'=' in 'cin = 2'; compare with '=='"),
        ("cin ^ 2", "unexpected '^' in 'cin ^ 2'; a power is written a ** b"),
        ("cin & 2", "unexpected '&' in 'cin & 2'; write 'and'"),
        ("cin × 2", "unexpected '×' (multiplication sign) in 'cin × 2'"),
        ("сin", "unexpected 'с' (cyrillic small letter es) in 'сin'"),
        ("cin if cout else 2", "'if' in 'cin if cout else 2'; write where(condition, a, b)"),
        ("cin == 2", "'cin == 2' is a condition; write where(condition, a, b)"),
        ("2 + (cin > 2)", "'cin > 2' is a condition in '2 + (cin > 2)'; write where("),
        ("where(cin, 1, 2)", "'cin' is a number in 'where(cin, 1, 2)'; write a condition, such as"),
        ("where(cin+1, 1, 2)", "'cin+1' is a number in 'where(cin+1, 1, 2)'; write a condition"),
        ("depthwise + 1", "'depthwise' is a condition in 'depthwise + 1'; write where(depthwise"),
        ("1/0", "division by zero in '1/0'"),
        ("cin % (3 - 3)", "division by zero"),
        ("cin // 0.0", "division by zero"),
        ("0**-1", "division by zero"),
        ("sqrt(-4)", "the root of a negative number"),
        ("sqrt(-cin)", "the root of a negative number"),
        ("log2(0)", "log2(0)"),
        ("ceil(", "'(' was never closed in 'ceil('"),
        ("cin +", "invalid syntax in 'cin +'"),
        ("min(cin)", "1 instead of 2 to 32 arguments of min() in 'min(cin)'"),
        ("ceil(cin, 2)", "2 instead of 1 arguments of ceil()"),
        ("largest(cin, 2)", "largest() needs a list"),
        ("largest(cin in [1, 2], cin > 3)", "'cin' has a meaning already"),
        ("largest(u in [cin, 2], u > 3)", "largest() needs 1 to 64 plain numbers"),
        ("cin**cout", "a size in an exponent in 'cin**cout'; only of a positive number"),
        ("", "the formula is empty"),
        (" \n", "the formula is empty"),
        (True, "'True' is not a formula"),
        (None, "'None' is not a formula"),
        (float("nan"), "unknown name 'nan'"),
        (float("inf"), "unknown name 'inf'"),
    ],
)
def test_a_wrong_formula_says_what_would_be_right(text: str, message: str) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize("text", ["cin", "cin + 1", "1", "ceil(cin)", "-cin"])
def test_a_number_is_not_a_condition(text: str) -> None:
    with pytest.raises(FormulaError, match="is a number"):
        parse_condition(text, SCOPE)


@pytest.mark.parametrize("name", ["clock", "N", "p_dig", "S", "x1", "macs"])
def test_a_plain_name_is_allowed(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("len", "'len' is a Python builtin; choose another name"),
        ("max", "'max' is a function of formulas; choose another name"),
        ("largest", "'largest' is a function of formulas"),
        ("lambda", "'lambda' is a word of Python"),
        ("None", "'None' is a word of Python"),
        ("pi", "'pi' is a constant of sympy"),
        ("_x", "'_x' is not a name; use letters, digits and _, a letter first"),
        ("2x", "'2x' is not a name"),
        ("p dig", "'p dig' is not a name"),
        ("с", "'с' is not a name"),
        ("x\n", "is not a name"),
        ("", "'' is not a name"),
        ("x" * 1000, "is not a name"),
    ],
)
def test_a_name_with_a_meaning_is_refused(name: str, message: str) -> None:
    with pytest.raises(FormulaError) as error:
        check_name(name)
    assert message in str(error.value)


def test_shared_parts_count_wherever_they_appear() -> None:
    shared = parse("cin + 1", SCOPE)
    assert measure(shared).nodes == 3
    assert measure(shared * Ceil(shared / 2)).nodes > 2 * 3


class Tree(NamedTuple):
    """A formula's text and what plain Python computes for it."""

    text: str
    value: Callable[[Mapping[str, Fraction]], Fraction]


def binary(sign: str, compute: Callable[[Fraction, Fraction], Fraction]) -> Callable[..., Tree]:
    return lambda a, b: Tree(
        f"({a.text} {sign} {b.text})", lambda s: compute(a.value(s), b.value(s))
    )


def call(name: str, compute: Callable[..., Fraction]) -> Callable[..., Tree]:
    return lambda *args: Tree(
        f"{name}({', '.join(arg.text for arg in args)})",
        lambda s: compute(*(arg.value(s) for arg in args)),
    )


def where(sign: str, compare: Callable[[Fraction, Fraction], bool]) -> Callable[..., Tree]:
    return lambda a, b, c, d: Tree(
        f"where({a.text} {sign} {b.text}, {c.text}, {d.text})",
        lambda s: c.value(s) if compare(a.value(s), b.value(s)) else d.value(s),
    )


def largest(a: Tree) -> Tree:
    choices = (8, 4, 2, 1)
    return Tree(
        f"largest(u in [8, 4, 2, 1], u*4 <= {a.text})",
        lambda s: Fraction(max((u for u in choices if u * 4 <= a.value(s)), default=1)),
    )


def divisor(tree: Tree) -> Tree:
    return Tree(f"(abs({tree.text}) + 1)", lambda s: abs(tree.value(s)) + 1)


def named(name: str) -> Tree:
    return Tree(name, lambda sizes: sizes[name])


leaves = st.sampled_from([named(name) for name in ("cin", "cout", "kh", "kw")]) | st.decimals(
    0, 99, places=1
).map(lambda d: Tree(str(d), lambda _: Fraction(str(d))))


def grown(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    over = inner.map(divisor)
    return st.one_of(
        st.builds(binary("+", lambda a, b: a + b), inner, inner),
        st.builds(binary("-", lambda a, b: a - b), inner, inner),
        st.builds(binary("*", lambda a, b: a * b), inner, inner),
        st.builds(binary("/", lambda a, b: a / b), inner, over),
        st.builds(binary("//", lambda a, b: Fraction(a // b)), inner, over),
        st.builds(binary("%", lambda a, b: a % b), inner, over),
        st.builds(lambda a: Tree(f"({a.text})**2", lambda s: a.value(s) ** 2), inner),
        st.builds(lambda a: Tree(f"-{a.text}", lambda s: -a.value(s)), inner),
        st.builds(call("ceil", lambda a: Fraction(math.ceil(a))), inner),
        st.builds(call("floor", lambda a: Fraction(math.floor(a))), inner),
        st.builds(call("abs", abs), inner),
        st.builds(call("max", max), inner, inner, inner),
        st.builds(call("min", min), inner, inner),
        st.builds(where("<", lambda a, b: a < b), inner, inner, inner, inner),
        st.builds(where("==", lambda a, b: a == b), inner, inner, inner, inner),
        st.builds(where(">=", lambda a, b: a >= b), inner, inner, inner, inner),
        st.builds(largest, leaves),
    )


sizes = st.integers(0, 1000).map(Fraction)


@given(st.recursive(leaves, grown, max_leaves=12), sizes, sizes, sizes, sizes)
def test_a_random_formula_has_the_value_that_python_computes(
    tree: Tree, cin: Fraction, cout: Fraction, kh: Fraction, kw: Fraction
) -> None:
    values = {"cin": cin, "cout": cout, "kh": kh, "kw": kw}
    expr, due = parse(tree.text, SCOPE), sympy.Rational(str(tree.value(values)))
    numbers = {symbol(name): sympy.Rational(str(value)) for name, value in values.items()}
    assert expr.xreplace(numbers) == due
    assert pickle.loads(pickle.dumps(expr)).xreplace(numbers) == due
