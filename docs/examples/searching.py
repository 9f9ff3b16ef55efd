"""From a trained network to a small one: search, export, recalibrate, fine-tune.

The examples differ in their ``Task`` only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from samples import Data
from torch import Tensor, nn
from training import Penalty, accuracy, steps_of, train

import hwcost
from hwcost.search import DUCCIO, PIT, Constraint, recalibrate_bn

#: What tells a search to spend less: a strength, or "duccio" or "constraint" with targets.
Pressure = float | str

#: What a cost above its target weighs in DUCCIO at first; the cross entropy is about 0.7.
TASK_LOSS = 3.0


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        train, search, tune: epochs before the search, of the search, and of the fine-tuning of
            the exported network.
        lr, search_lr, tune_lr: highest learning rates of the weights in each.
        nas_lr: highest learning rate of the masks.
    """

    train: int = 10
    search: int = 10
    tune: int = 10
    lr: float = 3e-3
    search_lr: float = 3e-3
    tune_lr: float = 5e-3
    nas_lr: float = 1e-2

    @property
    def epochs(self) -> int:
        """All epochs of a searched network."""
        return self.train + self.search + self.tune

    def scaled(self, epochs: int) -> "Plan":
        """Return a plan of so many epochs in all, shared out as in this one."""
        train, search, tune = (
            max(1, round(n * epochs / self.epochs)) for n in (self.train, self.search, self.tune)
        )
        return replace(self, train=train, search=search, tune=tune)


@dataclass(frozen=True)
class Task:
    """One example.

    Attributes:
        load: makes the data.
        nets: make networks with random weights, by name; the first is searched in, the others
            are trained to compare with.
        costs: what to spend less of, by name, each "PLATFORM:METRIC". A strength multiplies the
            mean of the costs, each relative to that of the network before the search.
        targets: what the costs may be in the end, for regularizers with targets.
    """

    load: Callable[[], Data]
    nets: Mapping[str, Callable[[], nn.Module]]
    costs: Mapping[str, str]
    targets: Mapping[str, str]
    strengths: tuple[float, ...]
    plan: Plan = Plan()

    @property
    def models(self) -> dict[str, hwcost.CostModel]:
        """The costs by name."""
        return {name: hwcost.CostModel(*text.split(":")) for name, text in self.costs.items()}


@dataclass(frozen=True)
class Result:
    """What a network reaches on the test set, in per cent, and what it costs, in SI units."""

    accuracy: float
    costs: Mapping[str, float]


def measured(model: nn.Module, task: Task, data: Data) -> Result:
    """Return what a trained network reaches."""
    table = hwcost.trace(model.eval(), data.test.x[:1])
    costs = {name: cost.total(table).item() for name, cost in task.models.items()}
    return Result(accuracy(model, data.test), costs)


def trained(
    net: Callable[[], nn.Module], epochs: int, task: Task, data: Data, seed: int
) -> nn.Module:
    """Return a network after plain training."""
    torch.manual_seed(seed)
    model = net()
    train(model, data, epochs, task.plan.lr, seed=seed)
    return model


def searched(model: nn.Module, pressure: Pressure, task: Task, data: Data, seed: int) -> nn.Module:
    """Return a smaller network made from a trained one, which is left as it is."""
    plan = task.plan
    # Of strengths, soft costs steer more finely; DUCCIO's targets are for the exported network.
    discrete = pressure == "duccio"
    search = PIT(model, data.train.x[:1], cost=task.models, discrete_cost=discrete)
    constraint = Constraint(task.targets, n_steps=steps_of(data, plan.search))
    duccio = DUCCIO(task.targets, task_loss=TASK_LOSS)
    terms: dict[Pressure, Penalty] = {
        "constraint": lambda epoch: constraint(search),
        "duccio": lambda epoch: duccio(search, epoch, plan.search),
    }
    term = terms.get(pressure, lambda epoch: float(pressure) * mean_cost(search))
    groups = search.param_groups(plan.search_lr, plan.nas_lr, weight_decay=1e-4)
    train(search, data, plan.search, plan.search_lr, seed=seed, groups=groups, penalty=term)
    if pressure in terms:
        constraint.settle(search)
    small = search.export()
    recalibrate_bn(small, data.train.x.split(256))
    train(small, data, plan.tune, plan.tune_lr, seed=seed)
    return small


def mean_cost(search: PIT) -> Tensor:
    """Return the mean of the costs, each relative to the network before the search."""
    costs = [search.get_cost(name, relative=True) for name in search.cost_specification]
    return torch.stack(costs).mean().float()
