"""How small networks are registered, with what can go of them, counted by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.models import Function

Net = tuple[nn.Module, tuple[Any, ...]]


class Nets(dict[str, Callable[[], Net]]):
    """Name -> a network and the arguments of its forward.

    Attributes:
        axes: name -> its axes and their sizes, as in ``{"stem": 8}``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.axes: dict[str, dict[str, int]] = {}

    def net(self, axes: str) -> Callable[[Callable[[], Net]], Callable[[], Net]]:
        """Register a network; its axes are written ``"stem:8 a.0:6"``."""

        def register(make: Callable[[], Net]) -> Callable[[], Net]:
            self[make.__name__] = make
            pairs = (axis.rpartition(":") for axis in axes.split())
            self.axes[make.__name__] = {name: int(size) for name, _, size in pairs}
            return make

        return register


def image(channels: int = 3, size: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, size, size)


def tokens(features: int = 16, count: int = 6, batch: int = 2) -> Tensor:
    return torch.randn(batch, count, features)


def conv(cin: int, cout: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, k, padding=k // 2, **options)


def block(cin: int, cout: int, k: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(conv(cin, cout, k, **options), nn.BatchNorm2d(cout), nn.ReLU())


def head(features: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


def of(forward: Callable[..., Any], *args: Any, **parts: Any) -> Net:
    return Function(forward, **parts), args
