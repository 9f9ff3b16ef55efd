"""Find every site of a network, and which tensor of a recording each one is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.recorder import record
from hwcost.recorder_values import Recording
from hwcost.search.checkpoints import checkpoints_seen
from hwcost.search.frames import Around, Frames, Site
from hwcost.search.swap import put_around, user_class

#: The name of ``mark`` in a recording.
MARK = "hwcost.mark"


@torch.library.custom_op("hwcost::mark", mutates_args=())
def mark(x: Tensor, number: int) -> Tensor:
    """Return a copy; in a recording it says that this is the site of this number."""
    return x.clone()


@mark.register_fake
def _(x: Tensor, number: int) -> Tensor:
    return torch.empty_like(x)


@dataclass(frozen=True, eq=False)
class Sites:
    """All sites of a network.

    Attributes:
        frames: of the network.
        found: the module around which each site is, and which site it is; a mark has its number.
        recording: a run in evaluation mode with marks.
        hidden: marks of functions in a checkpointed block of the module's own: when it runs again,
            the module's code is not seen.
        in_training: the same site in training, by its number, where it is another.
    """

    frames: Frames
    found: Sequence[tuple[Around, Site]]
    recording: Recording
    in_training: Mapping[int, Site]
    hidden: frozenset[int] = frozenset()


def find_sites(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sites:
    """Run a model with every site marked; its modules stay surrounded, without any action."""
    frames = Frames(functions=True)
    for path, module in model.named_modules():
        put_around(module, Around(path, frames, not path, _is_opaque(module)))
    found, recording, hidden = _marked(model, frames, args, kwargs, training=False)
    trained, _, _ = _marked(model, frames, args, kwargs, training=True)
    for around, site in found:
        around.calls = max(around.calls, site.call + 1)
    return Sites(frames, found, recording, dict(_moved(found, trained)), hidden)


def _marked(
    model: nn.Module,
    frames: Frames,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    training: bool,
) -> tuple[list[tuple[Around, Site]], Recording, frozenset[int]]:
    found: list[tuple[Around, Site]] = []
    hidden: set[int] = set()

    def marker(around: Around, site: Site, x: Tensor) -> Tensor:
        if around.root and site.function == "input" and site.number in (0, -1) and not site.key:
            found.clear()  # another attempt at recording
            hidden.clear()
        if site.function and not frames.is_seen_again(around):
            hidden.add(len(found))
        found.append((around, site))
        marked: Tensor = mark(x, len(found) - 1)
        return marked

    seen = checkpoints_seen(frames.begin_checkpoint, frames.end_checkpoint)
    with _marking(frames, marker), seen:
        recording = record(model, tuple(args), kwargs, training=training)
    return found, recording, frozenset(hidden)


@contextmanager
def _marking(frames: Frames, marker: Any) -> Iterator[None]:
    frames.marker = marker
    try:
        yield
    finally:
        frames.marker = None


def _is_opaque(module: nn.Module) -> bool:
    """Whether a module is one of torch's that computes one thing."""
    cls = user_class(module)
    return cls.__module__.startswith("torch.nn.") and not any(True for _ in module.children())


def _moved(
    found: Sequence[tuple[Around, Site]], trained: Sequence[tuple[Around, Site]]
) -> Iterator[tuple[int, Site]]:
    """Yield the sites that are others in training, where the code does more or less."""
    if found == trained:
        return
    ours, theirs = _names(found), _names(trained)
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    for start, other, size in matcher.get_matching_blocks():
        for i in range(size):
            site = trained[other + i][1]
            if found[start + i][1] != site:
                yield start + i, site


def _names(found: Sequence[tuple[Around, Site]]) -> list[tuple[str, str, int, str]]:
    return [(around.path, site.function, site.place, site.key) for around, site in found]
