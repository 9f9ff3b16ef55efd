from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.errors import UnitError
from hwcost.units import BASES, Dimension, engineering, parse_quantity, parse_unit

S, J, B, CYCLE, OP = map(Dimension.of, BASES)


@pytest.mark.parametrize(
    ("text", "value", "dimension"),
    [
        ("24.96 mW", Fraction(312, 12500), J / S),
        ("260 MHz", Fraction(260_000_000), CYCLE / S),
        ("12.5 ms", Fraction(1, 80), S),
        ("12.5ms", Fraction(1, 80), S),
        ("2 pJ/op", Fraction(2, 10**12), J / OP),
        ("2 pJ/MAC", Fraction(2, 10**12), J / OP),
        ("0.22 B/cycle", Fraction(11, 50), B / CYCLE),
        ("100 GB/s", Fraction(10**11), B / S),
        ("3.3e-12 J", Fraction(33, 10**13), J),
        ("15 %", Fraction(3, 20), Dimension.none()),
        ("64 KiB", Fraction(65536), B),
        ("1 kB", Fraction(1000), B),
        ("8 bit", Fraction(1), B),
        ("1 Gbit/s", Fraction(125_000_000), B / S),
        ("2 min", Fraction(120), S),
        ("2 h", Fraction(7200), S),
        ("1 Wh", Fraction(3600), J),
        ("3 µs", Fraction(3, 10**6), S),
        ("3 μs", Fraction(3, 10**6), S),
        ("3 us", Fraction(3, 10**6), S),
        ("21.6 V*mA", Fraction(216, 10**4), J / S),
        ("5 W*cycle", Fraction(5), J / S * CYCLE),
        ("4 J/(s*op)", Fraction(4), J / S / OP),
        ("4 J/s/op", Fraction(4), J / S / OP),
        ("4 mm", None, None),
        ("2 ms^2", Fraction(2, 10**6), S**2),
        ("2 s**-1", Fraction(2), S**-1),
        ("5 1/s", Fraction(5), S**-1),
        ("3 cycles", Fraction(3), CYCLE),
        ("1.5 GMACs", Fraction(15 * 10**8), OP),
        ("-2 J", Fraction(-2), J),
        (".5 s", Fraction(1, 2), S),
        ("260", Fraction(260), Dimension.none()),
        (260, Fraction(260), Dimension.none()),
        (0.1, Fraction(1, 10), Dimension.none()),
        ("1e6", Fraction(10**6), Dimension.none()),
    ],
)
def test_a_quantity_is_exact_in_si_units(
    text: str | float, value: Fraction | None, dimension: Dimension | None
) -> None:
    if value is None:
        with pytest.raises(UnitError):
            parse_quantity(text)
    else:
        quantity = parse_quantity(text)
        assert (quantity.value, quantity.dimension) == (value, dimension)


def test_a_quantity_remembers_its_text() -> None:
    assert parse_quantity("24.96 mW").text == "24.96 mW"


def test_cycles_over_clock_is_time() -> None:
    clock = parse_quantity("260 MHz")
    assert CYCLE / clock.dimension == S


def test_a_unit_is_its_scale() -> None:
    assert parse_unit("mJ").value == Fraction(1, 1000)
    assert parse_unit("op/cycle").dimension == OP / CYCLE
    assert parse_unit("1").dimension == Dimension.none()
    assert parse_unit(1).value == 1


@pytest.mark.parametrize("text", ["5 s", "1000 J", "2", "", "s J", "1/", "s/", "*s", "s^", "()"])
def test_what_is_not_a_unit_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="as a unit"):
        parse_unit(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("260 MHZ", "unknown unit 'MHZ' in '260 MHZ'; did you mean 'MHz'?"),
        ("260 mhz", "unknown unit 'mhz' in '260 mhz'; did you mean 'MHz'?"),
        ("5 mw", "unknown unit 'mw' in '5 mw'; did you mean 'mW'?"),
        ("5 uS", "unknown unit 'uS' in '5 uS'; did you mean 'us'?"),
        ("5 mB", "unknown unit 'mB' in '5 mB'; did you mean 'MB'?"),
        ("5 KB", "unknown unit 'KB' in '5 KB'; write 'kB' (1000 B) or 'KiB' (1024 B)"),
        ("3 GFLOPs", "unknown unit 'GFLOPs' in '3 GFLOPs'; flop is ambiguous, 1 MAC = 1 op"),
        ("3 FLOP", "unknown unit 'FLOP' in '3 FLOP'; flop is ambiguous, 1 MAC = 1 op"),
        ("3 TOPS", "unknown unit 'TOPS' in '3 TOPS'; write 'Top/s', where 1 op is one"),
        ("3 Mbps", "unknown unit 'Mbps' in '3 Mbps'; write 'Mbit' for bits or 'MB' for bytes"),
        ("3 Ws", "unknown unit 'Ws' in '3 Ws'"),
        ("3 kiJ", "unknown unit 'kiJ'"),
        ("3 KiJ", "unknown unit 'KiJ'"),
        ("3 mA", "'3 mA' holds a current"),
        ("1e99 s", "'1e99 s' is out of range"),
        ("ms", "'ms' is not a number with a unit"),
        ("nan", "'nan' is not a number"),
        ("inf s", "'inf s' is not a number"),
        ("1,5 ms", "cannot read ',5 ms' in '1,5 ms' as a unit"),
        ("5 s s", "cannot read 's s' in '5 s s' as a unit"),
    ],
)
def test_a_wrong_quantity_says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(UnitError) as error:
        parse_quantity(text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("value", [True, None, [1], float("nan"), float("inf"), 10**80])
def test_only_finite_numbers_and_text_are_quantities(value: object) -> None:
    with pytest.raises(UnitError):
        parse_quantity(value)  # type: ignore[arg-type]


def test_dimensions_multiply_divide_and_raise() -> None:
    assert S * J / S == J
    assert (S**2) ** Fraction(1, 2) == S
    assert Dimension.none().is_count and (B / CYCLE).is_count and (OP * OP).is_count
    assert not S.is_count and not (J / OP).is_count


@pytest.mark.parametrize(
    ("dimension", "text"),
    [(J / S, "J/s"), (B / CYCLE, "B/cycle"), (S / S, "1"), (S**-1, "1/s"), (J / S / OP, "J/s/op")],
)
def test_a_dimension_reads_as_a_unit(dimension: Dimension, text: str) -> None:
    assert str(dimension) == text
    assert parse_unit(text).dimension == dimension


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0125, "s", "12.5 ms"),
        (1.2e-9, "J", "1.2 nJ"),
        (49152, "B", "48 KiB"),
        (55296, "B", "54 KiB"),
        (512, "B", "512 B"),
        (1023, "B", "1023 B"),
        (1048575, "B", "1 MiB"),
        (12.5e6, "1", "12.5 M"),
        (12.5e6, "", "12.5 M"),
        (0.0125, "1", "0.0125"),
        (1234567, "cycle", "1.23 Mcycle"),
        (0.5, "cycle", "0.5 cycle"),
        (0.22, "B/cycle", "0.22 B/cycle"),
        (1e11, "B/s", "100 GB/s"),
        (1.5e-4, "W*cycle", "150 uW*cycle"),
        (300, "mJ", "300 mJ"),
        (3e5, "mJ", "300 J"),
        (2.5, "MB", "2.38 MiB"),
        (0.99996, "s", "1 s"),
        (999.96, "s", "1 ks"),
        (-0.002, "s", "-2 ms"),
        (0, "s", "0 s"),
        (0, "B", "0 B"),
        (5e-5, "s^2", "5e-05 s^2"),
        (15, "%", "15 %"),
        (1e-30, "s", "1e-30 s"),
        (float("nan"), "s", "-"),
        (float("inf"), "s", "inf s"),
    ],
)
def test_engineering_notation(value: float, unit: str, text: str) -> None:
    assert engineering(value, unit) == text


@given(st.floats(1e-15, 1e15), st.sampled_from(["s", "J", "W", "Hz"]))
def test_engineering_notation_reads_back_within_its_digits(value: float, unit: str) -> None:
    back = float(parse_quantity(engineering(value, unit)).value)
    assert back == pytest.approx(value, rel=5.1e-3)


@given(st.integers(0, 2**50))
def test_bytes_read_back_within_their_digits(value: int) -> None:
    back = float(parse_quantity(engineering(value, "B")).value)
    assert back == pytest.approx(value, rel=5.1e-3)


@given(st.decimals(-1000, 1000, places=6), st.sampled_from(["ms", "KiB", "pJ/op", "MHz", "%"]))
def test_decimals_are_exact(number: object, unit: str) -> None:
    assert (
        parse_quantity(f"{number} {unit}").value == Fraction(str(number)) * parse_unit(unit).value
    )
