"""The command line of the searching examples: several processes, a progress bar, a table."""

import argparse
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from statistics import mean

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from samples import Data
from searching import Pressure, Result, Task, measured, searched, trained


@dataclass(frozen=True)
class Job:
    """One training from random weights, or one search.

    Attributes:
        net: name of the network in ``Task.nets``.
        epochs: of a training.
        pressure: of a search.
        start: the pickled network that a search starts from.
    """

    task: Task
    seed: int
    net: str = ""
    epochs: int = 0
    pressure: Pressure | None = None
    start: bytes = b""


#: Runs jobs, one after another or side by side; yields outcomes in the order of the jobs.
Runner = Callable[[Sequence[Job]], Iterable[tuple[Result, bytes]]]


@dataclass(frozen=True)
class Row:
    """What one kind of network reached, once per seed."""

    title: str
    results: tuple[Result, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, in per cent."""
        return mean(result.accuracy for result in self.results)

    def cost(self, name: str) -> float:
        """Mean over the seeds, in the cost's unit."""
        return mean(result.costs[name] for result in self.results)


@cache
def loaded(load: Callable[[], Data]) -> Data:
    """Return the data, made once a process."""
    return load()


def run(job: Job) -> tuple[Result, bytes]:
    """Return what the network reaches, and itself, pickled."""
    data = loaded(job.task.load)
    if job.pressure is None:
        model = trained(job.task.nets[job.net], job.epochs, job.task, data, job.seed)
    else:
        model = searched(pickle.loads(job.start), job.pressure, job.task, data, job.seed)
    return measured(model, job.task, data), pickle.dumps(model)


def experiment(
    task: Task, pressures: Sequence[Pressure], seeds: Sequence[int], runner: Runner
) -> list[Row]:
    """Return rows of the networks before the search, then one row per pressure.

    The former are trained for as many epochs as searched networks are in all.
    """
    plan, first = task.plan, next(iter(task.nets))
    starts = runner([Job(task, seed, first, plan.train) for seed in seeds])
    warm = [model for _, model in starts]
    jobs = [Job(task, seed, net, plan.epochs) for net in task.nets for seed in seeds]
    jobs += [
        Job(task, seed, pressure=pressure, start=start)
        for pressure in pressures
        for seed, start in zip(seeds, warm, strict=True)
    ]
    results = [result for result, _ in runner(jobs)]
    titles = [*task.nets, *(_title(pressure) for pressure in pressures)]
    groups = zip(*[iter(results)] * len(seeds), strict=True)
    return [Row(title, group) for title, group in zip(titles, groups, strict=True)]


def _title(pressure: Pressure) -> str:
    return pressure if isinstance(pressure, str) else f"strength {pressure:g}"


@contextmanager
def runner(workers: int, total: int) -> Iterator[Runner]:
    """Yield what runs jobs, ``total`` in all, in so many processes and draws a bar."""
    progress = Progress(console=Console(stderr=True), transient=True)
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    bar = progress.add_task("training", total=total)

    def run_all(jobs: Sequence[Job]) -> Iterator[tuple[Result, bytes]]:
        for outcome in map(run, jobs) if workers == 1 else pool.map(run, jobs):
            progress.advance(bar)
            yield outcome

    with progress, pool:
        yield run_all


def table(rows: Sequence[Row], task: Task) -> Table:
    """Return the rows as a table; a cost stands beside its factor below the first row's."""
    shown = Table(box=None)
    shown.add_column("network")
    shown.add_column("accuracy", justify="right")
    shown.add_column("lowest", justify="right")
    for name, cost in task.models.items():
        unit = "" if cost.unit in ("", "1") else f" in {cost.unit}"
        shown.add_column(name + unit, justify="right")
        shown.add_column("", justify="right")
    for row in rows:
        lowest = min(result.accuracy for result in row.results)
        cells = [row.title, f"{row.accuracy:.1f} %", f"{lowest:.1f} %"]
        for name in task.costs:
            cells += [f"{row.cost(name):.3g}", f"1/{rows[0].cost(name) / row.cost(name):.1f}"]
        shown.add_row(*cells)
    return shown


def met(row: Row, before: Row, task: Task) -> Table:
    """Return a table of what costs came to with any seed, beside their targets."""
    shown = Table("cost", "target", "lowest", "highest", box=None)
    for name, target in task.targets.items():
        shares = [100 * result.costs[name] / before.cost(name) for result in row.results]
        shown.add_row(name, target, f"{min(shares):.2f} %", f"{max(shares):.2f} %")
    return shown


def main(task: Task, fast: Task, words: Sequence[str] | None = None) -> list[Row]:
    """Run the command line of an example; print its table and return the rows."""
    options = _parser(task).parse_args(words)
    task = fast if options.fast else task
    if options.epochs:
        task = replace(task, plan=task.plan.scaled(options.epochs))
    pressures = [options.by] if options.by else options.strengths or task.strengths
    seeds = range(options.seeds)
    total = (1 + len(task.nets) + len(pressures)) * len(seeds)
    with runner(options.workers, total) as run_jobs:
        rows = experiment(task, pressures, seeds, run_jobs)
    console = Console(highlight=False)
    console.print(table(rows, task))
    if options.by:
        console.print(met(rows[-1], rows[0], task))
    return rows


def _parser(task: Task) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strengths", type=float, nargs="+", help="of the costs in the loss")
    targets = ", ".join(f"{name} {value}" for name, value in task.targets.items())
    meet = f"meet targets instead: {targets}".replace("%", "%%")
    parser.add_argument("--by", choices=["duccio", "constraint"], help=meet)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, help="of training, search and fine-tuning in all")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--fast", action="store_true", help="little data, few epochs")
    return parser
