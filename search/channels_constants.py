"""Tensors made of parameters and buffers alone: they follow whatever channels they meet."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hwcost.recorder_values import Call, Recording, Ref

#: Operators that move entries of one tensor, and can be replayed on numbers of entries.
MOVES = frozenset(
    "aten." + name
    for name in (
        *("view", "_unsafe_view", "_reshape_alias", "reshape", "t", "transpose", "permute"),
        *("unsqueeze", "squeeze", "expand", "slice", "select", "alias", "detach", "clone"),
        *("contiguous", "_to_copy", "lift_fresh", "flip", "unbind", "split", "split_with_sizes"),
        *("repeat", "unflatten", "flatten"),
    )
)

#: Moves after which a tensor is still read as the parameter itself.
_COPIES = MOVES - {"aten.repeat", "aten.expand"}

#: A direction times its length: of every output channel by itself where ``dim`` is 0.
WEIGHT_NORM = "aten._weight_norm_interface"

_WEIGHTS = _COPIES | {WEIGHT_NORM}

#: Operators by which a mask sets entries of a weight to 0.
_MASKS = {"aten.mul", "aten.where", "aten.masked_fill"}

#: Operators that fill a tensor with one number, or with independent random ones.
_FILLS = frozenset(
    "aten." + name
    for name in (
        *("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty", "new_empty"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand", "randn"),
        *("rand_like", "randn_like", "bernoulli", "zero", "fill", "uniform", "normal"),
        *("empty_strided", "new_empty_strided", "exponential"),
    )
)

#: Where a tensor's entries come from: a name, and the number of an entry of it for each of them.
Origin = tuple[str, Tensor]


class Constants:
    """Which tensors of a recording are made of parameters and buffers alone, entry by entry.

    Attributes:
        flexible: these, and tensors of one number repeated, which fit whatever they meet.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        named = {**recording.buffers, **recording.parameters}
        self._named = {ref: name for ref, name in named.items() if name}
        self._refs = {name: ref for ref, name in self._named.items()}
        tensors = recording.tensors
        self._by_storage = {tensors[ref].storage: ref for ref in self._named}
        self.flexible = set(self._named)
        self.plain = set(self._named)
        self._origins: dict[Ref, list[Origin]] = {}

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the sizes of a parameter or buffer."""
        return self.recording.tensors[self._refs[name]].shape

    def learn(self, call: Call) -> bool:
        """Note whether a call, none of whose inputs has channels, makes such tensors."""
        name, inputs = call.op.name, call.inputs
        if is_fill(call):
            fits = True
        elif name == WEIGHT_NORM:
            fits = call.arg("dim") == 0 and all(ref in self.plain for ref in inputs)
        elif is_move(call) or call.op.pointwise:
            fits = any(ref in self.flexible for ref in inputs) and all(
                ref in self.flexible or self.recording.tensors[ref].numel == 1 for ref in inputs
            )
        else:
            fits = False
        if fits:
            self.flexible.update(call.outputs)
            if (name.rstrip("_") in _WEIGHTS and inputs[0] in self.plain) or self._is_masked(call):
                self.plain.update(call.outputs)
        return fits

    def _is_masked(self, call: Call) -> bool:
        """Whether entries of one parameter are set to 0 by a tensor that is not trained."""
        if call.op.name.rstrip("_") not in _MASKS:
            return False
        infos = {ref: self.recording.tensors[ref] for ref in (*call.inputs, *call.outputs)}
        inputs = [ref for ref in call.inputs if infos[ref].numel > 1]
        shapes = {infos[ref].shape for ref in (*inputs, *call.outputs)}
        trained = [ref for ref in inputs if self.trained(ref)]
        return len(shapes) == len(trained) == 1 and set(inputs) <= self.plain

    def names(self, ref: Ref) -> set[str]:
        """Return the parameters and buffers that such a tensor is made of, none for others."""
        found, seen, todo = set(), set(), [ref]
        while todo:
            one = todo.pop()
            if one in seen or one not in self.flexible:
                continue
            seen.add(one)
            if one in self._named:
                found.add(self._named[one])
                continue
            call = self.recording.calls[self.recording.tensors[one].producer]
            if not is_fill(call):
                todo += call.inputs
        return found

    def is_plain(self, ref: Ref) -> bool:
        """Whether a tensor is a parameter or buffer, or a plain view of one."""
        return ref in self.plain

    def trained(self, ref: Ref) -> str:
        """Return the name of the parameter that a tensor is a plain view of, "" if it is not.

        Of a weight with a norm of its own, it is the direction.
        """
        names = self.names(ref) if ref in self.plain else set()
        trained = [name for name in names if self._refs[name] in self.recording.parameters]
        return max(trained, key=lambda name: math.prod(self.shape_of(name)), default="")

    def places(self, ref: Ref, dim: int, labels: Tensor) -> list[tuple[str, int, Tensor]] | None:
        """Return where labels along a dimension of such a tensor lie: name, dimension, labels.

        None if the tensor is none such, or if they lie along no dimension of a parameter. Where
        the parameter has entries that the tensor has not, the label is -1.
        """
        if ref not in self.flexible:
            return None
        name = self._named.get(ref)
        if name is not None:
            return [(name, dim % len(self.shape_of(name)), labels)]
        place = self._by_stride(ref, dim)
        if place is not None:
            return [(*place, labels)]
        shape = self.recording.tensors[ref].shape
        found = []
        for name, numbers in self._numbers(ref):
            full = numbers.expand(shape).movedim(dim, 0)
            if torch.equal(full, full[:1].expand_as(full)):
                continue  # one entry for all channels
            line = _line(full.reshape(len(full), -1), self.shape_of(name))
            if line is None:
                return None
            own_dim, entries = line
            own = torch.where(entries < 0, -1, labels[entries.clamp(min=0)])
            found.append((name, own_dim, own))
        return found

    def _by_stride(self, ref: Ref, dim: int) -> tuple[str, int] | None:
        """Return the parameter's dimension, if the tensor is a view of all of it."""
        info = self.recording.tensors[ref]
        base = self._by_storage.get(info.storage)
        if base is None or not info.stride:
            return None
        own = self.recording.tensors[base]
        if own.numel != info.numel or own.offset != info.offset:
            return None
        size, step = info.shape[dim], info.stride[dim]
        fits = [d for d, s in enumerate(own.shape) if s == size and own.stride[d] == step]
        return (self._named[base], fits[0]) if len(fits) == 1 else None

    def _numbers(self, ref: Ref) -> list[Origin]:
        if ref not in self._origins:
            self._origins[ref] = list(self._replayed(ref))
        return self._origins[ref]

    def _replayed(self, ref: Ref) -> Iterator[Origin]:
        name = self._named.get(ref)
        if name is not None:
            shape = self.recording.tensors[ref].shape
            yield name, torch.arange(math.prod(shape)).view(shape)
            return
        call = self.recording.calls[self.recording.tensors[ref].producer]
        if is_fill(call):
            return
        for source in call.inputs:
            for name, numbers in self._numbers(source) if source in self.flexible else ():
                if is_move(call):
                    full = numbers.expand(self.recording.tensors[source].shape)
                    yield name, replay(call, full, call.outputs.index(ref))
                else:
                    yield name, numbers


def is_fill(call: Call) -> bool:
    """Whether an operator fills a tensor with one number, or with independent random ones."""
    return call.op.name.rstrip("_") in _FILLS


def is_move(call: Call) -> bool:
    """Whether an operator moves entries of one tensor."""
    return call.op.name.rstrip("_") in MOVES


def replay(call: Call, first: Tensor, output: int) -> Tensor:
    """Run an operator on another first argument; return one of its outputs."""
    if call.op.name == "aten._to_copy":
        return first
    function = getattr(getattr(torch.ops.aten, call.op.name.partition(".")[2]), call.op.overload)
    rest = dict(zip(call.op.names[1:], call.args[1:], strict=True))
    result = function(first.clone(), **rest)
    return result if isinstance(result, Tensor) else result[output]


def _line(numbers: Tensor, shape: tuple[int, ...]) -> tuple[int, Tensor] | None:
    """Return along which dimension of a parameter the rows of a tensor lie, and which row where.

    Args:
        numbers: of the parameter's entries, shape (rows, entries of a row).
        shape: the parameter's.
    """
    row = torch.arange(len(numbers))[:, None].expand_as(numbers)
    whole = torch.full((math.prod(shape),), -1)
    whole[numbers.reshape(-1)] = row.reshape(-1)
    if not torch.equal(whole[numbers], row):
        return None
    whole = whole.view(shape)
    for dim, size in enumerate(shape):
        table = whole.movedim(dim, 0).reshape(size, -1)
        line = table.amax(1)
        if size > 1 and bool(((table == line[:, None]) | (table < 0)).all()):
            return dim, line
    return None
