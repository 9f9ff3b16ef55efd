"""Structured pruning on the fly: units leave a network, its optimizer and its averages."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.cells import channel_cells
from hwcost.search.channels_remaining import remaining
from hwcost.search.channels_values import Channels
from hwcost.search.costs import Costs
from hwcost.search.coupling import Coupling, coupled
from hwcost.search.pruner_by_hand import PrunerByHand, Removed
from hwcost.search.pruner_dropout import Dropped, Sizes, adjust_all, dropout_sizes
from hwcost.search.pruner_reach import Order, Reached, reach
from hwcost.search.pruner_requests import unit_indices
from hwcost.search.slicing import slice_channels
from hwcost.search.table import Table
from hwcost.tracing import traced


@dataclass
class _Known:
    """What is known of a model's channels, and which of them are left.

    Attributes:
        first: the coupling when the model was looked at.
        dropped: what went through its dropouts then.
        alive: which of the classes in ``first`` are left.
    """

    first: Coupling
    dropped: Dropped
    alive: Tensor

    @cached_property
    def kept(self) -> Tensor:
        """The class in ``first`` of each class in ``now``."""
        return self.alive.nonzero().flatten()

    @cached_property
    def now(self) -> Coupling:
        """The coupling of what is left."""
        first = self.first
        if bool(self.alive.all()):
            return first
        return Coupling(first.model, first.recorded, remaining(first.channels, self.alive))

    @cached_property
    def table(self) -> Table:
        """The op table by classes of ``first``; nothing was removed when it is made."""
        found = traced(self.first.model, self.first.recorded)
        cells = channel_cells(found, self.first.channels)
        return Table(found.workload, cells, self.first.channels.n_classes)

    def remove(self, alive: Tensor) -> None:
        """Remove classes in ``now``."""
        self.alive = self.alive.index_fill(0, self.kept[~alive], False)
        self.__dict__.pop("kept")
        self.__dict__.pop("now", None)

    def through_dropouts(self) -> Sizes:
        """Return how many numbers go through each dropout."""
        first = self.first
        return dropout_sizes(self.dropped, first.recorded.recording, first.channels, self.alive)


class Pruner(PrunerByHand):
    """Removes units from a network in the middle of its training.

    Parameters stay the same objects, so that the same optimizer goes on; their gradients, its
    state, averaged copies, and what modules say of their sizes shrink with them. Dropout rates
    fall so that on average as many units stay active as before.

    Args:
        model: the network.
        example: an input, as for ``hwcost.trace``.
        input_size: in place of an example, the shape of the input without the batch.
        device: where the example lies; that of the model unless given.
        optimizer: one that holds the model's parameters, or several.
        ema: moving averages: copies of the model (also inside ``AveragedModel``), dicts of tensors
            by name, lists of tensors in the order of ``model.parameters()``.
        inplace: prune the model itself; False prunes a copy, see ``model``.

    Attributes:
        model: the network that is pruned.

    Raises:
        SearchError: an average does not fit the model, or an optimizer knows none of its
            parameters.
        TraceError: the model does not run on the example.
    """

    _state: _Known | None = None

    @property
    def coupling(self) -> Coupling:
        """Which units of the model as it is now stand or fall together."""
        self._refresh()
        return self._known.now

    @property
    def kept(self) -> Tensor:
        """The entry of ``table`` of each class of ``coupling``, int64."""
        return self._known.kept

    @property
    def table(self) -> Table:
        """The op table by classes of channels, those removed since ``look`` included."""
        return self._known.table

    def look(self) -> None:
        """Look at the network anew if units were removed before its table was made."""
        self._refresh()
        if "table" not in vars(self._known) and not bool(self._known.alive.all()):
            self._forget()

    @property
    def _known(self) -> _Known:
        if self._state is None:
            seen, dropped = self._look()
            found = coupled(self.model, seen)
            every = torch.ones(found.channels.n_classes, dtype=torch.bool)
            self._state = _Known(found, dropped, every)
        return self._state

    def _forget(self) -> None:
        super()._forget()
        self._state = None

    def prune_model(
        self,
        module: nn.Module | str,
        indices: Any,
        cascading_modules: Iterable[nn.Module | str] | None = None,
    ) -> Removed:
        """Remove units of a module, and whatever must go with them.

        Args:
            module: a module of the model, or its path. Its units are its output channels or
                features; those of ``nn.MultiheadAttention`` are its heads.
            indices: which units: whole numbers, or a bool for each.
            cascading_modules: None follows the channels to all that stand or fall with them, and
                to all who read them. A list prunes exactly these modules along: norms and
                depthwise convolutions lose the same units, other layers what they read of them.

        Returns:
            What is gone, layer by layer.

        Raises:
            SearchError: it is impossible; the message says why, and nothing is changed.
        """
        path = self.path(module)
        if isinstance(cascading_modules, str) or not isinstance(cascading_modules, Iterable | None):
            found = f"cascading_modules is {cascading_modules!r}"
            raise SearchError(f"{found}; expected a list of modules or paths")
        if cascading_modules is not None:
            return self._prune_listed(path, indices, list(cascading_modules))
        where, coupling = f"layer {path!r}", self.coupling
        units = coupling.units(path)
        chosen = unit_indices(indices, len(units), where)
        classes = units[chosen]
        if bool((classes < 0).any()):
            stays = int(chosen[classes < 0][0])
            raise SearchError(f"{where}: unit {stays} cannot be removed: {coupling.why(path)}")
        alive = torch.ones(coupling.channels.n_classes, dtype=torch.bool)
        alive[classes] = False
        return self.remove(alive)

    def remove(self, alive: Tensor) -> Removed:
        """Remove the classes of channels that are not alive; see ``coupling``.

        Args:
            alive: bool, shape ``(coupling.channels.n_classes,)``.

        Raises:
            SearchError: a layer would lose all its units; nothing is changed.
        """
        channels = self.coupling.channels
        if alive.dtype != torch.bool or alive.shape != (channels.n_classes,):
            found = f"{alive.dtype} of shape {tuple(alive.shape)}"
            raise SearchError(f"alive is {found}; expected a bool for each of {channels.n_classes}")
        if bool(alive.all()):
            return Removed({})
        _refuse_empty(channels, alive)
        removed = _removed(channels, alive)
        before = self._known.through_dropouts()
        self._apply(channels, alive)
        self._known.remove(alive)
        adjust_all(before, self._known.through_dropouts(), self._training.twins)
        return removed

    def without(self, alive: Tensor) -> nn.Module:
        """Return a copy without the classes that are not alive."""
        copied = copy.deepcopy(self.model)
        slice_channels(copied, self.coupling.channels, alive)
        return copied

    def prune_to(
        self,
        target: str | float,
        cost: Costs | None = None,
        metric: Any = None,
        *,
        per_layer: bool = False,
        minimum: float = 1,
        multiple: int = 1,
        ignore: Sequence[nn.Module | type[nn.Module] | str] = (),
        schedule: int | Sequence[float] = 1,
        fine_tune: Callable[[nn.Module], object] | None = None,
    ) -> Reached:
        """Prune until a cost is low enough.

        Of all blocks of channels those go first whose attribution is the least for what they
        save, on the platform's own steps: where a channel does not empty a tile and so saves
        nothing, the block that does goes as one.

        Args:
            target: ``"latency <= 5 ms"``, ``"energy <= 40 %"``; a plain number up to 1 is a share
                of the present cost. A share alone, where there is one cost.
            cost: as for ``Search``; the name of a platform stands for the target's metric there.
                Without, the target names a metric of ``counts``.
            metric: scores units: an attribution metric, or a function from a module to scores of
                shape ``(units,)``; the sum of absolute weights unless given.
            per_layer: remove the same share of every layer instead.
            minimum: how many units every layer keeps, or, below 1, which share of them.
            multiple: keep as many as are a multiple of this.
            ignore: modules, paths or classes of modules that keep their units; of a container,
                all in it.
            schedule: in how many steps, equal in ratio; or the share of the way after each step,
                ascending to 1.
            fine_tune: called with the model after each step.

        Returns:
            The cost before and after, and how many units each layer kept.

        Raises:
            SearchError: the target cannot be reached, and nothing is changed; or an argument is
                wrong.
            UnknownName, UnitError: the target or cost is not understood.
        """
        if type(multiple) is not int or multiple < 1:
            raise SearchError(f"multiple is {multiple!r}; expected a whole number above 0")
        if not (0 <= minimum < 1 or (minimum >= 1 and minimum == int(minimum))):
            raise SearchError(f"minimum is {minimum!r}; expected units, or a share below 1")
        if isinstance(ignore, str) or not isinstance(ignore, Iterable):
            raise SearchError(f"ignore is {ignore!r}; expected a list of modules, paths or classes")
        if not (fine_tune is None or callable(fine_tune)):
            raise SearchError(f"fine_tune is {fine_tune!r}; expected a function of the model")
        if not (metric is None or callable(metric) or hasattr(metric, "run")):
            raise SearchError(f"metric is {metric!r}; expected a metric, or a function of a module")
        shares = _shares(schedule)
        order = Order(metric, per_layer, minimum, multiple, ignore, shares, fine_tune)
        return reach(self, target, cost, order)


def _shares(schedule: int | Sequence[float]) -> list[float]:
    if type(schedule) is int and schedule > 0:
        return [(step + 1) / schedule for step in range(schedule)]
    shares = [] if isinstance(schedule, int | float) else [float(share) for share in schedule]
    if not shares or shares[-1] != 1 or shares != sorted(set(shares)) or shares[0] <= 0:
        raise SearchError(f"schedule is {schedule!r}; expected a number of steps, or shares to 1")
    return shares


def _refuse_empty(channels: Channels, alive: Tensor) -> None:
    """Refuse to remove all that a weight makes or reads."""
    keep = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    for name, cuts in channels.cuts.items():
        for cut in cuts:
            if not bool(keep[cut.classes].any()):
                raise SearchError(
                    f"{name!r} would lose all of its {len(cut.classes)} units; one must stay"
                )


def _removed(channels: Channels, alive: Tensor) -> Removed:
    keep = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    units: dict[str, tuple[int, ...]] = {}
    for axis in channels.axes:
        for name in axis.producers:
            for cut in channels.cuts[name]:
                gone = tuple((~keep[cut.classes]).nonzero().flatten().tolist())
                if cut.role != "in" and gone:
                    units[name] = gone
    return Removed(units)
