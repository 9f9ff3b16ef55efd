"""Speed of loading and pricing, one thread; run with ``make bench``.

Targets, on an idle core: a platform loaded and compiled in 300 ms cold and 1 ms cached; one
platform on resnet8 priced with gradient in 0.5 ms, three platforms on 50 layers in 5 ms;
5 million rows a second in a table.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hwcost import CostModel, Workload, load, loading, trace, zoo

torch.set_num_threads(1)


def test_load_cached(benchmark: Any) -> None:
    benchmark(load, "gap8_compute")


def test_load_and_compile_after_imports(benchmark: Any) -> None:
    table = Workload.from_columns("conv", cin=3, cout=8, kh=3, kw=3, oh=8, ow=8)

    def once() -> None:
        loading._LOADED.clear()
        CostModel("gap8_compute").total(table)

    benchmark(once)


IMPORTS = """
import time; import torch
start = time.process_time(); import hwcost
imported = time.process_time(); hwcost.load("gap8_compute")
print(imported - start, time.process_time() - imported)
"""


def test_import_and_first_load_in_a_new_process(benchmark: Any) -> None:
    def once() -> None:
        result = subprocess.run(
            [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
        )
        imported, loaded = (float(word) for word in result.stdout.split())
        benchmark.extra_info |= {"import hwcost, s": imported, "first load, s": loaded}

    benchmark.pedantic(once, rounds=3)
    print(benchmark.extra_info)


def _step(models: list[CostModel], table: Workload) -> Callable[[], None]:
    """One training step's cost: forward and backward to cin and cout."""
    cin, cout = (table.column(n).clone().requires_grad_() for n in ("cin", "cout"))

    def step() -> None:
        cin.grad = cout.grad = None
        searched = table.with_columns(cin=cin, cout=cout)
        torch.stack([model.total(searched) for model in models]).sum().backward()

    return step


@pytest.mark.parametrize("platform", ["gap8_compute", "mpic", "ne16_compute", "diana", "darkside"])
def test_cost_of_resnet8_with_gradient(benchmark: Any, platform: str) -> None:
    benchmark(_step([CostModel(platform)], trace(*zoo.resnet8())))


def test_cost_of_50_layers_on_three_platforms_with_gradient(benchmark: Any) -> None:
    table = trace(*zoo.mobilenet_v2())
    assert sum(kind in ("conv", "linear") for kind in table.kinds) >= 50
    models = [CostModel(p) for p in ("gap8_compute", "mpic", "diana")]
    benchmark(_step(models, table))


def test_table_of_ten_million_rows(benchmark: Any) -> None:
    rows = 10_000_000
    cin, cout, oh, ow = (torch.randint(1, 512, (rows,)).double() for _ in range(4))
    table = Workload.from_columns("conv", cin=cin, cout=cout, kh=3, kw=3, oh=oh, ow=ow)
    model = CostModel("gap8_compute")
    benchmark.pedantic(model.rows, (table,), rounds=3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    benchmark.extra_info |= {"rows a second": rows / benchmark.stats["mean"], "peak GiB": peak}
    print(benchmark.extra_info)
