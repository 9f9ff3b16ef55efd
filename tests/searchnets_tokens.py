"""Nets of the search suites that work on tokens, sequences and features, and all norms."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.searchnets_base import IMAGE, SERIES, Nets, add, example, pooled, registered

NETS: Nets = {}
net = registered(NETS)

#: Tokens and their features.
TOKENS = (6, 12)


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


@net(IMAGE)
class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.blocks = nn.Sequential(ConvNeXtBlock(8), ConvNeXtBlock(8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


@net(IMAGE)
class GroupNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.one = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8)
        self.conv2, self.few = nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(2, 12)
        self.conv3, self.many = nn.Conv2d(12, 12, 3, padding=1), nn.GroupNorm(6, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.one(self.conv1(x)))
        x = torch.sigmoid(self.few(self.conv2(x)))
        return self.head(pooled(F.relu(self.many(self.conv3(x)))))


@net(IMAGE)
class InstanceNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.plain = nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.affine = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.head = nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.plain(self.conv1(x)))
        return self.head(torch.sigmoid(self.affine(self.conv2(x))))


@net(IMAGE)
class PReLUs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.each = nn.Conv2d(3, 8, 3), nn.PReLU(8)
        self.conv2, self.all = nn.Conv2d(8, 10, 3), nn.PReLU()
        self.norm = nn.BatchNorm2d(10, affine=False)
        self.head = nn.Linear(160, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.each(self.conv1(x))
        return self.head(self.all(self.norm(self.conv2(x))).view(x.size(0), -1))


@net((24,))
class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (24, 16, 16, 4, 16, 24)
        layers: list[nn.Module] = []
        for cin, cout in pairwise(sizes[:-1]):
            layers += [nn.Linear(cin, cout), nn.BatchNorm1d(cout), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(*sizes[-2:]))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.features = nn.Sequential(nn.Linear(dim, 20), nn.GELU(), nn.Linear(20, dim))

    def forward(self, x: Tensor) -> Any:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm2(x))


@net(TOKENS)
class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 10)
        self.blocks = nn.Sequential(MixerBlock(6, 10), MixerBlock(6, 10))
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.blocks(self.embed(x)).mean(1))


class HandAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Any:
        batch, tokens, _ = x.shape
        q, k, v = (
            f(x).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        weights = (q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))


class FusedAttention(nn.Module):
    """Sizes are numbers in the code, which an export has to live with."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Any:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, self.dim))


class MultiheadAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        out, _ = self.attention(x, x, x, need_weights=False)
        return out


class AttentionBlock(nn.Module):
    def __init__(self, attention: type[nn.Module]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 12), nn.Linear(12, 4)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention: nn.Module = attention(12, 3)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        return self.head((x + self.mlp(self.norm2(x))).mean(1))


for kind in (HandAttention, FusedAttention, MultiheadAttention):
    add(NETS, kind.__name__, partial(AttentionBlock, kind), partial(example, TOKENS))


class Encoder(nn.Module):
    def __init__(self, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 8), nn.Linear(8, 4)
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, batch_first=batch_first, norm_first=norm_first
        )

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(self.embed(x)))


for first in (True, False):
    for norm_first in (True, False):
        name = f"Encoder-{'batch' if first else 'tokens'}-{'pre' if norm_first else 'post'}"
        add(NETS, name, partial(Encoder, first, norm_first), partial(example, TOKENS))


@net(IMAGE)
class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.pos = nn.Parameter(torch.randn(1, 5, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = FusedAttention(12, 3)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Any:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


@net(SERIES)
class ConvLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(4, 8, 5, padding=2), nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True)
        self.between = nn.Linear(6, 10)
        self.gru = nn.GRU(10, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Any:
        x = torch.sigmoid(self.bn(self.conv(x))).transpose(1, 2)
        x, _ = self.lstm(x)
        x, _ = self.gru(torch.tanh(self.between(x)))
        return self.head(x[:, -1])


@net(SERIES)
class GatedTCN(nn.Module):
    """One convolution for values and gates, halved by chunk and by F.glu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 16, 3, padding=1), nn.Conv1d(8, 12, 3, padding=1)
        self.norm, self.head = nn.RMSNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        value, gate = self.first(x).chunk(2, 1)
        x = F.glu(self.second(torch.tanh(value) * torch.sigmoid(gate)), dim=1)
        return self.head(self.norm(x.transpose(1, 2)).mean(1))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.convs = nn.ModuleList(nn.Conv1d(8, 6, k) for k in (2, 3))
        self.head = nn.Linear(12, 4)

    def forward(self, words: Tensor) -> Any:
        x = self.embed(words).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1))


add(NETS, "Words", Words, lambda: torch.arange(20).view(2, 10))
