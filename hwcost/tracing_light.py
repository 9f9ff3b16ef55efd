"""Rows of the ops that do not multiply matrices, and the table of all operators."""

from collections.abc import Iterable

import torch

from hwcost.recorder_values import Call, Ref, product, refs_in
from hwcost.tracing_facts import Facts, Row
from hwcost.tracing_heavy import (
    Handler,
    attention,
    bilinear,
    cell,
    convolution,
    experts,
    flex_attention,
    linear,
    matmul,
    recurrent,
    spatial,
    spread,
)


def flat(kind: str, fusable: bool = False) -> Handler:
    """Return the handler of an op whose cost follows from how many numbers it writes."""

    def handler(call: Call, facts: Facts) -> list[Row]:
        return [_flat(kind, call, facts, call.inputs, fusable)]

    return handler


def _flat(kind: str, call: Call, facts: Facts, read: Iterable[Ref], fusable: bool = False) -> Row:
    read = tuple(read)
    out = written(call, facts)
    inside = sum(facts.info(r).distinct for r in read if facts.is_data(r))
    sizes = {"elements": out, "reads": inside / out if out else 0.0}
    constants = tuple(r for r in read if not facts.is_data(r))
    return Row(kind, sizes, out, operands=constants, fusable=fusable)


def written(call: Call, facts: Facts) -> int:
    """Return how many numbers a call writes: those of its first result."""
    results = call.outputs or refs_in([call.arg(name) for name in call.op.writes])
    return facts.info(results[0]).numel if results else 0


def pointwise(call: Call, facts: Facts) -> list[Row]:
    """Return an activation row for a function of one tensor, an elementwise row for arithmetic."""
    if len(call.inputs) != 1 or not {"other", "exponent"}.isdisjoint(call.op.names):
        return flat("elementwise")(call, facts)
    return flat("activation", fusable=True)(call, facts)


def batch_norm(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a normalisation whose statistics are fixed: it fuses into its producer."""
    return [_norm(call, facts, fusable=not call.arg("training"))]


def norm(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a normalisation that measures its input."""
    return [_norm(call, facts, fusable=False)]


def _norm(call: Call, facts: Facts, fusable: bool) -> Row:
    return _flat("norm", call, facts, call.inputs, fusable)


def copied(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a copy into existing memory, which it does not read."""
    return [_flat("copy", call, facts, call.inputs[1:] if call.op.writes else call.inputs)]


def scattered(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a copy to where indices point; in place, it writes only there."""
    row = copied(call, facts)[0]
    out = max((facts.info(r).numel for r in call.inputs[1:]), default=row.out)
    if not call.op.writes or not out:
        return [row]
    reads = row.sizes["reads"] * row.out / out
    return [Row("copy", {"elements": out, "reads": reads}, out, operands=row.operands)]


def gathered(call: Call, facts: Facts) -> list[Row]:
    """Return the row of an op that reads only what it writes, where its indices point."""
    out = written(call, facts)
    inside = [min(facts.info(r).distinct, out) for r in call.inputs if facts.is_data(r)]
    row = _flat("copy", call, facts, call.inputs)
    return [
        Row("copy", {**row.sizes, "reads": sum(inside) / max(out, 1)}, out, operands=row.operands)
    ]


def embedding(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a table look-up, a copy where the table is itself computed."""
    if facts.is_data(call.arg("weight")):
        return gathered(call, facts)
    return flat("embedding")(call, facts)


def pool(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a pooling; of one without a kernel, windows that tile the input."""
    before = facts.shape(facts.before_padding(call.args[0]))
    padded = facts.shape(call.args[0])
    after = facts.shape(call.outputs[0])
    kernel, stride, dilation = (call.arg(n) for n in ("kernel_size", "stride", "dilation"))
    rank = _POOL_RANKS.get(call.op.name.rpartition(".")[2], 2)
    if kernel is None or "output_size" in call.op.names:
        # The i-th window starts at floor(i*in/out) and ends before ceil((i+1)*in/out).
        ends = list(zip(padded[-rank:], after[-rank:], strict=True))
        stride = tuple(i // max(o, 1) or 1 for i, o in ends)
        kernel = tuple(i - (o - 1) * s for (i, o), s in zip(ends, stride, strict=True))
    return [_pool_row(before, after, spread(kernel, rank), stride or kernel, dilation or 1)]


def _pool_row(
    before: tuple[int, ...],
    after: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | int,
    dilation: tuple[int, ...] | int,
) -> Row:
    rank = len(kernel)
    sizes = {
        "batch": product(after[: -rank - 1]),
        "cin": before[-rank - 1],
        "cout": after[-rank - 1],
        "groups": 1,
    } | spatial(
        k=kernel,
        s=spread(stride, rank),
        d=spread(dilation, rank),
        i=before[-rank:],
        o=after[-rank:],
    )
    return Row("pool", sizes, product(after))


def reduction(call: Call, facts: Facts) -> list[Row]:
    """Return a pooling row for a mean over all of (N, C, *)'s last dimensions, else elementwise."""
    shape = facts.shape(call.args[0])
    dims = call.arg("dim")
    dims = (dims,) if isinstance(dims, int) else dims or ()
    reduced = {d % len(shape) for d in dims} if shape else set()
    rank = len(shape) - 2
    if not 1 <= rank <= 3 or reduced != set(range(2, 2 + rank)):
        return flat("elementwise")(call, facts)
    after = (*shape[:2], *(1,) * rank)
    return [_pool_row(shape, after, shape[2:], shape[2:], 1)]


_POOL_RANKS = {
    "max_pool1d": 1,
    "avg_pool1d": 1,
    "max_pool3d_with_indices": 3,
    "avg_pool3d": 3,
    "_adaptive_avg_pool3d": 3,
    "adaptive_max_pool3d": 3,
    "fractional_max_pool3d": 3,
}

_COPIES = """
    clone cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_bicubic2d _upsample_bicubic2d_aa upsample_trilinear3d repeat roll flip rot90
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col tril triu
    repeat_interleave slice_scatter select_scatter diagonal_scatter as_strided_scatter diag_embed
    _to_copy resize masked_scatter block_diag _pack_padded_sequence
    _nested_tensor_from_tensor_list _nested_from_padded to_padded_tensor
"""
_GATHERS = "index_select gather index _unsafe_index take masked_select"
_FILLS = "copy_ fill_ zero_ copy"
_SCATTERS = "scatter index_put _index_put_impl index_copy index_fill put"
_ARITHMETIC = """
    prod std var var_mean std_mean norm linalg_vector_norm logsumexp argmax argmin any all cumsum
    cumprod cummax cummin logcumsumexp median nanmedian mode count_nonzero trace index_add
    scatter_add scatter_reduce index_reduce aminmax linalg_cross dist renorm col2im glu addr
    rsub floor_divide
    native_dropout bucketize searchsorted masked_fill where fill polar complex nansum diff
    sort topk kthvalue argsort histc bincount unique_dim _unique2 nonzero multinomial
    fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams quantize_per_tensor
    quantize_per_channel dequantize _masked_scale
    nll_loss_forward nll_loss2d_forward nll_loss_nd mse_loss smooth_l1_loss huber_loss
    binary_cross_entropy soft_margin_loss multi_margin_loss multilabel_margin_loss_forward
"""
_ACTIVATIONS = "_prelu_kernel log_sigmoid_forward rrelu_with_noise hardswish leaky_relu"

_POOLS = """
    max_pool1d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
    fractional_max_pool2d fractional_max_pool3d max_pool2d mkldnn_max_pool2d
"""
_FIXED_NORMS = "batch_norm native_batch_norm _native_batch_norm_legit_no_training"
_NORMS = """
    native_layer_norm native_group_norm instance_norm rms_norm _fused_rms_norm
    _native_batch_norm_legit
"""
_ATTENTIONS = """
    scaled_dot_product_attention _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention
    _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math
"""


def _all(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


#: ATen operator -> its rows. An in-place operator is looked up with and without its "_".
HANDLERS: dict[str, Handler] = {
    "convolution": convolution,
    "_convolution": convolution,
    "linear": linear,
    "matmul": matmul("self", "other"),
    "mm": matmul("self", "mat2"),
    "bmm": matmul("self", "mat2"),
    "mv": matmul("self", "vec"),
    "dot": matmul("self", "tensor"),
    "vdot": matmul("self", "other"),
    "addmm": matmul("mat1", "mat2", "self"),
    "addmv": matmul("mat", "vec", "self"),
    "baddbmm": matmul("batch1", "batch2", "self"),
    "_grouped_mm": experts,
    "bilinear": bilinear,
    "lstm": recurrent(4),
    "gru": recurrent(3),
    "rnn_tanh": recurrent(1),
    "rnn_relu": recurrent(1),
    "lstm_cell": cell(4),
    "gru_cell": cell(3),
    "rnn_tanh_cell": cell(1),
    "rnn_relu_cell": cell(1),
    "embedding": embedding,
    "_embedding_bag": embedding,
    "_embedding_bag_forward_only": embedding,
    **_all("mean sum amax amin max min", reduction),
    **_all(_ATTENTIONS, attention),
    **_all(_POOLS, pool),
    **_all(_FIXED_NORMS, batch_norm),
    **_all(_NORMS, norm),
    **_all("_softmax _log_softmax _safe_softmax _masked_softmax", flat("softmax")),
    **_all(_COPIES, flat("copy")),
    **_all(_GATHERS, gathered),
    **_all(_FILLS, copied),
    **_all(_SCATTERS, scattered),
    **_all(_ARITHMETIC, flat("elementwise")),
    **_all(_ACTIVATIONS, flat("activation", fusable=True)),
}


def handler_of(call: Call, facts: Facts) -> Handler | None:
    """Return how to read this call, None where nobody knows."""
    namespace, _, name = call.op.name.partition(".")
    if name == "flex_attention":
        return flex_attention
    if namespace == "aten":
        found = HANDLERS.get(name) or (HANDLERS.get(name[:-1]) if name.endswith("_") else None)
        if found is not None:
            return found
        if name.endswith("_copy"):
            return flat("copy")
    if call.op.pointwise:
        return pointwise
    # Sorting lengths or counting indices: arithmetic, on few numbers.
    integers = all(facts.info(r).dtype in _INTEGERS for r in call.inputs if facts.is_data(r))
    return flat("elementwise") if call.op.random or (namespace == "aten" and integers) else None


_INTEGERS = (torch.int64, torch.int32, torch.bool)
