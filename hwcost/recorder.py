"""Run a model once and record every ATen call, without touching the model or torch."""

import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from hwcost.errors import TraceError
from hwcost.recorder_mode import Recorder
from hwcost.recorder_state import Converter, set_mode, substitute, to_clone, to_meta, untouched
from hwcost.recorder_values import Recording, tensors_in, without_compiler


def record(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    training: bool = False,
) -> Recording:
    """Return every ATen call of ``model(*args, **kwargs)`` in evaluation mode.

    Tensors are meta tensors first, so neither time nor memory depends on the weights; fake
    tensors where that fails (a tensor without a device), copies of the real ones last (a branch
    that depends on data). The model, torch's settings and random states are as before
    afterwards, also when the model raises.

    Args:
        model: the model.
        args: its arguments.
        kwargs: likewise.
        training: let the model's own code take the paths that it takes in training; torch's
            layers stay in evaluation mode, so that nothing depends on the batch.

    Raises:
        TraceError: the model raises on real tensors too, or has uninitialised parameters.
    """
    _refuse_lazy(model)
    attempts = _ATTEMPTS if _has_data(model, (args, kwargs)) else _ATTEMPTS[:1]
    failure: tuple[Exception, Recorder] | None = None
    for how, mode, inference in attempts:
        recorder = Recorder(how)
        try:
            with _quiet(), untouched(model):
                set_mode(model, training)
                return _run(model, tuple(args), dict(kwargs or {}), recorder, mode, inference)
        except Exception as error:
            failure = error, recorder
    assert failure is not None
    raise TraceError(_what_failed(*failure, (args, kwargs))) from failure[0]


def _run(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    recorder: Recorder,
    mode: Callable[[], Any],
    inference: bool,
) -> Recording:
    names = _names(model)
    with mode() as (convert, below):
        convert = Converter(convert)
        substitute(model, convert)
        args, kwargs = tree_map_only(Tensor, convert, (args, kwargs))
        for tensor, name, trained in names:
            recorder.register(convert(tensor) if convert.knows(tensor) else tensor, name, trained)
        for tensor in convert.results:
            recorder.ref(tensor)
        inputs = [recorder.ref(t) for t in tensors_in((args, kwargs))]
        given = len(recorder.tensors)
        grad = torch.inference_mode() if inference else torch.no_grad()
        with grad, below, recorder.watching(model), recorder:
            output = model(*args, **kwargs)
        return recorder.recording(inputs, [recorder.ref(t) for t in tensors_in(output)], given)


@contextmanager
def _meta() -> Iterator[tuple[Any, Any]]:
    yield to_meta, nullcontext()


@contextmanager
def _fake() -> Iterator[tuple[Any, Any]]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    log = logging.getLogger(FakeTensorMode.__module__)
    disabled, log.disabled = log.disabled, True  # it reports what we handle, the fall-back
    try:
        yield (lambda tensor: fake.from_tensor(tensor, static_shapes=True)), fake
    finally:
        log.disabled = disabled


@contextmanager
def _real() -> Iterator[tuple[Any, Any]]:
    yield to_clone, nullcontext()


@contextmanager
def _real_without_mkldnn() -> Iterator[tuple[Any, Any]]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield to_clone, nullcontext()


#: What to run on, first to last, and whether in inference mode. There, composite operators reach
#: the recorder whole, from Python, from C++ and from scripts; a model that differentiates in its
#: forward needs the last one.
_ATTEMPTS: tuple[tuple[str, Any, bool], ...] = (
    ("meta", _meta, True),
    ("fake", _fake, True),
    ("real", _real, True),
    ("real", _real_without_mkldnn, False),
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep random states, warnings and global switches to the trace."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    states = random.getstate(), torch.get_rng_state()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "torch._dynamo" in sys.modules:  # a model that is not compiled must not load dynamo
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.cuda.is_initialized():
            stack.enter_context(torch.random.fork_rng())
        # The fast path runs a whole transformer layer as one operator.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            random.setstate(states[0])
            torch.set_rng_state(states[1])


def _names(model: nn.Module) -> list[tuple[Tensor, str, bool]]:
    """Every parameter and buffer with its name, and whether it is a parameter."""
    parameters = [(p, without_compiler(name), True) for name, p in model.named_parameters()]
    return parameters + [(b, without_compiler(name), False) for name, b in model.named_buffers()]


def _refuse_lazy(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            layer = name.rpartition(".")[0]
            raise TraceError(
                f"layer {layer!r} is not initialised: {name!r} has no shape yet; "
                "run the model once on real data first"
            )


def _has_data(model: nn.Module, example: Any) -> bool:
    """Whether the model can run at all outside the meta device."""
    given = (*model.parameters(), *model.buffers(), *tensors_in(example))
    return not any(tensor.is_meta for tensor in given)


def _what_failed(error: Exception, recorder: Recorder, example: Any) -> str:
    scope = recorder.where
    where = f" in layer {scope.path!r} ({scope.cls})" if scope and scope.path else ""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:300] + "..."
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors_in(example)) or "no tensors"
    return (
        f"the model raised{where}: {type(error).__name__}: {text}; the example's shapes: {shapes}"
    )
