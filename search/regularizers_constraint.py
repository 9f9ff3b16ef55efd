"""Constraint: a term of a loss that brings costs to their targets, without a strength to tune."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields

import torch
from torch import Tensor

from hwcost.errors import HwcostWarning, SearchError
from hwcost.search.regularizers_control import Drive, driven, measured, observed
from hwcost.search.regularizers_settle import settle
from hwcost.search.targets import Priced, Reading, Target, Targets, resolve

#: Without a number of steps: how fast costs come down, and how often the hard ones are measured.
RATE, EVERY = 0.005, 20

#: With one: the share of it in which costs come down, and how often the hard ones are measured.
APPROACH, MEASUREMENTS = 0.4, 50


class Constraint:
    """Bring costs down to their targets and keep them there.

    ::

        constraint = Constraint({"lat": "5 ms", "size": "64 KiB"}, n_steps=epochs * len(loader))
        for x, y in batches:
            loss = criterion(search(x), y) + constraint(search)
            ...
        constraint.settle(search)
        exported = search.export()

    An augmented Lagrangian whose multipliers are found by feedback: each grows by a factor while
    its cost is above where it should be, and shrinks while below, at once in proportion to the
    error and slowly for good. Working in factors makes it independent of the units of the costs
    and of the size of the task's loss. The costs are led down, not pushed: the decisions
    need the time to tell the important from the rest.

    The soft cost gives the gradient, but the hard one, that of ``search.export()``, counts: it is
    measured now and then, and the soft cost's goal is shifted until the hard cost is on target.
    Of several targets, those already met push nothing. If all are, and some were not before, the
    one closest to its target may grow back.

    Training alone ends near the targets only: masks at their threshold flip with the noise of
    the gradient, which can move a small network's hard cost by tens of percent. ``settle``
    closes that at the end; fine-tune the network afterwards, with ``train_net_only``. Decisions
    whose learning rate falls to 0 end closer by themselves.

    Only calls in training mode with gradients learn. All state is computed from the costs, so
    processes of one distributed run agree.

    Args:
        targets: by the names of the costs: numbers in the cost's unit, ``"5 ms"``, ``"64 KiB"``,
            or ``"50 %"`` of the cost before the search. One alone if the search has one cost.
        n_steps: how often it will be called; the costs come down in the first 40 % of it. Without
            it they come down by 0.5 % a step.
        every: measure hard costs after so many steps; 50 times in all, or every 20 steps,
            unless given.
        tolerance: what counts as on target, relative.

    Raises:
        SearchError: a number is out of range.

    Source:
        The method of multipliers: Nocedal and Wright, Numerical Optimization, chapter 17.4.
    """

    def __init__(
        self,
        targets: Targets,
        n_steps: int | None = None,
        *,
        every: int | None = None,
        tolerance: float = 0.01,
    ) -> None:
        _check(n_steps, every, tolerance)
        self.targets = dict(targets) if isinstance(targets, Mapping) else targets
        self.n_steps = n_steps
        self.every = every or (max(5, n_steps // MEASUREMENTS) if n_steps else EVERY)
        self.tolerance = tolerance
        self._resolved: tuple[Target, ...] = ()
        self._drives: dict[str, Drive] = {}
        self._calls = 0
        self._was_above = False
        self._warned = False

    def __call__(self, search: Priced) -> Tensor:
        """Return the term, a scalar, near 0 when the costs are where they should be.

        Raises:
            UnknownName, UnitError, SearchError: a target does not fit the search's costs, or a
                cost is not a positive number.
        """
        targets = self._targets_of(search)
        costs = torch.stack([target.cost(search) for target in targets])
        if search.training and costs.requires_grad:
            self._learn(search, costs.detach().tolist())
        terms = [self._term(t, cost) for t, cost in zip(targets, costs.unbind(), strict=True)]
        return sum(terms[1:], start=terms[0])

    def settle(self, search: Priced) -> dict[str, Reading]:
        """Move the decisions as little as it takes for the hard costs to be on target.

        For the end of a search, before ``export`` or the fine-tuning of the network alone. The
        decisions move together, so the most important channels are kept.

        Warns:
            HwcostWarning: no decisions meet the targets, as far as can be found.
        """
        targets = self._targets_of(search)
        worst = settle(search, targets, self.tolerance, grow=self._was_above)
        if worst > 1:
            self._warn(
                f"settling ended at {worst:.3g} times a target; no cheaper network was found"
            )
        return self.measure(search)

    def measure(self, search: Priced) -> dict[str, Reading]:
        """Return the costs now, soft and hard, beside their targets, by name."""
        return {t.name: self._reading(t, search) for t in self._targets_of(search)}

    def satisfied(self, search: Priced, tolerance: float | None = None) -> bool:
        """Return whether no hard cost is above its target by more than the tolerance."""
        limit = 1 + (self.tolerance if tolerance is None else tolerance)
        readings = self.measure(search).values()
        return all(r.hard is not None and r.hard <= r.target * limit for r in readings)

    def report(self) -> dict[str, Reading]:
        """Return costs, targets and strengths of the last call, by name."""
        return {t.name: self._last(t) for t in self._resolved if t.name in self._drives}

    @property
    def infeasible(self) -> list[str]:
        """The names of the costs that do not come down, however strongly they are pushed."""
        return [name for name, drive in self._drives.items() if drive.hopeless]

    def state_dict(self) -> dict[str, object]:
        """Return all that was learned, as plain numbers."""
        drives = {name: asdict(drive) for name, drive in self._drives.items()}
        return {"drives": drives, "calls": self._calls, "was_above": self._was_above}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where another run stopped, bit by bit as if it had not.

        Raises:
            SearchError: the state is of other targets.
        """
        drives, calls = state.get("drives"), state.get("calls")
        if not isinstance(drives, Mapping) or not isinstance(calls, int):
            raise SearchError("the state is not one of a Constraint: 'drives' or 'calls' missing")
        due = set(self.targets) if isinstance(self.targets, dict) else set(drives)
        if drives and set(drives) != due:
            raise SearchError(f"the state is of {sorted(drives)}; expected {sorted(due)}")
        self._drives = {name: _drive(values) for name, values in drives.items()}
        self._calls, self._was_above = calls, bool(state.get("was_above"))

    def _targets_of(self, search: Priced) -> tuple[Target, ...]:
        if not self._resolved:
            self._resolved = resolve(search, self.targets)
        return self._resolved

    def _learn(self, search: Priced, costs: list[float]) -> None:
        logs = {t.name: _log(t, cost) for t, cost in zip(self._resolved, costs, strict=True)}
        drives = dict(self._drives) or {name: Drive.at(value) for name, value in logs.items()}
        due = self._calls % self.every == 0
        for target in self._resolved:
            drive = drives[target.name]
            rate = _rate(drive, self.n_steps)
            drive = observed(drive, logs[target.name], rate)
            if due and drive.measurable:
                drive = measured(drive, _log(target, _hard(target, search)))
            drives[target.name] = drive
        self._was_above |= any(d.error > 0 or d.start > 0 for d in drives.values())
        worst = max(drives, key=lambda name: drives[name].error)
        self._drives = {
            name: driven(d, _rate(d, self.n_steps), name == worst, self._was_above)
            for name, d in drives.items()
        }
        self._calls += 1
        self._warn_of_hopeless()

    def _term(self, target: Target, cost: Tensor) -> Tensor:
        drive = self._drives.get(target.name)
        if drive is None:
            return 0.0 * cost
        return drive.strength * (cost / target.goal - math.exp(drive.reference))

    def _warn_of_hopeless(self) -> None:
        if self.infeasible:
            texts = [f"{name!r} stays at {self.report()[name]}" for name in self.infeasible]
            self._warn(f"a target is out of reach: {'; '.join(texts)}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(text, HwcostWarning, stacklevel=4)

    def _reading(self, target: Target, search: Priced) -> Reading:
        with torch.no_grad():
            cost = float(target.cost(search))
        return target.reading(cost, self._strength(target), _hard(target, search))

    def _last(self, target: Target) -> Reading:
        drive = self._drives[target.name]
        hard = None if drive.hard is None else target.goal * math.exp(drive.hard)
        cost = target.goal * math.exp(drive.log_cost)
        return target.reading(cost, self._strength(target), hard)

    def _strength(self, target: Target) -> float:
        drive = self._drives.get(target.name)
        return 0.0 if drive is None else drive.strength / target.goal

    def __repr__(self) -> str:
        readings = self.report()
        if not readings:
            return f"Constraint({self.targets!r})"
        parts = "; ".join(f"{name}: {reading}" for name, reading in readings.items())
        return f"Constraint({parts}; step {self._calls})"


def _check(n_steps: int | None, every: int | None, tolerance: float) -> None:
    for name, count in (("n_steps", n_steps), ("every", every)):
        if count is not None and count < 1:
            raise SearchError(f"{name} is {count}; expected at least 1")
    if not 0 < tolerance < 1:
        raise SearchError(f"tolerance is {tolerance}; expected a share between 0 and 1")


def _rate(drive: Drive, n_steps: int | None) -> float:
    return drive.start / (APPROACH * n_steps) if n_steps else RATE


def _hard(target: Target, search: Priced) -> float:
    with torch.no_grad():
        return float(target.cost(search, hard=True))


def _log(target: Target, cost: float) -> float:
    if not (math.isfinite(cost) and cost > 0):
        raise SearchError(f"cost {target.name!r} is {cost}; a constraint needs one above 0")
    return math.log(cost / target.goal)


def _drive(values: Mapping[str, float]) -> Drive:
    known = {field.name for field in fields(Drive)}
    if set(values) != known:
        raise SearchError(f"the state has {sorted(values)}; expected {sorted(known)}")
    return Drive(**values)
