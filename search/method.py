"""What a search method is to a ``Search``: knobs, cells of the op table, and its own exports."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from hwcost.search.base import Search
    from hwcost.search.table import Cell


class Method(nn.Module):
    """One way to decide something about a network; all its parameters are decisions.

    A search calls, in this order: ``prepare`` on the copy of the model, ``attach`` once it is
    traced; then at every step ``project`` and ``entries``; at the end ``export``.
    """

    #: How the method is called in messages and in ``METHODS``.
    title: ClassVar[str] = ""

    #: Whether its export replaces modules; such exports come last.
    restructures: ClassVar[bool] = False

    def prepare(self, model: nn.Module) -> None:
        """Change the copied model before it is traced."""

    def attach(self, search: "Search") -> None:
        """Find what there is to decide; register factors, weight masks and cells."""
        raise NotImplementedError

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

    def trains(self, knob: str) -> bool:
        """Whether a knob is to be trained when decisions are."""
        return True

    def summary(self) -> list[str]:
        """Return a line for each decision, for people."""
        return []
