"""Speed of finding tiles, one thread; run with ``make bench``.

Targets, on an idle core: the tiles of a network of new sizes in 10 ms, of known ones in 1 ms;
those of 1000 different convolutions in 150 ms, with large images in 500 ms.
"""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hwcost import CostModel, Workload, trace, zoo
from hwcost.loading import loads

torch.set_num_threads(1)

TILED = (Path(__file__).parents[1] / "data" / "tiled.yaml").read_text()

#: Sizes of memory, each of which is new: nothing is known of its tiles.
SIZES = itertools.count(15000)

NETS = ["resnet8", "mobilenet_v1", "mobilenet_v2", "resnet18"]


def fresh(work: Workload) -> tuple[tuple[CostModel, Workload], dict[str, Any]]:
    """Return a model that knows no tiles, its formulas compiled, and a table."""
    model = CostModel(loads(TILED.replace("16 KiB", f"{next(SIZES)} B")), "latency")
    model.plan(trace(*zoo.ds_cnn()))
    return (model, work), {}


def convs(sides: tuple[int, ...]) -> Workload:
    """Return 1000 different convolutions."""
    draw = random.Random(0)
    side = [float(draw.choice(sides)) for _ in range(1000)]
    kernel = [float(draw.choice([1, 3, 5])) for _ in range(1000)]
    channels = {n: [float(draw.randint(1, 512)) for _ in range(1000)] for n in ("cin", "cout")}
    image = {"ih": side, "iw": side, "oh": side, "ow": side}
    return Workload.from_columns("conv", kh=kernel, kw=kernel, **channels, **image)


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_new_sizes(benchmark: Any, name: str) -> None:
    work = trace(*getattr(zoo, name)())
    benchmark.pedantic(CostModel.plan, setup=lambda: fresh(work), rounds=5)


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_known_sizes(benchmark: Any, name: str) -> None:
    platform, work = loads(TILED), trace(*getattr(zoo, name)())
    CostModel(platform, "latency").plan(work)

    def setup() -> tuple[tuple[CostModel, Workload], dict[str, Any]]:
        return (CostModel(platform, "latency"), work), {}

    benchmark.pedantic(CostModel.plan, setup=setup, rounds=20)


@pytest.mark.parametrize("sides", [(7, 14, 28), (56, 112, 224)])
def test_a_thousand_convolutions(benchmark: Any, sides: tuple[int, ...]) -> None:
    work = convs(sides)
    benchmark.pedantic(CostModel.plan, setup=lambda: fresh(work), rounds=3)
