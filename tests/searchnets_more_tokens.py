"""Networks of tokens in the styles of public repositories."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.searchnets_base import IMAGE, Nets, add, example, registered

NETS: Nets = {}
net = registered(NETS)

#: A sequence of tokens, without the batch.
TOKENS = (6, 12)


class Attends(nn.Module):
    """``nn.MultiheadAttention`` with a residual; queries, keys and values from layers."""

    def __init__(self, cross: bool = False, returned: bool = False, **options: Any) -> None:
        super().__init__()
        self.cross, self.returned, self.used = cross, returned, options.pop("need_weights", True)
        self.masked = options.pop("masked", False)
        self.query = nn.Linear(12, 8)
        self.key = nn.Linear(12, options.get("kdim", 8))
        self.value = nn.Linear(12, options.get("vdim", 8))
        self.attention = nn.MultiheadAttention(8, 4, **options)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 5))

    def forward(self, x: Tensor) -> Any:
        first = self.attention.batch_first
        query = self.query(x)
        key, value = (self.key(x), self.value(x)) if self.cross else (query, query)
        mask = torch.zeros(x.shape[:2] if first else x.shape[1::-1], dtype=torch.bool)
        mask[:, -2:] = True
        options: Mapping[str, Any] = {"key_padding_mask": mask} if self.masked else {}
        out, weights = self.attention(query, key, value, need_weights=self.used, **options)
        out = self.head(self.norm(query + out))
        return (out, weights) if self.returned else out


#: Name -> arguments of Attends; in all of them but the last two whole heads can go.
ATTENTIONS: dict[str, dict[str, Any]] = {
    "AttendsTokensFirst": {},
    "AttendsBatchFirst": {"batch_first": True},
    "AttendsFused": {"batch_first": True, "need_weights": False},
    "AttendsNoBias": {"bias": False, "need_weights": False},
    "AttendsAcross": {"cross": True, "batch_first": True},
    "AttendsWidths": {"cross": True, "kdim": 6, "vdim": 10},
    "AttendsMasked": {"masked": True, "batch_first": True},
    "AttendsMaskedFused": {"masked": True, "need_weights": False},
    "AttendsReturned": {"returned": True},
    "AttendsBiased": {"cross": True, "add_bias_kv": True, "add_zero_attn": True},
}

for name, options in ATTENTIONS.items():
    add(NETS, name, partial(Attends, **options), partial(example, TOKENS))


@net(TOKENS)
class Seq2Seq(nn.Module):
    """Two layers of a transformer's encoder and one of its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.target, self.head = (
            nn.Linear(i, o) for i, o in ((12, 8), (12, 8), (8, 5))
        )
        layer = nn.TransformerEncoderLayer(8, 2, 10, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))
        self.decoder = nn.TransformerDecoderLayer(8, 4, 12, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        memory = self.encoder(self.embed(x), mask=mask, is_causal=True)
        return self.head(self.decoder(self.target(x[:, :4]), memory))


@net(TOKENS)
class GroupedQueries(nn.Module):
    """Llama: two heads of queries for one of keys and values, rotated; a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out, self.head = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 4)
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 6), nn.Linear(8, 6)
        self.up, self.gate, self.down = nn.Linear(8, 10), nn.Linear(8, 10), nn.Linear(10, 8)
        self.norm1, self.norm2 = nn.RMSNorm(8), nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        q, k, v = (f(self.norm1(x)).unflatten(-1, (-1, 2)) for f in (self.q, self.k, self.v))
        q, k = rotated(q), rotated(k).repeat_interleave(2, 2)
        v = v[:, :, :, None].expand(-1, -1, -1, 2, -1).flatten(2, 3)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        heads = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.up(y)) * self.gate(y)))


def rotated(x: Tensor) -> Tensor:
    angles = torch.arange(x.shape[1]).view(1, -1, 1, 1) / 3
    one, other = x.chunk(2, -1)
    return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos()], -1)


@net(TOKENS)
class GatedMLP(nn.Module):
    """gMLP: the gate mixes tokens by a convolution of one tap, which leaves features alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.split, self.join = nn.Linear(12, 8), nn.Linear(8, 20), nn.Linear(10, 8)
        self.norm, self.mix, self.head = nn.LayerNorm(10), nn.Conv1d(6, 6, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        value, gate = F.gelu(self.split(x)).chunk(2, -1)
        return self.head(x + self.join(value * self.mix(self.norm(gate))))


@net(TOKENS)
class OwnMatrices(nn.Module):
    """Several weights of the model itself, by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(12, 8)), nn.Parameter(torch.randn(8, 6))
        self.third = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Any:
        x = F.gelu(torch.einsum("bnd,de->bne", x, self.first))
        return F.gelu(torch.einsum("bne,ef->bnf", x, self.second)) @ self.third


@net(TOKENS)
class QueriesLearned(nn.Module):
    """DETR: a decoder whose first attention sees nothing but parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.queries = nn.Linear(12, 8), nn.Parameter(torch.randn(3, 8))
        self.decoder = nn.TransformerDecoderLayer(8, 2, 10, batch_first=True)
        self.classes, self.boxes = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        queries = self.queries.unsqueeze(0).repeat(x.shape[0], 1, 1)
        out = self.decoder(queries, self.embed(x))
        return {"classes": self.classes(out), "boxes": self.boxes(out).sigmoid()}


@net(IMAGE)
class Unfolded(nn.Module):
    """MobileViT: patches unfolded into sequences by many views, a transformer, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.narrow = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1, bias=False)
        self.layer = nn.TransformerEncoderLayer(6, 2, 10, batch_first=True)
        self.wide, self.head = nn.Conv2d(14, 5, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv(x))
        y = self.narrow(x)
        b, c, h, w = y.shape
        y = y.reshape(b * c * h // 2, 2, w // 2, 2).transpose(1, 2)
        y = y.reshape(b, c, h * w // 4, 4).transpose(1, 3).reshape(b * 4, h * w // 4, c)
        y = self.layer(y).reshape(b, 4, h * w // 4, -1).transpose(1, 3)
        y = y.reshape(b * c * h // 2, w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        return self.head(F.relu(self.wide(torch.cat([x, y], 1))).amax((2, 3)))
