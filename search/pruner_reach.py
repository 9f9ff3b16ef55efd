"""Prune a network until a cost is low enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.channels_values import Axis
from hwcost.search.costs import Costs
from hwcost.search.pit_layers import layer_of
from hwcost.search.pruner_lines import lines
from hwcost.search.pruner_plan import Plan
from hwcost.search.pruner_scores import Scores, class_scores
from hwcost.search.pruner_targets import Budget, budget
from hwcost.tracing import rerun
from hwcost.units import engineering

if TYPE_CHECKING:
    from hwcost.search.pruner import Pruner

#: How often a plan is made anew because the smaller network is priced by other formulas.
_TURNS = 8

#: A cost this close below its goal, or below what the table says, is good enough.
_CLOSE = 0.97


@dataclass(frozen=True)
class Reached:
    """What pruning to a target came to.

    Attributes:
        name: of the cost.
        unit: of the costs.
        before: the cost before; after: that of the network now; goal: what it had to be at most.
        units: path of a layer -> how many units it had, and how many it has.
    """

    name: str
    unit: str
    before: float
    after: float
    goal: float
    units: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        shown = (engineering(value, self.unit) for value in (self.before, self.after, self.goal))
        first = "{}: {} -> {} (at most {})".format(self.name, *shown)
        changed = {path: sizes for path, sizes in self.units.items() if sizes[0] != sizes[1]}
        return "\n".join(
            [first, *(f"{path}: {a} -> {b} units" for path, (a, b) in changed.items())]
        )


@dataclass(frozen=True)
class Order:
    """How to prune; see ``Pruner.prune_to``."""

    metric: Any
    per_layer: bool
    minimum: float
    multiple: int
    ignore: Sequence[nn.Module | type[nn.Module] | str]
    schedule: Sequence[float]
    fine_tune: Callable[[nn.Module], object] | None


def reach(pruner: "Pruner", target: str | float, cost: Costs | None, order: Order) -> Reached:
    """Prune until a cost is low enough; see ``Pruner.prune_to``."""
    pruner.look()
    workload = rerun(pruner.model, *pruner.inputs).workload
    wanted = budget(target, cost, workload)
    takes = _chosen(pruner, order.ignore)
    sizes = _sizes(pruner)
    if wanted.before > wanted.goal:
        _refuse_unreachable(pruner, wanted, order, takes)
    now = wanted.before
    for share in order.schedule if now > wanted.goal else ():
        goal = wanted.before * (wanted.goal / wanted.before) ** share
        now = _step(pruner, wanted, goal, order, takes)
        if order.fine_tune is not None:
            order.fine_tune(pruner.model)
    left = {**sizes, **_sizes(pruner)}
    units = {path: (size, left[path]) for path, size in sizes.items()}
    name, unit = wanted.target.name, wanted.costs.unit(wanted.target.name)
    return Reached(name, unit, wanted.before, now, wanted.goal, units)


def _step(
    pruner: "Pruner", wanted: Budget, goal: float, order: Order, takes: Callable[[Axis], bool]
) -> float:
    """Prune to one goal of a schedule; return the cost then.

    A smaller network may run on other engines and by other formulas than the table says, which is
    of the network before: what the table has to say for the goal to be met is found by trying.
    """
    scores = class_scores(pruner.coupling, order.metric)
    best: tuple[float, float, Tensor] | None = None
    low, high, aim = 0.0, wanted.before, goal
    for _ in range(_TURNS):
        plan = _plan(pruner, wanted, scores, order, takes)
        plan.prune(aim, evenly=order.per_layer)
        alive = plan.alive[pruner.kept] > 0
        now = _priced(pruner, wanted, alive)
        met = now <= goal * (1 + 1e-9)
        matters = float(scores.classes[alive].sum())
        if best is None or (met, matters) > (best[0] <= goal * (1 + 1e-9), best[1]):
            best = now, matters, alive
        if met and now > _CLOSE * min(goal, plan.cost):
            break
        low, high = (max(low, plan.cost), high) if met else (low, min(high, plan.cost))
        if high - low <= 1e-3 * goal:
            break
        aim = (low + high) / 2 if low else plan.cost * goal / now * (1 - 1e-9)
    assert best is not None
    pruner.remove(best[2])
    return best[0]


def _priced(pruner: "Pruner", wanted: Budget, alive: Tensor) -> float:
    """Return what the network costs without the classes that are not alive, traced anew."""
    return wanted.price(rerun(pruner.without(alive), *pruner.inputs).workload)


def _plan(
    pruner: "Pruner",
    wanted: Budget,
    scores: Scores,
    order: Order,
    takes: Callable[[Axis], bool],
) -> Plan:
    channels, least = pruner.coupling.channels, order.minimum
    found = lines(channels, scores, minimum=least, multiple=order.multiple, takes=takes)
    for line in found:
        line.order = pruner.kept[line.order]
    alive = torch.zeros(pruner.table.length, dtype=torch.float64)
    alive[pruner.kept] = 1
    return Plan(pruner.table, wanted, found, alive)


def _refuse_unreachable(
    pruner: "Pruner", wanted: Budget, order: Order, takes: Callable[[Axis], bool]
) -> None:
    zeros = torch.zeros(pruner.coupling.channels.n_classes, dtype=torch.float64)
    least = _plan(pruner, wanted, Scores(zeros, comparable=True), order, takes).least()
    if least <= wanted.goal:
        return
    unit = wanted.costs.unit(wanted.target.name)
    numbers = (engineering(v, unit) for v in (least, wanted.before, wanted.goal))
    stay = list(pruner.coupling.channels.frozen.items())
    why = "".join(f"; {layer_of(n) or n!r} stays: {w}" for n, w in stay[:2])
    text = "{} is the least that pruning can reach, of {}; the target is {}".format(*numbers)
    raise SearchError(f"{wanted.target.name}: {text}{why}")


def _sizes(pruner: "Pruner") -> dict[str, int]:
    return {path: len(pruner.coupling.units(path)) for path in pruner.coupling.producers}


def _chosen(pruner: "Pruner", ignore: Sequence[Any]) -> Callable[[Axis], bool]:
    """Return which axes may be pruned.

    Raises:
        UnknownName: something to ignore is not in the model.
    """
    types = tuple(one for one in ignore if isinstance(one, type))
    paths = [pruner.path(one) for one in ignore if not isinstance(one, type)]

    def takes(axis: Axis) -> bool:
        own = [layer_of(name) for name in axis.producers]
        inside = (path == p or path.startswith(f"{p}.") or not p for path in own for p in paths)
        modules = (pruner.coupling.module(path) for path in own)
        return not any(inside) and not any(isinstance(module, types) for module in modules)

    return takes
