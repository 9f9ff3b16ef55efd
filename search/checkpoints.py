"""Blocks that run again on the way back: torch's checkpoints, while a network is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint

#: What ``torch.utils.checkpoint.checkpoint`` runs around a block, without and with reentry.
_PLAIN, _REENTRANT = "_checkpoint_without_reentrant_generator", "CheckpointFunction"


@contextmanager
def checkpoints_seen(begin: Any, end: Any) -> Iterator[None]:
    """Call ``begin()`` and ``end()`` before and after each checkpointed block in the body."""
    plain, reentrant = getattr(checkpoint, _PLAIN, None), getattr(checkpoint, _REENTRANT, None)

    def around(*args: Any, **kwargs: Any) -> Iterator[None]:
        assert plain is not None
        begin()
        steps = plain(*args, **kwargs)
        next(steps)
        try:
            yield
        finally:
            end()
        yield from steps

    class Reentrant:
        @staticmethod
        def apply(run: Any, preserve: bool, *args: Any) -> Any:
            begin()
            try:
                return run(*args)
            finally:
                end()

    if plain is not None:
        setattr(checkpoint, _PLAIN, around)
    if reentrant is not None:
        setattr(checkpoint, _REENTRANT, Reentrant)
    try:
        yield
    finally:
        if plain is not None:
            setattr(checkpoint, _PLAIN, plain)
        if reentrant is not None:
            setattr(checkpoint, _REENTRANT, reentrant)
