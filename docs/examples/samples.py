"""What a data set of the examples is: samples and labels for training and for testing."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Samples ``x`` (samples, channels, ...) and their labels ``y`` (samples,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, generator: torch.Generator) -> list[Tensor]:
        """Return the rows of one epoch's batches in random order; a short rest is left out."""
        order = torch.randperm(len(self), generator=generator)
        return list(order[: len(order) // size * size].split(size))


@dataclass(frozen=True, eq=False)
class Data:
    """A classification task."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]

    def __str__(self) -> str:
        shape = "x".join(map(str, self.train.x.shape[1:]))
        counts = torch.bincount(self.train.y, minlength=len(self.classes))
        return "\n".join(
            [
                f"{self.name}: samples of {shape}, {len(self.classes)} classes",
                f"training   {len(self.train)} samples, {min(counts)} to {max(counts)} of a class",
                f"test       {len(self.test)} samples",
            ]
        )
