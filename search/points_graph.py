"""The values of a recorded run: what is computed, who reads it, and what is never negative."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hwcost.recorder_alternatives import ALTERNATIVES
from hwcost.recorder_values import Call, Recording, Ref
from hwcost.search.sites import MARK


def _aten(*names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names)


#: Operators whose results hold numbers of their first input, or 0, and no others.
KEEPING = _aten(
    *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool1d"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "clone", "contiguous", "detach", "alias"),
    *("_to_copy", "to", "dropout", "native_dropout", "feature_dropout", "alpha_dropout"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
    *("flip", "roll", "rot90", "repeat", "expand", "index_select", "index", "gather", "im2col"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "view", "_unsafe_view"),
    *("reshape", "permute", "transpose", "t", "slice", "select", "split", "split_with_sizes"),
    *("unbind", "unsqueeze", "squeeze", "amax", "max", "topk", "sort", "masked_select", "take"),
    *("_unsafe_index", "_reshape_copy", "unfold", "tril", "triu", "lift_fresh", "unsafe_split"),
    *("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d"),
    *("replication_pad2d", "replication_pad3d"),
)

#: Composites whose results hold numbers of their input, however they put them there.
PADDING = frozenset({"pad", "_pad_circular", "_pad_enum"})

#: Operators that an op before them does as it writes its result.
FUSED = _aten("relu", "relu_", "hardtanh", "hardtanh_", "relu6", "relu6_", "clamp", "clamp_")
FUSED |= _aten("clamp_min", "clamp_min_", "batch_norm", "_native_batch_norm_legit_no_training")
FUSED |= _aten("native_batch_norm", "cudnn_batch_norm", "threshold", "threshold_")

#: Operators whose operands must be of one scale.
ADDING = _aten("add", "add_", "sub", "sub_", "rsub") | {ALTERNATIVES}

#: Operators whose result is never negative.
POSITIVE = _aten("relu", "relu_", "sigmoid", "sigmoid_", "_softmax", "softmax", "hardsigmoid")
POSITIVE |= _aten("hardsigmoid_", "abs", "exp", "exp_", "sqrt", "square", "softplus", "relu6")
POSITIVE |= _aten("rsqrt", "norm", "linalg_vector_norm", "var", "std", "_safe_softmax", "relu6_")

#: Operators whose result is never negative if no input is.
MONOTONE = _aten(
    *("add", "add_", "mul", "mul_", "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "cat"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "sum", "stack"),
    *("adaptive_avg_pool2d", "adaptive_avg_pool3d", "upsample_bilinear2d", "upsample_linear1d"),
    *("maximum", "minimum", "div", "div_", "max_unpool2d", "clamp_max", "prelu", "leaky_relu"),
    *("gelu", "silu", "hardswish", "mish", "pow", "constant_pad_nd", "matmul", "bmm", "mm"),
)


@dataclass(eq=False)
class Graph:
    """Values of a run with marks; a value is known by the tensor that it was first.

    Attributes:
        recording: of a run with marks.
        data: tensors that depend on an input.
        value: tensor -> the value that it holds numbers of.
        readers: value -> calls that compute something from it, in order.
        marks: value -> numbers of the marks that lie on it unchanged, in order.
        outputs: values that the network returns.
        made: values that a call computes, in order; inputs come first.
        bypassed: values that are read past their marks too: changed in place, by their old name.
        stored: storage -> the parameter that lies there.
        shapes: of parameters.
    """

    recording: Recording
    data: set[Ref] = field(default_factory=set)
    value: dict[Ref, Ref] = field(default_factory=dict)
    readers: dict[Ref, list[int]] = field(default_factory=dict)
    marks: dict[Ref, list[int]] = field(default_factory=dict)
    outputs: set[Ref] = field(default_factory=set)
    made: list[Ref] = field(default_factory=list)
    bypassed: set[Ref] = field(default_factory=set)
    stored: dict[int, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _marked: set[Ref] = field(default_factory=set)
    _same: dict[Ref, Ref] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = self.recording.tensors
        names = self.recording.parameters.items()
        self.stored = {tensors[r].storage: name for r, name in names}
        self.shapes = {name: tensors[r].shape for r, name in names}
        for ref in self.recording.inputs:
            self._make(ref)
        for index, call in enumerate(self.recording.calls):
            self._walk(index, call)
        self.outputs = {self.value[r] for r in self.recording.outputs if r in self.value}

    def _make(self, ref: Ref) -> None:
        self.data.add(ref)
        self.value[ref] = self._same[ref] = ref
        self.made.append(ref)

    def _walk(self, index: int, call: Call) -> None:
        data = [ref for ref in call.inputs if ref in self.data]
        if not data:
            if call.op.name == MARK:
                self._follow(call)
            return
        if call.op.name == MARK:
            out = call.outputs[0]
            self.data.add(out)
            self.value[out] = self.value[data[0]]
            self._same[out] = self._same[data[0]]
            self._marked.add(out)
            self.marks.setdefault(self._same[out], []).append(call.args[1])
            return
        self.bypassed |= {self._same[ref] for ref in data if self._same[ref] in self.marks} - {
            self._same[ref] for ref in data if ref in self._marked
        }
        keeps = self.keeps(call, data)
        if not keeps or call.op.name == ALTERNATIVES:
            for value in dict.fromkeys(self.value[ref] for ref in data):
                self.readers.setdefault(value, []).append(index)
        for out in call.outputs:
            if out in self.value:
                continue
            if keeps:
                self.data.add(out)
                self.value[out] = self.value[data[0]]
                self._same[out] = out
            else:
                self._make(out)

    def _follow(self, call: Call) -> None:
        """Know a parameter behind a mark."""
        tensors = self.recording.tensors
        name = self.stored.get(tensors[call.inputs[0]].storage)
        if name is not None:
            self.stored[tensors[call.outputs[0]].storage] = name

    def keeps(self, call: Call, data: list[Ref]) -> bool:
        """Whether the results hold numbers of the first data input only."""
        name = call.op.name
        if call.outer in PADDING:
            return True
        if call.op.writes:
            return False
        if name == "aten.constant_pad_nd":
            return not call.arg("value")
        if name == "aten.max":
            return call.op.overload != "other"
        if name in KEEPING or name == ALTERNATIVES:
            return True
        tensors = self.recording.tensors
        given = {tensors[ref].storage for ref in data}
        return bool(call.outputs) and all(tensors[o].storage in given for o in call.outputs)

    def is_same(self, ref: Ref, value: Ref) -> bool:
        """Whether a tensor is a value itself, not a view or a copy of it."""
        return self._same.get(ref) == value

    def producer(self, value: Ref) -> Call | None:
        """Return the call that computes a value, None for an input."""
        index = self.recording.tensors[value].producer
        return None if index < 0 else self.recording.calls[index]

    def operands(self, call: Call) -> list[Ref]:
        """Return the values that a call reads, those that depend on inputs."""
        return list(dict.fromkeys(self.value[ref] for ref in call.inputs if ref in self.data))

    def is_positive(self, value: Ref, known: dict[Ref, bool]) -> bool:
        """Whether a value is never negative, as far as the operators tell."""
        if value not in known:
            known[value] = False  # while it is looked at
            call = self.producer(value)
            known[value] = call is not None and self._makes_positive(call, known)
        return known[value]

    def _makes_positive(self, call: Call, known: dict[Ref, bool]) -> bool:
        name = call.op.name
        if name in POSITIVE:
            return True
        if name in LIMITS:
            return LIMITS[name](call)
        if name not in MONOTONE or any(ref not in self.data for ref in call.inputs):
            return False
        if any(isinstance(a, (int, float)) and a < 0 for a in _numbers(call)):
            return False
        return all(self.is_positive(value, known) for value in self.operands(call))


def _numbers(call: Call) -> list[float]:
    """Return plain numbers that are operands; others, as dimensions, say nothing."""
    return [a for a in call.args[1:2] if type(a) in (int, float)] if len(call.args) > 1 else []


def _at_least(name: str) -> Callable[[Call], bool]:
    def limit(call: Call) -> bool:
        found: Any = call.arg(name)
        return isinstance(found, (int, float)) and found >= 0

    return limit


def _threshold(call: Call) -> bool:
    return bool(call.arg("threshold") >= 0 and call.arg("value") >= 0)


#: Operators that clip -> whether what they leave is never negative.
LIMITS: Mapping[str, Callable[[Call], bool]] = {
    **dict.fromkeys(("aten.hardtanh", "aten.hardtanh_"), _at_least("min_val")),
    **dict.fromkeys(_aten("clamp", "clamp_", "clamp_min", "clamp_min_"), _at_least("min")),
    **dict.fromkeys(("aten.threshold", "aten.threshold_"), _threshold),
}
