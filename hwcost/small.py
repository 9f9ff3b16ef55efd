"""The same primitives on NumPy arrays, for the few rows of a network.

Only operations that IEEE 754 rounds exactly: both libraries then give the same bits.
"""

from typing import Any

import numpy as np

from hwcost.primitives import PRIMITIVES, Primitive, unchanged


def _max_slope(g: Any, a: Any, b: Any) -> Any:
    return np.where(a < b, 0.0, np.where(a == b, g / 2, g))


def _min_slope(g: Any, a: Any, b: Any) -> Any:
    return np.where(a > b, 0.0, np.where(a == b, g / 2, g))


_BY_NAME: dict[str, Primitive] = {
    "add": Primitive(np.add, PRIMITIVES["add"].slopes),
    "sub": Primitive(np.subtract, PRIMITIVES["sub"].slopes),
    "mul": Primitive(np.multiply, PRIMITIVES["mul"].slopes),
    "div": Primitive(np.divide, PRIMITIVES["div"].slopes),
    "ceil": Primitive(np.ceil, (unchanged,)),
    "floor": Primitive(np.floor, (unchanged,)),
    "max": Primitive(
        np.maximum,
        (lambda g, y, a, b: _max_slope(g, a, b), lambda g, y, a, b: _max_slope(g, b, a)),
    ),
    "min": Primitive(
        np.minimum,
        (lambda g, y, a, b: _min_slope(g, a, b), lambda g, y, a, b: _min_slope(g, b, a)),
    ),
    "abs": Primitive(np.abs, (lambda g, y, a: g * np.sign(a),)),
    "where": Primitive(
        np.where,
        (
            None,
            lambda g, y, mask, a, b: np.where(mask, g, 0.0),
            lambda g, y, mask, a, b: np.where(mask, 0.0, g),
        ),
    ),
    "gate": Primitive(
        PRIMITIVES["gate"].forward, (lambda g, y, x, untaken: np.where(untaken, 0.0, g),)
    ),
    "gt": Primitive(np.greater),
    "ge": Primitive(np.greater_equal),
    "lt": Primitive(np.less),
    "le": Primitive(np.less_equal),
    "eq": Primitive(np.equal),
    "ne": Primitive(np.not_equal),
    "and": Primitive(np.logical_and),
    "or": Primitive(np.logical_or),
    "not": Primitive(np.logical_not),
}

#: Primitive -> the same on arrays; those that are not exact have none.
SMALL: dict[Primitive, Primitive] = {PRIMITIVES[name]: p for name, p in _BY_NAME.items()}
