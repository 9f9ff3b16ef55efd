"""How much each unit of a module matters: six metrics with one call.

    scores = TaylorAttributionMetric(model, data, criterion).run(model.conv1)

Units are output channels or features. The metrics look at what a module returns on data, but for
the random one and that of weights.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hwcost.errors import SearchError
from hwcost.search.attributions_data import Batch, Losses
from hwcost.search.attributions_masked import Site
from hwcost.search.attributions_metric import AttributionMetric, Place
from hwcost.search.attributions_samples import by_sample
from hwcost.search.attributions_shapley import Shapley
from hwcost.search.attributions_state import seeing
from hwcost.search.attributions_weights import count_of, norms_of

__all__ = [
    "APoZAttributionMetric",
    "AttributionMetric",
    "RandomAttributionMetric",
    "SensitivityAttributionMetric",
    "ShapleyAttributionMetric",
    "TaylorAttributionMetric",
    "WeightNormAttributionMetric",
]


class RandomAttributionMetric(AttributionMetric):
    """Uniform random numbers in [0, 1): what other metrics have to beat."""

    _on_data: ClassVar[bool] = False

    def _measure(self, places: Sequence[Place], options: dict[str, Any]) -> list[Tensor]:
        counts = [count_of(place.module, place.path) for place in places]
        device = self.generator.device if self.generator is not None else "cpu"
        return [torch.rand(n, generator=self.generator, device=device) for n in counts]


class WeightNormAttributionMetric(AttributionMetric):
    """Sum of the absolute weights of each unit.

    Source:
        Li et al., 2017, arXiv:1608.08710, section 3.1.
    """

    _on_data: ClassVar[bool] = False

    def _measure(self, places: Sequence[Place], options: dict[str, Any]) -> list[Tensor]:
        return [norms_of(place.module, place.path) for place in places]


class _OnData(AttributionMetric):
    """A metric that looks at one batch at a time."""

    def _measure(self, places: Sequence[Place], options: dict[str, Any]) -> list[Tensor]:
        losses = self._losses()
        found: list[list[Tensor]] = [[] for _ in places]
        for batch, known in self._each(places):
            for rows, row in zip(found, self._batch(batch, known, losses, options), strict=True):
                rows.append(row.double().cpu())
        return [torch.cat(rows) for rows in found]

    def _batch(
        self, batch: Batch, places: Sequence[Place], losses: Losses, options: dict[str, Any]
    ) -> list[Tensor]:
        """Return the scores of a batch at each place, shape ``(samples, units)``."""
        raise NotImplementedError


class APoZAttributionMetric(_OnData):
    """How many outputs of each unit are above 0, per sample: 1 - APoZ up to the map's size.

    Source:
        Hu et al., 2016, arXiv:1607.03250, eq. 1.
    """

    def __init__(self, *args: Any, fraction: bool = False, **kwargs: Any) -> None:
        """Keep the options.

        Args:
            args: as of every metric.
            fraction: give the share of outputs above 0, which is comparable across modules.
            kwargs: as of every metric.
        """
        super().__init__(*args, **kwargs)
        self.fraction = fraction
        self.comparable = fraction

    def _batch(
        self, batch: Batch, places: Sequence[Place], losses: Losses, options: dict[str, Any]
    ) -> list[Tensor]:
        outputs = [list[Tensor]() for _ in places]
        watched = [(p.seen, _kept(each)) for p, each in zip(places, outputs, strict=True)]
        with seeing(watched):
            self.model(*batch.args, **batch.kwargs)
        fraction = options.get("fraction", self.fraction)
        return [
            _positive(each, batch.size, p, fraction)
            for p, each in zip(places, outputs, strict=True)
        ]


def _kept(outputs: list[Tensor]) -> Callable[[int, Tensor], Tensor]:
    """Return what keeps the signs of outputs: later layers may overwrite them."""

    def see(call: int, output: Tensor) -> Tensor:
        outputs.append(output > 0)
        return output

    return see


def _positive(outputs: Iterable[Tensor], size: int, place: Place, fraction: bool) -> Tensor:
    rows = [(by_sample(o.double(), size, place.samples, place.dim), o) for o in outputs]
    total = torch.stack([row for row, _ in rows]).sum(0)
    positions = sum(o.numel() / row.numel() for row, o in rows)
    return total / positions if fraction else total


class _Gradient(_OnData):
    """A metric of gradients of each sample's loss with respect to a module's output."""

    def _batch(
        self, batch: Batch, places: Sequence[Place], losses: Losses, options: dict[str, Any]
    ) -> list[Tensor]:
        outputs = [list[Tensor]() for _ in places]
        watched = [(p.seen, _leaf(each, outputs)) for p, each in zip(places, outputs, strict=True)]
        with torch.enable_grad():
            with seeing(watched), _Differentiable():
                output = self.model(*batch.args, **batch.kwargs)
            loss = losses(output, batch.y, batch.size).sum()
            gradients = _gradients(loss, outputs, places)
        scores = []
        for place, each, grads in zip(places, outputs, gradients, strict=True):
            rows = [self._row(z, g, batch.size, place) for z, g in zip(each, grads, strict=True)]
            scores.append(self._total(torch.stack(rows).sum(0), options))
        return scores

    def _row(self, output: Tensor, gradient: Tensor, size: int, place: Place) -> Tensor:
        """Return what one output says of each sample and unit."""
        raise NotImplementedError

    def _total(self, rows: Tensor, options: dict[str, Any]) -> Tensor:
        """Return the score, from the sum over all calls of the module."""
        return rows


class SensitivityAttributionMetric(_Gradient):
    """Sum over positions of the absolute gradient of the loss.

    Source:
        Mittal et al., 2018, arXiv:1812.10240.
    """

    def _row(self, output: Tensor, gradient: Tensor, size: int, place: Place) -> Tensor:
        return by_sample(gradient.abs(), size, place.samples, place.dim)


class TaylorAttributionMetric(_Gradient):
    """By how much the loss changes, to first order, when a unit is zeroed; its absolute value.

    Source:
        Molchanov et al., 2017, arXiv:1611.06440, eq. 8, without the mean over positions.
    """

    comparable: bool = True

    def __init__(self, *args: Any, signed: bool = False, **kwargs: Any) -> None:
        """Keep the options.

        Args:
            args: as of every metric.
            signed: keep the sign; below 0 where the loss falls without the unit.
            kwargs: as of every metric.
        """
        super().__init__(*args, **kwargs)
        self.signed = signed

    def _row(self, output: Tensor, gradient: Tensor, size: int, place: Place) -> Tensor:
        return by_sample(-gradient * output.detach(), size, place.samples, place.dim)

    def _total(self, rows: Tensor, options: dict[str, Any]) -> Tensor:
        return rows if options.get("signed", self.signed) else rows.abs()


class ShapleyAttributionMetric(AttributionMetric):
    """Shapley values of units, the loss being what they share, by Monte Carlo.

    In each of ``sv_samples`` random permutations, a unit's value is by how much the loss grows
    when it is zeroed after those before it; in every one they sum to the loss with all units
    zeroed, less the loss. With the same generator the values are the same.
    """

    comparable: bool = True

    def __init__(self, *args: Any, sv_samples: int = 5, **kwargs: Any) -> None:
        """Keep the options.

        Args:
            args: as of every metric.
            sv_samples: how many permutations.
            kwargs: as of every metric.
        """
        super().__init__(*args, **kwargs)
        self.sv_samples = _whole(sv_samples)

    def _measure(self, places: Sequence[Place], options: dict[str, Any]) -> list[Tensor]:
        count = _whole(options.get("sv_samples") or self.sv_samples)
        losses = self._losses()
        ways: list[Shapley] = []
        found: list[list[Tensor]] = [[] for _ in places]
        for batch, known in self._each(places):
            if not ways:
                sites = [Site(self.model, place.seen, place.dim) for place in known]
                ways = [Shapley(site, losses, count, self.generator) for site in sites]
            for rows, way in zip(found, ways, strict=True):
                rows.append(way.values(batch).cpu())
        return [torch.cat(rows) for rows in found]


def _whole(count: Any) -> int:
    if not isinstance(count, int) or count < 1:
        raise SearchError(f"sv_samples is {count!r}; expected a whole number from 1 on")
    return count


class _Differentiable(TorchFunctionMode):
    """Lets gradients through code of a model that turns them off."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            args = (True,)
        return func(*args, **(kwargs or {}))


def _leaf(
    outputs: list[Tensor], everything: Sequence[list[Tensor]]
) -> Callable[[int, Tensor], Tensor]:
    """Return what keeps outputs so that gradients reach them.

    What lies before the first of all needs none.
    """

    def see(call: int, output: Tensor) -> Tensor:
        if not output.is_floating_point():
            raise SearchError(f"a module returns {output.dtype}; it has no gradient")
        if not any(everything) or not output.requires_grad:
            output = output.detach().requires_grad_()
        outputs.append(output)
        return output.clone()  # later layers may overwrite it

    return see


def _gradients(
    loss: Tensor, outputs: Sequence[Sequence[Tensor]], places: Sequence[Place]
) -> list[list[Tensor]]:
    flat = [z for each in outputs for z in each]
    found = torch.autograd.grad(loss, flat, allow_unused=True) if loss.requires_grad else ()
    given = iter(found or [None] * len(flat))
    gradients = [[next(given) for _ in each] for each in outputs]
    for place, each in zip(places, gradients, strict=True):
        if all(g is None for g in each):
            raise SearchError(
                f"no gradient of the loss reaches the output of {place.path!r}: the model does not "
                "use it, or cuts gradients off (detach, inference_mode, whole numbers)"
            )
    return [
        [torch.zeros_like(z) if g is None else g for z, g in zip(zs, gs, strict=True)]
        for zs, gs in zip(outputs, gradients, strict=True)
    ]
