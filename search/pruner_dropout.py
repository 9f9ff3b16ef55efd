"""Dropout rates after pruning: as many units stay active on average as before."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hwcost.recorder_mode import Recorder
from hwcost.recorder_values import Recording, Ref
from hwcost.search.channels_values import Channels

#: Dropout module -> what went through it, in one run.
Dropped = dict[nn.Module, list[Ref]]

#: Dropout module -> how many numbers go through it.
Sizes = dict[nn.Module, int]


@contextmanager
def noting_dropouts(model: nn.Module) -> Iterator[Dropped]:
    """Note what goes through each dropout of a model while it is recorded; the last try counts."""
    found: Dropped = {}
    last: list[Recorder] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder = _get_current_dispatch_mode()
        given = args[0] if args else kwargs.get("input")
        if not isinstance(recorder, Recorder) or not isinstance(given, Tensor):
            return
        if last[-1:] != [recorder]:
            found.clear()
            last.append(recorder)
        found.setdefault(module, []).append(recorder.ref(given))

    modules = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    hooks = [m.register_forward_pre_hook(note, with_kwargs=True) for m in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def dropout_sizes(
    dropped: Mapping[nn.Module, list[Ref]], recording: Recording, channels: Channels, alive: Tensor
) -> Sizes:
    """Return how many numbers go through each dropout without the classes that are not alive.

    Args:
        dropped: what went through them in ``recording``.
        channels: of the network that was recorded.
        alive: bool, shape ``(n_classes,)``.
    """
    keep = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    return {
        module: sum(_size(ref, recording, channels, keep) for ref in refs)
        for module, refs in dropped.items()
    }


def _size(ref: Ref, recording: Recording, channels: Channels, keep: Tensor) -> int:
    kept = torch.ones((), dtype=torch.bool)
    for field in channels.fields.get(ref, ()):
        kept = kept & keep[field.classes]
    return int(kept.expand(recording.tensors[ref].shape).sum())


def adjust(module: nn.Module, before: float, after: float) -> None:
    """Set the rate of a dropout through which fewer units go; 0 if all that are left must stay.

    Args:
        before: how many units there were.
        after: how many there are.
    """
    if isinstance(module, _DropoutNd) and 0 < module.p < 1 and 0 < after < before:
        module.p = max(0.0, 1 - (1 - module.p) * before / after)


def adjust_all(before: Sizes, after: Sizes, twins: Callable[[nn.Module], list[nn.Module]]) -> None:
    """Adjust each dropout that lets fewer numbers through than before, with its ``twins``."""
    for module, size in before.items():
        for one in twins(module):
            adjust(one, size, after[module])
