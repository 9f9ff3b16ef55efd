"""The controller of ``Constraint``: from how far a cost is off its target to a multiplier.

Everything here is a plain number and unit-free: costs are logarithms of cost / target, strengths
logarithms of multipliers. So nothing depends on the size of the costs or of the task's loss.
"""

import math
from dataclasses import dataclass, replace

#: Multipliers stay within exp(-LARGEST) and exp(LARGEST).
LARGEST = 14.0

#: The multiplier at the start. A start that is too strong would fill an optimizer's second moment
#: with large gradients for a thousand steps; one that is too weak grows in tens.
FIRST = math.log(0.01)

#: A multiplier changes by the factor exp(PROPORTIONAL * error) at once and by
#: exp(INTEGRAL * error) a step for good; the largest error that counts; growth while idle.
PROPORTIONAL, INTEGRAL, LARGEST_ERROR, BOOST = 10.0, 0.1, 0.5, 0.1

#: A cost that falls by less than this share of what it should is idle.
IDLE = 0.3

#: A reference does not run further ahead of the cost than this.
LAG = 0.3

#: A cost is pushed up if it is this much too low though it was pushed down before.
UNDERSHOOT = 0.03

#: A cost that did not fall while its multiplier grew by exp(HOPELESS) cannot fall.
HOPELESS = 12.0

#: How far the soft cost may be off its goal when the goal is corrected; limits of that correction.
NEAR, WIDEST, FIRST_STEP, LARGEST_STEP, LEAST_STEP = 0.2, 2.0, 0.03, 0.1, 0.002


@dataclass(frozen=True)
class Drive:
    """What is remembered of one target between two steps.

    Attributes:
        log_cost: log(soft cost / target) of the last step.
        start: log_cost of the first step, at least 0.
        ahead: how far the reference is still above the goal; it comes down from ``start`` to 0.
        gap: log of the soft goal over the target: where the soft cost is when the hard one is
            on target.
        gap_step, gap_error: how far the gap moves at once; the last hard error.
        down, up: logarithms of the multipliers that push the cost down, and up.
        fall, fastest: how fast the cost falls a step, smoothed; the most it did lately.
        lowest, pushed: the lowest cost, and how much the multiplier has grown since.
        strength: the multiplier of the last step, with its sign.
        hard: log(hard cost / target) when last measured.
    """

    log_cost: float
    start: float
    ahead: float
    gap: float = 0.0
    gap_step: float = FIRST_STEP
    gap_error: float = 0.0
    down: float = FIRST
    up: float = FIRST
    fall: float = 0.0
    fastest: float = 0.0
    lowest: float = math.inf
    pushed: float = 0.0
    strength: float = 0.0
    hard: float | None = None

    @classmethod
    def at(cls, log_cost: float) -> "Drive":
        """Return the state before the first step."""
        return cls(log_cost, max(0.0, log_cost), max(0.0, log_cost))

    @property
    def reference(self) -> float:
        """Where the soft cost should be now, log(cost / target)."""
        return self.gap + self.ahead

    @property
    def error(self) -> float:
        """How far the soft cost is above its reference."""
        return self.log_cost - self.reference

    @property
    def hopeless(self) -> bool:
        """Whether the cost cannot be brought down to the target."""
        return self.pushed >= HOPELESS

    @property
    def measurable(self) -> bool:
        """Whether the cost has come close enough for the hard cost to tell something."""
        return self.ahead <= 0.5 * self.start


def observed(drive: Drive, log_cost: float, rate: float) -> Drive:
    """Return the state with a new soft cost, the reference moved on by ``rate``."""
    fall = drive.fall + 0.1 * (drive.log_cost - log_cost - drive.fall)
    fastest = max(0.999 * drive.fastest, fall)
    lowest, pushed = drive.lowest, drive.pushed
    if log_cost < lowest - 0.005:
        lowest, pushed = log_cost, 0.0
    follows = log_cost - drive.reference < LAG
    ahead = max(0.0, drive.ahead - rate) if follows else drive.ahead
    return replace(
        drive,
        log_cost=log_cost,
        fall=fall,
        fastest=fastest,
        ahead=ahead,
        lowest=lowest,
        pushed=pushed,
    )


def measured(drive: Drive, hard: float) -> Drive:
    """Return the state with the gap corrected by a hard cost, log(cost / target).

    The gap moves against the error, in steps that halve when the error changes its sign: the
    hard cost is a staircase, and its slope against the soft cost is unknown.
    """
    drive = replace(drive, hard=hard)
    error, off = hard - drive.ahead, drive.error
    if error > 0 and off < 0:  # the soft cost is below its goal, and still it is too much
        drive = replace(drive, gap=max(-WIDEST, drive.gap + off))
    elif abs(off) > NEAR or (error < 0 and off < -0.05):  # on its way, or not what binds
        return drive
    turned = error * drive.gap_error < 0
    step = drive.gap_step * (0.5 if turned else 1.2)
    step = min(LARGEST_STEP, max(LEAST_STEP, step))
    gap = drive.gap - max(-step, min(step, 0.5 * error))
    gap = max(-WIDEST, min(WIDEST, gap))
    return replace(drive, gap=gap, gap_step=step, gap_error=error)


def driven(drive: Drive, rate: float, worst: bool, lift: bool) -> Drive:
    """Return the state with new multipliers and the strength to use in this step.

    Args:
        drive: after ``observed``.
        rate: how fast the reference comes down at most.
        worst: whether no other target is missed by more.
        lift: whether the cost may be pushed up where it is too low.
    """
    down, pushed = _down(drive, rate, worst)
    strength = math.exp(down) * _proportional(drive.error)
    up = drive.up
    if worst and lift and drive.ahead == 0 and drive.error < -UNDERSHOOT:
        up = _up(drive, down)
        strength -= math.exp(up) * min(3.0, PROPORTIONAL * (-drive.error - UNDERSHOOT))
    elif drive.error > 0:
        up = _bounded(up - INTEGRAL * _clipped(drive.error))
    return replace(drive, down=down, up=up, pushed=pushed, strength=strength)


def _down(drive: Drive, rate: float, worst: bool) -> tuple[float, float]:
    """The multiplier that pushes down, and how much it has grown without an effect."""
    error = drive.error
    if error <= 0:
        # One that does not bind keeps what it has learned: it pushes nothing at all meanwhile.
        binds = worst and drive.fall > -1e-4
        shrinks = binds or error > -1 / PROPORTIONAL
        change = INTEGRAL * max(error, -LARGEST_ERROR) if shrinks else 0.0
        return _bounded(drive.down + change), drive.pushed
    growth = _growth(drive, rate)
    grown = growth if error > 0.01 else 0.0
    return _bounded(drive.down + growth), drive.pushed + grown


def _growth(drive: Drive, rate: float) -> float:
    if drive.hopeless:
        return 0.0
    if drive.error > 0.05 and drive.fall < IDLE * rate:
        return BOOST
    if drive.fall > max(0.5 * drive.fastest, IDLE * rate):
        return 0.0  # it falls as fast as it can: the learning rate limits it, not the strength
    return INTEGRAL * _clipped(drive.error)


def _up(drive: Drive, down: float) -> float:
    """The multiplier that pushes up; it starts below what last pushed down."""
    started = drive.up if drive.strength < 0 else max(drive.up, down - 1)
    rises = drive.fall < -1e-4
    return started if rises else _bounded(started + INTEGRAL * _clipped(-drive.error))


def _proportional(error: float) -> float:
    """At 0 error 1, exponential above, linear down to 0 below."""
    scaled = PROPORTIONAL * error
    return math.exp(min(scaled, 3.0)) if scaled > 0 else max(0.0, 1 + scaled)


def _clipped(error: float) -> float:
    return min(error, LARGEST_ERROR)


def _bounded(log_strength: float) -> float:
    return max(-LARGEST, min(LARGEST, log_strength))
