"""Multi-head attention that has lost heads or features, which torch's own cannot express."""

import math
from collections.abc import Iterator, Sequence
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

    #: The class that a trace takes it for.
    traced_as = "MultiheadAttention"

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
        # Operators and their order are torch's: an op table may not depend on who runs them.
        batched = query.dim() == 3
        padding, mask = _added(key_padding_mask, query), _added(attn_mask, query)
        query, key, value = self._steps_first(query, key, value)
        steps, batch = query.shape[:2]
        q, k, v = (
            t.view(t.shape[0], batch * self.num_heads, self.head_dim).transpose(0, 1)
            for t in self._projected(query, key, value)
        )
        causal = is_causal and padding is None and not need_weights
        mask = None if causal else _merged(mask, padding, batch, self.num_heads)
        if need_weights:
            weights = self._weights(q, k, mask)
            out = torch.bmm(weights, v).transpose(0, 1)
        else:
            out = self._fused(q, k, v, mask, causal, batch).permute(2, 0, 1, 3)
        out = out.reshape(steps * batch, self.num_heads * self.head_dim)
        out = F.linear(out, self.out_proj.weight, self.out_proj.bias).view(steps, batch, -1)
        out = out.transpose(1, 0) if batched and self.batch_first else out
        if not need_weights:
            return out if batched else out.squeeze(1), None
        weights = weights.view(batch, self.num_heads, steps, -1)
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return (out, weights) if batched else (out.squeeze(1), weights.squeeze(0))

    def _steps_first(self, *inputs: Tensor) -> list[Tensor]:
        """Return inputs as (steps, batch, features); what is one tensor stays one in a batch."""
        if inputs[0].dim() == 2:
            return [t.unsqueeze(1) for t in inputs]
        if not self.batch_first:
            return list(inputs)
        turned = {id(t): t.transpose(1, 0) for t in {id(t): t for t in inputs}.values()}
        return [turned[id(t)] for t in inputs]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, (steps, batch, heads * features of a head)."""
        size = self.num_heads * self.head_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if weight is not None and query is key and key is value:
            return _parts(F.linear(query, weight, bias), 3)
        if weight is not None and key is value:
            weights = weight.split([size, 2 * size])
            biases = (None, None) if bias is None else bias.split([size, 2 * size])
            projected = F.linear(query, weights[0], biases[0])
            return projected, *_parts(F.linear(key, weights[1], biases[1]), 2)
        separate = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        weights = separate if weight is None else weight.chunk(3)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        inputs = zip((query, key, value), weights, biases, strict=True)
        return [F.linear(x, w, b) for x, w, b in inputs]

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Return what each query takes of each value, (batch * heads, queries, keys)."""
        q, k = q * math.sqrt(1 / self.head_dim), k.transpose(-2, -1)
        scores = torch.bmm(q, k) if mask is None else torch.baddbmm(mask, q, k)
        weights = scores.softmax(-1)
        return F.dropout(weights, self.dropout) if self.training and self.dropout else weights

    def _fused(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, batch: int
    ) -> Tensor:
        """Return the heads' outputs, (batch, heads, queries, features of a head)."""
        if mask is not None:
            whole = mask.shape[0] == 1
            mask = mask.unsqueeze(0) if whole else mask.unflatten(0, (batch, self.num_heads))
        q, k, v = (t.view(batch, self.num_heads, -1, self.head_dim) for t in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)


def _parts(projected: Tensor, count: int) -> Sequence[Tensor]:
    """Return equal parts of the features, contiguous."""
    parts = projected.unflatten(-1, (count, -1)).unsqueeze(0)
    return list(parts.transpose(0, -2).squeeze(-2).contiguous())


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a mask as one that is added to scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def _merged(mask: Tensor | None, padding: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """Return both masks as one, (batch * heads or 1, queries or 1, keys)."""
    if mask is not None and mask.dim() == 2:
        mask = mask.unsqueeze(0)
    if padding is None:
        return mask
    row = padding.view(batch, 1, 1, -1).expand(-1, heads, -1, -1)
    row = row.reshape(batch * heads, 1, row.shape[-1])
    return row if mask is None else mask + row


def fit_attention(module: nn.MultiheadAttention) -> None:
    """Give an attention whose parameters were sliced sizes that fit, and a class that runs them."""
    head_dim = module.head_dim
    packed = module.in_proj_weight
    query = module.q_proj_weight if packed is None else packed
    rows = query.shape[0] if packed is None else query.shape[0] // 3
    embed_dim = module.out_proj.weight.shape[0]
    usual = {rows, query.shape[1], embed_dim} == {module.embed_dim}
    if usual and not isinstance(module, Attention):
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
