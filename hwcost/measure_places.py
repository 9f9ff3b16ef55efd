"""Time the modules of a network while it runs: each with the caches as it has them there."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from hwcost.errors import FitError
from hwcost.measure_calls import ModuleCall
from hwcost.measure_subject import Subject
from hwcost.measure_time import ROUNDS, Settings

#: Runs in a round at least; those before them warm up.
_LEAST, _WARM_UP = 10, 2

_SECOND = 1e9


def time_in_place(
    subject: Subject, ops: Sequence[Sequence[ModuleCall]], settings: Settings
) -> list[list[float]]:
    """Return one round of times, s, of each op: the modules that it is, in runs of the network.

    Modules without modules inside only: while one of them runs, no other does.

    Raises:
        FitError: the network does not call them in each run.
    """
    clock = time.process_time_ns if settings.cpu_time else time.perf_counter_ns
    modules = dict.fromkeys(part.module for op in ops for part in op)
    times: list[list[float]] = [[] for _ in ops]
    with _watched(list(modules), clock) as log:
        for _ in range(_WARM_UP):
            subject()
        until = time.monotonic() + settings.seconds / ROUNDS
        while len(times[0]) < _LEAST or time.monotonic() < until:
            log.clear()
            subject()
            calls = _calls(log)
            if any(len(calls[part.module]) <= part.number for op in ops for part in op):
                raise FitError("its modules are not the same in each run")
            for op, found in zip(ops, times, strict=True):
                found.append(sum(calls[part.module][part.number] for part in op) / _SECOND)
    return times


def _calls(log: Sequence[tuple[nn.Module, int]]) -> dict[nn.Module, list[int]]:
    """Module -> how long each of its calls took, ns."""
    calls: dict[nn.Module, list[int]] = defaultdict(list)
    for module, elapsed in log:
        calls[module].append(elapsed)
    return calls


@contextmanager
def _watched(
    modules: Sequence[nn.Module], clock: Callable[[], int]
) -> Iterator[list[tuple[nn.Module, int]]]:
    """Yield a list of modules that ran and how long, ns, which grows with each call."""
    log: list[tuple[nn.Module, int]] = []
    begun = 0

    def before(module: nn.Module, args: Any) -> None:
        nonlocal begun
        begun = clock()

    def after(module: nn.Module, args: Any, output: Any) -> None:
        ended = clock()
        log.append((module, ended - begun))

    hooks = [module.register_forward_pre_hook(before) for module in modules]
    hooks += [module.register_forward_hook(after) for module in modules]
    try:
        yield log
    finally:
        for hook in hooks:
            hook.remove()
