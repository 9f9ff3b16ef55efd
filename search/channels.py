"""Find which channels of a network stand or fall together, from one recorded run.

The run is walked once (channels_walk.py), which leaves atoms that are tied to one another;
channels_result.py makes classes of them. Then a copy of the model without some channels runs
(channels_trial.py). Where its code insists on sizes, the next reading of that code is tried, and
in the end the channels stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hwcost.recorder_values import Recording, without_compiler
from hwcost.search.channels_reading import Reading, best
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
    reading = best(Reading(recording, fixed=_scripted(model)))
    trial = Trial(model, recording, args, kwargs or {}, reading.flow.constants.flexible)
    while reading.channels.axes and trial.runs < _RUNS:
        culprits = trial.culprits(reading.channels)
        if not culprits:
            return reading.channels
        reading = reading.without(culprits)
    return reading.channels if not reading.channels.axes else reading.without_all().channels


def _scripted(model: nn.Module) -> frozenset[str]:
    """Return the names of parameters that scripts read, where no mask gets between."""
    return frozenset(
        without_compiler(f"{path}.{name}" if path else name)
        for path, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
        for name, _ in module.named_parameters()
    )
