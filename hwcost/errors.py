"""Every error that hwcost raises on purpose.

HwcostError
+-- DescriptorError     a platform file is wrong
|   +-- FormulaError    one of its formulas is
|   +-- UnitError       a quantity, a unit or a dimension is
+-- UnknownName         a platform, metric, engine or layer that does not exist
+-- WorkloadError       an op table is wrong or lacks a size
+-- TraceError          the model did not run on the example
+-- UnsupportedOp       the platform has no formula for an op
+-- PrecisionError      an engine cannot compute at these bits
+-- CostError           a cost came out as NaN or infinite
+-- FitError            measurements are wrong, or say too little to fit a platform to
+-- SearchError         a search cannot be set up, or went wrong
+-- MissingLibrary      a library that only this needs is not installed
"""

from collections.abc import Iterable
from difflib import get_close_matches


class HwcostError(Exception):
    """Any error of hwcost; catch this to catch them all."""


class DescriptorError(HwcostError, ValueError):
    """A platform file has an unknown key, no value, a cycle; the message starts with file:line."""


class FormulaError(DescriptorError):
    """A formula does not parse, or uses a name or a construct that formulas do not have."""


class UnitError(DescriptorError):
    """A quantity has no unit or an unknown one, or a formula's dimension is not the one due."""


class UnknownName(HwcostError, LookupError):
    """A platform, metric, engine, layer or parameter was asked for that does not exist."""


class WorkloadError(HwcostError, ValueError):
    """An op table has a wrong column or value, or lacks a size that a formula reads."""


class TraceError(HwcostError, ValueError):
    """A model raised while it was traced, or its example input is missing or does not fit."""


class UnsupportedOp(HwcostError, LookupError):
    """A platform has no formula for an op of the model."""


class PrecisionError(HwcostError, ValueError):
    """An op's bits are not among those that the engine computes with."""


class CostError(HwcostError, ValueError):
    """A formula gave NaN or infinity for sizes that the model has."""


class FitError(HwcostError, ValueError):
    """Measurements have a wrong cell, contradict each other, or are too few for the params."""


class SearchError(HwcostError, ValueError):
    """A search finds nothing to decide, two methods want one decision, or a loss became NaN."""


class MissingLibrary(HwcostError, ImportError):
    """An optional library is not installed; the message says how to install it."""


class HwcostWarning(UserWarning):
    """Something was left out of a trace or a cost; the message says what."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``known``, ``""`` if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what ``did_you_mean`` does, or else the list of all that is ``known``."""
    names = list(known)
    return did_you_mean(name, names) or f"; known: {', '.join(names)}"
