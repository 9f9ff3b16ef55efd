"""Speed of tracing; run by ``make bench``. The targets are CPU time on one thread."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost import zoo
from hwcost.tracing import trace


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution on everything before them."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(cin), nn.BatchNorm2d(128)
        self.conv1 = nn.Conv2d(cin, 128, 1, bias=False)
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Any:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet121(nn.Module):
    """Huang et al., 2016, arXiv:1608.06993, table 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks, self.transitions, channels = nn.ModuleList(), nn.ModuleList(), 64
        for count in (6, 12, 24, 16):
            layers = [DenseLayer(channels + 32 * i) for i in range(count)]
            self.blocks.append(nn.ModuleList(layers))
            channels += 32 * count
            if count != 16:
                conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
                norm = nn.BatchNorm2d(channels)
                self.transitions.append(nn.Sequential(norm, nn.ReLU(), conv, nn.AvgPool2d(2)))
                channels //= 2
        self.norm, self.head = nn.BatchNorm2d(channels), nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Any:
        x = self.stem(image)
        for block, after in zip(self.blocks, [*self.transitions, self.norm], strict=True):
            features = [x]
            for layer in block:  # type: ignore[attr-defined]
                features.append(layer(features))
            x = after(torch.cat(features, 1))
        return self.head(F.relu(x).mean((2, 3)))


def measured(benchmark: Any, run: Callable[[], object]) -> float:
    """Return the milliseconds of CPU time of the fastest of some runs."""
    times = []

    def timed() -> None:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)

    benchmark.pedantic(timed, rounds=7, warmup_rounds=1)
    benchmark.extra_info["cpu_ms"] = 1e3 * min(times)
    return 1e3 * min(times)


def test_resnet18(benchmark: Any) -> None:
    model, example = zoo.resnet18()
    assert measured(benchmark, lambda: trace(model, example)) < 60


def test_densenet121(benchmark: Any) -> None:
    model, example = DenseNet121(), torch.zeros(1, 3, 224, 224)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == 121
    assert measured(benchmark, lambda: trace(model, example)) < 400


def test_memory_does_not_depend_on_the_weights(benchmark: Any) -> None:
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(100_000, 100_000) for _ in range(10)))
    benchmark(lambda: trace(model, torch.zeros(1, 100_000)))
