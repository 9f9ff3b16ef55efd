"""Sympy -> a graph of exact rational arithmetic.

Every number is carried as a quotient of two integer-valued expressions for as long as possible,
so that evaluating it in floating point divides once, at the end: the only rounding. This makes
the arguments of ceil, floor and comparisons exact, and costs linear time (unlike
``sympy.together``, which expands polynomials).
"""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

import sympy
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import ITE, BooleanFalse, BooleanTrue

from hwcost.errors import FormulaError
from hwcost.quotient import MOST_EXACT, Graph, Table, Term, constant, power, product

#: Nested where() in one formula; each level is a program of its own.
DEEPEST_SELECT = 50
