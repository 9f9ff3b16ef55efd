"""PIT on kernels: receptive field and dilation, or rings around the centre."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from hwcost.search.kernels import convert, rings, why_not
from hwcost.search.pit_layers import Selection
from hwcost.search.table import Cell, Count, Term

if TYPE_CHECKING:
    from hwcost.search.base import Search

#: Modules whose kernels are searched.
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution whose taps are decided.

    Taps have a distance: in one dimension from the newest (last) tap, otherwise the ring around
    the centre. The tap at distance 0 always stays.

    Attributes:
        weight: name of the weight.
        shape: sizes of the kernel.
        rows: rows of the op table that run it.
        distances: of each tap, int64, of the kernel's shape.
    """

    weight: str
    shape: tuple[int, ...]
    rows: tuple[int, ...]
    distances: Tensor

    @property
    def flat(self) -> bool:
        """Whether it has one dimension."""
        return len(self.shape) == 1

    @property
    def layer(self) -> str:
        """Path of the module."""
        return self.weight.rpartition(".")[0]

    @property
    def size(self) -> int:
        """How many distances there are."""
        return int(self.distances.max()) + 1

    def cells(self, start: int) -> Iterator[Cell]:
        """Yield the kernel's sizes; its distances begin at ``start`` among the decisions."""
        sizes = zip("dhw"[-len(self.shape) :], self.shape, strict=True)
        counts = {f"k{axis}": self._count(size, start) for axis, size in sizes if size > 1}
        for row in self.rows:
            for column, count in counts.items():
                yield Cell(row, column, (Term(count.full, (count,)),))

    def _count(self, size: int, start: int) -> Count:
        if self.flat:
            return Count(tuple(range(start + 1, start + size)), 1)
        sides = [start + ring for ring in range(1, size // 2 + 1)]
        return Count(tuple(sorted(sides * 2)), 1)

    def taps(self, alive: Tensor) -> Tensor:
        """Return which taps stay, bool, of the kernel's shape, for distances that do."""
        return alive[self.distances]

    def export(self, model: nn.Module, alive: Tensor) -> None:
        """Shrink the kernel of the exported model's layer."""
        convert(model.get_submodule(self.layer), self.taps(alive))

    def summary(self, alive: Tensor) -> str:
        """Return a line for people."""
        taps = self.taps(alive)
        kernel = "x".join(map(str, self.shape))
        return f"{self.layer}: {int(taps.sum())} of {taps.numel()} taps of kernel {kernel}"


def kernels(search: "Search", selection: Selection, flat: bool, wide: bool) -> Iterator[Kernel]:
    """Yield every kernel of more than one tap that may shrink.

    Args:
        flat: with those of one dimension.
        wide: with those of more.
    """
    for name, rows in _convolutions(search).items():
        path = name.rpartition(".")[0]
        module = search.model.get_submodule(path)
        if name.endswith(".weight") and _can_shrink(module) and selection.takes(path, module):
            shape = module.kernel_size
            if len(shape) == 1 and flat:
                yield Kernel(name, shape, tuple(rows), torch.arange(shape[0]).flip(0))
            elif len(shape) > 1 and wide:
                yield Kernel(name, shape, tuple(rows), rings(shape))


def _can_shrink(module: nn.Module) -> TypeGuard[Conv]:
    """Whether a convolution with a smaller kernel and other padding can compute the same."""
    if not isinstance(module, Conv) or why_not(module):
        return False
    kernel = module.kernel_size
    if len(kernel) == 1:  # as in the paper, strided layers keep theirs
        return kernel[0] > 1 and module.stride == (1,)
    return max(kernel) > 1 and all(size % 2 for size in kernel)


def _convolutions(search: "Search") -> dict[str, list[int]]:
    """Return the rows of each convolution's weight that only its own module reads."""
    recording = search.traced.recording
    rows: dict[str, list[int]] = {}
    for row, index in enumerate(search.traced.calls):
        call = recording.calls[index]
        weight = call.arg("weight") if call.op.name.endswith("convolution") else None
        if weight is not None and weight in recording.parameters:
            rows.setdefault(recording.parameters[weight], []).append(row)
    elsewhere = {
        name
        for call in recording.calls
        for ref in call.inputs
        if (name := recording.parameters.get(ref)) is not None
        and recording.scopes[call.scope].path != name.rpartition(".")[0]
    }
    return {name: found for name, found in rows.items() if name not in elsewhere}
