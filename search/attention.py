"""Multi-head attention that has lost heads or features, which torch's own cannot express."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with any number of heads for any number of features.

    An export puts it where heads were removed: torch's own divides the features of its input by
    the number of heads. Parameters, arguments and results are those of torch's; ``num_heads`` and
    ``head_dim`` follow from the weights. ``bias_k``, ``bias_v`` and ``add_zero_attn`` are not
    supported.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and, if needed, the weights; see ``nn.MultiheadAttention``."""
        first = self.batch_first or query.dim() == 2
        q, k, v = self._projected(query, key, value)
        if query.dim() == 2:
            q, k, v = (t.unsqueeze(0) for t in (q, k, v))
        elif not first:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        q, k, v = (t.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        mask = _mask(q, attn_mask, key_padding_mask, k.shape[-2])
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, dropout)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            causal = is_causal and key_padding_mask is None
            out = F.scaled_dot_product_attention(q, k, v, None if causal else mask, dropout, causal)
        out = self.out_proj(out.transpose(1, 2).flatten(-2))
        if query.dim() == 2:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if first else out.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if self.in_proj_weight is None:
            bias = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            inputs = zip((query, key, value), weights, bias, strict=True)
            return tuple(F.linear(x, w, b) for x, w, b in inputs)
        if query is key and key is value:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        bias = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = zip((query, key, value), self.in_proj_weight.chunk(3), bias, strict=True)
        return tuple(F.linear(x, w, b) for x, w, b in inputs)


def _mask(
    q: Tensor, attention: Tensor | None, padding: Tensor | None, length: int
) -> Tensor | None:
    """Return both masks as one to be added to the scores (batch, heads, queries, keys)."""
    mask = None
    if attention is not None:
        mask = _added(attention, q)
        if mask.dim() == 3:
            mask = mask.unflatten(0, (q.shape[0], -1))
    if padding is not None:
        row = _added(padding, q).view(-1, 1, 1, length)
        mask = row if mask is None else mask + row
    return mask


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def fit_attention(module: nn.MultiheadAttention) -> None:
    """Give an attention whose parameters were sliced sizes that fit, and a class that runs them."""
    head_dim = module.head_dim
    packed = module.in_proj_weight
    rows = module.q_proj_weight.shape[0] if packed is None else packed.shape[0] // 3
    embed_dim = module.out_proj.weight.shape[0]
    if (rows, embed_dim) == (module.embed_dim, module.embed_dim) and not isinstance(
        module, Attention
    ):
        return
    module.embed_dim = embed_dim
    module.num_heads = rows // head_dim
    # Transformer layers ask this before they take a path that reads the weights themselves.
    module._qkv_same_embed_dim = False
    if type(module) is nn.MultiheadAttention:
        module.__class__ = Attention


@contextmanager
def slow_path() -> Iterator[None]:
    """Run attention by its parts: the fused path reads norms' weights past what replaces them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
