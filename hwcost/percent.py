"""Shares as people read them."""

import math


def percent(share: float) -> str:
    """A share between 0 and 1 as ``99.8 %``: 100 % and 0 % only where it is all or nothing."""
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


def signed_percent(share: float) -> str:
    """A relative difference as ``+3.1 %``, without false digits; empty for NaN."""
    if math.isnan(share):
        return ""
    shown = f"{100 * share:+.1f}" if abs(share) < 0.1 else f"{100 * share:+.3g}"
    return "0 %" if float(shown) == 0 else f"{shown} %"
