"""At how many bits the tensors of a recording are stored, from the calls that round them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hwcost.recorder_alternatives import ALTERNATIVES
from hwcost.recorder_quantize import FAKE_QUANTIZE
from hwcost.recorder_values import Call, Recording, Ref, refs_in

#: Operators whose results are numbers of their first tensor, moved or left out.
_KEEPING = frozenset(
    f"aten.{name}"
    for name in (
        *("clone", "_to_copy", "contiguous", "constant_pad_nd", "flip", "roll", "rot90", "repeat"),
        *("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "tril", "triu", "amax"),
        *("replication_pad1d", "replication_pad2d", "replication_pad3d", "pixel_shuffle"),
        *("pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "index_select", "gather"),
        *("index", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "im2col"),
        *("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
        *("adaptive_max_pool2d", "adaptive_max_pool3d", "repeat_interleave", "take", "unfold"),
        *("_unsafe_index", "masked_select", "topk", "sort", "max", "native_dropout"),
    )
)

#: Operators whose results are such numbers too, but are usually rounded anew.
_NEARLY_KEEPING = frozenset(("aten.relu", "aten.relu_", "aten.embedding"))

#: Operators that put tensors beside one another.
_JOINING = ("aten.cat", "aten.stack")

#: Operators that multiply and add up many numbers: what they read is not what they write.
_ACCUMULATING = frozenset(
    f"aten.{name}"
    for name in (
        *("convolution", "_convolution", "linear", "matmul", "mm", "bmm", "mv", "dot", "vdot"),
        *("addmm", "addmv", "baddbmm", "_grouped_mm", "bilinear", "embedding", "_embedding_bag"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"),
        *("rnn_relu_cell", "scaled_dot_product_attention"),
    )
)


class Quantizers(NamedTuple):
    """Which calls of ``fake_quantize`` say at how many bits a row computes.

    Attributes:
        weight: index in ``recording.calls`` of the one that made its weight, -1 for none.
        read: of the first tensor of activations that it reads: the one that made it, or, for a
            result on its way to being rounded, the one that is next.
        made: likewise of its result.
    """

    weight: int = -1
    read: int = -1
    made: int = -1


class Rounding:
    """Where the tensors of a recording are rounded.

    Attributes:
        behind: tensor -> the call that rounded its numbers; copies and views keep them.
        nearly_behind: likewise, where a ReLU does too.
        ahead: tensor -> the first call that rounds what is computed from it, where all that read
            it lead there.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.calls = recording.calls
        self.behind: dict[Ref, int] = {}
        self.nearly_behind: dict[Ref, int] = {}
        self.ahead: dict[Ref, int] = {}
        if any(call.op.name == FAKE_QUANTIZE for call in self.calls):
            self._look_back()
            self._look_ahead()

    def of(self, ref: Ref) -> int:
        """Return the call that rounds a tensor of activations, -1 for none."""
        places = [self.behind, self.ahead, self.nearly_behind]
        producer = self.recording.tensors[ref].producer
        if producer >= 0 and self.calls[producer].op.name in _JOINING:
            places = [self.ahead, self.behind]  # rounded anew, if at all
        return next((place[ref] for place in places if place.get(ref, -1) >= 0), -1)

    def read_by(self, refs: Iterable[Ref]) -> int:
        """Return the call that rounds the first tensor among ``refs`` that holds numbers."""
        tensors = self.recording.tensors
        floats = [ref for ref in refs if tensors[ref].dtype.is_floating_point]
        return self.of(floats[0]) if floats else -1

    def weight(self, refs: Iterable[Ref]) -> int:
        """Return the call that rounded the first rounded constant among ``refs``."""
        return next((self.behind[ref] for ref in refs if ref in self.behind), -1)

    def bits(self, index: int) -> float | None:
        """Return the bits that a call rounds to, the most of its channels; None for no call."""
        return float(max(self.calls[index].arg("bits"))) if index >= 0 else None

    def _look_back(self) -> None:
        for index, call in enumerate(self.calls):
            for known, more in ((self.behind, ()), (self.nearly_behind, _NEARLY_KEEPING)):
                found = index
                if call.op.name != FAKE_QUANTIZE:
                    found = self._kept(call, known, call.op.name in more)
                if found >= 0:
                    known |= dict.fromkeys(call.outputs, found)

    def _kept(self, call: Call, known: Mapping[Ref, int], keeps: bool) -> int:
        """Return what rounded the numbers of a call's results, -1 where they are new."""
        inputs = refs_in(call.args)
        if not inputs:
            return -1
        if call.op.name in (*_JOINING, ALTERNATIVES):
            found = {known.get(ref, -1) for ref in inputs}
            same = -1 not in found and len({self.bits(index) for index in found}) == 1
            return known[inputs[0]] if same else -1
        keeps |= call.op.name in _KEEPING and call.op.overload != "other"
        keeps |= not call.op.writes and self._is_view(call, inputs[0])
        return known.get(inputs[0], -1) if keeps else -1

    def _is_view(self, call: Call, source: Ref) -> bool:
        tensors = self.recording.tensors
        storages = {tensors[ref].storage for ref in call.outputs}
        return storages == {tensors[source].storage}

    def _look_ahead(self) -> None:
        ends: dict[Ref, set[int]] = {ref: {-1} for ref in self.recording.outputs}
        for index in range(len(self.calls) - 1, -1, -1):
            call = self.calls[index]
            for ref in call.outputs:
                self.ahead[ref] = _only(ends.get(ref, ()))
            if call.op.name == FAKE_QUANTIZE:
                ends.setdefault(call.args[0], set()).add(index)
                continue
            if call.op.name.endswith("_like") or call.op.name.startswith("aten.new_"):
                continue  # reads a shape, no numbers
            found = -1
            if call.op.name not in _ACCUMULATING:
                found = _only({self.ahead[ref] for ref in call.outputs if ref in ends})
            for ref in call.inputs:
                ends.setdefault(ref, set()).add(found)
        for ref in self.recording.inputs:
            self.ahead[ref] = _only(ends.get(ref, ()))


def _only(found: Iterable[int]) -> int:
    ends = set(found)
    return ends.pop() if len(ends) == 1 else -1
