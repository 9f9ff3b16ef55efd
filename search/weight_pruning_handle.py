"""What a training loop calls while weights are pruned."""

from collections.abc import Sequence
from warnings import warn

import torch
from torch import nn

from hwcost.errors import HwcostWarning, SearchError
from hwcost.search.weight_pruning_cell import PruneUnit
from hwcost.search.weight_pruning_groups import Group, find_pruned, grouped
from hwcost.search.weight_pruning_masks import check_detachable, detach


class WeightPruning:
    """The pruned weights of a model. ``prune_weights`` makes it.

    A training loop calls ``step`` after each of its steps and ``epoch`` after each epoch; each
    cell takes of them what it waits for. All that has to be saved is in the model's state dict.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups, self._removed = list(groups), False
        self._ticks = self._now()

    @classmethod
    def of(cls, model: nn.Module) -> "WeightPruning":
        """Return the pruning of a model that has one: of a copy, say.

        Raises:
            SearchError: it has none.
        """
        groups = grouped(find_pruned(model))
        if not groups:
            raise SearchError(f"no weight of {type(model).__name__} is pruned")
        return cls(groups)

    def step(self, samples: int | None = None) -> None:
        """Count a training step.

        Args:
            samples: how many samples it took; needed where a cell's step size counts samples.

        Raises:
            SearchError: it is missing or not above 0, or weights became NaN.
        """
        if samples is not None and (type(samples) is not int or samples < 1):
            raise SearchError(f"samples is {samples!r}; expected a whole number above 0")
        if samples is None:
            self._refuse_missing_samples()
        self._refuse_removed()
        self._tick(PruneUnit.STEPS, 1)
        self._tick(PruneUnit.SAMPLES, samples or 0)

    def epoch(self) -> None:
        """Count an epoch.

        Raises:
            SearchError: a cell waits for samples or steps, and no step was counted in the epoch;
                or weights became NaN.
        """
        self._refuse_removed()
        for group, before in zip(self._groups, self._ticks, strict=True):
            waits = group.cell.counts != PruneUnit.EPOCHS and not group.finished
            if waits and group.pruned[0].ticks == before:
                raise SearchError(
                    f"layer {group.name!r} waits for {group.cell.counts}, and the epoch had none; "
                    "call step(samples=...) after each training step"
                )
        self._ticks = self._now()
        self._tick(PruneUnit.EPOCHS, 1)

    @torch.no_grad()
    def sparsity(self) -> dict[str, float]:
        """Return, for each layer, the share of its weights that are 0."""
        values = {weight.name: weight.value for g in self._groups for weight in g.weights}
        return {
            name: int((value == 0).sum()) / max(value.numel(), 1) for name, value in values.items()
        }

    def thresholds(self) -> dict[str, float]:
        """Return, for each layer, the share that its schedule has come to."""
        return {
            weight.name: pruned.share
            for group in self._groups
            for weight, pruned in zip(group.weights, group.pruned, strict=True)
        }

    def remove(self) -> None:
        """Make the zeros permanent: weights are plain parameters again, with zeros in them.

        Training that goes on after this changes the zeros too. Other parametrizations of a
        weight stay. A gradual pruning that never moved gives a ``HwcostWarning``.

        Raises:
            SearchError: a parametrization before the mask has no ``right_inverse``, or the
                pruning was removed already.
        """
        self._refuse_removed()
        self._warn_of_what_never_moved()
        places = [(weight, one, at) for g in self._groups for weight, one, at in g.places()]
        for weight, pruned, at in places:
            try:
                check_detachable(*at, pruned)
            except SearchError as error:
                raise SearchError(f"layer {weight.name!r}: {error}") from None
        for _, pruned, at in places:
            detach(*at, pruned)
        self._groups, self._removed = [], True

    def __repr__(self) -> str:
        shares = ", ".join(f"{name}: {share:.3g}" for name, share in self.sparsity().items())
        return f"{type(self).__name__}({shares})"

    def _now(self) -> list[int]:
        return [group.pruned[0].ticks for group in self._groups]

    def _tick(self, unit: PruneUnit, amount: int) -> None:
        for group in self._groups:
            if amount and group.cell.counts == unit:
                group.tick(amount)

    def _refuse_removed(self) -> None:
        if self._removed:
            raise SearchError("the pruning was removed; prune_weights starts another")

    def _refuse_missing_samples(self) -> None:
        for group in self._groups:
            if group.cell.counts == PruneUnit.SAMPLES and not group.finished:
                raise SearchError(
                    f"layer {group.name!r} waits for samples; call step(samples=len(batch)), or "
                    "let its PruneCell count unit='steps'"
                )

    def _warn_of_what_never_moved(self) -> None:
        for group in self._groups:
            if not group.finished and not group.pruned[0].ticks:
                warn(
                    f"layer {group.name!r} is pruned to {group.pruned[0].share:g}, its start, and "
                    f"not to {group.cell.threshold:g}: no {group.cell.counts} were counted",
                    HwcostWarning,
                    stacklevel=3,
                )
