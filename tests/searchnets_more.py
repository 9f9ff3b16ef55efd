"""Networks in the styles of public repositories; those of tokens are in searchnets_more_tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tests.searchnets_base import IMAGE, SERIES, Nets, conv_bn, pooled, registered

NETS: Nets = {}
net = registered(NETS)


class Auxiliary(nn.Module):
    """A classifier on features in the middle; its batch normalisation sees whole samples."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(channels, 6, 1), nn.BatchNorm1d(24)
        self.hidden, self.out = nn.Linear(24, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(torch.flatten(F.adaptive_avg_pool2d(self.conv(x), 2), 1))
        return self.out(F.dropout(F.relu(self.hidden(x)), 0.7, self.training))


@net(IMAGE)
class AuxiliaryHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv_bn(3, 8), conv_bn(8, 8)
        self.aux, self.head = Auxiliary(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = x + self.block(x)
        out = self.head(pooled(x))
        return (out, self.aux(x)) if self.training else out


@net(IMAGE)
class DeepSupervision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 6), conv_bn(6, 8)
        self.out = nn.Conv2d(8, 2, 1)
        self.more = nn.ModuleList([nn.Conv2d(6, 2, 1), nn.Conv2d(8, 2, 1)])

    def forward(self, x: Tensor) -> Any:
        early = self.first(x)
        late = self.second(early)
        if not self.training:
            return self.out(late)
        return [self.out(late), *(m(t) for m, t in zip(self.more, (early, late), strict=True))]


@net(IMAGE)
class SkippedAtRandom(nn.Module):
    """Blocks that training skips now and then, and a head that only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.aux, self.head = conv_bn(3, 6), nn.Linear(6, 5), nn.Linear(6, 5)
        self.blocks = nn.ModuleList(conv_bn(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            if not self.training or torch.rand(1).item() < 0.5:
                x = x + block(x)
        return (
            (self.head(pooled(x)), self.aux(pooled(x))) if self.training else self.head(pooled(x))
        )


@net(IMAGE)
class ExpandedGates(nn.Module):
    """Gates of one channel and of one position, expanded to the features' shape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 8), nn.Linear(8, 5)
        self.channel = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
        self.place = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        channel = self.channel(pooled(x)).unsqueeze(2).unsqueeze(3).expand_as(x)
        place = self.place(x).repeat(1, x.shape[1], 1, 1)
        return self.head(pooled((1 + torch.sigmoid(channel * place)) * x))


@net(IMAGE)
class CoordConv(nn.Module):
    """Positions as two more channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(5, 8, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        for conv in (self.first, self.second):
            n, _, h, w = x.shape
            across = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
            down = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
            x = F.relu(conv(torch.cat([x, across, down], 1)))
        return self.head(pooled(x))


@net(IMAGE)
class HierarchicalBlock(nn.Module):
    """Res2Net: each part of the channels takes in the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.out = conv_bn(3, 8), conv_bn(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        first, *parts = self.wide(x).chunk(4, 1)
        done = [y := torch.sigmoid(self.convs[0](first))]
        for conv, part in zip(list(self.convs)[1:], parts, strict=False):
            done.append(y := torch.sigmoid(conv(y + part)))
        return self.head(pooled(F.relu(self.out(torch.cat([*done, parts[-1]], 1)) + x)))


@net(IMAGE)
class SelectiveKernel(nn.Module):
    """SKNet: a softmax over branches, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.head = conv_bn(3, 8), nn.Linear(8, 4), nn.Linear(8, 5)
        self.convs = nn.ModuleList([conv_bn(8, 8, 3), conv_bn(8, 8, 5)])
        self.gates = nn.ModuleList(nn.Linear(4, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        branches = torch.stack([conv(x) for conv in self.convs], 1)
        squeezed = self.squeeze(branches.sum(1).mean((-1, -2)))
        gates = torch.stack([gate(squeezed) for gate in self.gates], 1).softmax(1)
        return self.head(pooled((branches * gates[..., None, None]).sum(1)))


@net(IMAGE)
class SharedHeads(nn.Module):
    """Pyramid: one head for two scales, boxes of both in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 6), conv_bn(6, 8, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in (6, 8))
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU())
        self.boxes = nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        fine = self.first(x)
        coarse = self.lateral[1](self.second(fine))
        fine = self.lateral[0](fine) + F.interpolate(coarse, size=fine.shape[-2:])
        boxes = [self.boxes(self.tower(t)) for t in (fine, coarse)]
        return torch.cat([b.permute(0, 2, 3, 1).reshape(b.shape[0], -1, 3) for b in boxes], 1)


@net(IMAGE)
class Modulated(nn.Module):
    """FiLM by statistics of the input: scales and shifts in one layer; no affine of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)
        self.film, self.out = nn.Linear(3, 16), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Any:
        scale, shift = self.film(pooled(x))[..., None, None].chunk(2, 1)
        return self.out(F.relu((1 + scale) * self.norm(self.conv(x)) + shift))


@net(SERIES)
class NormedTCN(nn.Module):
    """Bai's TCN: weight norm, chomps, residuals; one depthwise layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = weight_norm(nn.Conv1d(4, 8, 3, padding=2))
        self.second = weight_norm(nn.Conv1d(8, 8, 3, padding=4, dilation=2))
        self.depthwise = weight_norm(nn.Conv1d(8, 8, 3, padding=1, groups=8))
        self.skip, self.hidden = nn.Conv1d(4, 8, 1), weight_norm(nn.Linear(8, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        y = torch.sigmoid(self.first(x)[:, :, :-2].contiguous())
        y = F.relu(self.second(y)[:, :, :-4].contiguous()) + self.skip(x)
        return self.head(torch.sigmoid(self.hidden(self.depthwise(y)[:, :, -1])))


@net(SERIES)
class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv1d(4, 8, 1), nn.Conv1d(6, 4, 1)
        self.filters = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**k) for k in range(3))
        self.gates = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**k) for k in range(3))
        self.back = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(8, 6, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        x, total = self.stem(x), torch.zeros(())
        layers = zip(self.filters, self.gates, self.back, self.skips, strict=True)
        for one, gate, back, skip in layers:
            y = torch.tanh(one(x)) * torch.sigmoid(gate(x))
            total = (total[:, :, -y.shape[2] :] if total.dim() else total) + skip(y)
            x = back(y) + x[:, :, -y.shape[2] :]
        return self.end(F.relu(total))


@net(SERIES)
class EncoderDecoder(nn.Module):
    """Demucs: gated convolutions, a recurrent middle, skips cut to length."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 4, 2), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1))
            for i, o in ((4, 6), (6, 8))
        )
        self.lstm, self.middle = nn.LSTM(8, 5, bidirectional=True), nn.Linear(10, 8)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, 2 * i, 1), nn.GLU(1), nn.ConvTranspose1d(i, o, 4, 2))
            for i, o in ((8, 6), (6, 2))
        )

    def forward(self, x: Tensor) -> Any:
        skips = []
        for down in self.down:
            skips.append(x := down(x))
        x = self.middle(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for up in self.up:
            skip = skips.pop()
            x = up(x[..., : skip.shape[-1]] + skip[..., : x.shape[-1]])
        return x
