"""The networks of MCUNet, whose memory was published for several runtimes: sizes, no weights."""

import json
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from hwcost.tracing import trace
from hwcost.workload import Workload

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Block:
    """An inverted residual: 1x1 to ``mid`` channels (not if 0), depthwise, 1x1 to ``cout``."""

    mid: int
    cout: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class Net:
    """A network by its sizes; the image is square, ``mix`` channels (if any) end the features."""

    resolution: int
    first: int
    blocks: tuple[Block, ...]
    mix: int
    classes: int


class Residual(nn.Module):
    """An inverted residual, with a shortcut where input and output have the same shape."""

    def __init__(self, cin: int, block: Block) -> None:
        super().__init__()
        mid = block.mid or cin
        wide = [conv(cin, mid), nn.ReLU6()] if block.mid else []
        depthwise = conv(mid, mid, block.kernel, block.stride, groups=mid)
        self.layers = nn.Sequential(*wide, depthwise, nn.ReLU6(), conv(mid, block.cout))
        self.shortcut = block.stride == 1 and cin == block.cout

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution that keeps the size of the image, but for its stride; norms are folded in."""
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups)


def module(net: Net) -> nn.Module:
    widths = [net.first, *(block.cout for block in net.blocks)]
    blocks = [Residual(c, b) for (c, _), b in zip(pairwise(widths), net.blocks, strict=True)]
    mix = [conv(widths[-1], net.mix), nn.ReLU6()] if net.mix else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net.mix or widths[-1], net.classes)]
    return nn.Sequential(conv(3, net.first, 3, 2), nn.ReLU6(), *blocks, *mix, *head)


@cache
def nets() -> dict[str, Net]:
    """Name -> network."""
    found = json.loads((DATA / "mcunet.json").read_text())
    return {name: _net(**sizes) for name, sizes in found.items()}


def _net(source: str, blocks: list[list[int]], **sizes: int) -> Net:
    return Net(blocks=tuple(Block(*block) for block in blocks), **sizes)


@cache
def workload(name: str) -> Workload:
    """The op table of a network."""
    net = nets()[name]
    with torch.device("meta"):
        model, image = module(net), torch.empty(1, 3, net.resolution, net.resolution)
    return trace(model, image)
