"""Layers that run only in training, such as auxiliary heads: a second run tells what they read.

Both runs are walked as one. A weight that both read is one weight, so what either says about its
channels holds for both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from hwcost.errors import TraceError
from hwcost.recorder import record
from hwcost.recorder_values import Call, Recording, Ref, Scope, TensorInfo
from hwcost.search.channels_values import Barrier

#: Why channels stay that no evaluation reads.
UNREAD = "it runs in training only"


class Runs(NamedTuple):
    """What a model does, in evaluation and in training.

    Attributes:
        recording: of one run, or of both as one.
        unread: names of the parameters that only training reads.
        barriers: layers about which nothing is known.
    """

    recording: Recording
    unread: frozenset[str] = frozenset()
    barriers: tuple[Barrier, ...] = ()


def runs(
    model: nn.Module, evaluation: Recording, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Runs:
    """Return what a model does; it runs in training only if evaluation leaves parameters unread.

    Args:
        model: the model; it is not changed.
        evaluation: of its run in evaluation mode.
        args: the example; kwargs: likewise.
    """
    idle = unread(evaluation)
    if not idle:
        return Runs(evaluation)
    try:
        training = record(model, args, kwargs, training=True)
    except TraceError as error:
        return Runs(evaluation, barriers=unknown(idle, str(error)))
    found = idle - unread(training)
    return Runs(joined(evaluation, training), found) if found else Runs(evaluation)


def again(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], like: Runs
) -> Recording:
    """Return what another model of the same code does, in as many runs."""
    evaluation = record(model, args, kwargs)
    if not like.unread:
        return evaluation
    return joined(evaluation, record(model, args, kwargs, training=True))


def unread(recording: Recording) -> frozenset[str]:
    """Return the names of parameters that a run does not read."""
    read = {ref for call in recording.calls for ref in call.inputs}
    names = {name for ref, name in recording.parameters.items() if name and ref not in read}
    return frozenset(names)


def unknown(names: frozenset[str], error: str) -> tuple[Barrier, ...]:
    """Return a barrier for each layer whose parameters only a failing run may read."""
    reason = f"evaluation does not run it, and training fails: {error}"
    layers = dict.fromkeys(name.rpartition(".")[0] for name in sorted(names))
    return tuple(Barrier(layer, "training", reason) for layer in layers)


def joined(first: Recording, second: Recording) -> Recording:
    """Return two runs of one model as one; tensors of the first keep their numbers."""
    named = {name: ref for r in (first.parameters, first.buffers) for ref, name in r.items()}
    own = {**second.parameters, **second.buffers}
    shared = {ref: named[name] for ref, name in own.items() if name and name in named}
    places = [shared.get(Ref(i), Ref(i + len(first.tensors))) for i in range(len(second.tensors))]
    storages = {second.tensors[r].storage: first.tensors[to].storage for r, to in shared.items()}
    more = 1 + max((info.storage for info in first.tensors), default=0)
    tensors = [_tensor(t, storages, more, len(first.calls)) for t in second.tensors]
    calls = [_call(call, places, len(first.scopes)) for call in second.calls]
    return first._replace(
        calls=(*first.calls, *calls),
        tensors=(*first.tensors, *tensors),
        scopes=(*first.scopes, *(_scope(scope, len(first.scopes)) for scope in second.scopes)),
        inputs=(*first.inputs, *(places[ref] for ref in second.inputs)),
        outputs=(*first.outputs, *(places[ref] for ref in second.outputs)),
        parameters={**first.parameters, **_renamed(second.parameters, places)},
        buffers={**first.buffers, **_renamed(second.buffers, places)},
        how=first.how if first.how == second.how else "real",
    )


def _renamed(names: Mapping[Ref, str], places: Sequence[Ref]) -> dict[Ref, str]:
    return {places[ref]: name for ref, name in names.items()}


def _tensor(info: TensorInfo, storages: Mapping[int, int], more: int, calls: int) -> TensorInfo:
    storage = storages.get(info.storage, info.storage + more)
    storage = storage if info.storage >= 0 else info.storage - more  # such share nothing
    producer = info.producer + calls if info.producer >= 0 else info.producer
    return info._replace(storage=storage, producer=producer)


def _scope(scope: Scope, scopes: int) -> Scope:
    return scope._replace(parent=scope.parent + scopes if scope.parent >= 0 else scope.parent)


def _call(call: Call, places: Sequence[Ref], scopes: int) -> Call:
    outputs = tuple(places[ref] for ref in call.outputs)
    args: tuple[Any, ...] = _moved(call.args, places)
    return call._replace(args=args, outputs=outputs, scope=call.scope + scopes)


def _moved(value: Any, places: Sequence[Ref]) -> Any:
    if type(value) is Ref:
        return places[value]
    if type(value) is tuple:
        return tuple(_moved(v, places) for v in value)
    if type(value) is dict:
        return {key: _moved(v, places) for key, v in value.items()}
    return value
