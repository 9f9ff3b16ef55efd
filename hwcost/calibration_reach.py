"""Which ops of a network a platform's calibration speaks of, and what its errors say of them."""

import math
from collections.abc import Iterable, Mapping, Sequence

from hwcost.calibration import MeasuredError
from hwcost.derived_rows import kernels, measured_kinds
from hwcost.offers import DEFAULT, MODELLED
from hwcost.ops import KINDS
from hwcost.percent import percent
from hwcost.plan import Plan
from hwcost.platform import Platform
from hwcost.schema_measured import ON
from hwcost.workload import Workload

#: A total of which more than this is outside the calibration has no known error.
_MOST_SHARE = 0.2


def error_text(error: MeasuredError) -> str:
    """Return ``±14 % (p90, 45 rows)``."""
    what = "rows" if error.of == "layers" else error.of
    return f"{short_error(error)} (p90, {error.rows} {what if error.rows > 1 else what[:-1]})"


def short_error(error: MeasuredError) -> str:
    """Return ``±14 %``."""
    return f"±{percent(error.expected)}"


def layer_error(
    platform: Platform, metric: str, workload: Workload, plan: Plan, row: int
) -> MeasuredError | None:
    """Return the measured error of one op, None where no measured layer was like it."""
    error = platform.error(metric, "layers")
    if error is None or error.of != "layers" or row not in priced_rows(plan):
        return None
    return None if row in set().union(*unlike(platform, workload, plan).values()) else error


def total_error(
    platform: Platform, metric: str, workload: Workload, plan: Plan, shares: Sequence[float]
) -> MeasuredError | None:
    """Return the measured error of a network's total, None where there is none.

    A total of which much is unlike all that was measured has none.

    Args:
        shares: of the total, one for each row; NaN where a row has no price.
    """
    error = platform.error(metric, "nets")
    if error is None:
        return None
    rows = {row for rows in unlike(platform, workload, plan).values() for row in rows}
    return None if share_of(shares, rows) > _MOST_SHARE else error


def share_of(shares: Sequence[float], rows: Iterable[int]) -> float:
    """Return the share that some rows have together."""
    return math.fsum(shares[row] for row in rows if not math.isnan(shares[row]))


def unlike(platform: Platform, workload: Workload, plan: Plan) -> dict[str, list[int]]:
    """Return bits and kinds of op that no measured row had -> the priced rows that have them."""
    known = platform.calibration
    assert known is not None
    return {
        **_unknown_bits(workload, plan, known.bits),
        **_unknown_kinds(platform, workload, plan, known.kinds),
    }


def priced_rows(plan: Plan) -> list[int]:
    """Return the rows that a formula prices, fallback formulas included."""
    status = plan.status
    return ((status == MODELLED) | (status == DEFAULT)).nonzero().flatten().tolist()


def kinds_in_full(platform: Platform, workload: Workload, plan: Plan) -> list[str]:
    """Return the kind of each row with its kernel and its engine: ``conv 3x3 on npu``."""
    engines = [*platform.engines] or [""]
    rows = zip(measured_kinds(workload), kernels(workload), plan.engine.tolist(), strict=True)
    return [f"{kind} {kernel}".rstrip() + ON + engines[place] for kind, kernel, place in rows]


def _unknown_kinds(
    platform: Platform, workload: Workload, plan: Plan, known: Sequence[str]
) -> dict[str, list[int]]:
    """Kind that no measured row had, or not on that engine -> the priced rows of that kind."""
    found: dict[str, list[int]] = {}
    if not known:
        return found
    full = kinds_in_full(platform, workload, plan)
    for row in priced_rows(plan):
        if _forms(full[row]).isdisjoint(known):
            found.setdefault(_missing(full[row], known), []).append(row)
    return found


def _forms(full: str) -> set[str]:
    """Every way to say a kind, with and without its kernel and its engine."""
    named, on, engine = full.partition(ON)
    kind = named.partition(" ")[0]
    return {kind, named, f"{kind}{on}{engine}", full}


def _missing(full: str, known: Sequence[str]) -> str:
    """Return as little of a kind as no known one has: itself, its kernel, its engine."""
    named, on, engine = full.partition(ON)
    kind = named.partition(" ")[0]
    of_kind = [one.partition(ON)[0] for one in known if one.partition(ON)[0].split(" ")[0] == kind]
    if not of_kind:
        return kind
    if kind not in of_kind and named not in of_kind:
        return named
    return f"{named if kind not in of_kind else kind}{on}{engine}"


def _unknown_bits(
    workload: Workload, plan: Plan, known: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Bits that no measured row had, such as ``w4a8`` -> the priced rows that have them."""
    found: dict[str, list[int]] = {}
    columns = {name: plan.bits[name].tolist() for name in known}
    for row in priced_rows(plan):
        weighted = "bias" in KINDS[workload.kinds[row]].sizes
        bits = {n: values[row] for n, values in columns.items() if n != "w_bits" or weighted}
        if any(known[n] and not math.isnan(b) and b not in known[n] for n, b in bits.items()):
            text = "".join(f"{n[0]}{b:g}" for n, b in bits.items() if not math.isnan(b))
            found.setdefault(f"at {text}", []).append(row)
    return found
