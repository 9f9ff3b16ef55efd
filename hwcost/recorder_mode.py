"""The dispatch mode that writes down ATen calls, and the module that each ran in."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hwcost.recorder_shapes import OUTPUTS
from hwcost.recorder_state import to_meta
from hwcost.recorder_values import (
    Call,
    Op,
    Recording,
    Ref,
    Scope,
    TensorInfo,
    tensors_in,
    without_compiler,
)

#: Composite operators that are recorded as they are; all others, as what they are made of.
WHOLE = {
    *("linear", "matmul", "bilinear", "scaled_dot_product_attention"),
    *("batch_norm", "instance_norm", "rms_norm"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
}

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class _Known(NamedTuple):
    """What the recorder keeps about an operator.

    Attributes:
        op: its schema.
        opened: whether it is recorded as what it is made of.
        outputs: its rule in ``OUTPUTS``.
    """

    op: Op
    opened: bool
    outputs: Callable[..., Any] | None


def _describe(func: Any) -> _Known:
    schema = getattr(func, "_schema", None)
    if schema is None:
        return _Known(Op(f"higher_order.{func}", "", (), (), (), False, False), False, None)
    namespace, _, name = schema.name.partition("::")
    arguments = schema.arguments
    op = Op(
        name=f"{namespace}.{name}",
        overload=schema.overload_name or "default",
        names=tuple(a.name for a in arguments),
        defaults=tuple(a.default_value if a.has_default_value() else None for a in arguments),
        writes=() if torch.Tag.inplace_view in func.tags else _written(arguments),
        pointwise=torch.Tag.pointwise in func.tags,
        random=torch.Tag.nondeterministic_seeded in func.tags,
    )
    opened = _is_composite(func) and not (namespace == "aten" and name in WHOLE)
    return _Known(op, opened, OUTPUTS.get(f"{op.name}.{op.overload}"))


def _is_composite(func: Any) -> bool:
    try:
        name = "CompositeImplicitAutograd"
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), name))
    except RuntimeError:  # not in the dispatcher, as prim::device
        return False


def _written(arguments: Any) -> tuple[str, ...]:
    return tuple(a.name for a in arguments if a.alias_info and a.alias_info.is_write)


class Recorder(TorchDispatchMode):
    """Writes down what is called, in which module."""

    supports_higher_order_operators = True

    def __init__(self, how: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.how = how
        self.calls: list[Call] = []
        self.tensors: list[TensorInfo] = []
        self.scopes: list[Scope] = []
        self.parameters: dict[Ref, str] = {}
        self.buffers: dict[Ref, str] = {}
        self._known: dict[Any, _Known] = {}
        self._refs: dict[int, tuple[Any, Ref]] = {}
        self._storages: dict[int, int] = {}
        # Keeps the storages' addresses from being used again; their data may go.
        self._alive: list[StorageWeakRef] = []
        self._stack: list[tuple[int, nn.Module]] = []
        self._outer = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from loading its compiler, for a second, to say that this is not for it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(hasattr(cls, "__tensor_flatten__") for cls in types):
            return NotImplemented  # a tensor made of tensors: record what it does with those
        known = self._known.get(func)
        if known is None:
            known = self._known[func] = _describe(func)
        if known.op.name == "higher_order.cond":
            return self._branch(*args)
        if known.opened:
            before = len(self.calls)
            out = self._open(known.op.name, func, args, kwargs)
            if len(self.calls) > before or not self._is_new(args, kwargs, out):
                return out
        else:
            out = self._execute(known, func, args, kwargs)
        self._note(known.op, args, kwargs, out)
        return out

    def _branch(self, condition: Any, true: Any, false: Any, operands: Sequence[Any]) -> Any:
        """Run the branch of ``torch.cond`` that the example takes."""
        taken = true if bool(condition) else false
        with self:
            return taken(*operands)

    def _open(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a composite operator as what it is made of."""
        outer = self._outer
        self._outer = outer or name.partition(".")[2]
        try:
            with self:
                # Not func.decompose(): that prefers rules in Python, made for compilers.
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        finally:
            self._outer = outer

    def _is_new(self, args: Any, kwargs: dict[str, Any], out: Any) -> bool:
        """Whether a composite computed out of sight: no calls, but memory that was not there."""
        given = {self._storage(t) for t in tensors_in((args, kwargs))}
        return any(self._storage(t) not in given for t in tensors_in(out))

    def _execute(self, known: _Known, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if known.outputs is not None and self._has_no_numbers(args[0]):
            out = known.outputs(*args, **kwargs)
            if out is not None:
                return out
        try:
            return func(*args, **kwargs)
        except Exception:
            # A script's weights, or a constant made without a device, among meta tensors.
            if self.how != "meta" or not _may_move(known.op, args, kwargs):
                raise
        args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
        return func(*args, **kwargs)

    def _has_no_numbers(self, argument: Any) -> bool:
        first = argument[0] if isinstance(argument, (list, tuple)) else argument
        return self.how == "fake" or (self.how == "meta" and bool(first.is_meta))

    def _note(self, op: Op, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        values = [self._frozen(a) for a in args]
        for name, default in zip(op.names[len(args) :], op.defaults[len(args) :], strict=True):
            values.append(self._frozen(kwargs[name]) if name in kwargs else default)
        index = len(self.calls)
        outputs = tuple(self._add(t, index) for t in tensors_in(out))
        scope = self._stack[-1][0] if self._stack else 0
        self.calls.append(Call(op, tuple(values), outputs, scope, self._outer))

    def _frozen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.ref(value)
        if isinstance(value, (list, tuple)):
            return tuple(self._frozen(v) for v in value)
        return value

    def ref(self, tensor: Tensor) -> Ref:
        """Return the tensor's latest value."""
        entry = self._refs.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        new = self._add(tensor, -1)
        if isinstance(tensor, nn.Parameter):
            self.parameters[new] = ""
        return new

    def _add(self, tensor: Tensor, producer: int) -> Ref:
        new = Ref(len(self.tensors))
        strided = tensor.layout == torch.strided and not tensor.is_nested
        stride = tuple(tensor.stride()) if strided else ()
        offset = int(tensor.storage_offset()) if strided else 0
        # A nested tensor has no shape; its numbers in a row are what all its parts have in common.
        shape = (tensor.numel(),) if tensor.is_nested else tuple(tensor.shape)
        storage = self._storage(tensor)
        info = TensorInfo(shape, stride, tensor.dtype, storage, offset, producer)
        self.tensors.append(info)
        self._refs[id(tensor)] = weakref.ref(tensor), new
        return new

    def _storage(self, tensor: Tensor) -> int:
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # sparse and the like: only itself
            entry = self._refs.get(id(tensor))
            seen = entry is not None and entry[0]() is tensor
            return self.tensors[entry[1]].storage if entry and seen else -1 - len(self.tensors)
        number = self._storages.get(storage._cdata)
        if number is None:
            number = self._storages[storage._cdata] = len(self._storages)
            self._alive.append(StorageWeakRef(storage))
        return number

    def register(self, tensor: Tensor, name: str, trained: bool) -> None:
        """Name a parameter or a buffer of the model."""
        (self.parameters if trained else self.buffers)[self.ref(tensor)] = name

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Follow which module runs."""
        paths: dict[nn.Module, str] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            paths.setdefault(module, without_compiler(path))
        counts: dict[nn.Module, int] = {}
        thread = threading.get_ident()

        def enter(module: nn.Module, args: Any) -> None:
            if threading.get_ident() != thread:
                return
            parent = self._stack[-1][0] if self._stack else -1
            # A class that computes what another does may say so.
            name = getattr(type(module), "traced_as", type(module).__name__)
            count = counts.get(module, 0)
            counts[module] = count + 1
            path = paths.get(module)
            if path is None:  # made during the run
                path = ".".join(filter(None, (self.scopes[parent].path, name.lower())))
            leaf = next(module.children(), None) is None
            self._stack.append((len(self.scopes), module))
            self.scopes.append(Scope(path, name, count, parent, leaf))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                # More than one where the model caught an exception of a module.
                while self._stack and self._stack.pop()[1] is not module:
                    pass

        hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def recording(self, inputs: Sequence[Ref], outputs: Sequence[Ref], given: int) -> Recording:
        """Return what was recorded, of a run before which ``given`` tensors were known."""
        return Recording(
            calls=tuple(self.calls),
            tensors=tuple(self.tensors),
            scopes=tuple(self.scopes),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            given=given,
            parameters=self.parameters,
            buffers=self.buffers,
            how=self.how,
        )

    @property
    def where(self) -> Scope | None:
        """The module that was running last."""
        return self.scopes[self._stack[-1][0]] if self._stack else None


def _may_move(op: Op, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether some arguments lie on meta, and among them all that the operator writes to."""
    named = dict(zip(op.names, args, strict=False)) | kwargs
    written = tensors_in([named.get(name) for name in op.writes])
    on_meta = [t.is_meta for t in tensors_in((args, kwargs))]
    return any(on_meta) and not all(on_meta) and all(t.is_meta for t in written)


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else to_meta(tensor)
