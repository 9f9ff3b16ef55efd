"""Give every bias of an ONNX model the scale that integer kernels take it to have."""

from typing import Any

import torch
from torch import Tensor

#: Operators that a runtime may move behind the quantizer in front of them: they keep its scale.
_KEEPING = {"MaxPool", "Reshape", "Transpose", "Slice", "Flatten", "Squeeze", "Unsqueeze", "Split"}

#: Operators that add a bias to a product of input and weight.
_BIASED = {"Conv", "ConvTranspose", "Gemm"}

#: Scales that differ by less are those of one accumulator, but for float32's rounding.
_CLOSE = 1e-5


def match_biases(graph: Any, tensors: dict[str, Tensor]) -> None:
    """Round each bias to the product of its input's and its weight's scale.

    Kernels for integers add a bias as it is to the accumulator, whatever scale the file gives.
    Where the two differ, as in a layer that runs twice, on inputs of different scales, the bias
    gets new codes.

    Args:
        graph: the model's graph; changed in place.
        tensors: the numbers of its initializers.
    """
    from onnx import helper, numpy_helper

    made = {output: node for node in graph.node for output in node.output}
    nodes = []
    for node in graph.node:
        found = _scales(node, made, tensors)
        if found is not None:
            codes, scale, wanted = found
            value = codes.double() * scale.double()
            new = (value / wanted.double()).round().clamp(-(2**31), 2**31 - 1).to(torch.int32)
            names = [f"{node.name}_bias_{kind}" for kind in ("codes", "scale", "value")]
            for name, tensor in zip(names, (new, wanted.float()), strict=False):
                graph.initializer.append(numpy_helper.from_array(tensor.numpy(), name))
            nodes.append(helper.make_node("DequantizeLinear", names[:2], names[2:], axis=0))
            node.input[2] = names[2]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _scales(
    node: Any, made: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return a bias's codes, its scale and the right one; None where they agree."""
    if node.op_type not in _BIASED or len(node.input) < 3:
        return None
    behind = [grid_of(name, made) for name in node.input]
    if any(b is None for b in behind):
        return None
    x, weight, bias = (tensors[b.input[1]] for b in behind if b is not None)
    if x.numel() > 1 or behind[2] is None:
        return None
    codes = tensors[behind[2].input[0]]
    repeats = len(codes) // weight.numel() if weight.numel() > 1 else len(codes)
    wanted = x.reshape(()) * weight.reshape(-1).repeat(repeats)
    if bool(((bias - wanted).abs() <= _CLOSE * wanted).all()):
        return None
    return codes, bias, wanted


def grid_of(name: str, made: dict[str, Any]) -> Any | None:
    """Return the DequantizeLinear that a tensor has its scale from."""
    node = made.get(name)
    while node is not None and node.op_type in _KEEPING:
        node = made.get(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None
