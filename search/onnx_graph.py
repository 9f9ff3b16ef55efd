"""Rewrite a model's quantizers as QuantizeLinear and DequantizeLinear; weights become int8."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.search.onnx_bias import grid_of, match_biases

#: The key of the file's metadata that says how each tensor is quantized, as JSON.
METADATA = "hwcost.quantizers"

#: Domain and name of a quantizer before it is rewritten.
DOMAIN, NAME = "hwcost", "FakeQuantize"

#: The types that ONNX has at the opset of the export: the least and the largest code.
_TYPES: dict[torch.dtype, tuple[int, int]] = {
    torch.uint8: (0, 2**8 - 1),
    torch.int8: (-(2**7), 2**7 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class Quantizer:
    """One quantizer of the file.

    Attributes:
        bits: of the tensor, or of each channel; so are ``low``, ``high`` and ``scale``.
        low: the smallest code.
        high: the largest code.
        scale: what one step is worth.
        axis: the dimension of the channels.
    """

    bits: list[int]
    low: list[int]
    high: list[int]
    scale: list[float]
    axis: int

    @property
    def dtype(self) -> torch.dtype:
        """The type of its codes in the file.

        Raises:
            SearchError: ONNX has none that holds them.
        """
        least, most = min(self.low), max(self.high)
        for dtype, (low, high) in _TYPES.items():
            if low <= least and most <= high:
                return dtype
        raise SearchError(f"ONNX export has no type for codes from {least} to {most}")


class Rewriter:
    """Replace every quantizer of an ONNX model.

    Args:
        proto: the model; changed in place.
    """

    def __init__(self, proto: Any) -> None:
        self.proto, self.graph = proto, proto.graph
        self.constants = {t.name: _tensor(t) for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = _tensor(node.attribute[0].t)
        self.quantizers: dict[str, Quantizer] = {}
        self._codes: dict[str, tuple[Tensor, Quantizer]] = {}
        self._nodes: list[Any] = []
        self._made: dict[str, Any] = {}
        self._kept: dict[tuple[object, ...], str] = {}
        self._taken = set(self.constants) | {i.name for i in self.graph.input}
        self._taken.update(name for node in self.graph.node for name in node.output)

    def rewrite(self) -> None:
        """Replace the quantizers, drop what nobody reads, say in the file what they are."""
        for node in self.graph.node:
            if node.domain == DOMAIN:
                self._quantizer(node)
            elif node.op_type == "Transpose" and node.input[0] in self._codes:
                self._transposed(node)
            else:
                self._append(node)
        self._set_nodes(self._nodes)
        match_biases(self.graph, {t.name: _tensor(t) for t in self.graph.initializer})
        self._set_nodes(list(self.graph.node))
        for opset in [o for o in self.proto.opset_import if o.domain == DOMAIN]:
            self.proto.opset_import.remove(opset)
        entry = self.proto.metadata_props.add()
        entry.key = METADATA
        entry.value = json.dumps({label: asdict(q) for label, q in self.quantizers.items()})

    def _quantizer(self, node: Any) -> None:
        attributes = {a.name: a for a in node.attribute}
        if node.input[1] not in self.constants:
            raise SearchError("ONNX export: a quantizer's scale is not a buffer")
        scale = self.constants[node.input[1]].float()
        bits, low, high = (list(attributes[n].ints) for n in ("bits", "low", "high"))
        quantizer = Quantizer(bits, low, high, scale.tolist(), attributes["axis"].i)
        self._note(attributes["label"].s.decode(), quantizer)
        given = self.constants.get(node.input[0])
        if given is None:
            self._activation(node, quantizer)
        else:
            self._constant(node.output[0], _codes(given, quantizer), quantizer)

    def _note(self, label: str, quantizer: Quantizer) -> None:
        name, number = label, 2
        while self.quantizers.get(name, quantizer) != quantizer:
            name, number = f"{label}#{number}", number + 1
        self.quantizers[name] = quantizer

    def _constant(self, output: str, codes: Tensor, quantizer: Quantizer) -> None:
        self._codes[output] = codes, quantizer
        name = self._keep(f"{output}_codes", codes)
        self._node(
            "DequantizeLinear", [name, *self._scale(quantizer, codes.dtype)], output, quantizer
        )

    def _transposed(self, node: Any) -> None:
        """Transpose the codes in the file, so that a kernel for integers finds them."""
        codes, quantizer = self._codes[node.input[0]]
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        order = order or list(range(codes.dim()))[::-1]
        axis = order.index(quantizer.axis % codes.dim())
        moved = Quantizer(**(asdict(quantizer) | {"axis": axis}))
        self._constant(node.output[0], codes.permute(order).contiguous(), moved)

    def _activation(self, node: Any, quantizer: Quantizer) -> None:
        source, output, dtype = node.input[0], node.output[0], quantizer.dtype
        if grid_of(source, self._made) is not None:
            source = self._kept_apart(source, output)
        if (min(quantizer.low), max(quantizer.high)) != _TYPES[dtype]:
            source = self._clipped(source, output, quantizer)
        scale = self._scale(quantizer, dtype)
        self._node("QuantizeLinear", [source, *scale], f"{output}_codes", quantizer)
        self._node("DequantizeLinear", [f"{output}_codes", *scale], output, quantizer)

    def _kept_apart(self, source: str, output: str) -> str:
        """Put an operator that changes nothing between two quantizers in a row.

        onnxruntime takes two in a row for one and skips the first one's rounding.
        """
        least = self._keep("least", torch.tensor(torch.finfo(torch.float32).min))
        self._node("Max", [source, least], f"{output}_apart", None)
        return f"{output}_apart"

    def _clipped(self, source: str, output: str, quantizer: Quantizer) -> str:
        if len(quantizer.scale) > 1 or len(quantizer.bits) > 1:
            raise SearchError("ONNX export has no activations of different bits by channel")
        ends = [
            float(torch.tensor(quantizer.scale[0]) * c[0]) for c in (quantizer.low, quantizer.high)
        ]
        names = [
            self._keep(f"{output}_{n}", torch.tensor(e)) for n, e in zip("lh", ends, strict=True)
        ]
        self._node("Clip", [source, *names], f"{output}_clipped", None)
        return f"{output}_clipped"

    def _scale(self, quantizer: Quantizer, dtype: torch.dtype) -> list[str]:
        """Return the names of scale and zero point."""
        scale = torch.tensor(quantizer.scale)
        scale = scale if len(scale) > 1 else scale[0]
        name = self._keep("scale", scale)
        # int32 has no zero point in ONNX; every other one is 0.
        return [name] + ([] if dtype == torch.int32 else [self._zero(scale, dtype)])

    def _zero(self, scale: Tensor, dtype: torch.dtype) -> str:
        return self._keep("zero", torch.zeros(scale.shape, dtype=dtype))

    def _keep(self, kind: str, tensor: Tensor) -> str:
        """Add a tensor to the file, once, and return its name."""
        key = kind, tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()
        if key not in self._kept:
            from onnx import numpy_helper

            self._kept[key] = self._free_name(kind)
            proto = numpy_helper.from_array(tensor.contiguous().numpy(), self._kept[key])
            self.graph.initializer.append(proto)
        return self._kept[key]

    def _free_name(self, kind: str) -> str:
        number = len(self._kept)
        while f"{kind}_{number}" in self._taken:
            number += 1
        self._taken.add(f"{kind}_{number}")
        return f"{kind}_{number}"

    def _node(self, kind: str, inputs: list[str], output: str, quantizer: Quantizer | None) -> None:
        from onnx import helper

        per_channel = quantizer is not None and len(quantizer.scale) > 1
        extra: dict[str, Any] = {"axis": quantizer.axis} if quantizer and per_channel else {}
        name = f"{kind}_{output}"
        self._append(helper.make_node(kind, inputs, [output], name=name, **extra))

    def _append(self, node: Any) -> None:
        self._nodes.append(node)
        self._made.update(dict.fromkeys(node.output, node))

    def _set_nodes(self, nodes: Sequence[Any]) -> None:
        """Set the nodes, without those and without tensors that nobody reads."""
        read = {output.name for output in self.graph.output}
        kept = []
        for node in reversed(nodes):
            if read.intersection(node.output):
                kept.append(node)
                read.update(node.input)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        tensors = [t for t in self.graph.initializer if t.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensors)
        del self.graph.value_info[:]


def _tensor(proto: Any) -> Tensor:
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _codes(given: Tensor, quantizer: Quantizer) -> Tensor:
    """Return known numbers as codes, rounded as ``fake_quantize`` does."""

    def along(numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
        shape = [1] * given.dim()
        if len(numbers) > 1:
            shape[quantizer.axis] = -1
        return torch.tensor(numbers, dtype=dtype).view(shape)

    steps = (given / along(quantizer.scale, given.dtype)).round().double()
    low, high = (along(c, torch.float64) for c in (quantizer.low, quantizer.high))
    # Constants are signed wherever they fit: int8 is what kernels take for weights.
    signed = min(quantizer.low) < 0 or max(quantizer.high) > 127
    dtype = quantizer.dtype if signed else torch.int8
    return torch.minimum(torch.maximum(steps, low), high).to(dtype)
