"""A step of a network that is quantized: tensors, weights and biases as they are stored."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hwcost.recorder_quantize import fake_quantize
from hwcost.search.quantize import (
    HIGHEST,
    LOWEST,
    WEIGHT_RULES,
    least_scales,
    mixed_activation,
    mixed_weight,
    quantize_bias,
)
from hwcost.search.quantized_now import Now, activations_now, weights_now
from hwcost.search.quantized_state import QuantizedState, grids_of
from hwcost.search.swap import owners

#: Codes that change nothing while a network is traced.
_WIDE = (-(2**31), 2**31 - 1)


class QuantizedStep(QuantizedState):
    """Rounds what a network computes with."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Make scales and shares once for the body."""
        outermost = self._now is None
        if outermost:
            self._now = self._compute(self.training)
        try:
            yield
        finally:
            if outermost:
                self._now, self._last = None, self._now

    def decided_now(self) -> Now:
        """Return the scales and shares of what is chosen, those of weights included."""
        self._now = self._compute(training=False)
        try:
            for weight in self.layers:
                owner, attribute = owners(self._model[0], stored(self._model[0], weight.name))[0]
                getattr(owner, attribute)
            return self._now
        finally:
            self._now = None

    def kept(self, number: int) -> Tensor:
        """Return the output channels of a weight that an export keeps, int64."""
        alive = torch.cat([self._alive[0].hard(), torch.ones(1, dtype=torch.bool)])
        return alive[self.layers[number].classes].nonzero().flatten()

    def _compute(self, training: bool) -> Now:
        grids = [grids_of(p, s) for p, s in zip(self.plans, self.signed, strict=True)]
        acts = activations_now(
            self.scales.scales(), grids, self.point_columns, self.activations, training
        )
        weights = weights_now(self.layers, self.weights, self.removes, training)
        decided = tuple(
            (not training or len(w.options) == 1)
            and (w.layer.point < 0 or acts[w.layer.point].shares is None)
            for w in self.layers
        )
        return Now(acts, weights, decided)

    def _current(self) -> Now:
        if self._now is None and torch._C._current_graph_task_id() != -1 and self._last:
            return self._last  # a checkpointed block runs again
        return self._now or self._compute(self.training)

    def quantized(self, number: int, x: Tensor, weight: str | None) -> Tensor:
        """Return a tensor as its point stores it.

        Args:
            number: of the point.
            x: the tensor.
            weight: of the layer whose sums it holds, if it is such.
        """
        if self._calibration is not None:
            name = self.plans[number].point.name
            self._calibration.observe(name, x)
            self.scales.set_size(name, x.numel() // max(len(x), 1) if x.dim() else 1)
            return x
        if self._traced:
            low, high = _WIDE
            bits, step = max(self.plans[number].bits), x.new_full((1,), 2.0**-10)
            rounded: Tensor = fake_quantize(x, step, [bits], [low], [high], 0, str(number), "")
            return rounded
        now = self._current()
        how = now.activations[number]
        unit = None if self.training else self.unit(weight, now)
        if unit is not None:
            grid, axis = how.grids[0], self.sum_axis(weight)
            codes = [grid.bits], [grid.low], [grid.high]
            rounded = fake_quantize(x, how.scales, *codes, 0, "", "", unit, axis)
            return rounded
        inside = self.plans[number].learns_inside
        return mixed_activation(x, how.scales, how.shares, how.grids, inside)

    def unit(self, weight: str | None, now: Now) -> Tensor | None:
        """Return what a unit of a layer's sums is worth, None if its operands are no codes."""
        number = self.numbers.get(weight)
        if number is None or self.layers[number].layer.point < 0:
            return None
        return self.bias_scale(number, now)

    def sum_axis(self, weight: str | None) -> int:
        """Return the dimension of a layer's output channels in its result, from the end."""
        spatial = stored(self._model[0], str(weight)).dim() - 2
        return -1 - spatial

    def weight(self, number: int, parameter: Tensor) -> Tensor:
        """Return a weight as its channels store it."""
        if not self.rounds:
            return parameter
        own, now = self.layers[number], self._current()
        scales = self._weight_scales(number, parameter, now)
        now.scales[number] = scales
        rule = WEIGHT_RULES[own.rule]
        shares, axis, clips = now.weights[number], own.layer.axis, rule.clips(own.grids)
        return mixed_weight(parameter, scales, shares, own.grids, axis, rule.learned, clips)

    def _weight_scales(self, number: int, parameter: Tensor, now: Now) -> Tensor:
        """Return what one step of each option is worth, shape ``(channels, options)``."""
        own, least = self.layers[number], None
        if str(number) in self.steps:
            learned: Tensor = self.steps[str(number)].clamp(LOWEST, HIGHEST).exp2()
            return learned
        if now.decided[number] and own.layer.bias is not None and own.layer.point >= 0:
            bias = stored(self._model[0], own.layer.bias).detach()
            step = now.activations[own.layer.point].scales.detach().amin()
            least = least_scales(bias, step)
            least = least.amax().expand(own.channels) if own.layer.whole else least
        scales = WEIGHT_RULES[own.rule](parameter, own.layer.axis, own.grids, least)
        return scales.amax(0, keepdim=True).expand(scales.shape) if own.layer.whole else scales

    def bias(self, number: int, bias: Tensor) -> Tensor:
        """Return a bias as its layer adds it: rounded where its precision is decided."""
        now = self._current()
        if not self.rounds or not now.decided[number]:
            return bias
        return quantize_bias(bias, self.bias_scale(number, now))

    def bias_scale(self, number: int, now: Now) -> Tensor:
        """Return what one step of a bias is worth, shape ``(channels,)``."""
        own = self.layers[number]
        if number not in now.scales:
            now.scales[number] = self._weight_scales(number, stored(self._model[0], own.name), now)
        scales, shares = now.scales[number], now.weights[number]
        steps = scales[:, 0] if shares is None else (scales * shares).sum(1)
        steps = steps[:1] if own.layer.whole else steps
        return (steps * now.activations[own.layer.point].scales[0]).detach()


def stored(model: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter as it is stored."""
    path, _, attribute = name.rpartition(".")
    found = model.get_submodule(path)._parameters[attribute]
    assert found is not None
    return found


class WeightTransform:
    """Rounds a weight wherever it is read."""

    def __init__(self, method: QuantizedStep, number: int) -> None:
        self.method, self.number = method, number

    def __call__(self, module: nn.Module, parameter: Tensor) -> Tensor:
        return self.method.weight(self.number, parameter)


class BiasTransform(WeightTransform):
    """Rounds a bias wherever it is read."""

    def __call__(self, module: nn.Module, parameter: Tensor) -> Tensor:
        return self.method.bias(self.number, parameter)
