"""Convolutional nets of the search suites."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.searchnets_base import IMAGE, Nets, conv_bn, pooled, registered

NETS: Nets = {}
net = registered(NETS)


@net(IMAGE)
class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 16, 3, stride=2), nn.BatchNorm2d(16)
        self.fc1, self.fc2 = nn.Linear(16 * 3 * 3, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.sigmoid(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc2(torch.tanh(self.fc1(torch.flatten(x, 1))))


class BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or cin != cout:
            self.shortcut = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


@net(IMAGE)
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.layers = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 12, 2), BasicBlock(12, 12))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.avg_pool2d(self.layers(self.stem(x)), 4).squeeze())


@net(IMAGE)
class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for i in (0, 2):
            inside = self.convs[i](F.silu(self.norms[i](x)))
            x = x + self.convs[i + 1](F.silu(self.norms[i + 1](inside)))
        return self.head(pooled(F.silu(self.norm(x))))


@net(IMAGE)
class DepthwiseSeparable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv_bn(3, 8),
            conv_bn(8, 8, groups=8),
            conv_bn(8, 16, 1),
            conv_bn(16, 16, 5, groups=16, stride=2),
            conv_bn(16, 12, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        )

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


@net(IMAGE)
class DepthMultiplier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.deep, self.bn = nn.Conv2d(6, 18, 3, padding=1, groups=6), nn.BatchNorm2d(18)
        self.first = nn.Conv2d(3, 12, 3, padding=1, groups=3)
        self.head = nn.Conv2d(30, 5, 1)

    def forward(self, x: Tensor) -> Any:
        deep = torch.sigmoid(self.bn(self.deep(F.relu(self.stem(x)))))
        return self.head(torch.cat([deep, self.first(x)], 1)).mean((2, 3))


@net(IMAGE)
class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.two = nn.Conv2d(16, 24, 3, padding=1, groups=2)
        self.four, self.bn = nn.Conv2d(24, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return self.head(pooled(torch.relu(self.bn(self.four(F.relu(self.two(x)))) + x)))


@net(IMAGE)
class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.point, self.wide = conv_bn(8, 4, 1), conv_bn(8, 6, 5)
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))
        self.after, self.head = conv_bn(14, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = torch.cat([self.point(x), self.wide(x), torch.sigmoid(self.pool(x))], dim=1)
        return self.head(self.after(x).mean([-2, -1]))


@net(IMAGE)
class DenseBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        widths = (6, 10, 14)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in widths)
        self.transition = nn.Conv2d(18, 9, 1)
        self.last, self.head = nn.BatchNorm2d(15), nn.Linear(15, 5)

    def forward(self, x: Tensor) -> Any:
        x = stem = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        x = torch.cat([F.avg_pool2d(self.transition(x), 2), F.max_pool2d(stem, 2)], 1)
        return self.head(pooled(F.relu(self.last(x))))


@net(IMAGE)
class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.head = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        gate = self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return self.head(x * torch.sigmoid(gate)).flatten(1)


@net(IMAGE)
class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.gate, self.twin = nn.Linear(10, 10), nn.Conv2d(3, 10, 1)
        self.spatial, self.head = nn.Conv2d(10, 1, 3, padding=1), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Any:
        y = torch.multiply(F.relu(self.stem(x)), torch.sigmoid(self.twin(x)))
        gate = F.hardsigmoid(self.gate(y.mean((2, 3))))
        y = torch.mul(y, gate[:, :, None, None])
        return self.head(pooled(y * torch.sigmoid(self.spatial(y))))


@net(IMAGE)
class ChannelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.branch = nn.Sequential(
            nn.Conv2d(6, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.Conv2d(6, 6, 1),
        )
        self.squeeze, self.head = nn.Conv2d(12, 8, 1, groups=2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        x = x.reshape(batch, channels, height, width)
        return self.head(pooled(F.relu(self.squeeze(x))))


class InvertedResidual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = cin * expand
        self.use_res_connect = stride == 1 and cin == cout
        self.conv = nn.Sequential(
            nn.Conv2d(cin, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )

    def forward(self, x: Tensor) -> Any:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


@net(IMAGE)
class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [InvertedResidual(6, 6, 1, 3), InvertedResidual(6, 8, 2, 3)]
        self.features = nn.Sequential(conv_bn(3, 6), *blocks, InvertedResidual(8, 8, 1, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1)).reshape(x.shape[0], -1)
        return self.classifier(x)


@net(IMAGE)
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.mid = conv_bn(3, 6), conv_bn(6, 8), conv_bn(8, 10)
        self.up2, self.dec2 = nn.ConvTranspose2d(10, 8, 2, 2), conv_bn(16, 8)
        self.dec1, self.head = conv_bn(14, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        x = self.up2(self.mid(F.max_pool2d(e2, 2)))
        x = self.dec2(torch.cat([x, e2], 1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.dec1(torch.cat([x, e1], 1)))


@net(IMAGE)
class NoBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.cos(self.conv2(torch.exp(-self.conv1(x).abs()))).mean((2, 3)))
