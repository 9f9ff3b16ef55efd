"""The operations of a compiled formula: exact values, straight-through slopes.

This is the only place that rounds. ``ceil`` and ``floor`` give the exact whole number and the
slope of the line they round, so d/dx ceil(x/8) is 1/8. Conditions and table look-ups have no
slope. Where a slope is infinite but the value is not (sqrt at 0), it is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: (upstream slope, the primitive's result, *its operands) -> slope to one operand.
Slope = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Primitive:
    """A tensor operation and its slopes.

    Attributes:
        forward: the value; operands have shape ``(rows,)`` or ``()``.
        slopes: one for each operand, None where there is none.
        traced: the value for torch's own differentiation, where ``forward`` has other slopes.
    """

    forward: Callable[..., Tensor]
    slopes: tuple[Slope | None, ...] = ()
    traced: Callable[..., Tensor] | None = None


class _StraightThrough(torch.autograd.Function):
    """Round; the derivative, of any order and in any mode, is that of the line rounded."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
        return rounding(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        return tangent.view_as(tangent)


def _traced_ceil(x: Tensor) -> Tensor:
    return _StraightThrough.apply(x, torch.ceil)  # type: ignore[no-any-return, no-untyped-call]


def _traced_floor(x: Tensor) -> Tensor:
    return _StraightThrough.apply(x, torch.floor)  # type: ignore[no-any-return, no-untyped-call]


def _masked(slope: Tensor, where_zero: Tensor) -> Tensor:
    return torch.where(where_zero, 0.0, slope)


def _nudged(value: Tensor, exact: Tensor) -> Tensor:
    """``exact`` with the derivative of ``value``, from which it differs by a rounding error."""
    return value + torch.where(value.isfinite(), exact - value, 0.0).detach()


def _winner(g: Tensor, won: Tensor, lost: Tensor) -> Tensor:
    """A tie is shared, so that the slope does not depend on the order of the operands."""
    return torch.where(won == lost, g / 2, g)


def _max_slope(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _winner(g, a, b).masked_fill_(a < b, 0.0)


def _min_slope(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _winner(g, a, b).masked_fill_(a > b, 0.0)


def _away_from_zero(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function(x)``, and 0 with slope 0 at x = 0."""
    zero = x == 0
    return torch.where(zero, 0.0, function(torch.where(zero, 1.0, x)))


def _root(x: Tensor, degree: Tensor) -> Tensor:
    """The ``degree``-th root; whole where ``x`` is a whole number's power."""
    root = x.pow(1 / degree)
    whole = root.round()
    return torch.where(whole.pow(degree) == x, whole, root)


def _traced_root(x: Tensor, degree: Tensor) -> Tensor:
    return _nudged(_away_from_zero(x, lambda y: y.pow(1 / degree)), _root(x, degree))


def _raw_log(x: Tensor, base: Tensor) -> Tensor:
    known = {2.0: torch.log2, 10.0: torch.log10}.get(base.item())
    return known(x) if known else torch.log(x) / torch.log(base)


def _logb(x: Tensor, base: Tensor) -> Tensor:
    """The logarithm to a base; whole where ``x`` is the base's power."""
    log = _raw_log(x, base)
    whole = log.round()
    return torch.where(torch.pow(base, whole) == x, whole, log)


def _traced_logb(x: Tensor, base: Tensor) -> Tensor:
    return _nudged(_raw_log(x, base), _logb(x, base))


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    """The power; whole where both are whole and the exponent is not negative."""
    power = torch.pow(base, exponent)
    whole = (exponent >= 0) & (exponent == exponent.floor()) & (base == base.floor())
    return torch.where(whole, power.round(), power)


def _traced_pow(base: Tensor, exponent: Tensor) -> Tensor:
    return _nudged(torch.pow(base, exponent), _pow(base, exponent))


def _base_slope(g: Tensor, y: Tensor, base: Tensor, exponent: Tensor) -> Tensor:
    flat = (exponent == 0) | ((base == 0) & (exponent < 1))
    return _masked(g * exponent * torch.pow(base, exponent - 1), flat)


def _exponent_slope(g: Tensor, y: Tensor, base: Tensor, exponent: Tensor) -> Tensor:
    return _masked(g * y * torch.log(base), (base == 0) & (exponent >= 0))


def _kept(x: Tensor, untaken: Tensor) -> Tensor:
    return x


def _traced_gate(x: Tensor, untaken: Tensor) -> Tensor:
    """``x`` where it is used, and elsewhere a number at which formulas are finite."""
    return x if x.dtype is torch.bool else torch.where(untaken, 1.0, x)


def unchanged(g: Tensor, *_: Tensor) -> Tensor:
    """Pass the slope on: that of a sum, and of rounding."""
    return g


#: Name -> operation; the names are those of the nodes of ``lowering``.
PRIMITIVES: dict[str, Primitive] = {
    "add": Primitive(torch.add, (unchanged, unchanged)),
    "sub": Primitive(torch.sub, (unchanged, lambda g, y, a, b: -g)),
    "mul": Primitive(torch.mul, (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)),
    "div": Primitive(
        torch.div,
        (lambda g, y, a, b: g / b, lambda g, y, a, b: -(g / b) * y),
    ),
    "ceil": Primitive(torch.ceil, (unchanged,), _traced_ceil),
    "floor": Primitive(torch.floor, (unchanged,), _traced_floor),
    "max": Primitive(
        torch.maximum,
        (lambda g, y, a, b: _max_slope(g, a, b), lambda g, y, a, b: _max_slope(g, b, a)),
    ),
    "min": Primitive(
        torch.minimum,
        (lambda g, y, a, b: _min_slope(g, a, b), lambda g, y, a, b: _min_slope(g, b, a)),
    ),
    "abs": Primitive(torch.abs, (lambda g, y, a: g * torch.sign(a),)),
    "sqrt": Primitive(
        torch.sqrt,
        (lambda g, y, a: _masked(g / (2 * y), y == 0),),
        lambda a: _away_from_zero(a, torch.sqrt),
    ),
    "root": Primitive(
        _root,
        (lambda g, y, a, q: _masked(g * y / (q * a), a == 0), None),
        _traced_root,
    ),
    "exp": Primitive(torch.exp, (lambda g, y, a: g * y,)),
    "log": Primitive(torch.log, (lambda g, y, a: g / a,)),
    "logb": Primitive(_logb, (lambda g, y, a, b: g / (a * torch.log(b)), None), _traced_logb),
    "pow": Primitive(_pow, (_base_slope, _exponent_slope), _traced_pow),
    "where": Primitive(
        torch.where,
        (
            None,
            lambda g, y, mask, a, b: torch.where(mask, g, 0.0),
            lambda g, y, mask, a, b: torch.where(mask, 0.0, g),
        ),
    ),
    "gate": Primitive(_kept, (lambda g, y, x, untaken: g.masked_fill(untaken, 0.0),), _traced_gate),
    "gt": Primitive(torch.gt),
    "ge": Primitive(torch.ge),
    "lt": Primitive(torch.lt),
    "le": Primitive(torch.le),
    "eq": Primitive(torch.eq),
    "ne": Primitive(torch.ne),
    "and": Primitive(torch.logical_and),
    "or": Primitive(torch.logical_or),
    "not": Primitive(torch.logical_not),
}
