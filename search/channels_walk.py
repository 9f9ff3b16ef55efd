"""Walk a recording and note for every call which channels go where."""

from collections.abc import Callable, Mapping

from hwcost.recorder_values import Call, Recording
from hwcost.search.channels_constants import is_fill
from hwcost.search.channels_flow import Flow, short
from hwcost.search.channels_layers import LAYERS
from hwcost.search.channels_moves import GROWING, RESHAPES
from hwcost.search.channels_norms import NORMS, refuse_nested
from hwcost.search.channels_pointwise import MERGES, POINTWISE, pointwise
from hwcost.search.channels_products import PRODUCTS
from hwcost.search.channels_sizes import MIXES
from hwcost.search.channels_writes import written

Rule = Callable[[Flow, Call], None]

#: Operators that may have channels although nothing that they read has any.
_SOURCES: dict[str, Rule] = {**LAYERS, **PRODUCTS, **NORMS}

#: All others, where something that they read has channels.
_RULES: dict[str, Rule] = {**RESHAPES, **MIXES, **MERGES}


def walk(
    recording: Recording,
    choices: Mapping[int, int],
    kept: Mapping[str, str],
    fixed: frozenset[str] = frozenset(),
) -> Flow:
    """Return what a recording says about channels.

    Args:
        recording: the run.
        choices: index of a call -> which way to read it.
        kept: name of a weight -> why its output channels must stay.
        fixed: names of parameters that must stay whole.
    """
    flow = Flow(recording, choices)
    for index, call in enumerate(recording.calls):
        flow.index = index
        _step(flow, call)
    for ref in recording.outputs:
        for line in flow.read(ref):
            flow.hold(line.labels, None, "the network returns them", shown=False)
    for name, reason in kept.items():
        for labels in flow.producers.get(name, ()):
            flow.keep_produced(name, labels, reason)
    for (name, _), cut in flow.cuts.items():
        if name in fixed:
            flow.keep_produced(name, cut.labels, "a script reads it")
    refuse_nested(flow)
    return flow


def _step(flow: Flow, call: Call) -> None:
    try:
        _apply(flow, call)
        if call.op.writes:
            written(flow, call)
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError):
        _give_up(flow, call)


def _apply(flow: Flow, call: Call) -> None:
    rule = _SOURCES.get(call.op.name)
    if rule is not None:
        rule(flow, call)
    elif is_fill(call):
        flow.constants.learn(call)
    elif any(ref in flow.lines for ref in call.inputs):
        _rule_of(call)(flow, call)
    elif not flow.constants.learn(call):
        for ref in call.inputs:
            flow.read(ref)
        if call.op.name in GROWING:
            GROWING[call.op.name](flow, call)


def _rule_of(call: Call) -> Rule:
    """Return the rule of an operator; one in place has that of its twin."""
    name = call.op.name.rstrip("_")
    if name in _RULES:
        return _RULES[name]
    return pointwise if call.op.pointwise or name in POINTWISE else _unknown


def _unknown(flow: Flow, call: Call) -> None:
    """Keep all channels that an operator without a rule touches."""
    if call.op.name.startswith("prim."):  # asks about a tensor, computes nothing
        return
    for ref in call.inputs:
        for line in flow.read(ref):
            flow.hold(line.labels, call, f"'{call.op.name}' is an op that the search does not know")


def _give_up(flow: Flow, call: Call) -> None:
    """Keep everything that a call touches, whose arguments its rule did not expect."""
    for ref in (*call.inputs, *call.outputs):
        for line in flow.read(ref):
            flow.hold(line.labels, call, f"'{short(call)}' in a form that the search does not know")
    for ref in call.outputs:
        flow.lines.pop(ref, None)
