"""How decisions among alternatives are sampled while a search trains."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import cos, inf, pi
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError, did_you_mean

#: mode -> whether it draws at random.
MODES = {"soft": False, "gumbel": True, "hard": False, "hard+gumbel": True}

#: The lowest temperature: below it float32 knows no quotients by it.
COLDEST = 1e-6

#: shape of a schedule -> temperature from start, end and the share of the steps done.
SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "constant": lambda start, end, done: start,
    "linear": lambda start, end, done: start + (end - start) * done,
    "exponential": lambda start, end, done: float(start * (end / start) ** done),
    "cosine": lambda start, end, done: end + (start - end) * (1 + cos(pi * done)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """A temperature that goes from ``start`` to ``end`` in so many steps, and stays there.

    Args:
        shape: ``"exponential"``, ``"linear"``, ``"cosine"``, or ``"constant"`` (always ``start``).

    Raises:
        SearchError: a temperature is not positive, the steps are no whole number above 0, or
            the shape is unknown.
    """

    start: float
    end: float
    steps: int
    shape: str = "exponential"

    def __post_init__(self) -> None:
        _positive(self.start)
        _positive(self.end)
        if type(self.steps) is not int or self.steps < 1:
            raise SearchError(f"steps of a schedule are {self.steps!r}; expected 1 or more")
        _known("shape of a schedule", self.shape, SHAPES)

    def at(self, step: int) -> float:
        """Return the temperature after so many steps."""
        if step >= self.steps and self.shape != "constant":
            return self.end
        return SHAPES[self.shape](self.start, self.end, step / self.steps)


class Sampling(nn.Module):
    """Mode, temperature and source of randomness that all choices of a search share.

    All of it is in the ``state_dict``. The generator is on the CPU, so that the draws do not
    depend on the device, and with equal seeds all processes of a distributed run draw the same.

    Args:
        mode: ``"soft"`` mixes by probability, ``"gumbel"`` adds Gumbel noise, ``"hard"`` takes
            the most probable, ``"hard+gumbel"`` draws one.
        schedule: see ``schedule``.

    Raises:
        SearchError: the mode is unknown or the temperature below ``COLDEST``.
    """

    def __init__(
        self,
        seed: int = 0,
        mode: str = "soft",
        temperature: float = 1.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        self.mode, self.temperature = mode, temperature
        self.schedule = schedule

    @property
    def mode(self) -> str:
        """How choices weigh their branches, one of ``MODES``."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        _known("sampling mode", mode, MODES)
        self._mode = mode

    @property
    def noisy(self) -> bool:
        """Whether the mode draws at random."""
        return MODES[self._mode]

    @property
    def temperature(self) -> float:
        """What logits are divided by; a schedule sets it at each ``step``."""
        return self._temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._temperature = _positive(temperature)

    @property
    def schedule(self) -> Schedule | None:
        """How the temperature changes; setting it starts it."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule | None) -> None:
        self._schedule, self._steps = schedule, 0
        if schedule is not None:
            self.temperature = schedule.at(0)

    def step(self) -> None:
        """Go one step along the schedule: call it once an epoch, or once a batch."""
        self._steps += 1
        if self._schedule is not None:
            self.temperature = self._schedule.at(self._steps)

    def noise(self, size: int) -> Tensor:
        """Return standard Gumbel noise, float32 on the CPU, shape ``(size,)``."""
        waits = torch.empty(size, dtype=torch.float32).exponential_(generator=self._generator)
        return waits.clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_()

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the ``state_dict`` holds."""
        return {
            "mode": self._mode,
            "temperature": self._temperature,
            "steps": self._steps,
            "schedule": None if self._schedule is None else asdict(self._schedule),
            "generator": self._generator.get_state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on where a ``state_dict`` was made."""
        schedule = state["schedule"]
        self.mode = state["mode"]
        self.schedule = None if schedule is None else Schedule(**schedule)
        self.temperature = state["temperature"]
        self._steps = state["steps"]
        self._generator.set_state(state["generator"].cpu())

    def extra_repr(self) -> str:
        """Return the settings, for ``repr``."""
        return f"mode={self._mode!r}, temperature={self._temperature:g}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generator": self._generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        generator = torch.Generator()
        generator.set_state(state["_generator"])
        super().__setstate__({**state, "_generator": generator})  # type: ignore[no-untyped-call]


def _positive(temperature: float) -> float:
    if not COLDEST <= temperature < inf:
        raise SearchError(f"temperature is {temperature!r}; expected {COLDEST:g} or more")
    return float(temperature)


def _known(what: str, name: str, names: dict[str, Any]) -> None:
    if name not in names:
        known = ", ".join(map(repr, names))
        hint = did_you_mean(str(name), names)
        raise SearchError(f"unknown {what} {name!r}{hint}; known: {known}")
