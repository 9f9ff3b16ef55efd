"""What all attributions share: data, modules, reductions and groups."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError, TraceError, UnknownName, did_you_mean, suggestion
from hwcost.search.attributions_data import Batch, Batches, Criterion, Losses, samples
from hwcost.search.attributions_groups import grouped, members_of
from hwcost.search.attributions_progress import progressing
from hwcost.search.attributions_samples import Layout, layout
from hwcost.search.attributions_state import evaluating
from hwcost.search.attributions_units import (
    best_module,
    known_dim,
    next_in_sequence,
    unit_dim,
    walk,
)

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Reduction = str | Callable[[Array], Array]

#: Options of single metrics; the others pass them over, so that one call serves all.
OPTIONS = ("sv_samples", "signed", "fraction")


@dataclass(frozen=True, eq=False)
class Place:
    """A module whose units are scored, and where they are looked at.

    Attributes:
        path: of the module; module: itself.
        seen: the module whose output is looked at.
        dim: which dimension of that output units lie along.
        samples: which dimension samples lie along.
    """

    path: str
    module: nn.Module
    seen: nn.Module
    dim: int = 1
    samples: int = 0


class AttributionMetric(ABC):
    """Scores each unit of a module; the lower, the less it matters.

    The model is evaluated in evaluation mode and is as before afterwards, its gradients and hooks
    included, also after an error. Scores are those of samples one by one, so that they depend
    neither on the batch size nor on the criterion's reduction.
    """

    #: Whether scores of different modules are in one unit.
    comparable: bool = False

    #: Whether scores are of what a module returns on data, or of the module alone.
    _on_data: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any] | None = None,
        criterion: Criterion | None = None,
        device: Any = "cpu",
        reduction: "Reduction" = "mean",
        *,
        data_generator: Iterable[Any] | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> None:
        """Keep what to evaluate.

        Args:
            model: the model, on ``device``.
            data: batches ``(x, y)``; ``x`` is a tensor, or a tuple or dict of arguments. What can
                be read only once is kept as a list.
            criterion: the loss, ``criterion(output, y)``, of any reduction.
            device: where the data goes.
            reduction: over samples: ``"mean"``, ``"sum"``, ``"none"``, or a function of an array of
                shape ``(samples, units)``.
            data_generator: another name of ``data``.
            generator: draws what is drawn at random.
            progress: show a bar on the standard error stream.

        Raises:
            SearchError: ``reduction`` is something else, or data or criterion is missing.
        """
        if not isinstance(model, nn.Module):
            raise SearchError(f"attributions need an nn.Module; got {type(model).__name__}")
        if not callable(reduction) and reduction not in ("mean", "sum", "none"):
            raise SearchError(
                f"reduction is {reduction!r}; expected 'mean', 'sum', 'none' or a function"
            )
        if data is not None and data_generator is not None:
            raise SearchError("data and data_generator are the same; give one of them")
        data = data_generator if data is None else data
        if self._on_data and (data is None or not callable(criterion)):
            missing = "data" if data is None else "a criterion"
            raise SearchError(f"{type(self).__name__} needs {missing}")
        self.model = model
        self.criterion = criterion
        self.device = device
        self.reduction = reduction
        self.generator = generator
        self.progress = progress
        self._data = data
        self._batches_of: Batches | None = None

    def run(
        self,
        module: nn.Module | str,
        find_best_evaluation_module: bool = False,
        group: str | None = None,
        **kwargs: Any,
    ) -> "Array":
        """Return the score of each unit of a module, shape ``(units,)``.

        With the reduction ``"none"``, shape ``(samples, units)``, unless data plays no part.

        Args:
            module: a module of the model, or its path.
            find_best_evaluation_module: look at the output of the last norm or activation that
                the units alone go through, in place of the module's.
            group: ``"sum"``, ``"mean"`` or ``"max"`` over all units, of any module, that stand or
                fall together with a unit; by default, each unit alone.
            kwargs: options of the metric, in place of those it was made with.

        Raises:
            UnknownName: the module is not in the model.
            SearchError: it does not run, has no units, or an option is not known.
        """
        if group not in (None, "sum", "mean", "max"):
            raise SearchError(f"group is {group!r}; expected None, 'sum', 'mean' or 'max'")
        for name in kwargs:
            if name not in OPTIONS:
                raise TypeError(f"run() has no option {name!r}{did_you_mean(name, OPTIONS)}")
        path, found = self._found(module)
        with evaluating(self.model):
            if group is None:
                (score,) = self._scores([(path, found)], find_best_evaluation_module, kwargs)
                return self._reduced(score)
            return self._of_group(path, group, find_best_evaluation_module, kwargs)

    def find_evaluation_module(
        self, module: nn.Module | str, find_best_evaluation_module: bool = False
    ) -> nn.Module:
        """Return the module whose output is looked at; see ``run``."""
        path, found = self._found(module)
        if not find_best_evaluation_module or not self._on_data:
            return found
        with evaluating(self.model):
            return self._seen(path, found)

    @abstractmethod
    def _measure(self, places: Sequence[Place], options: dict[str, Any]) -> list[Tensor]:
        """Return the scores at each place, ``(samples, units)``, or ``(units,)`` without data."""

    def _of_group(self, path: str, how: str, best: bool, options: dict[str, Any]) -> "Array":
        members = members_of(self.model, path, self._first())
        if self._on_data:  # weights of attention belong to modules that do not run by themselves
            ran = {run.path for run in walk(self.model, self._first()).ran}
            members = [m for m in members if m.path == path or m.path in ran]
        scored = [(member.path, member.module) for member in members]
        scores = self._scores(scored, best, options)
        return grouped([self._reduced(s) for s in scores], members, how)

    def _scores(
        self, modules: Sequence[tuple[str, nn.Module]], best: bool, options: dict[str, Any]
    ) -> list[Tensor]:
        if not self._on_data:
            return self._measure([Place(path, m, m) for path, m in modules], options)
        places = [Place(p, m, self._seen(p, m) if best else m) for p, m in modules]
        return self._measure(places, options)

    def _reduced(self, scores: Tensor) -> "Array":
        array: Array = scores.detach().cpu().double().numpy()
        if array.ndim < 2 or self.reduction == "none":
            return array
        if not isinstance(self.reduction, str):
            reduced: Array = self.reduction(array)
            return reduced
        over: Array = array.mean(0) if self.reduction == "mean" else array.sum(0)
        return over

    def _found(self, module: nn.Module | str) -> tuple[str, nn.Module]:
        modules = dict(self.model.named_modules())
        if isinstance(module, str):
            if module not in modules:
                raise UnknownName(f"no module {module!r}{suggestion(module, modules)}")
            return module, modules[module]
        for path, known in modules.items():
            if known is module:
                return path, known
        what = type(module).__name__
        raise UnknownName(f"this {what} is not a module of the model")

    def _seen(self, path: str, module: nn.Module) -> nn.Module:
        try:
            found = walk(self.model, self._first())
        except (RuntimeError, TraceError):  # the model does not run on this data
            return next_in_sequence(self.model, module)
        return self.model.get_submodule(best_module(found, path))

    @property
    def _batches(self) -> Batches:
        if self._data is None:
            raise SearchError(f"{type(self).__name__} needs data for this")
        if self._batches_of is None:
            self._batches_of = Batches(self.model, self._data, self.device)
        return self._batches_of

    def _first(self) -> Batch:
        return next(iter(self._batches))

    def _each(self, places: Sequence[Place]) -> Iterator[tuple[Batch, list[Place]]]:
        """Return batches, or single samples where those of a batch are not told apart."""
        found: Layout | None = None
        known: list[Place] = []
        for batch in progressing(self._batches, type(self).__name__, self.progress):
            if found is None or (batch.size > 1 and found.size == 1):
                found = layout(self.model, batch, [(self._path(p.seen), p.seen) for p in places])
                known = self._placed(batch, places, found)
            for part in [batch] if found.together else samples([batch]):
                yield part, known

    def _placed(self, batch: Batch, places: Sequence[Place], found: Layout) -> list[Place]:
        kinds = [known_dim(place.seen) for place in places]
        trace = walk(self.model, batch) if None in kinds else None
        placed = []
        for place, kind, at in zip(places, kinds, found.dims, strict=True):
            dim = kind
            if trace is not None and kind is None:
                dim = unit_dim(trace, self._path(place.seen), place.seen)
            placed.append(Place(place.path, place.module, place.seen, dim or 1, at))
        return placed

    def _path(self, module: nn.Module) -> str:
        named: Iterator[tuple[str, nn.Module]] = self.model.named_modules()
        return next(path for path, known in named if known is module)

    def _losses(self) -> Losses:
        assert self.criterion is not None
        return Losses(self.criterion)
