"""Products, sums and quotients as floating-point operations, rounded once and folded early.

Known operands come first, so that they become one before a column is met.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

from hwcost.errors import FormulaError
from hwcost.steps import Operand, Slot

#: (name of a primitive, its operands) -> its value.
Apply = Callable[..., Operand]


def product(apply: Apply, exponents: Sequence[int], factors: Sequence[Operand]) -> Operand:
    """Return the product of the factors' powers."""
    powers = [_power(apply, f, e) for f, e in zip(factors, exponents, strict=True)]
    result: Operand = 1.0
    for power in sorted(powers, key=_changes):
        result = apply("mul", power, result)
    return result


def _power(apply: Apply, base: Operand, exponent: int) -> Operand:
    """The power by repeated squaring."""
    power: Operand | None = None
    while True:
        if exponent % 2:
            power = base if power is None else apply("mul", power, base)
        exponent //= 2
        if not exponent:
            assert power is not None
            return power
        base = apply("mul", base, base)


def total(
    apply: Apply, constant: Fraction, coefs: Sequence[Fraction], terms: Sequence[Operand]
) -> Operand:
    """Return the constant plus each term times its coefficient."""
    result: Operand = nearest(constant)
    changing: list[tuple[float, Operand]] = []
    for coef, term in zip(map(nearest, coefs), terms, strict=True):
        if _changes(term):
            changing.append((coef, term))
        else:
            result = _plus(apply, result, coef, term)
    changing.sort(key=lambda item: item[0] < 0)
    if changing and (changing[0][0] > 0 or _is(result, 0.0)):
        (first, term), *changing = changing
        changing += [] if _is(result, 0.0) else [(1.0, result)]
        result = apply("mul", term, first)
    for coef, term in changing:
        result = _plus(apply, result, coef, term)
    return result


def _plus(apply: Apply, sum_: Operand, coef: float, term: Operand) -> Operand:
    return apply("add" if coef > 0 else "sub", sum_, apply("mul", term, abs(coef)))


def ratio(apply: Apply, coef: Fraction, above: Operand, below: Operand) -> Operand:
    """Return ``coef*above/below``, with one division."""
    # Divide, do not multiply by the reciprocal: floor((1/49) * 49) is 0.
    top, bottom = _split(coef)
    return apply("div", apply("mul", above, top), apply("mul", below, bottom))


def _split(coef: Fraction) -> tuple[float, float]:
    """Numerator and denominator; the second is 1 where one number says it as exactly."""
    number = nearest(coef)
    if Fraction(number) == coef or not (_is_exact(coef.numerator) and _is_exact(coef.denominator)):
        return number, 1.0
    return float(coef.numerator), float(coef.denominator)


def _is_exact(whole: int) -> bool:
    return whole.bit_length() < 1024 and int(float(whole)) == whole


def nearest(number: Fraction) -> float:
    """Return the nearest floating-point number.

    Raises:
        FormulaError: that would be infinite, or 0 for a number that is not.
    """
    try:
        near = float(number)
    except OverflowError:
        near = 0.0
    if number and not near:
        raise FormulaError("a number in the formula is too large or too small")
    return near


def simplified(name: str, operands: Sequence[Operand]) -> Operand | None:
    """Return the result where a constant operand decides it without arithmetic."""
    left, right = operands[0], operands[-1]
    neutral = {"mul": 1.0, "div": 1.0, "add": 0.0, "sub": 0.0}.get(name)
    if neutral is not None and _is(right, neutral):
        return left
    if name == "not":
        return not left if isinstance(left, bool) else None
    if name in ("and", "or"):
        for one, other in ((left, right), (right, left)):
            if isinstance(one, bool):
                return other if one == (name == "and") else one
    return None


def _is(operand: Operand, number: float) -> bool:
    return isinstance(operand, float) and operand == number


def _changes(operand: Operand) -> bool:
    return isinstance(operand, Slot)
