"""A method that quantizes a network: what MPS and ODiMO have in common."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_quantize import fake_quantize
from hwcost.search.choices import ChoiceBank
from hwcost.search.method import Method, Trace
from hwcost.search.options import Option
from hwcost.search.points import Points
from hwcost.search.quantize import (
    WEIGHT_RULES,
    Calibration,
    Grid,
    ScaleBank,
    activation_grid,
    least_scales,
    mixed_activation,
    mixed_weight,
    quantize_bias,
)
from hwcost.search.quantized_export import exported
from hwcost.search.quantized_install import PointPlan, install, observed
from hwcost.search.quantized_layers import Weight, chosen_of
from hwcost.search.quantized_now import Now, activations_now, kept_choice, weights_now
from hwcost.search.quantized_pruning import Removal, removal
from hwcost.search.quantized_table import Entries, entries_of, variants_of
from hwcost.search.swap import add_transform, drop_forward, owners
from hwcost.search.variants import Variant

if TYPE_CHECKING:
    from hwcost.search.base import Search
    from hwcost.search.channels import Channels

#: Codes that change nothing while a network is traced.
_WIDE = (-(2**31), 2**31 - 1)


class QuantizedMethod(Method):
    """Quantizes weights, biases and tensors; each weight channel or layer has options.

    A subclass says which: see ``weights_for``.
    """

    order = 1

    def __init__(self) -> None:
        super().__init__()
        self.plans: tuple[PointPlan, ...] = ()
        self.missed: tuple[str, ...] = ()
        self.layers: tuple[Weight, ...] = ()
        self.options: tuple[Option, ...] = ()
        self.scales = ScaleBank()
        self.activations: ChoiceBank | None = None
        self.weights: ChoiceBank | None = None
        self.signed: list[bool] = []
        self.calibrated = False
        self._removal: Removal | None = None
        self._entries: Entries | None = None
        self._model: list[nn.Module] = []
        self._inputs: tuple[Any, Any] = ((), {})
        self._traced = True
        self._calibration: Calibration | None = None
        self._now: Now | None = None
        self._last: Now | None = None

    # What a subclass says.

    def plan_points(self, points: Points) -> Sequence[PointPlan]:
        """Return the precisions of every point."""
        raise NotImplementedError

    def weights_for(self, search: "Search", points: Points) -> Sequence[Weight]:
        """Return the weights to quantize, with their options; fills ``options``."""
        raise NotImplementedError

    # What a search calls.

    def prepare(self, model: nn.Module, trace: Trace) -> None:
        """Fold norms and find what is quantized where."""
        self._points = install(self, model, trace)
        self.plans = tuple(self.plan_points(self._points))
        self.missed = self._points.missed
        self.signed = [not plan.point.positive for plan in self.plans]
        self.activations = self._activation_bank()
        for plan, signed in zip(self.plans, self.signed, strict=True):
            self.scales.add(plan.point.name, plan.quantizer, _grids(plan, signed))
        self._observe_example(model, trace)

    def _activation_bank(self) -> ChoiceBank | None:
        bits = sorted({b for plan in self.plans for b in plan.bits})
        self.point_columns = [tuple(bits.index(b) for b in plan.bits) for plan in self.plans]
        if all(len(plan.bits) == 1 for plan in self.plans):
            return None
        allowed = torch.tensor([[b in plan.bits for b in bits] for plan in self.plans])
        return ChoiceBank(torch.tensor(bits) / max(bits), allowed)

    def _observe_example(self, model: nn.Module, trace: Trace) -> None:
        args, kwargs = trace.inputs
        self._inputs = args, kwargs
        tensors = [*args, *kwargs.values()]
        if any(isinstance(t, Tensor) and t.is_meta for t in tensors):
            return
        with self._observing() as calibration:
            observed(model, args, kwargs)
        self._set_ranges(calibration, 100.0)

    def attach(self, search: "Search") -> None:
        self._traced = False
        self.layers = tuple(self.weights_for(search, self._points))
        if not self.layers:
            raise SearchError(f"{type(search.model).__name__} has no layer to quantize")
        self._make_bank()
        self._removal = removal(self, search.channels)
        if self._removal is not None:
            search.alive.add(self._removal)
        for bank in (self.activations, self.weights):
            if bank is not None:
                bank.sampling = search.sampling
        self._entries = entries_of(self, search)
        self._entries.start = search.reserve(self._entries.total)
        self._variants = variants_of(self, search, self._entries)
        self._alive = [search.alive]

    def _make_bank(self) -> None:
        if all(len(weight.options) == 1 for weight in self.layers) and not self.removes:
            return
        rows = sum(w.rows.stop - w.rows.start for w in self.layers)
        allowed = torch.zeros(rows, len(self.options), dtype=torch.bool)
        for weight in self.layers:
            for column in weight.columns:
                allowed[weight.rows, column + self.removes] = True
        self.weights = ChoiceBank(self.start_logits(), allowed)

    def start_logits(self) -> Tensor:
        """Return the logits of the bank's options at the start."""
        bits = torch.tensor([option.bits for option in self.options], dtype=torch.float32)
        return bits / bits.max()

    @property
    def removes(self) -> bool:
        """Whether an option removes channels; it is then the first."""
        return bool(self.options) and self.options[0].bits == 0

    def finish(self, search: "Search") -> None:
        self._model = [search.model]
        for number, weight in enumerate(self.layers):
            parameter = _stored(search.model, weight.name)
            for module, attribute in owners(search.model, parameter):
                add_transform(module, attribute, _WeightTransform(self, number))
                drop_forward(module)
            if weight.layer.bias is not None and weight.layer.point >= 0:
                bias = _stored(search.model, weight.layer.bias)
                for module, attribute in owners(search.model, bias):
                    add_transform(module, attribute, _BiasTransform(self, number))

    # The step.

    def begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set the ranges by the first batch, unless data did."""
        if self.calibrated:
            return
        with self._observing() as calibration:
            observed(model, args, kwargs)
        self._set_ranges(calibration, 100.0)
        self.calibrated = True

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
                owner, attribute = owners(self._model[0], _stored(self._model[0], weight.name))[0]
                getattr(owner, attribute)
            return self._now
        finally:
            self._now = None

    def kept(self, number: int) -> Tensor:
        """Return the output channels of a weight that an export keeps, int64."""
        alive = torch.cat([self._alive[0].hard(), torch.ones(1, dtype=torch.bool)])
        return alive[self.layers[number].classes].nonzero().flatten()

    def _compute(self, training: bool) -> Now:
        grids = [_grids(p, s) for p, s in zip(self.plans, self.signed, strict=True)]
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

    def quantized(self, number: int, x: Tensor) -> Tensor:
        """Return a tensor as its point stores it."""
        if self._calibration is not None:
            name = self.plans[number].point.name
            self._calibration.observe(name, x)
            self.scales.set_size(name, x.numel() // max(len(x), 1) if x.dim() else 1)
            return x
        if self._traced:
            low, high = _WIDE
            bits, step = max(self.plans[number].bits), x.new_full((1,), 2.0**-10)
            return fake_quantize(x, step, [bits], [low], [high], 0, str(number), "")
        how = self._current().activations[number]
        inside = self.plans[number].learns_inside
        return mixed_activation(x, how.scales, how.shares, how.grids, inside)

    def weight(self, number: int, parameter: Tensor) -> Tensor:
        """Return a weight as its channels store it."""
        if self._traced or self._calibration is not None:
            return parameter
        own, now = self.layers[number], self._current()
        scales = self._weight_scales(number, parameter, now)
        now.scales[number] = scales
        return mixed_weight(parameter, scales, now.weights[number], own.grids, axis=own.layer.axis)

    def _weight_scales(self, number: int, parameter: Tensor, now: Now) -> Tensor:
        """Return what one step of each option is worth, shape ``(channels, options)``."""
        own, least = self.layers[number], None
        if own.layer.bias is not None and own.layer.point >= 0:
            bias = _stored(self._model[0], own.layer.bias).detach()
            step = now.activations[own.layer.point].scales.detach().amin()
            least = least_scales(bias, step)
            least = least.amax().expand(own.channels) if own.layer.whole else least
        scales = WEIGHT_RULES[own.rule](parameter, own.layer.axis, own.grids, least)
        return scales.amax(0, keepdim=True).expand(scales.shape) if own.layer.whole else scales

    def bias(self, number: int, bias: Tensor) -> Tensor:
        """Return a bias as its layer adds it: rounded where its precision is decided."""
        own, now = self.layers[number], self._current()
        if self._traced or self._calibration is not None or not now.decided[number]:
            return bias
        return quantize_bias(bias, self.bias_scale(number, now))

    def bias_scale(self, number: int, now: Now) -> Tensor:
        """Return what one step of a bias is worth, shape ``(channels,)``."""
        own = self.layers[number]
        if number not in now.scales:
            now.scales[number] = self._weight_scales(number, _stored(self._model[0], own.name), now)
        scales, shares = now.scales[number], now.weights[number]
        steps = scales[:, 0] if shares is None else (scales * shares).sum(1)
        steps = steps[:1] if own.layer.whole else steps
        return (steps * now.activations[own.layer.point].scales[0]).detach()

    # What it costs, and what comes out.

    def entries(self) -> Tensor | None:
        assert self._entries is not None
        return self._entries.soft(self, self._alive[0].soft())

    def hard_entries(self) -> Tensor | None:
        assert self._entries is not None
        return self._entries.hard(self, self._alive[0].hard().float())

    def variants(self) -> Mapping[int, Sequence[Variant]]:
        return self._variants

    def decisions(self) -> Hashable:
        banks = (self.activations, self.weights)
        return tuple(b.chosen().cpu().numpy().tobytes() for b in banks if b is not None)

    def export(self, model: nn.Module) -> nn.Module:
        return exported(self, model, self._model[0])

    def chosen(self) -> list[list[Option]]:
        """Return what each channel of each layer takes now, removed channels aside."""
        if self.weights is None:
            return [[w.options[0]] * w.channels for w in self.layers]
        kept = kept_choice(self.weights, self.removes)
        return [[w.options[i] for i in chosen_of(w, kept).tolist()] for w in self.layers]

    def chosen_bits(self) -> list[int]:
        """Return the precision of each point now."""
        if self.activations is None:
            return [plan.bits[0] for plan in self.plans]
        chosen = self.activations.chosen().tolist()
        pairs = zip(self.plans, self.point_columns, chosen, strict=True)
        return [plan.bits[own.index(c)] for plan, own, c in pairs]

    def knobs(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if n.endswith("logits")}

    def undecayed(self) -> list[nn.Parameter]:
        return list(self.scales.parameters())

    def project(self) -> None:
        self.scales.project()

    # Ranges.

    def calibrate(self, data: Iterable[Any], percentile: float = 100.0) -> None:
        """Set the ranges of all tensors by running batches; see ``MPS.calibrate``."""
        model = self._model[0]
        with self._observing() as calibration:
            for batch in data:
                observed(model, *_arguments(batch, self._inputs))
        self._set_ranges(calibration, percentile)
        self.calibrated = True

    @contextmanager
    def _observing(self) -> Iterator[Calibration]:
        self._calibration = Calibration()
        try:
            yield self._calibration
        finally:
            self._calibration = None

    def _set_ranges(self, calibration: Calibration, percentile: float) -> None:
        for number, plan in enumerate(self.plans):
            name = plan.point.name
            if plan.point.given and calibration.low(name) >= 0:
                self.signed[number] = False
                self.scales.regrid(name, _grids(plan, False))
            self.scales.set_range(name, calibration.range(name, percentile))


def _grids(plan: PointPlan, signed: bool) -> tuple[Grid, ...]:
    return tuple(activation_grid(bits, signed) for bits in plan.bits)


def _stored(model: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter as it is stored."""
    path, _, attribute = name.rpartition(".")
    found = model.get_submodule(path)._parameters[attribute]
    assert found is not None
    return found


def _arguments(batch: Any, example: tuple[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the network takes of a batch, which may hold labels too."""
    args, kwargs = example
    if isinstance(batch, Mapping):
        return (), {name: value for name, value in batch.items() if name in kwargs}
    if isinstance(batch, (tuple, list)):
        return tuple(batch[: max(len(args), 1)]), {}
    return (batch,), {}


class _WeightTransform:
    def __init__(self, method: QuantizedMethod, number: int) -> None:
        self.method, self.number = method, number

    def __call__(self, module: nn.Module, parameter: Tensor) -> Tensor:
        return self.method.weight(self.number, parameter)


class _BiasTransform(_WeightTransform):
    def __call__(self, module: nn.Module, parameter: Tensor) -> Tensor:
        return self.method.bias(self.number, parameter)
