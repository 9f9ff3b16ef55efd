"""Half of every layer's channels removed, analysis included: against Torch-Pruning 1.6.1.

The two run in turn, on one thread, and leave networks with equally many parameters. Both rank
channels by the sum of their absolute weights. The target is a ratio above 1.
"""

import copy
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from hwcost import zoo
from hwcost.search import Pruner
from hwcost.search.pruner_scores import class_scores

ROUNDS = 5


class _Bottleneck(nn.Module):
    """A residual block of ResNet50: 1x1, 3x3 and 1x1 convolutions."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        projection = nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
        self.shortcut = nn.Identity() if cin == cout else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        return torch.relu(out + self.shortcut(x))


def resnet50() -> tuple[nn.Module, Tensor]:
    """A net like ResNet50 (arXiv:1512.03385) on 224x224 pixels."""
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()
    blocks: list[nn.Module] = []
    cin = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            blocks.append(_Bottleneck(cin, width, stride if number == 0 else 1))
            cin = 4 * width
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 1000)
    layers = (*stem, nn.MaxPool2d(3, 2, 1), *blocks, *head)
    return nn.Sequential(*layers), torch.zeros(1, 3, 224, 224)


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet18": zoo.resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": zoo.mobilenet_v2,
}


def ours(model: nn.Module, x: Tensor) -> None:
    pruner = Pruner(model, x)
    channels = pruner.coupling.channels
    scores = class_scores(pruner.coupling).classes
    alive = torch.ones(channels.n_classes, dtype=torch.bool)
    for axis in channels.axes:
        own = torch.arange(axis.start, axis.start + axis.size)
        alive[own[scores[own].argsort()[: axis.size // 2]]] = False
    pruner.remove(alive)


def theirs(model: nn.Module, x: Tensor) -> None:
    last = [module for module in model.modules() if isinstance(module, nn.Linear)]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    torch_pruning.pruner.MagnitudePruner(
        model, x, importance=importance, pruning_ratio=0.5, ignored_layers=last
    ).step()


def _timed(prune: Callable[[nn.Module, Tensor], None], model: nn.Module, x: Tensor) -> float:
    start = time.process_time()
    prune(model, x)
    return time.process_time() - start


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NETS)
def test_half_of_every_layer(benchmark: Any, name: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = NETS[name]()
    model.eval()
    times: list[tuple[float, float]] = []
    for turn in range(ROUNDS + 1):
        copies = copy.deepcopy(model), copy.deepcopy(model)
        gc.collect()
        gc.disable()
        pairs = list(zip((ours, theirs), copies, strict=True))
        found = [_timed(*pair, x) for pair in (pairs if turn % 2 else pairs[::-1])]
        gc.enable()
        times.append((found[0], found[1]) if turn % 2 else (found[1], found[0]))
    assert _parameters(copies[0]) == _parameters(copies[1]) < _parameters(model)
    own, other = (statistics.median(column) for column in zip(*times[1:], strict=True))
    ratio = statistics.median(b / a for a, b in times[1:])
    print(f"\n{name}: {own:.3f} s; Torch-Pruning {other:.3f} s, {ratio:.2f} times as long")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(lambda: None, rounds=1)
    torch.set_num_threads(threads)
