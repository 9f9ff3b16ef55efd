"""How much each class of channels matters: attributions of all units that go with it, added up."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_values import without_compiler
from hwcost.search.coupling import Coupling

#: What scores the units of a module: a metric, or a function of the module; None: sums of |w|.
Scorer = Any


@dataclass(frozen=True)
class Scores:
    """How much classes of channels matter.

    Attributes:
        classes: float64, shape ``(n_classes,)``.
        comparable: whether scores of different layers are in one unit, and may be added. If not,
            only the share counts that goes of a layer.
    """

    classes: Tensor
    comparable: bool

    def lost(self, order: Tensor, own: Tensor) -> Tensor:
        """Return what the first of some classes matter together, float64, shape ``(n + 1,)``.

        Of scores that are not comparable, it grows as ``-log(what is left)``: the last channels of
        a layer matter more than the same channels among many.

        Args:
            order: classes of an axis, shape ``(n,)``.
            own: all classes of that axis.
        """
        gone = torch.cat([self.classes.new_zeros(1), self.classes[order].cumsum(0)])
        total = self.classes[own].sum()
        if self.comparable or not float(total) > 0:
            return gone
        left = (1 - gone / total).clamp(min=torch.finfo(gone.dtype).tiny)
        return -total * left.log()


def class_scores(coupling: Coupling, metric: Scorer = None) -> Scores:
    """Return how much each class matters.

    Scores are taken as they are, but for those of a metric that says that they are not
    ``comparable`` between layers: they are divided by their mean in each layer.

    Args:
        coupling: of the network.
        metric: has ``run(module) -> (units,)``, or is such a function, or None: the sum of the
            absolute weights of a unit. Where it has no score, as for heads and for layers that
            never run as modules, these sums take its place, brought to the same mean.

    Raises:
        SearchError: it returns another number of scores than a module has units, or NaN.
    """
    scores = torch.zeros(coupling.channels.n_classes, dtype=torch.float64)
    weights = _weight_sums(coupling)
    if metric is None:
        return Scores(weights, comparable=False)
    comparable = bool(getattr(metric, "comparable", True))
    known = torch.zeros(coupling.channels.n_classes, dtype=torch.bool)
    for path in coupling.producers:
        module = coupling.module(path)
        if not coupling.returns_units(path):
            continue
        units = coupling.units(path)
        own = _run(metric, module, path, len(units))
        own = own if comparable else _relative(own)
        free = units >= 0
        scores.index_add_(0, units[free], own[free])
        known[units[free]] = True
    if bool(known.any()) and not bool(known.all()):
        scores[~known] = weights[~known] * scores[known].abs().mean()
    return Scores(scores, comparable) if bool(known.any()) else Scores(weights, False)


def _run(metric: Scorer, module: nn.Module, path: str, units: int) -> Tensor:
    run: Any = getattr(metric, "run", metric)
    title, scores = type(metric).__name__, run(module)
    try:
        found: Tensor = torch.as_tensor(scores).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise SearchError(f"layer {path!r}: {title} returns {scores!r}; expected scores") from None
    if found.shape != (units,):
        shape = tuple(found.shape)
        raise SearchError(f"layer {path!r}: {title} returns {shape}; expected {units} scores")
    if bool(found.isnan().any()):
        raise SearchError(f"layer {path!r}: {title} returns NaN")
    return found


def _relative(scores: Tensor) -> Tensor:
    mean = scores.abs().mean()
    return scores / mean if float(mean) > 0 else scores


def _weight_sums(coupling: Coupling) -> Tensor:
    """Return the sum of the absolute weights of each class, over its mean in each layer."""
    sums = torch.zeros(coupling.channels.n_classes + 1, dtype=torch.float64)
    for weight, dim, classes in _producing(coupling):
        others = [d for d in range(weight.dim()) if d != dim]
        entries = weight.detach().abs().sum(others) if others else weight.detach().abs()
        own = torch.zeros_like(sums).index_add_(0, classes, entries.to("cpu", torch.float64))
        present = classes.unique()
        present = present[present >= 0]
        sums[present] += _relative(own[present])
    return sums[:-1]


def _producing(coupling: Coupling) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Yield weights with the dimension of what they make, and its classes."""
    weights = {without_compiler(n): p for n, p in coupling.model.named_parameters()}
    names = dict.fromkeys(name for axis in coupling.channels.axes for name in axis.producers)
    for name in names:
        if name in weights and weights[name].is_meta:
            raise SearchError(f"{name!r} has no numbers, on the meta device: give a metric")
        for cut in coupling.channels.cuts[name]:
            if cut.role != "in" and name in weights:
                yield weights[name], cut.dim, cut.classes
