"""Networks on sequences and tokens, and normalisations."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.channel_nets_base import Net, Nets, conv, head, image, of, tokens

NETS = Nets()


@NETS.net("stem:8 wide:20")
def convnext() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        y = m.norm(m.depthwise(x).permute(0, 2, 3, 1))
        y = m.scale * m.narrow(F.gelu(m.wide(y)))
        return m.head(x + y.permute(0, 3, 1, 2))

    parts = {"stem": conv(3, 8), "depthwise": conv(8, 8, 7, groups=8), "norm": nn.LayerNorm(8)}
    wide, narrow, scale = nn.Linear(8, 20), nn.Linear(20, 8), nn.Parameter(torch.randn(8))
    return of(forward, image(), **parts, wide=wide, narrow=narrow, scale=scale, head=head(8))


class ChannelsFirstNorm(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.rand(features)),
            nn.Parameter(torch.rand(features)),
        )
        self.normalized_shape = (features,)

    def forward(self, x: Tensor) -> Any:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


@NETS.net("0:8 2:6")
def own_layer_norm() -> Net:
    layers = conv(3, 8), ChannelsFirstNorm(8), conv(8, 6), nn.ReLU()
    return nn.Sequential(*layers, head(6)), (image(),)


@NETS.net("0:4 3:6 6:6 9:4")
def group_norms() -> Net:
    norms = nn.GroupNorm(4, 8), nn.GroupNorm(2, 12), nn.GroupNorm(1, 6), nn.GroupNorm(4, 4)
    layers = [
        m
        for c, n in zip((3, 8, 12, 6), norms, strict=True)
        for m in (conv(c, n.num_channels), n, nn.ReLU())
    ]
    return nn.Sequential(*layers, head(4)), (image(),)


@NETS.net("0:8 3:6 5:3 8:7")
def norms_without_weights() -> Net:
    layers = conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(), conv(8, 6)
    batch = nn.BatchNorm2d(6, affine=False)
    rest = conv(6, 9), nn.GroupNorm(3, 9, affine=False), nn.Flatten(2), conv1d(9, 7)
    return nn.Sequential(
        *layers, batch, *rest, Last(), nn.LayerNorm(7, elementwise_affine=False), nn.Linear(7, 3)
    ), (image(),)


def conv1d(cin: int, cout: int) -> nn.Conv1d:
    return nn.Conv1d(cin, cout, 3, padding=1)


class Last(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.transpose(1, 2)


@NETS.net("0:8 3:6")
def instance_norm_and_prelu() -> Net:
    layers = conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8), conv(8, 6), nn.PReLU()
    return nn.Sequential(*layers, head(6)), (image(),)


@NETS.net("stem:8 a:10")
def tcn() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(F.pad(x, (4, 0)))
        x = x + m.b(F.pad(F.relu(m.a(F.pad(x, (8, 0)))), (8, 0)))
        return m.out(x[:, :, -1])

    parts = {"stem": nn.Conv1d(6, 8, 5), "a": nn.Conv1d(8, 10, 5, dilation=2)}
    return of(
        forward,
        torch.randn(2, 6, 20),
        **parts,
        b=nn.Conv1d(10, 8, 5, dilation=2),
        out=nn.Linear(8, 3),
    )


@NETS.net("stem:12 tokens.0:10 features.0:20")
def mixer() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x).flatten(2).transpose(1, 2)
        x = x + m.tokens(m.n1(x).transpose(1, 2)).transpose(1, 2)
        x = x + m.features(m.n2(x))
        return m.out(x.mean(1))

    mlps = {"tokens": mlp(16, 10), "features": mlp(12, 20)}
    norms = {"n1": nn.LayerNorm(12), "n2": nn.LayerNorm(12)}
    return of(forward, image(), stem=nn.Conv2d(3, 12, 2, 2), **mlps, **norms, out=nn.Linear(12, 5))


def mlp(features: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features))


class Attention(nn.Module):
    """Attention by hand; ``heads`` fixes their number, otherwise ``size`` that of a head."""

    def __init__(self, features: int, inner: int, heads: int, size: int = -1) -> None:
        super().__init__()
        self.division = heads, size  # no attribute that says how many heads there are
        self.q, self.k, self.v = (nn.Linear(features, inner) for _ in range(3))
        self.o = nn.Linear(inner, features)

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        parts = (p(x).view(b, n, *self.divided()) for p in (self.q, self.k, self.v))
        q, k, v = (p.transpose(1, 2) for p in parts)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))

    def divided(self) -> tuple[int, int]:
        return self.division


class OwnHeads(Attention):
    """Attention whose attributes say how many heads it has; they shrink with the layers."""

    def __init__(self, features: int, inner: int, heads: int) -> None:
        super().__init__(features, inner, heads)
        self.num_heads, self.head_dim, self.inner_dim = heads, inner // heads, inner

    def divided(self) -> tuple[int, int]:
        assert self.num_heads * self.head_dim == self.inner_dim
        return self.num_heads, self.head_dim


@NETS.net("0:16 1.q:3 1.o:16")
def attention_with_heads_of_its_own() -> Net:
    return nn.Sequential(nn.Linear(5, 16), OwnHeads(16, 12, 3), nn.Linear(16, 4)), (tokens(5),)


@NETS.net("0:16 1.v:4 1.o:16")
def attention_with_fixed_heads() -> Net:
    return nn.Sequential(nn.Linear(5, 16), Attention(16, 12, 3), nn.Linear(16, 4)), (tokens(5),)


@NETS.net("0:16 1.q:3 1.o:16")
def attention_with_fixed_head_size() -> Net:
    layers = nn.Linear(5, 16), Attention(16, 12, -1, 4), nn.Linear(16, 4)
    return nn.Sequential(*layers), (tokens(5),)


@NETS.net("0:16 1.o:16")
def attention_with_all_fixed() -> Net:
    layers = nn.Linear(5, 16), Attention(16, 12, 3, 4), nn.Linear(16, 4)
    return nn.Sequential(*layers), (tokens(5),)


@NETS.net("patch:12 mlp.0:20")
def vit() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([m.cls.expand(x.shape[0], -1, -1), x], 1) + m.pos[:, : x.shape[1] + 1]
        q, k, v = m.qkv(m.n1(x)).chunk(3, -1)
        x = x + m.proj(F.scaled_dot_product_attention(q, k, v))
        x = x + m.mlp(m.n2(x))
        return m.out(m.n3(x)[:, 0])

    learned = {
        "cls": nn.Parameter(torch.randn(1, 1, 12)),
        "pos": nn.Parameter(torch.randn(1, 20, 12)),
    }
    norms = {name: nn.LayerNorm(12) for name in ("n1", "n2", "n3")}
    parts = {"patch": nn.Conv2d(3, 12, 2, 2), "qkv": nn.Linear(12, 24), "proj": nn.Linear(8, 12)}
    return of(forward, image(), **learned, **norms, **parts, mlp=mlp(12, 20), out=nn.Linear(12, 5))


@NETS.net("conv:8")
def lstm_behind_a_convolution() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.relu(m.norm(m.conv(x))).transpose(1, 2)
        return m.out(m.lstm(x)[0][:, -1])

    lstm = nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)
    parts = {"conv": nn.Conv1d(4, 8, 3), "norm": nn.BatchNorm1d(8)}
    return of(forward, torch.randn(2, 4, 12), **parts, lstm=lstm, out=nn.Linear(10, 3))


@NETS.net("first:9")
def gru_cell_in_a_loop() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        h = x.new_zeros(x.shape[0], 5)
        for step in m.first(x).unbind(1):
            h = m.cell(step, h)
        return m.out(h)

    return of(forward, tokens(4), first=nn.Linear(4, 9), cell=nn.GRUCell(9, 5), out=nn.Linear(5, 2))


@NETS.net("mlp.0:16 mlp.2:12")
def tied_weights() -> Net:
    def forward(m: Any, words: Tensor) -> Any:
        return m.head(m.norm(m.embedding(words) + m.mlp(m.embedding(words))))

    embedding, out = nn.Embedding(20, 12), nn.Linear(12, 20, bias=False)
    out.weight = embedding.weight
    words = torch.randint(0, 20, (2, 7))
    return of(forward, words, embedding=embedding, mlp=mlp(12, 16), norm=nn.LayerNorm(12), head=out)
