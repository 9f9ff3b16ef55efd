"""Prune trained networks to half their latency, by six metrics of what a unit matters."""

import argparse
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import cache
from multiprocessing import get_context
from statistics import mean

import torch
from data_glyphs import load_glyphs
from rich.console import Console
from rich.table import Table
from samples import Data
from search_glyphs import cnn
from torch import nn
from training import accuracy, train

from hwcost.search import (
    APoZAttributionMetric,
    Pruner,
    RandomAttributionMetric,
    SensitivityAttributionMetric,
    ShapleyAttributionMetric,
    TaylorAttributionMetric,
    WeightNormAttributionMetric,
    recalibrate_bn,
)

#: What is to be reached, and where.
TARGET, PLATFORM = "latency <= 50 %", "gap8_compute"

#: Epochs in which networks are trained at first, and after pruning.
EPOCHS, FINE_TUNING = 8, 1

#: How many training samples metrics see, and how many of these the slow one does.
SAMPLES, FEW = 512, 128

#: Title -> class of the metric.
METRICS = {
    "Random": RandomAttributionMetric,
    "APoZ": APoZAttributionMetric,
    "Sensitivity": SensitivityAttributionMetric,
    "Taylor": TaylorAttributionMetric,
    "WeightNorm": WeightNormAttributionMetric,
    "Shapley": ShapleyAttributionMetric,
}


@dataclass(frozen=True)
class Result:
    """What one metric comes to.

    Attributes:
        trained, pruned, recalibrated, tuned: accuracy on the test set in per cent: before
            pruning, after it, with new statistics of its norms, and after more training.
        latency: of the pruned network, in seconds; before: that of the whole one.
        seconds: that scoring and pruning took.
    """

    trained: float
    pruned: float
    recalibrated: float
    tuned: float
    latency: float
    before: float
    seconds: float


@dataclass(frozen=True)
class Job:
    """One metric on one trained network, which is pickled."""

    title: str
    seed: int
    start: bytes


@cache
def glyphs() -> Data:
    """Return the data, made once a process."""
    return load_glyphs()


def trained(seed: int) -> bytes:
    """Return a trained network, pickled."""
    torch.manual_seed(seed)
    model = cnn()
    train(model, glyphs(), EPOCHS, 3e-3, seed=seed)
    return pickle.dumps(model)


def scorer(title: str, model: nn.Module, seed: int) -> Callable[[nn.Module], object]:
    """Return what scores the units of a module."""
    split = glyphs().train
    count = FEW if title == "Shapley" else SAMPLES
    data = list(zip(split.x[:count].split(64), split.y[:count].split(64), strict=True))
    generator = torch.Generator().manual_seed(seed)
    criterion = nn.CrossEntropyLoss()
    return METRICS[title](model, data, criterion, generator=generator)


def run(job: Job) -> Result:
    """Prune a trained network, and see what it reaches on the way."""
    data, model = glyphs(), pickle.loads(job.start)
    reached = [accuracy(model, data.test)]
    start = time.perf_counter()
    pruner = Pruner(model, data.train.x[:1])
    metric = scorer(job.title, model, job.seed)
    done = pruner.prune_to(TARGET, cost=PLATFORM, metric=metric)
    seconds = time.perf_counter() - start
    reached.append(accuracy(model, data.test))
    recalibrate_bn(model, data.train.x[:2048].split(64))
    reached.append(accuracy(model, data.test))
    train(model, data, FINE_TUNING, 1e-3, seed=job.seed)
    reached.append(accuracy(model, data.test))
    return Result(*reached, done.after, done.before, seconds)


def experiment(seeds: Sequence[int], workers: int) -> dict[str, Result]:
    """Return the mean result of each metric."""
    jobs_of = [(title, seed) for title in METRICS for seed in seeds]
    spawned = get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, torch.set_num_threads, (1,)) as pool:
        starts = dict(zip(seeds, pool.map(trained, seeds), strict=True))
        jobs = [Job(title, seed, starts[seed]) for title, seed in jobs_of]
        results = list(pool.map(run, jobs))
    found: dict[str, Result] = {}
    for title in METRICS:
        own = [r for (name, _), r in zip(jobs_of, results, strict=True) if name == title]
        found[title] = Result(*map(mean, zip(*map(astuple, own), strict=True)))
    return found


def table(results: dict[str, Result]) -> Table:
    """Return the results as a table, a row for each metric."""
    shown = Table(box=None)
    shown.add_column("metric")
    for name in ("trained", "pruned", "recalibrated", "fine-tuned", "latency", "seconds"):
        shown.add_column(name, justify="right")
    for title, result in results.items():
        steps = (result.trained, result.pruned, result.recalibrated, result.tuned)
        cells = [f"{step:.2f} %" for step in steps]
        share = f"{result.latency / result.before:.1%}"
        shown.add_row(title, *cells, share, f"{result.seconds:.2f}")
    return shown


def main(words: Sequence[str] | None = None) -> dict[str, Result]:
    """Run the command line; print the table and return the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(words)
    results = experiment(range(options.seeds), options.workers)
    console = Console(highlight=False)
    console.print(table(results))
    console.print(f"accuracies are means of {options.seeds} seeds, on the test set")
    return results


if __name__ == "__main__":
    main()
