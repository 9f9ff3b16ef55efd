"""What a search method is to a ``Search``: knobs, cells of the op table, and its own exports."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from hwcost.tracing import Traced

if TYPE_CHECKING:
    from hwcost.search.base import Search
    from hwcost.search.table import Cell
    from hwcost.search.variants import Variant
    from hwcost.workload import Workload


@dataclass
class Trace:
    """Runs a model on a search's example.

    Attributes:
        run: records a model.
        inputs: positional and keyword arguments, once a model ran.
    """

    run: Callable[[nn.Module], Traced]
    inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __call__(self, model: nn.Module) -> Traced:
        """Return what a run of the model tells."""
        traced = self.run(model)
        self.inputs = traced.args, traced.kwargs
        return traced


class Method(nn.Module):
    """One way to decide something about a network.

    Those of its parameters are decisions that ``knobs`` names; others belong to the network.

    A search calls, in this order: ``prepare`` on the copy of the model, ``attach`` once it is
    traced, ``finish`` when the masks of all methods are in place; then at every step ``begin``,
    ``project`` and ``entries``; at the end ``export``.
    """

    #: How the method is called in messages and in ``METHODS``.
    title: ClassVar[str] = ""

    #: What to do about a precision that a platform has not, for a message.
    bits_hint: ClassVar[str] = ""

    #: The p of the norm that stands for the maximum over engines in a loss, None for the maximum.
    smooth: float | None = None

    #: When its turn to export comes: those that change sizes, that quantize, that replace modules.
    order: ClassVar[int] = 0

    def prepare(self, model: nn.Module, trace: Trace) -> None:
        """Change the copied model before it is traced."""

    def attach(self, search: "Search") -> None:
        """Find what there is to decide; register factors, weight masks and cells."""
        raise NotImplementedError

    def finish(self, search: "Search") -> None:
        """Do what must come after the masks that all methods laid on weights."""

    def begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See the inputs of a training step before it runs."""

    def project(self) -> None:
        """Put decisions back into their range, at the start of every training step."""

    def shared(self) -> AbstractContextManager[None]:
        """Return a context in which what is drawn at random is drawn once."""
        return nullcontext()

    def entries(self) -> Tensor | None:
        """Return the soft values behind the method's cells, shape ``(entries,)``."""
        return None

    def binary_entries(self) -> Tensor | None:
        """Return what readers see in place of ``entries``, which is the default."""
        return self.entries()

    def hard_entries(self) -> Tensor | None:
        """Return what an export keeps, in place of ``entries``, which is the default."""
        return self.entries()

    def cells(self) -> "Sequence[Cell]":
        """Return the sizes that the entries change; see ``Search.reserve`` for their places."""
        return ()

    def variants(self) -> "Mapping[int, Sequence[Variant]]":
        """Return how rows of the traced table run that run in several ways."""
        return {}

    def reference(self, workload: "Workload") -> "Workload":
        """Return the traced table as it would be without this search; see ``relative`` costs."""
        return workload

    def decisions(self) -> Hashable:
        """Return what an export would be made of; equal values make equal exports."""
        return None

    def export(self, model: nn.Module) -> nn.Module:
        """Carry out decisions on a copy whose modules have their own classes again; return it.

        Dead channels are gone by then.
        """
        return model

    def knobs(self) -> dict[str, nn.Parameter]:
        """Return the decisions by name."""
        return dict(self.named_parameters())

    def undecayed(self) -> list[nn.Parameter]:
        """Return parameters of the network, kept here, that no weight decay may pull."""
        return []

    def trains(self, knob: str) -> bool:
        """Whether a knob is to be trained when decisions are."""
        return True

    def summary(self) -> list[str]:
        """Return a line for each decision, for people."""
        return []
