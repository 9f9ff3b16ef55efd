"""Nets of the search suites with kernels of all sizes and ranks, transposed ones too."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.searchnets_base import IMAGE, SERIES, Nets, registered

NETS: Nets = {}
net = registered(NETS)


@net((6, 4, 4))
class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.ConvTranspose2d(6, 10, 3, 2, 1, 1), nn.BatchNorm2d(10)
        self.depthwise = nn.ConvTranspose2d(10, 10, 3, padding=1, groups=10)
        self.grouped = nn.ConvTranspose2d(10, 8, 2, 2, groups=2)
        self.last = nn.ConvTranspose2d(8, 3, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.elu(self.bn(self.first(x)))
        return torch.tanh(self.last(F.relu(self.grouped(self.depthwise(x)))))


@net((2, 4, 6, 6))
class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.conv2 = nn.Conv3d(6, 8, (1, 3, 3), stride=(1, 2, 2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool3d(F.relu(self.bn(self.conv1(x))), (2, 1, 1))
        return self.head(F.relu(self.conv2(x)).mean((2, 3, 4)))


@net(IMAGE)
class Kernels(nn.Module):
    """Kernels of all shapes, with and without padding, strided and dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.five = nn.Conv2d(3, 6, 5, padding="same")
        self.tall = nn.Conv2d(6, 6, (7, 5), padding=(3, 2), groups=2)
        self.flat = nn.Conv2d(6, 8, (3, 1), stride=2, padding=(1, 0))
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.even, self.bare = nn.Conv2d(8, 6, 2), nn.Conv2d(6, 5, 3)
        self.around = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Any:
        x = F.leaky_relu(self.flat(F.relu(self.tall(F.relu(self.five(x))))))
        return self.bare(self.around(F.relu(self.even(F.relu(self.dilated(x))))))


@net(SERIES)
class CausalTCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [(4, 8, 2, 1), (8, 8, 3, 2), (8, 8, 5, 1), (8, 6, 9, 1)]
        self.pads = nn.ModuleList(nn.ConstantPad1d(((k - 1) * d, 0), 0.0) for _, _, k, d in sizes)
        self.convs = nn.ModuleList(nn.Conv1d(i, o, k, dilation=d) for i, o, k, d in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o, _, _ in sizes)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        for number, (pad, conv, norm) in enumerate(
            zip(self.pads, self.convs, self.norms, strict=True)
        ):
            y = torch.relu(norm(conv(pad(x))))
            x = x + y if number in (1, 2) else y
        return self.head(x[:, :, -1])


@net(SERIES)
class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = ((4, 2), (6, 2), (7, 1))
        self.same = nn.ModuleList(nn.Conv1d(4, 4, k, padding="same", dilation=d) for k, d in sizes)
        self.valid = nn.Conv1d(4, 8, 8)
        self.wide = nn.Conv1d(8, 8, 5, padding=4, dilation=2)
        self.strided, self.bn = nn.Conv1d(8, 6, 3, stride=2, padding=1), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        for conv in self.same:
            x = F.relu(conv(x))
        x = F.relu(self.wide(F.relu(self.valid(x))))
        return self.head(self.bn(self.strided(x)).amax(2))


@net(IMAGE)
class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3 * 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.pixel_shuffle(torch.sigmoid(self.conv1(x)), 2)))
        return F.pixel_shuffle(self.head(x), 2)
