"""What a run of a model leaves behind: every ATen call, as small values without tensors."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Ref(int):
    """A tensor in a call's arguments: its index in ``Recording.tensors``."""

    __slots__ = ()


class Op(NamedTuple):
    """An operator: what its schema says, once for all its calls.

    Attributes:
        name: namespace and name, as in ``aten.convolution``.
        overload: the overload, as in ``default``.
        names: its arguments, in the schema's order.
        defaults: their values where a call leaves them out.
        writes: the arguments that it overwrites.
        pointwise: whether torch says that each output number depends on one of each input.
        random: whether it draws random numbers.
    """

    name: str
    overload: str
    names: tuple[str, ...]
    defaults: tuple[Any, ...]
    writes: tuple[str, ...]
    pointwise: bool
    random: bool


class TensorInfo(NamedTuple):
    """One value that a tensor held; an in-place op makes a new one on the same storage.

    Attributes:
        shape: sizes.
        stride: steps in numbers; empty where the tensor is not strided.
        dtype: type of its numbers.
        storage: which memory it lies in; equal for views of one another.
        offset: where in that memory it begins, in numbers.
        producer: index of the call that made it, -1 for what existed before.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    storage: int
    offset: int
    producer: int

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return product(self.shape)

    @property
    def distinct(self) -> int:
        """How many numbers it has in memory: an expanded dimension holds one."""
        if not self.stride:
            return self.numel
        sizes = zip(self.shape, self.stride, strict=True)
        return product(size for size, step in sizes if step or not size)


class Scope(NamedTuple):
    """One call of one module.

    Attributes:
        path: the module's name in the model, "" for the model itself.
        cls: name of its class.
        call: how many times it had been called before.
        parent: index of the scope it was called from, -1 for the model.
        leaf: whether it has no modules inside.
    """

    path: str
    cls: str
    call: int
    parent: int
    leaf: bool


class Call(NamedTuple):
    """One ATen call.

    Attributes:
        op: the operator.
        args: every argument in the schema's order, defaults filled in; tensors are ``Ref``.
        outputs: the tensors it returned.
        scope: index in ``Recording.scopes``.
        outer: the composite operator that called it, as in ``conv2d``, or "".
    """

    op: Op
    args: tuple[Any, ...]
    outputs: tuple[Ref, ...]
    scope: int
    outer: str

    def arg(self, name: str) -> Any:
        """Return the argument of this name, None where the operator has none such."""
        names = self.op.names
        return self.args[names.index(name)] if name in names else None

    @property
    def inputs(self) -> tuple[Ref, ...]:
        """The tensors among the arguments, in order, each once."""
        return tuple(dict.fromkeys(refs_in(self.args)))


class Recording(NamedTuple):
    """One run of a model.

    Attributes:
        calls: every ATen call in order, views included.
        tensors: every tensor value.
        scopes: every call of a module.
        inputs: the tensors of the example.
        outputs: the tensors that the model returned.
        parameters: names of parameters; one that is shared has its first name.
        buffers: names of buffers.
        given: how many of ``tensors`` are known to be older than the run; one that is not, and
            that no call made, came from outside torch or from a global variable.
        how: ``meta``, ``fake`` or ``real``: what the tensors were.
    """

    calls: tuple[Call, ...]
    tensors: tuple[TensorInfo, ...]
    scopes: tuple[Scope, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    parameters: Mapping[Ref, str]
    buffers: Mapping[Ref, str]
    given: int
    how: str


def refs_in(args: Any) -> list[Ref]:
    """Return the tensors in a nest of tuples and dicts."""
    found: list[Ref] = []
    for arg in args:
        if type(arg) is Ref:
            found.append(arg)
        elif type(arg) is tuple:
            found += refs_in(arg)
        elif type(arg) is dict:
            found += refs_in(arg.values())
    return found


def product(sizes: Any) -> int:
    """Return the product of whole numbers, 1 for none."""
    total = 1
    for size in sizes:
        total *= size
    return total


def tensors_in(value: Any, depth: int = 6) -> list[Tensor]:
    """Return the tensors in a nest of containers, dataclasses and plain objects."""
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or value is None or isinstance(value, (str, int, float, nn.Module, type)):
        return []
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = list(value)
    elif is_dataclass(value):
        inside = [getattr(value, f.name, None) for f in fields(value)]
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    return [t for v in inside for t in tensors_in(v, depth - 1)]


def without_compiler(path: str) -> str:
    """Return a path or a parameter's name without what ``torch.compile`` puts before it."""
    if "_orig_mod" not in path:
        return path
    return ".".join(part for part in path.split(".") if part != "_orig_mod")
