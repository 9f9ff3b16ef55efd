"""Formulas: text to sympy through a whitelist of Python's syntax tree.

Nothing is evaluated that is not named here and in ``formula_grammar``: no eval, no sympify of
text, no attribute of any object.
"""

import builtins
import keyword
import re
import unicodedata

import sympy

from hwcost.errors import FormulaError
from hwcost.formula_grammar import FUNCTIONS, GRAMMAR
from hwcost.formula_nodes import Table, TableLookup, make_table, symbol
from hwcost.formula_parser import MAX_NESTING, Parser, Scope, measure, shortened

__all__ = [
    "Scope",
    "Table",
    "TableLookup",
    "check_name",
    "make_table",
    "measure",
    "parse",
    "parse_condition",
    "symbol",
]

MAX_LENGTH = 4000


def parse(text: str | int | float, scope: Scope) -> sympy.Expr:
    """Return the number that a formula stands for.

    Decimals are exact: 18.2 is 91/5.

    Raises:
        FormulaError: a syntax error, an unknown name, or something that formulas do not have.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = repr(text)
    return Parser(_checked_text(text), scope, GRAMMAR).whole(Parser.number)


def parse_condition(text: str, scope: Scope) -> sympy.logic.boolalg.Boolean:
    """Return the condition that a formula such as ``"groups == 1 and kh > 1"`` stands for.

    Raises:
        FormulaError: as for ``parse``, or the formula is a number.
    """
    return Parser(_checked_text(text), scope, GRAMMAR).whole(Parser.condition)


def check_name(name: str) -> None:
    """Check a name that a platform file gives to a param, a table or a formula.

    Raises:
        FormulaError: it is not a plain identifier, or has a meaning already.
    """
    shown = repr(name if len(name) <= 40 else name[:40] + "...")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", name):
        raise FormulaError(f"{shown} is not a name; use letters, digits and _, a letter first")
    for what, taken in _TAKEN.items():
        if name in taken:
            raise FormulaError(f"{shown} is {what}; choose another name")


_TAKEN = {
    "a function of formulas": FUNCTIONS,
    "a word of Python": frozenset(keyword.kwlist),
    "a Python builtin": frozenset(dir(builtins)),
    "a constant of sympy": frozenset({"E", "I", "pi", "oo", "zoo", "nan"}),
}

_SIGNS = {
    "^": "; a power is written a ** b",
    "&": "; write 'and'",
    "|": "; write 'or'",
    "~": "; write 'not'",
    "{": "; a formula has ( ) and [ ]",
    "#": "; a formula has no comments",
}
_ODD_CHARACTER = re.compile(r"[^A-Za-z0-9_ .,+\-*/%()<>=!\[\]]")
_LETTER_AFTER_NUMBER = re.compile(
    r"(?<![\w.])(?:\d|\.\d)[\d_.]*+(?:[eE][+-]?\d++)?+[A-Za-z_]\w*", re.ASCII
)


def _checked_text(text: object) -> str:
    """The text on one line, free of what would make Python's parser slow or deep."""
    if not isinstance(text, str):
        raise FormulaError(f"{str(text)[:40]!r} is not a formula")
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"the formula is longer than {MAX_LENGTH} characters")
    text = " ".join(text.split())
    if not text:
        raise FormulaError("the formula is empty")
    odd = _ODD_CHARACTER.search(text)
    if odd:
        sign = odd.group()
        named = "" if sign.isascii() else f" ({unicodedata.name(sign, 'no name').lower()})"
        raise FormulaError(f"unexpected {sign!r}{named} in {shortened(text)}{_SIGNS.get(sign, '')}")
    if re.search(r"(?<![=<>!])=(?!=)", text):
        raise FormulaError(f"'=' in {shortened(text)}; compare with '=='")
    glued = _LETTER_AFTER_NUMBER.search(text)
    if glued:
        fact = f"{shortened(glued.group())} is neither number nor name in {shortened(text)}"
        raise FormulaError(f"{fact}; a product is written 2*x")
    depth = deepest = 0
    for sign in re.findall(r"[()\[\]]", text):
        depth += 1 if sign in "([" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise FormulaError(f"{shortened(text)} nests deeper than {MAX_NESTING} brackets")
    return text
