"""Calls that are one op together: attention that returns its weights, padding for a convolution."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hwcost.recorder_values import Call, Ref
from hwcost.tracing_facts import Facts, Row
from hwcost.tracing_heavy import attention_row

#: Operators that pad by themselves -> the number they pad with.
_PADDING = {
    "aten.convolution": 0.0,
    "aten._convolution": 0.0,
    "aten.max_pool1d": float("-inf"),
    "aten.max_pool2d_with_indices": float("-inf"),
    "aten.max_pool3d_with_indices": float("-inf"),
}

_PRODUCTS = {"aten.bmm": ("self", "mat2"), "aten.baddbmm": ("batch1", "batch2")}


class Pattern(NamedTuple):
    """Several calls that are one row.

    Attributes:
        row: what stands for them.
        inputs: what they read that they did not make.
        extra: what they made that others may read too.
    """

    row: Row
    inputs: tuple[Ref, ...]
    extra: Ref
    function: str = "scaled_dot_product_attention"


def attentions(facts: Facts) -> Mapping[int, Pattern | None]:
    """Return what replaces calls: the index of the last -> its pattern, those before -> None.

    ``nn.MultiheadAttention`` that returns its weights runs bmm, softmax, bmm in place of scaled
    dot-product attention.
    """
    found: dict[int, Pattern | None] = {}
    for index, call in enumerate(facts.recording.calls):
        scope = facts.recording.scopes[call.scope]
        if scope.cls == "MultiheadAttention" and call.op.name == "aten.bmm":
            scores = _scores(call, facts)
            if scores is not None:
                softmax, first = scores
                opening = facts.recording.calls[first]
                row = _row(opening, call, facts, index)
                pattern = Pattern(row, (*opening.inputs, call.args[1]), call.args[0])
                found |= {softmax: None, first: None, index: pattern}
    return found


def _scores(call: Call, facts: Facts) -> tuple[int, int] | None:
    """Return the indices of the softmax and of the product that made the first factor."""
    softmax = facts.made_by(call.args[0])
    if softmax < 0 or facts.recording.calls[softmax].op.name != "aten._softmax":
        return None
    first = facts.made_by(facts.recording.calls[softmax].args[0])
    if first < 0 or facts.recording.calls[first].op.name not in _PRODUCTS:
        return None
    return softmax, first


def _row(first: Call, second: Call, facts: Facts, index: int) -> Row:
    names = _PRODUCTS[first.op.name]
    query, key = (facts.shape(first.arg(name)) for name in names)
    value = facts.shape(second.args[1])
    heads = _heads(second, facts, index)
    # Samples and heads are one dimension in a bmm.
    split = (query[0] // heads, heads)
    return attention_row((*split, *query[1:]), (*split, key[2], key[1]), (*split, *value[1:]))


def _heads(second: Call, facts: Facts, index: int) -> int:
    """Return the number of heads: the projection after them reads all their features."""
    for call in facts.recording.calls[index + 1 :]:
        if call.op.name in ("aten.linear", "aten.addmm") and call.scope == second.scope:
            weight: Ref = call.args[1] if call.op.name == "aten.linear" else call.args[2]
            features = facts.shape(weight)[1 if call.op.name == "aten.linear" else 0]
            heads = features // facts.shape(second.args[1])[-1]
            return heads if heads and facts.shape(second.args[0])[0] % heads == 0 else 1
    return 1


def is_padding(call: Call, facts: Facts, readers: Mapping[int, Sequence[Call]]) -> bool:
    """Return whether all that read a padded tensor could pad by themselves.

    So does torch compute a convolution with ``padding="same"`` whose two sides are unequal.

    Args:
        call: any call.
        facts: the tensors.
        readers: storage -> the calls that read it.
    """
    if call.op.name != "aten.constant_pad_nd":
        return False
    pad, value = call.arg("pad"), float(call.arg("value") or 0)
    storage = facts.storage(call.outputs[0])
    spatial = len(facts.shape(call.outputs[0])) - 2
    returned = any(facts.storage(r) == storage for r in facts.recording.outputs)
    if returned or min(pad) < 0 or len(pad) > 2 * spatial:
        return False
    return storage in readers and all(
        _PADDING.get(reader.op.name) == value
        and not reader.arg("transposed")
        and facts.storage(reader.args[0]) == storage
        for reader in readers[storage]
    )
