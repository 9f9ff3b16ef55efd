"""Small nets with choices among branches, for SuperNet and what builds on it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.search import Choice, PITConv2d, SuperNetModule
from tests.searchnets_base import IMAGE, SERIES, Nets, add, conv_bn, example, pooled, registered

CHOICE_NETS: Nets = {}
net = registered(CHOICE_NETS)


def conv(cin: int, cout: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, groups=groups)


def separable(channels: int) -> nn.Sequential:
    depthwise, norm = conv(channels, channels, groups=channels), nn.BatchNorm2d(channels)
    return nn.Sequential(depthwise, norm, nn.ReLU(), conv(channels, channels, 1))


@net(IMAGE)
class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.choice = Choice([conv(8, 8), conv(8, 8, 5), conv(8, 8, 1)])
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(pooled(F.relu(self.norm(self.choice(self.stem(x))))))


@net(IMAGE)
class Skippable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.choice = Choice([nn.Identity(), separable(8), conv_bn(8, 8)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(pooled(torch.sigmoid(self.choice(self.stem(x)))))


@net(IMAGE)
class Bottlenecks(nn.Module):
    """Branches with inner channels of their own."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 6, 1))
        narrow = nn.Sequential(conv(3, 4, 1), nn.Hardswish(), conv(4, 4), conv(4, 6, 1))
        self.choice, self.head = Choice([wide, narrow]), conv(6, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.sigmoid(self.choice(x)))


@net(IMAGE)
class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = Choice([conv(8, 8), separable(8), nn.Identity()])
        deep = nn.Sequential(conv(8, 8, 1), nn.ReLU(), inner)
        self.stem, self.choice = conv_bn(3, 8), Choice([deep, conv(8, 8, 3)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(pooled(F.relu(self.choice(self.stem(x)))))


@net(IMAGE)
class InARow(nn.Module):
    """Two choices one after the other, a residual around each and around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.first = Choice([conv(8, 8), separable(8)])
        self.second = Choice([conv(8, 8, 1), nn.Identity(), conv(8, 8, groups=2)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = x + F.relu(self.first(x))
        return self.head(pooled(x + y + torch.sigmoid(self.second(y))))


@net(IMAGE)
class Shared(nn.Module):
    """Three blocks, one decision."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.blocks = nn.ModuleList(
            Choice([conv(6, 6), conv(6, 6, 5)], shared="kernel") for _ in range(3)
        )
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.head(pooled(x))


@net(IMAGE)
class Downsampling(nn.Module):
    """Pools and strided convolutions; a branch without parameters among them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.choice = SuperNetModule(
            [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(8, 8, 2, 2), nn.Conv2d(8, 8, 3, 2, 1)]
        )
        self.head = nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.sigmoid(self.choice(self.stem(x))))


@net(IMAGE)
class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(3, 8), conv(8, 6)
        self.act = Choice([nn.ReLU(), nn.Sigmoid(), nn.PReLU(8), nn.BatchNorm2d(8)])

    def forward(self, x: Tensor) -> Any:
        return {"out": self.conv2(self.act(self.conv1(x)))}


@net(IMAGE)
class Twice(nn.Module):
    """A choice that runs twice, and the branches' classes are their own."""

    class Branch(nn.Module):
        def __init__(self, kernel: int) -> None:
            super().__init__()
            self.conv = conv(6, 6, kernel)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.conv(x)) + x

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6), conv(6, 5)
        self.choice = Choice([self.Branch(1), self.Branch(3)])

    def forward(self, x: Tensor) -> Any:
        return self.head(self.choice(F.relu(self.choice(self.stem(x)))))


@net(SERIES)
class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        kernels = [nn.Conv1d(4, 8, k, padding="same") for k in (3, 5, 9)]
        self.choice, self.bn = Choice(kernels), nn.BatchNorm1d(8)
        self.pool = Choice([nn.MaxPool1d(2), nn.Conv1d(8, 8, 2, 2)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.pool(F.relu(self.bn(self.choice(x)))).mean(2))


@net((6, 12))
class Blocks(nn.Module):
    """Feed-forward blocks of tokens around norms."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8))
        self.embed, self.head = nn.Linear(12, 8), nn.Linear(8, 4)
        self.choice = Choice([wide, nn.Linear(8, 8), nn.Identity()])
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        return self.head(self.norm(x + self.choice(x)).mean(1))


@net(IMAGE)
class OwnSearchable(nn.Module):
    """Only the layers written as searchable lose channels when the others are left out."""

    def __init__(self) -> None:
        super().__init__()
        own = nn.Sequential(PITConv2d(8, 12, 3, padding=1), nn.ReLU(), conv(12, 8))
        self.stem, self.choice, self.head = conv(3, 8), Choice([own, conv(8, 8)]), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(pooled(F.relu(self.choice(self.stem(x)))))


add(
    CHOICE_NETS,
    "Sequential",
    lambda: nn.Sequential(conv(3, 6), Choice([conv(6, 4), conv(6, 4, 1)]), nn.ReLU(), conv(4, 3)),
    lambda: example(IMAGE),
)
add(
    CHOICE_NETS,
    "OnlyAChoice",
    lambda: Choice([conv_bn(3, 4), conv(3, 4, 5)]),
    lambda: example(IMAGE),
)
