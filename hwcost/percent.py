"""Shares as people read them."""

import math


def percent(share: float) -> str:
    """Return a share as ``99.8 %``: 100 % and 0 % only where it is all or nothing; - for NaN."""
    if math.isnan(share):
        return "-"
    digits = f"{100 * share:.3g}"
    if share < 1 and float(digits) >= 100:
        return "> 99.9 %"
    return (
        "< 0.01 %"
        if 0 < share < 1e-4
        else f"{float(f'{100 * share:.2f}' if share < 0.01 else digits):g} %"
    )


def rough_percent(share: float) -> str:
    """Return how far something is off, such as ``8 %``: two digits, or whole percents."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def signed_percent(share: float) -> str:
    """Return a relative difference as ``+3.1 %``, without false digits; empty for NaN."""
    if math.isnan(share):
        return ""
    shown = f"{100 * share:+.1f}" if abs(share) < 0.1 else f"{100 * share:+.3g}"
    return "0 %" if float(shown) == 0 else f"{shown} %"
