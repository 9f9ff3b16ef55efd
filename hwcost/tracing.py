"""nn.Module -> op table."""

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hwcost.errors import HwcostWarning, TraceError
from hwcost.ops import SIZES, defaults, kind_sizes
from hwcost.recorder import record
from hwcost.recorder_values import Recording
from hwcost.structure import KIND_CODES, Structure
from hwcost.tracing_bits import Quantizers
from hwcost.tracing_density import densities
from hwcost.tracing_lift import Lifted, lift
from hwcost.workload import Workload

Shape = Sequence[int] | Sequence[Sequence[int]]


def trace(
    model: nn.Module,
    example: Any = None,
    *,
    input_shape: Shape | None = None,
    input_example: Any = None,
    w_bits: float | None = None,
    a_bits: float | None = None,
) -> Workload:
    """Return the op table of one inference of ``model``, in evaluation mode.

    Every op that computes something from the inputs is a row; what depends on parameters alone
    is computed before inference. Of the weights' numbers one thing is read: how many are 0. The
    model is left as it was.

    Args:
        example: a tensor, the input; a tuple or list, the positional arguments if ``forward``
            takes that many, else one argument; a dict, the keyword arguments if ``forward``
            takes these names, else one argument.
        input_shape: in place of an example, the shape of the input without the batch, which
            is 1, or several such shapes. Inputs are random numbers, or whole numbers (all 0)
            for a model that takes no others, such as one of tokens.
        input_example: another name of ``example``.
        w_bits: bits of all weights; open if left out, and then a platform's choice.
        a_bits: bits of all activations.

    Raises:
        TraceError: the example is missing or does not fit, the model raises, or it runs no op.
    """
    table = run(model, example, input_shape=input_shape, input_example=input_example).workload
    if table.structure.warnings:
        warnings.warn("; ".join(table.structure.warnings), HwcostWarning, stacklevel=2)
    return table.with_precision(w_bits, a_bits)


class Recorded(NamedTuple):
    """A run of a model, and the inputs that it ran on."""

    recording: Recording
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Traced(NamedTuple):
    """A run of a model: its table and inputs, and for each row what it comes from.

    Attributes:
        calls: the index of the recorded call that each row stands for.
        quantizers: the calls that say at how many bits it computes.
    """

    workload: Workload
    calls: Sequence[int]
    recording: Recording
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    quantizers: Sequence[Quantizers] = ()


def recorded(
    model: nn.Module,
    example: Any = None,
    *,
    input_shape: Shape | None = None,
    input_example: Any = None,
) -> Recorded:
    """Return a run of a model, without a table; arguments as for ``trace``."""
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__!r}" if isinstance(model, type) else type(model).__name__
        raise TraceError(f"trace(...) needs an nn.Module; got {found}")
    found = _example(model, example, input_shape, input_example)
    return _recorded(model, found, made=input_shape is not None)


def run(
    model: nn.Module,
    example: Any = None,
    *,
    input_shape: Shape | None = None,
    input_example: Any = None,
) -> Traced:
    """Return what ``trace`` learns about a model, without its warnings; arguments as there."""
    shape, alias = input_shape, input_example
    return traced(model, recorded(model, example, input_shape=shape, input_example=alias))


def rerun(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
    """Return what ``run`` does, on the inputs that an earlier run found."""
    return traced(model, Recorded(record(model, args, kwargs), args, kwargs))


def traced(model: nn.Module, found: Recorded) -> Traced:
    """Return what a run tells; the model has the weights that it had then."""
    recording = found.recording
    lifted = lift(recording)
    if not lifted.kinds:
        raise TraceError(_nothing(model, recording))
    shares = densities(model, recording, lifted.calls, lifted.weights)
    for sizes, share in zip(lifted.sizes, shares, strict=True):
        sizes["density"] = share
    table = _workload(lifted)
    return Traced(table, lifted.calls, *found, lifted.quantizers)


def _recorded(model: nn.Module, example: Any, made: bool) -> Recorded:
    """Run the model; an example that was ``made`` up may be of the wrong type."""
    args, kwargs = _arguments(model, example)
    try:
        return Recorded(record(model, args, kwargs), args, kwargs)
    except TraceError as error:
        whole = tuple(a.new_zeros(a.shape, dtype=torch.int64) for a in args) if made else ()
        try:
            if whole:
                return Recorded(record(model, whole, {}), whole, {})
        except TraceError:
            raise error from error.__cause__
        raise


def _nothing(model: nn.Module, recording: Recording) -> str:
    name = type(model).__name__
    calls = len(recording.calls)
    return f"{name} computed nothing from its inputs ({calls} torch calls were recorded)"


def _example(model: nn.Module, example: Any, shape: Shape | None, alias: Any) -> Any:
    given = [value for value in (example, alias, shape) if value is not None]
    if not given:
        raise TraceError("trace(...) needs an example input: pass example=... or input_shape=...")
    if len(given) > 1:
        raise TraceError(
            "trace(...) takes one of example=..., input_example=... and input_shape=..."
        )
    return given[0] if shape is None else _random(model, shape)


def _random(model: nn.Module, shape: Shape) -> Any:
    """Return random tensors of the model's type and device, batch 1."""
    single = all(isinstance(size, int) for size in shape)
    shapes: Sequence[Any] = (shape,) if single else tuple(shape)
    for one in shapes:
        if not isinstance(one, Sequence) or not all(type(s) is int and s > 0 for s in one):
            raise TraceError(f"input_shape is {shape!r}; expected whole numbers above 0")
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    tensors = tuple(
        torch.randn(1, *one, generator=generator).to(like.device, like.dtype) for one in shapes
    )
    return tensors[0] if single else tensors


def _arguments(model: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments; see ``trace``."""
    if isinstance(example, (tuple, list)) and not hasattr(example, "_fields"):
        if _takes(model, tuple(example), {}):
            return tuple(example), {}
    elif isinstance(example, Mapping) and _takes(model, (), example):
        return (), dict(example)
    return (example,), {}


def _takes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> bool:
    if not all(isinstance(name, str) for name in kwargs):
        return False
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # a compiled forward without a signature
        return True
    return True


def _workload(lifted: Lifted) -> Workload:
    structure = Structure(
        layers=tuple(lifted.layers),
        kind_codes=torch.tensor([KIND_CODES[kind] for kind in lifted.kinds]),
        traced=_columns(lifted.kinds, lifted.sizes),
        ops=torch.tensor(lifted.ops),
        engines=tuple(lifted.engines),
        functions=tuple(lifted.functions),
        buffers=lifted.buffers,
        warnings=lifted.warnings,
        samples=lifted.samples,
        unsplit=_unsplit(lifted),
    )
    return Workload(structure)


def _unsplit(lifted: Lifted) -> dict[str, Tensor]:
    """Return the columns of channels before layers were split, none where none is."""
    if len(lifted.ops) == len(set(lifted.ops)):
        return {}
    columns = _columns(lifted.kinds, lifted.unsplit)
    return {name: columns[name] for name in ("cin", "cout", "groups")}


def _columns(kinds: Sequence[str], each: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
    """Return every column; a size that a row's kind has and the row left out has its default."""
    usual = defaults()
    rows = []
    for kind, sizes in zip(kinds, each, strict=True):
        own = {**{name: usual.get(name, math.nan) for name in kind_sizes(kind)}, **sizes}
        rows.append([own.get(name, math.nan) for name in SIZES])
    table = torch.tensor(rows, dtype=torch.float64).T.contiguous()
    return dict(zip(SIZES, table.unbind(), strict=True))
