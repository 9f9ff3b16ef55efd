"""Remove some channels from a copy and run it: does every tensor become what was predicted?"""

import copy
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import hwcost
from hwcost.errors import TraceError
from hwcost.recorder_state import to_meta
from hwcost.recorder_values import Call, Recording, without_compiler
from hwcost.search.channels_constants import MOVES
from hwcost.search.channels_flow import Flow
from hwcost.search.channels_training import Runs, again
from hwcost.search.channels_values import Axis, Channels, Field
from hwcost.search.slicing import slice_channels

#: Operators that a run may need or not, depending on sizes, and that change no number.
_COPIES = MOVES - {"aten.flip", "aten.repeat", "aten._to_copy"}

_DICTS = (dict, OrderedDict)

#: Arguments that are numbers, also where an operator is not pointwise.
_VALUES = {"fill_value", "value", "s"}


_TORCH = Path(torch.__file__).parent

#: Where this package's code lies, seen through its links or not.
_OURS = (Path(hwcost.__file__).parent, Path(__file__).parent, Path(__file__).resolve().parent)


class Fault(NamedTuple):
    """What is wrong with a run, in one line, and which recorded calls it may come from."""

    text: str
    calls: range


class Trial:
    """Runs of a model without some of its channels.

    Args:
        model: the model; it is copied for every run.
        known: its runs with all channels.
        args: the example; kwargs: likewise.
        flow: of the walk along these runs; shapes of constants and of what nobody reads are
            not predicted.
    """

    def __init__(
        self,
        model: nn.Module,
        known: Runs,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        flow: Flow,
    ) -> None:
        self.model, self.known, self.dead = model, known, flow.dead
        self.flexible = flow.constants.flexible
        self.recording = known.recording
        self.args, self.kwargs = args, kwargs
        self.runs = 0

    def culprits(self, channels: Channels) -> dict[Axis, str]:
        """Return axes that cannot shrink, with what is wrong; none if all can."""
        fault = self.run(channels, channels.axes)
        if fault is None:
            return {}
        suspects = self._suspects(channels, fault)
        found = self._search(channels, suspects)
        if not found and len(suspects) < len(channels.axes):
            found = self._search(channels, channels.axes)
        return found or dict.fromkeys(channels.axes, fault.text)

    def _search(self, channels: Channels, axes: Sequence[Axis]) -> dict[Axis, str]:
        fault = self.run(channels, axes) if axes else None
        if fault is None:
            return {}
        if len(axes) == 1:
            return dict.fromkeys(axes, fault.text)
        half = len(axes) // 2
        found = self._search(channels, axes[:half]) | self._search(channels, axes[half:])
        return found or dict.fromkeys(axes, fault.text)

    def _suspects(self, channels: Channels, fault: Fault) -> list[Axis]:
        """Return the axes that the faulty calls touch."""
        calls = [self.recording.calls[i] for i in fault.calls]
        refs = {ref for call in calls for ref in (*call.inputs, *call.outputs)}
        parts = [f.classes for ref in refs for f in channels.fields.get(ref, ())]
        names = [self.recording.parameters.get(ref, "") for ref in refs]
        parts += [cut.classes for name in names for cut in channels.cuts.get(name, ())]
        touched = {c for part in parts for c in part.reshape(-1).tolist()}
        whole = [(axis, range(axis.start, axis.start + axis.size)) for axis in channels.axes]
        return [axis for axis, classes in whole if not touched.isdisjoint(classes)]

    def run(self, channels: Channels, axes: Sequence[Axis]) -> Fault | None:
        """Return what is wrong if some channels of these axes are removed, None if all is well."""
        self.runs += 1
        alive = torch.ones(channels.n_classes, dtype=torch.bool)
        for number, axis in enumerate(axes):
            alive[removed(channels, axis, number)] = False
        entered: list[nn.Module] = []
        try:
            model = lighter(self.model, self.recording)
            slice_channels(model, channels, alive)
            with _noting(entered):
                smaller = again(model, self.args, self.kwargs, like=self.known)
        except Exception as error:  # any error of the user's code says the same: not so
            cause = (error.__cause__ if isinstance(error, TraceError) else error) or error
            text = f"{type(cause).__name__}: {cause}".splitlines()[0].rstrip(": ")
            return Fault(text + _line_of(cause), self._calls_of(len(entered) - 1))
        fault = next(self._differences(smaller, channels, alive), None)
        return fault and fault._replace(text=fault.text + self._forward_of(fault.calls))

    def _forward_of(self, calls: range) -> str:
        """Return whose forward, torch's own aside, made the first of some calls, in brackets."""
        scope = self.recording.calls[calls[0]].scope if calls and self.recording.scopes else -1
        modules = {without_compiler(path): m for path, m in self.model.named_modules()}
        while scope >= 0:
            cls = type(modules[self.recording.scopes[scope].path])
            code = getattr(cls.forward, "__code__", None)
            if code is not None and not Path(code.co_filename).is_relative_to(_TORCH):
                line = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
                return f" (in {cls.__name__}.forward, {line})"
            scope = self.recording.scopes[scope].parent
        return ""

    def _calls_of(self, scope: int) -> range:
        """Return the calls between the start of one module's run and of the next one's."""
        scopes = [call.scope for call in self.recording.calls]
        first = next((i for i, s in enumerate(scopes) if s >= scope), len(scopes))
        last = next((i for i, s in enumerate(scopes) if s > scope), len(scopes))
        return range(first, min(max(last, first + 1), len(scopes)))

    def _differences(
        self, smaller: Recording, channels: Channels, alive: Tensor
    ) -> Iterator[Fault]:
        keep = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
        before, after = (_compared(run) for run in (self.recording, smaller))
        for (index, old), (_, new) in zip(before, after, strict=False):
            here = range(index, index + 1)
            if old.op.name != new.op.name or len(old.outputs) != len(new.outputs):
                yield Fault(f"{new.op.name!r} runs in place of {old.op.name!r}", here)
                return
            if index in self.dead:
                continue
            if _numbers(old) != _numbers(new):
                yield Fault(f"a number in {old.op.name!r} depends on the channels", here)
            for ref, other in zip(old.outputs, new.outputs, strict=True):
                found = smaller.tensors[other].shape
                shape = self.recording.tensors[ref].shape
                right = _shape(shape, channels.fields.get(ref, ()), keep)
                if ref not in self.flexible and found != right:
                    yield Fault(f"{old.op.name!r} returns {found} where {right} is right", here)
        if len(before) != len(after):
            yield Fault("the model runs other operators", range(len(self.recording.calls)))


def lighter(model: nn.Module, recording: Recording) -> nn.Module:
    """Return a copy to record again; without numbers, where the recording needed none."""
    # A module has a dozen dicts for hooks, mostly empty, and deepcopy is slow on each.
    memo: dict[int, Any] = {
        id(value): type(value)()
        for module in model.modules()
        for value in vars(module).values()
        if not value and type(value) in _DICTS
    }
    if recording.how == "meta":
        given = (*model.parameters(), *model.buffers())
        memo |= {id(tensor): to_meta(tensor) for tensor in given}
    return copy.deepcopy(model, memo)


def _line_of(error: BaseException) -> str:
    """Return the line of the user's code that an error comes from, in brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not Path(f.filename).is_relative_to(_TORCH) and not _is_ours(f)]
    if not own or not own[-1].line:
        return ""
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line})"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).is_relative_to(place) for place in _OURS)


@contextmanager
def _noting(entered: list[nn.Module]) -> Iterator[None]:
    """Note every module that runs."""
    hook = register_module_forward_pre_hook(lambda module, args: entered.append(module))
    try:
        yield
    finally:
        hook.remove()


def _compared(recording: Recording) -> list[tuple[int, Call]]:
    """Return the calls that every run makes; some copies depend on sizes."""
    return [(i, c) for i, c in enumerate(recording.calls) if c.op.name not in _COPIES]


def removed(channels: Channels, axis: Axis, number: int) -> list[int]:
    """Return classes of an axis to remove: one of each producer at least, but never all of one.

    Axes lose different numbers of channels, so that two of them cannot be mixed up.
    """
    made = {tuple(classes_of(channels, axis, name)): None for name in axis.producers}
    own = [list(classes) for classes in made]
    gone: set[int] = set()
    wanted = min(1 + number % 3, max(axis.size - 2, 1))
    for turn in range(wanted):
        for spare, size in zip(own, map(len, made), strict=True):
            enough = len(gone) >= wanted and len(spare) < size
            pick = spare[(number * 5 + turn) % len(spare)]
            if not enough and all(len(some) > (pick in some) for some in own):
                gone.add(pick)
                for some in own:
                    if pick in some:
                        some.remove(pick)
    return sorted(gone)


def classes_of(channels: Channels, axis: Axis, name: str) -> list[int]:
    """Return the distinct classes of an axis that a weight produces, in order."""
    cuts = channels.cuts[name]
    made = [cut for cut in cuts if cut.role == "out"] or cuts
    found = dict.fromkeys(c for cut in made for c in cut.classes.tolist())
    return [c for c in found if axis.start <= c < axis.start + axis.size]


def _shape(shape: tuple[int, ...], fields: Sequence[Field], keep: Tensor) -> tuple[int, ...]:
    """Return the shape of what is kept of a tensor."""
    sizes: list[int] = list(shape)
    left: dict[int, Tensor] = {}
    for field in fields:
        dim = max(range(len(shape)), key=lambda d: field.classes.shape[d])
        kept = keep[field.classes.view(-1)]
        left[dim] = left[dim] & kept if dim in left else kept
        sizes[dim] = int(left[dim].sum())
    return tuple(sizes)


def _numbers(call: Call) -> list[float]:
    """Return the numbers that a call computes with, as opposed to sizes and positions."""
    return [
        value
        for name, value in zip(call.op.names, call.args, strict=True)
        if isinstance(value, float)
        or (type(value) is int and (call.op.pointwise or name in _VALUES))
    ]
