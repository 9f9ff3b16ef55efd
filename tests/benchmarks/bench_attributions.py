"""Shapley values against re-running the network for every mask, over all layers of networks."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwcost.search.attributions import ShapleyAttributionMetric
from hwcost.search.attributions_data import Batch, Losses
from hwcost.search.attributions_masked import Rerun, Site
from hwcost.search.attributions_state import evaluating
from hwcost.zoo import mobilenet_v1, resnet8

SAMPLES = 5
BATCH = 32


def vgg() -> nn.Module:
    """A VGG for 32x32 pixels: convolutions of 32 to 256 channels, three linear layers."""
    layers: list[nn.Module] = []
    cin = 3
    for cout, count in ((32, 2), (64, 2), (128, 2), (256, 2)):
        for _ in range(count):
            layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU()]
            cin = cout
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *head)


NETS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "resnet8": lambda: (resnet8()[0], (3, 32, 32)),
    "vgg": lambda: (vgg(), (3, 32, 32)),
    "mobilenet_v1": lambda: (mobilenet_v1()[0], (3, 96, 96)),
}


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module, int]]:
    """Return path, module and units of every convolution and linear layer."""
    kinds = (nn.Conv2d, nn.Linear)
    found = ((p, m) for p, m in model.named_modules() if isinstance(m, kinds))
    return [(p, m, int(m.weight.shape[0])) for p, m in found]


def rerun_seconds(model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, units: int) -> float:
    """Return the time of one run of the whole network with a mask: the median of three."""
    way = Rerun(Site(model, module, 1), Losses(F.cross_entropy))
    batch = Batch((x,), {}, y, len(x))
    mask = torch.zeros(units, dtype=torch.bool)
    mask[0] = True
    times = []
    with evaluating(model):
        way.masked(batch, mask)
        for _ in range(3):
            start = time.process_time()
            way.masked(batch, mask)
            times.append(time.process_time() - start)
    return statistics.median(times)


@pytest.mark.parametrize("name", NETS)
def test_shapley_values(benchmark: Any, name: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, shape = NETS[name]()
    x, y = torch.randn(BATCH, *shape), torch.randint(0, 2, (BATCH,))
    metric = ShapleyAttributionMetric(model, [(x, y)], F.cross_entropy, sv_samples=SAMPLES)
    rows = []
    metric.run(layers_of(model)[-1][1])  # what torch does on first use is not the point
    for path, module, units in layers_of(model):
        plain = rerun_seconds(model, module, x, y, units) * (SAMPLES * units + 1)
        start = time.process_time()
        metric.run(module)
        rows.append((path, units, plain, time.process_time() - start))
    for path, units, plain, fast in rows:
        print(
            f"\n{path:32}{units:5} units {plain:8.2f} s {fast:8.2f} s {plain / fast:6.1f}x", end=""
        )
    total = sum(r[2] for r in rows) / sum(r[3] for r in rows)
    print(f"\n{name}: {total:.1f} times as fast as re-running, over all layers")
    benchmark.extra_info["ratio"] = total
    benchmark.pedantic(lambda: None, rounds=1)
    torch.set_num_threads(threads)
