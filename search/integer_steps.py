"""The steps of an integer program: each makes one tensor from tensors and buffers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.recorder_values import Op

#: The devices, and what else a recording on stand-ins says that holds for them only.
_OF_STAND_INS = (torch.device,)


class Slot(int):
    """A tensor among a step's arguments: its place in the step's inputs."""


class Batch(int):
    """A size among a step's arguments: so many times the number of samples."""


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes:
        inputs: slots that it reads.
        buffers: names of the buffers that it reads.
        layer: the module of the model that it comes from.
    """

    inputs: tuple[int, ...]
    buffers: tuple[str, ...]
    layer: str

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return the result."""
        raise NotImplementedError


@dataclass(frozen=True)
class Quantize(Step):
    """Make codes of floats, the first step; buffers: scale, low, high."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 codes."""
        scale, low, high = buffers
        codes = (inputs[0] / scale.to(inputs[0].dtype)).round()
        return torch.minimum(torch.maximum(codes, low), high).to(torch.int32)


@dataclass(frozen=True)
class Dequantize(Step):
    """Make floats of codes, the last step; buffer: scale."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return floats of the scale's type."""
        return inputs[0].to(buffers[0].dtype) * buffers[0]


@dataclass(frozen=True)
class Load(Step):
    """Give a constant."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 codes."""
        return buffers[0].to(torch.int32)


@dataclass(frozen=True)
class Apply(Step):
    """Call an operator of torch that moves or compares whole numbers.

    Attributes:
        op: the operator.
        args: its arguments, with ``Slot`` and ``Batch`` in places.
        pick: which of its results.
    """

    op: Op
    args: tuple[Any, ...]
    pick: int = 0

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return one result."""
        return tensor_of(invoke(self.op, filled(self.args, inputs, batch)), self.pick)


@dataclass(frozen=True)
class Gather(Step):
    """Pick numbers of each sample by their positions; buffer: positions, ``(1, ...)``."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return a tensor of the positions' shape, with the samples in front."""
        picked = inputs[0].flatten(1)[:, buffers[0].flatten()]
        return picked.view(-1, *buffers[0].shape[1:])


@dataclass(frozen=True)
class Convolve(Step):
    """Convolve in 32 bits; buffers: int8 weight, int32 bias.

    Attributes:
        args: what follows the bias in ``aten.convolution``.
    """

    args: tuple[Any, ...]

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 accumulators."""
        _, _, dilation, transposed, *_ = self.args
        # torch computes these on int64 only; the others are faster on int32.
        dtype = torch.int64 if transposed or max(dilation) > 1 else torch.int32
        x, weight, bias = (t.to(dtype) for t in (inputs[0], *buffers))
        out: Tensor = torch.ops.aten.convolution(x, weight, bias, *self.args)
        return out.to(torch.int32)


@dataclass(frozen=True)
class Linear(Step):
    """Multiply by a matrix in 32 bits; buffers: int8 weight, int32 bias."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 accumulators."""
        weight, bias = buffers
        return torch.matmul(inputs[0].to(torch.int32), weight.to(torch.int32).t()) + bias


@dataclass(frozen=True)
class Matmul(Step):
    """Multiply two tensors of codes as matrices, in 32 bits."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 accumulators."""
        return torch.matmul(inputs[0].to(torch.int32), inputs[1].to(torch.int32))


@dataclass(frozen=True)
class PoolSum(Step):
    """Add up windows; buffers: for each of the last dimensions which numbers fall in which
    window, ``(windows, numbers)`` of zeros and ones."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 sums."""
        x = inputs[0].to(torch.int32)
        for dim, windows in zip(range(-len(buffers), 0), buffers, strict=True):
            x = torch.matmul(x.transpose(dim, -1), windows.t().to(torch.int32)).transpose(dim, -1)
        return x


@dataclass(frozen=True)
class Sum(Step):
    """Add up along dimensions.

    Attributes:
        dims: which; keep: whether they stay, with size 1.
    """

    dims: tuple[int, ...]
    keep: bool

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int64 sums."""
        return inputs[0].sum(self.dims, keepdim=self.keep, dtype=torch.int64)


@dataclass(frozen=True)
class Add(Step):
    """Add two tensors, or a tensor and a buffer."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int64 sums."""
        first, second = (*inputs, *buffers)
        return first.long() + second.long()


@dataclass(frozen=True)
class Multiply(Step):
    """Multiply two tensors, or a tensor and a buffer."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int64 products."""
        first, second = (*inputs, *buffers)
        return first.long() * second.long()


@dataclass(frozen=True)
class Limit(Step):
    """Clamp; buffers: low, high."""

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int64 codes."""
        return torch.minimum(torch.maximum(inputs[0].long(), buffers[0]), buffers[1])


@dataclass(frozen=True)
class Requantize(Step):
    """Go to another scale; buffers: multiplier, shift, low, high.

    Rounds to nearest and halves to even, as the float model does.
    """

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return codes, int32 where they fit."""
        number, shift, low, high = buffers
        product = inputs[0].long() * number
        whole = product >> shift
        rest = (product - (whole << shift)) * 2
        one = torch.ones_like(shift) << shift
        up = (rest > one) | ((rest == one) & (whole % 2 != 0))
        return torch.minimum(torch.maximum(whole + up, low), high).to(low.dtype)


@dataclass(frozen=True)
class Lookup(Step):
    """Look codes up in a table; buffers: table ``(codes, ...)``.

    Attributes:
        low: the code of the table's first row.
    """

    low: int

    def run(self, inputs: Sequence[Tensor], buffers: Sequence[Tensor], batch: int) -> Tensor:
        """Return int32 codes."""
        table = buffers[0]
        rows = inputs[0].long() - self.low
        columns = table[0].numel()
        where = torch.arange(columns).view(table.shape[1:]).to(rows.device)
        return table.reshape(-1)[rows * columns + where].to(torch.int32)


def filled(args: Any, inputs: Sequence[Tensor], batch: int) -> Any:
    """Return arguments with tensors and sizes in their places."""
    if isinstance(args, Slot):
        return inputs[args]
    if isinstance(args, Batch):
        return args * batch
    if isinstance(args, (tuple, list)):
        return [filled(arg, inputs, batch) for arg in args]
    return args


def invoke(op: Op, args: Sequence[Any]) -> Any:
    """Return what an operator, as it was recorded, makes of arguments in the schema's order."""
    func = overload(op)
    schema = func._schema.arguments
    device = next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
    by_place, by_name = [], {}
    for argument, value in zip(schema, args, strict=True):
        value = device if isinstance(value, _OF_STAND_INS) else value
        if argument.kwarg_only:
            by_name[argument.name] = value
        else:
            by_place.append(value)
    return func(*by_place, **by_name)


def overload(op: Op) -> Any:
    """Return an operator of torch; the one that makes a new tensor of one that overwrites."""
    space = op.name.partition(".")[0]
    packet = getattr(getattr(torch.ops, space), plain_name(op).partition(".")[2])
    return getattr(packet, op.overload)


def plain_name(op: Op) -> str:
    """Return an operator's name, without the dash of those that overwrite."""
    return op.name.rstrip("_") if op.writes else op.name


def tensor_of(result: Any, index: int) -> Tensor:
    """Return one of the tensors that an operator returned."""
    found = result if isinstance(result, Tensor) else result[index]
    assert isinstance(found, Tensor)
    return found
