"""Time a function with torch.utils.benchmark, under conditions that a network would have."""

import ctypes
import math
import os
import platform as system
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from hwcost.errors import FitError

#: Times that each function is measured, apart from each other: a burst of other work hits one.
ROUNDS = 3

#: Functions whose quartiles are further apart than this, of the median, were disturbed.
DISTURBED = 0.1

# From malloc.h: memory above these sizes goes back to the system when it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE = -1, -3, 1 << 30


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        threads: of the CPU.
        seconds: for each network, and for its ops together; so for single ops of one kind.
        batch: samples at once.
        cpu_time: count the time that the process computes, not that on the clock: for a
            machine that others use too. One thread only.
    """

    device: str = "cpu"
    threads: int = 1
    seconds: float = 1.0
    batch: int = 1
    cpu_time: bool = False

    def check(self) -> None:
        """Check that this machine can do so.

        Raises:
            FitError: it cannot, or the settings contradict each other.
        """
        if self.threads < 1 or self.batch < 1 or not 0 < self.seconds < math.inf:
            raise FitError("threads, batch and seconds must be finite and more than 0")
        cores = os.cpu_count() or self.threads
        if self.threads > cores:
            raise FitError(f"{self.threads} threads; this machine computes {cores} at once")
        if self.cpu_time and (self.threads > 1 or self.device != "cpu"):
            raise FitError("CPU time is that of one thread on the CPU")
        if self.device == "cpu":
            return
        kind, _, index = self.device.partition(":")
        if kind != "cuda" or not (index.isdigit() or not index):
            raise FitError(f"device is {self.device!r}; expected cpu, cuda or cuda:1")
        count = torch.cuda.device_count()
        if count <= int(index or 0):
            raise FitError(f"no device {self.device!r}; torch sees {count} CUDA devices")


@dataclass(frozen=True)
class Timing:
    """How long one run takes, s; the spread is the interquartile range over the median."""

    median: float
    spread: float


def timing_of(samples: Sequence[float]) -> Timing:
    """Return the median and the spread of times, s."""
    times, shares = (torch.tensor(x, dtype=torch.float64) for x in (samples, (0.25, 0.5, 0.75)))
    low, middle, high = times.quantile(shares).tolist()
    return Timing(middle, (high - low) / middle)


def time_alone(function: Callable[[], object], settings: Settings) -> list[float]:
    """Return one round of times of one run, s, of a function that runs again and again."""
    make = partial(Timer, "f()", globals={"f": function}, num_threads=settings.threads)
    timer = make(timer=time.process_time) if settings.cpu_time else make()
    found = timer.blocked_autorange(min_run_time=settings.seconds / ROUNDS)
    return list(found.times)


@contextmanager
def steady() -> Iterator[str]:
    """Make runs repeatable; yield what was done, for the conditions of a measurement.

    Operators run in inference mode and one by one, tiny numbers are 0, and freed memory stays
    with the process where the C library is glibc. The last does not end.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    flushes = torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield "freed memory kept" if _keep_memory() else "freed memory as the system has it"
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        if flushes:
            torch.set_flush_denormal(False)


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Let torch compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> bool:
    """Keep freed memory in the process: new pages take longer than what runs on them."""
    if system.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _LARGE) for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))


def device_name(device: str) -> str:
    """Return what the CPU or GPU is called, for people."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else system.processor() or system.machine()
