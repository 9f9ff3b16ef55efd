"""Find which channels of a network stand or fall together, from one recorded run.

The run is walked once (channels_walk.py), which leaves atoms that are tied to one another;
channels_result.py makes classes of them. Then a copy of the model without some channels runs
(channels_trial.py). Where its code insists on sizes, the next reading of that code is tried, and
in the end the channels stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hwcost.recorder_values import Recording, without_compiler
from hwcost.search.channels_reading import Reading, best
from hwcost.search.channels_training import UNREAD, Runs, runs, unknown
from hwcost.search.channels_trial import Trial
from hwcost.search.channels_values import Axis, Barrier, Channels, Cut, Field, Norm

__all__ = ["Axis", "Barrier", "Channels", "Cut", "Field", "Norm", "find_channels"]

#: How many trial runs look for another reading of a model's code before all its channels stay.
_RUNS = 200


def find_channels(
    model: nn.Module,
    recording: Recording,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Channels:
    """Return the classes of channels of ``model``, which ran as ``recording`` says.

    Args:
        model: the model; it is not changed.
        recording: of ``record(model, args, kwargs)``.
        args: the example, for trial runs.
        kwargs: likewise.
    """
    known = runs(model, recording, args, kwargs or {})
    found = _found(model, known, args, kwargs or {})
    if found is None:
        barriers = unknown(known.unread, "it does something else every time")
        found = _found(model, Runs(recording, barriers=barriers), args, kwargs or {})
    assert found is not None
    fields = {ref: f for ref, f in found.fields.items() if ref < len(recording.tensors)}
    return replace(found, fields=fields)


def _found(
    model: nn.Module, known: Runs, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Channels | None:
    """Return the classes of channels that trial runs confirm, None if no two runs are alike."""
    kept = dict.fromkeys(known.unread, UNREAD)
    reading = best(Reading(known.recording, fixed=_scripted(model), kept=kept))
    trial = Trial(model, known, args, kwargs, reading.flow)
    if known.unread and trial.run(reading.channels, ()) is not None:
        return None
    while reading.channels.axes and trial.runs < _RUNS:
        culprits = trial.culprits(reading.channels)
        if not culprits:
            break
        reading = reading.without(culprits)
    else:
        reading = reading.without_all() if reading.channels.axes else reading
    channels = reading.channels
    return replace(channels, barriers=(*channels.barriers, *known.barriers))


def _scripted(model: nn.Module) -> frozenset[str]:
    """Return the names of parameters that scripts read, where no mask gets between."""
    return frozenset(
        without_compiler(f"{path}.{name}" if path else name)
        for path, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
        for name, _ in module.named_parameters()
    )
