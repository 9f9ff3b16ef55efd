"""What a search adds to training, one thread, batch 32; run with ``make bench``.

Targets, on an idle core. A step of PIT against the plain network's, interleaved in one run:
resnet8 1.05, MobileNetV1-0.25 1.10, a TCN 1.05, ResNet18 1.03; memory saved for backward 1.05.
A SuperNet: at most the sum of its branches plus 5 % when soft, 1.15 of the largest path in
single-path mode. ``search.cost`` with gradient: 0.5 ms on resnet8, 1 ms on ResNet18. Conversion
of ResNet18: 300 ms.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwcost import zoo
from hwcost.search import PIT, Choice, Search, SuperNet

torch.set_num_threads(1)

NETS = ("resnet8", "mobilenet_v1", "tcresnet14", "resnet18")
COST = "gap8_compute:latency"
BATCH = 32


class _Block(nn.Module):
    """A residual block of TC-ResNet: two temporal convolutions of 9 taps."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        stride = 2 if cin != cout else 1
        self.conv1 = nn.Conv1d(cin, cout, 9, stride, padding=4, bias=False)
        self.bn1 = nn.BatchNorm1d(cout)
        self.conv2 = nn.Conv1d(cout, cout, 9, padding=4, bias=False)
        self.bn2 = nn.BatchNorm1d(cout)
        projection = nn.Conv1d(cin, cout, 1, stride, bias=False), nn.BatchNorm1d(cout), nn.ReLU()
        self.shortcut = nn.Sequential(*projection) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def tcresnet14() -> tuple[nn.Module, Tensor]:
    """A net like TC-ResNet14-1.5 (arXiv:1904.03814): 40 MFCCs, 98 frames, 12 classes."""
    widths = (24, 36, 36, 48, 48, 72, 72)
    blocks = [_Block(cin, cout) for cin, cout in pairwise(widths)]
    stem = nn.Conv1d(40, 24, 3, padding=1, bias=False)
    head = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(72, 12)
    return nn.Sequential(stem, *blocks, *head), torch.zeros(1, 40, 98)


def _batch(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, example = tcresnet14() if name == "tcresnet14" else getattr(zoo, name)()
    return model.train(), torch.randn(BATCH, *example.shape[1:])


def _step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One training step; of a search, with its cost."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if isinstance(model, Search):
            loss = loss + 1e-9 * model.cost
        loss.backward()
        optimizer.step()

    return step


def _ratio(plain: Callable[[], None], searched: Callable[[], None], rounds: int) -> float:
    """Return the median of the ratios of steps run in turn."""
    ratios = []
    gc.disable()
    try:
        for turn in range(rounds + 2):
            times = []
            for step in (plain, searched) if turn % 2 else (searched, plain):
                start = time.process_time()
                step()
                times.append(time.process_time() - start)
            first, second = times if turn % 2 else times[::-1]
            ratios.append(second / first)
    finally:
        gc.enable()
    return statistics.median(ratios[2:])


@pytest.mark.parametrize(("name", "rounds"), [(n, 4 if n == "resnet18" else 60) for n in NETS])
def test_step_of_pit(benchmark: Any, name: str, rounds: int) -> None:
    model, x = _batch(name)
    search = PIT(model, x[:1], cost=COST).train()
    ratio = _ratio(_step(model, x), _step(search, x), rounds)
    benchmark.extra_info["ratio"] = ratio
    print(f"\n{name}: search step / plain step {ratio:.3f}")
    benchmark.pedantic(_step(search, x), rounds=3)


@contextmanager
def _saved() -> Iterator[list[int]]:
    """Count the bytes that autograd keeps, each storage once; parameters do not count."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not (isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    total: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    total.append(sum(seen.values()))


def _memory(plain: nn.Module, search: nn.Module, x: Tensor) -> float:
    """Return how many times as many bytes a search keeps for backward."""
    sizes = []
    for network in (plain, search):
        with _saved() as total:
            out = network(x)
        sizes.append(total[0])
        del out
    return sizes[1] / sizes[0]


@pytest.mark.parametrize("name", NETS)
def test_memory_of_pit(benchmark: Any, name: str) -> None:
    model, x = _batch(name)
    search = PIT(model, x[:1], cost=COST).train()
    ratio = _memory(model, search, x)
    print(f"\n{name}: saved for backward {ratio:.3f} of the plain step's")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
@pytest.mark.parametrize("cost", ["counts:params", COST])
def test_cost_with_gradient(benchmark: Any, name: str, cost: str) -> None:
    model, x = _batch(name)
    search = PIT(model, x[:1], cost=cost)
    benchmark(lambda: search.cost.backward())


def test_conversion_of_resnet18(benchmark: Any) -> None:
    model, x = _batch("resnet18")
    PIT(model, x[:1], cost=COST)
    benchmark.pedantic(lambda: PIT(model, x[:1], cost=COST), rounds=5)


def _block(kernel: int) -> nn.Module:
    conv = nn.Conv2d(32, 32, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(32), nn.ReLU())


def _branches() -> list[nn.Module]:
    return [_block(1), _block(3), _block(5)]


def _around(middle: list[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *middle, nn.Flatten(), nn.LazyLinear(10))


def _ready(model: nn.Module, x: Tensor) -> nn.Module:
    model(x)
    return model.train()


class _Sum(nn.Module):
    """All branches, one after another, and the sum of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branches())

    def forward(self, x: Tensor) -> Tensor:
        return sum((branch(x) for branch in self.branches), torch.zeros(()))


@pytest.mark.parametrize("single_path", [False, True])
def test_step_of_a_supernet(benchmark: Any, single_path: bool) -> None:
    x = torch.randn(32, 3, 32, 32)
    plain: list[nn.Module] = [_Sum(), _Sum()]
    if single_path:
        plain = [_block(5), _block(5)]
    against = _ready(_around(plain), x)
    model = _ready(_around([Choice(_branches()), Choice(_branches())]), x)
    search = SuperNet(model, x[:1], cost=COST, single_path=single_path).train()
    if single_path:
        with torch.no_grad():
            for logits in search.nas_parameters():
                logits[2] = 100.0
    ratio = _ratio(_step(against, x), _step(search, x), 40)
    print(f"\nsupernet, single_path={single_path}: {ratio:.3f}")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(_step(search, x), rounds=3)
