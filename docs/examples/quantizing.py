"""From a trained network to one of few bits: train it quantized, or search; then compare.

The examples differ in their ``Task`` only.
"""

import argparse
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import isnan, nan
from multiprocessing import get_context
from statistics import mean
from typing import Any

import torch
from matplotlib.ticker import EngFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from samples import Data
from torch import Tensor, nn
from training import accuracy, steps_of, train

import hwcost
from hwcost.search import Schedule, Search, refine

#: Share of the absolute values, in per cent, that the range of a tensor holds at first.
PERCENTILE = 99.9


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        train, search, tune: epochs in floating point, of the search, and with its choices made.
            What has nothing to choose trains for the sum of the last two at ``search_lr``.
        lr, search_lr, tune_lr: highest learning rates of the weights in each.
        nas_lr: highest learning rate of the choices.
        coldest: temperature of the choices at the end of the search; it starts at 1.
    """

    train: int = 8
    search: int = 4
    tune: int = 4
    lr: float = 3e-3
    search_lr: float = 1e-3
    tune_lr: float = 1e-3
    nas_lr: float = 3e-2
    coldest: float = 0.1


@dataclass(frozen=True)
class Case:
    """One way to quantize a network.

    Attributes:
        title: of its row in the table.
        make: a search, from a trained network and an input.
        strength: of the cost in the loss; None where nothing is searched.
        refined: whether channels get more bits after the search, where they are free.
    """

    title: str
    make: Callable[[nn.Module, Tensor], Search]
    strength: float | None = None
    refined: bool = False


@dataclass(frozen=True)
class Task:
    """One example.

    Attributes:
        load: makes the data.
        net: makes the network with random weights.
        cases: ways to quantize it; the first is what the table compares the others with.
        costs: what the table shows, by name, each "PLATFORM:METRIC".
    """

    load: Callable[[], Data]
    net: Callable[[], nn.Module]
    cases: tuple[Case, ...]
    costs: Mapping[str, str]
    plan: Plan = Plan()

    @property
    def models(self) -> dict[str, hwcost.CostModel]:
        """The costs by name."""
        return {name: hwcost.CostModel(*text.split(":")) for name, text in self.costs.items()}


@dataclass(frozen=True)
class Result:
    """What a network reaches on the test set, in per cent, and what it costs, in SI units.

    Attributes:
        exported: the accuracy of the exported network.
    """

    accuracy: float
    exported: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """One training, of a case from the pickled network ``start``, else in floating point."""

    task: Task
    seed: int
    case: Case | None = None
    start: bytes = b""


@dataclass(frozen=True)
class Row:
    """What one kind of network reached, once per seed."""

    title: str
    results: tuple[Result, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, in per cent."""
        return mean(result.accuracy for result in self.results)

    @property
    def exported(self) -> float:
        """The accuracy of exported networks, mean over the seeds, in per cent."""
        return mean(result.exported for result in self.results)

    def cost(self, name: str) -> float:
        """Mean over the seeds, in the cost's unit; NaN where it has none."""
        return mean(result.costs.get(name, nan) for result in self.results)


def quantized(model: nn.Module, case: Case, plan: Plan, data: Data, seed: int) -> Search:
    """Return a trained search that begins with a trained network, which is left as it is."""
    search = case.make(model, data.train.x[:1])
    search.calibrate([data.train.x[:512]], percentile=PERCENTILE)
    if case.strength is None:
        decided(search, plan.search + plan.tune, plan.search_lr, data, seed)
        return search
    search.sampling.schedule = Schedule(1.0, plan.coldest, steps_of(data, plan.search))
    groups = search.param_groups(plan.search_lr, plan.nas_lr, weight_decay=1e-4)
    penalty = Price(search, case.strength)
    train(search, data, plan.search, plan.search_lr, seed=seed, groups=groups, penalty=penalty)
    if case.refined:
        refine(search)
    decided(search, plan.tune, plan.tune_lr, data, seed)
    return search


@dataclass(frozen=True)
class Price:
    """The term of the loss that makes a search spend less; each step cools its choices."""

    search: Search
    strength: float

    def __call__(self, epoch: int) -> Tensor:
        """Return it."""
        self.search.sampling.step()
        return self.strength * self.search.get_cost(relative=True).float()


def decided(search: Search, epochs: int, lr: float, data: Data, seed: int) -> None:
    """Train a search's weights and scales; each choice is what it would be in the export."""
    search.sampling.schedule = None
    search.sampling.mode = "hard"
    search.train_net_only()
    groups = search.param_groups(lr, lr, weight_decay=1e-4)
    train(search, data, epochs, lr, seed=seed + 1, groups=groups)


@cache
def loaded(load: Callable[[], Data]) -> Data:
    """Return the data, made once a process."""
    return load()


def run(job: Job) -> tuple[Result, bytes]:
    """Return what a network reaches, and itself, pickled."""
    task, data = job.task, loaded(job.task.load)
    if job.case is None:
        torch.manual_seed(job.seed)
        model = task.net()
        train(model, data, task.plan.train, task.plan.lr, seed=job.seed)
        reached = accuracy(model, data.test)
        return Result(reached, reached, {}), pickle.dumps(model)
    search = quantized(pickle.loads(job.start), job.case, task.plan, data, job.seed)
    model = search.export().eval()
    table = hwcost.trace(model, data.test.x[:1])
    costs = {name: cost.total(table).item() for name, cost in task.models.items()}
    result = Result(accuracy(search, data.test), accuracy(model, data.test), costs)
    return result, pickle.dumps(model)


def experiment(task: Task, seeds: Sequence[int], workers: int) -> list[Row]:
    """Return a row of the network in floating point, then one per case."""
    starts = _outcomes([Job(task, seed) for seed in seeds], workers, "in floating point")
    jobs = [
        Job(task, seed, case, model)
        for case in task.cases
        for seed, (_, model) in zip(seeds, starts, strict=True)
    ]
    results = [result for result, _ in [*starts, *_outcomes(jobs, workers, "quantized")]]
    titles = ["float", *(case.title for case in task.cases)]
    groups = zip(*[iter(results)] * len(seeds), strict=True)
    return [Row(title, group) for title, group in zip(titles, groups, strict=True)]


def _outcomes(jobs: Sequence[Job], workers: int, title: str) -> list[tuple[Result, bytes]]:
    options: dict[str, Any] = {"console": Console(stderr=True), "transient": True}
    if workers == 1:
        return list(track(map(run, jobs), title, len(jobs), **options))
    spawned = get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, torch.set_num_threads, (1,)) as pool:
        return list(track(pool.map(run, jobs), title, len(jobs), **options))


def table(rows: Sequence[Row], task: Task) -> Table:
    """Return the rows as a table; a cost stands beside its share of the first case's."""
    shown = Table(box=None)
    shown.add_column("network")
    for name in ("accuracy", "exported", *(head for cost in task.costs for head in (cost, ""))):
        shown.add_column(name, justify="right")
    for row in rows:
        cells = [row.title, f"{row.accuracy:.2f} %", f"{row.exported:.2f} %"]
        for name, model in task.models.items():
            cost, first = row.cost(name), rows[1].cost(name)
            written = EngFormatter(model.unit, places=1)
            cells += ["", ""] if isnan(cost) else [written(cost), f"{cost / first:.1%}"]
        shown.add_row(*cells)
    return shown


def main(task: Task, words: Sequence[str] | None = None) -> list[Row]:
    """Run the command line of an example; print its table and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(words)
    rows = experiment(task, range(options.seeds), options.workers)
    console = Console(highlight=False)
    console.print(table(rows, task))
    console.print(f"accuracies and costs are means of {options.seeds} seeds")
    return rows
