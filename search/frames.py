"""Which torch call of which module is which, while a network runs: where tensors can be changed.

A *site* is a result: of the n-th call of a module, or of the n-th call of a torch function in
that module's own code. Results are changed where they are made, without rewriting that code.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Site(NamedTuple):
    """A tensor that a module's code makes.

    Attributes:
        call: how many times the module was called before.
        function: the torch function, "" for the module's result, "input" for an argument.
        number: how many times that function was called before, within this call of the module;
            the position of an argument.
        place: place in a result that is a tuple, -1 where it is a tensor.
        key: of a result that is a dict, or the name of an argument.
    """

    call: int
    function: str = ""
    number: int = 0
    place: int = -1
    key: str = ""


class Action(Protocol):
    """What is done to the tensor of a site; returns what the code goes on with."""

    def __call__(self, module: Any, x: Tensor, /) -> Tensor: ...


#: Sees every site: for those who look for sites.
Marker = Callable[["Around", Site, Tensor], Tensor]


@dataclass(eq=False)
class Frames:
    """The modules of one network that are running.

    Attributes:
        functions: whether any site is a torch function's.
        marker: called in place of actions, if given.
    """

    functions: bool = False
    marker: Marker | None = None
    _stack: list["_Frame | None"] = field(default_factory=list)
    _calls: Counter[str] = field(default_factory=Counter)
    _mode: "_Watch | None" = None
    _checkpoints: list[int] = field(default_factory=list)

    @contextmanager
    def within(self, frame: "_Frame | None") -> Iterator[None]:
        """Let torch functions be those of ``frame`` for the body; None for nobody's."""
        self._stack.append(frame)
        try:
            yield
        finally:
            self._stack.pop()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See torch functions in the body."""
        self._mode = _Watch(self)
        try:
            with self._mode:
                yield
        finally:
            self._mode = None

    @property
    def is_watching(self) -> bool:
        """Whether torch functions are seen."""
        return self._mode is not None

    def begin_checkpoint(self) -> None:
        """Note that what follows runs again on the way back, without the modules around it."""
        self._checkpoints.append(len(self._stack))

    def end_checkpoint(self) -> None:
        """End what ``begin_checkpoint`` began."""
        self._checkpoints.pop()

    def is_seen_again(self, around: "Around") -> bool:
        """Whether the torch functions of a running module are seen when it runs again."""
        if not self._checkpoints:
            return True
        inside = self._stack[self._checkpoints[-1] :]
        return any(frame is not None and frame.around is around for frame in inside)

    def restart(self) -> None:
        """Count calls from 0 again, unless within a call."""
        if not self._stack:
            self._calls.clear()

    def count(self, path: str) -> int:
        """Return how many calls of a module were counted, and count one more."""
        call = self._calls[path]
        self._calls[path] = call + 1
        return call

    def seen(self, name: str, out: Any) -> Any:
        """Return what a torch function's result is changed to."""
        frame = self._stack[-1] if self._stack else None
        return out if frame is None else frame.changed(name, out)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stack": [], "_calls": Counter(), "_mode": None, "marker": None}


class _Watch(TorchFunctionMode):
    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.frames = frames

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, (Tensor, tuple, list)):
            return self.frames.seen(getattr(func, "__name__", ""), out)
        return out


class Around:
    """Runs around a module's forward and changes the tensors of its sites.

    Args:
        path: of the module.
        frames: of its network.
        root: whether it is the whole network.
        opaque: whether the code is torch's own, whose functions are of no interest.
    """

    def __init__(self, path: str, frames: Frames, root: bool, opaque: bool) -> None:
        self.path, self.frames, self.root, self.opaque = path, frames, root, opaque
        self.calls = 0
        self.actions: dict[bool, dict[Site, Action]] = {False: {}, True: {}}

    def __call__(self, module: nn.Module, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what the module does, changed."""
        frames = self.frames
        if self.root:
            frames.restart()
        call = frames.count(self.path)
        if frames.marker is None and self.calls:
            call %= self.calls
        frame = _Frame(self, module, call)
        if self.root:
            args, kwargs = frame.arguments(args, kwargs)
        opens = frames.functions and not frames.is_watching
        with frames.watching() if opens else nullcontext():
            if frames.functions:
                with frames.within(None if self.opaque else frame):
                    out = inner(module, *args, **kwargs)
            else:
                out = inner(module, *args, **kwargs)
        return frame.result(out)


class _Frame:
    """One call of a module."""

    def __init__(self, around: Around, module: nn.Module, call: int) -> None:
        self.around, self.module, self.call = around, module, call
        self.marker = around.frames.marker
        self.actions: Mapping[Site, Action] = around.actions[module.training]
        self.counts: dict[str, int] = {}

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Return the arguments, changed."""
        site = Site(self.call, "input")
        changed = tuple(self._at(site._replace(number=i), a) for i, a in enumerate(args))
        return changed, {k: self._at(site._replace(number=-1, key=k), v) for k, v in kwargs.items()}

    def result(self, out: Any) -> Any:
        """Return the module's result, changed."""
        if not self.actions and self.marker is None:
            return out
        return self._at(Site(self.call), out)

    def changed(self, name: str, out: Any) -> Any:
        """Return a torch function's result, changed; only such with numbers count."""
        first = out if isinstance(out, Tensor) else next(iter(out), None)
        if not isinstance(first, Tensor) or not first.is_floating_point():
            return out
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        return self._at(Site(self.call, name, number), out)

    def _at(self, site: Site, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._one(site, value)
        if type(value) in (tuple, list):
            changed = [self._one(site._replace(place=i), v) for i, v in enumerate(value)]
            return value if all(map(_is, changed, value)) else type(value)(changed)
        if isinstance(value, dict):
            found = {k: self._one(site._replace(key=str(k)), v) for k, v in value.items()}
            if not all(found[k] is v for k, v in value.items()):
                value = type(value)(found)
        return value

    def _one(self, site: Site, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        action = self.actions.get(site)
        if self.marker is None and action is None:
            return value
        with self.around.frames.within(None):
            if self.marker is not None:
                return self.marker(self.around, site, value)
            assert action is not None
            return action(self.module, value)


def _is(one: Any, other: Any) -> bool:
    return one is other
