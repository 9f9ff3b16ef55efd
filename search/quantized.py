"""A method that quantizes a network: what MPS and ODiMO have in common."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.choices import ChoiceBank
from hwcost.search.method import Trace
from hwcost.search.options import Option
from hwcost.search.pit_layers import layer_of
from hwcost.search.points import Layer, Points
from hwcost.search.quantize import WEIGHT_RULES
from hwcost.search.quantized_export import exported
from hwcost.search.quantized_install import PointPlan, install, observed
from hwcost.search.quantized_layers import Weight, chosen_of, classes_of, titles
from hwcost.search.quantized_now import kept_choice
from hwcost.search.quantized_pruning import removal
from hwcost.search.quantized_state import grids_of
from hwcost.search.quantized_step import BiasTransform, QuantizedStep, WeightTransform, stored
from hwcost.search.quantized_table import Slice, entries_of, variants_of
from hwcost.search.swap import add_transform, drop_forward, owners
from hwcost.search.variants import Variant, expanded
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.search.base import Search


class QuantizedMethod(QuantizedStep):
    """Quantizes weights, biases and tensors; each weight channel or layer has options.

    A subclass says which: see ``weights_for``.
    """

    order = 1

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
            self.scales.add(plan.point.name, plan.quantizer, grids_of(plan, signed))
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
        # Of this process alone: others may not make a search now.
        self._set_ranges(self._ends(calibration, 100.0))

    def _weights(
        self, search: "Search", taken: Sequence[tuple[Layer, Sequence[Option], str]]
    ) -> list[Weight]:
        """Return weights of layers, their options, removal among them maybe, and their rules."""
        found: list[Weight] = []
        start = 0
        for layer, options, rule in taken:
            kept = tuple(option for option in options if option.bits)
            channels = stored(search.model, layer.weight).shape[layer.axis]
            by_channel = self.granularity == "channel" and not layer.whole
            stop = start + (channels if by_channel else 1)
            weight = Weight(
                layer=layer,
                path=layer_of(layer.weight),
                channels=channels,
                options=kept,
                columns=tuple(self.options.index(option) - self.removes for option in kept),
                rows=slice(start, stop),
                by_channel=by_channel,
                classes=classes_of(search.channels, layer, channels),
                rule=rule,
            )
            found.append(weight)
            start = stop
        return found

    def attach(self, search: "Search") -> None:
        self._traced = False
        self.layers = tuple(self.weights_for(search, self._points))
        if not self.layers:
            raise SearchError(f"{type(search.model).__name__} has no layer to quantize")
        self.numbers = {weight.name: number for number, weight in enumerate(self.layers)}
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

    def finish(self, search: "Search") -> None:
        self._model = [search.model]
        self._learn_steps()
        for number, weight in enumerate(self.layers):
            parameter = stored(search.model, weight.name)
            for module, attribute in owners(search.model, parameter):
                add_transform(module, attribute, WeightTransform(self, number))
                drop_forward(module)
            if weight.layer.bias is not None and weight.layer.point >= 0:
                bias = stored(search.model, weight.layer.bias)
                for module, attribute in owners(search.model, bias):
                    add_transform(module, attribute, BiasTransform(self, number))

    # What it costs, and what comes out.

    def entries(self) -> Tensor | None:
        if self._entries is None:  # not attached yet
            return None
        return self._entries.soft(self, self._alive[0].soft())

    def binary_entries(self) -> Tensor | None:
        """Return zeros: no reader sees shares."""
        if self._entries is None:
            return None
        return torch.zeros(self._entries.total, device=self.scales.log2.device)

    def hard_entries(self) -> Tensor | None:
        assert self._entries is not None
        return self._entries.hard(self, self._alive[0].hard().float())

    def variants(self) -> Mapping[int, Sequence[Variant]]:
        return self._variants

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The output channels of weights that rows compute."""
        assert self._entries is not None
        return self._entries.slices

    def place(self, part: Slice, option: int) -> int:
        """Return where the share of a slice at an option stands in the vector of decisions."""
        assert self._entries is not None
        return self._entries.start + self._entries.places[part] + option

    def stored(self, number: int) -> nn.Parameter:
        """Return a weight as it is stored."""
        return stored(self._model[0], self.layers[number].name)

    def reference(self, workload: Workload) -> Workload:
        assert self._entries is not None
        best = {
            row: [_variant(max(self.layers[part.number].options))]
            for row, part in self._entries.of_row.items()
        }
        return expanded(workload, [], best)[0]

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

    def summary(self) -> list[str]:
        """Return a line for each layer: its options, with counts of channels; what it reads."""
        lines, bits, chosen = [], self.chosen_bits(), self.chosen()
        for number, (title, weight) in enumerate(
            zip(titles(self.layers), self.layers, strict=True)
        ):
            own = [chosen[number][i] for i in self.kept(number).tolist()]
            counts = {option: own.count(option) for option in weight.options if option in own}
            parts = [f"{o}" if len(counts) == 1 else f"{o} x{n}" for o, n in counts.items()]
            read = "float" if weight.layer.point < 0 else f"a{bits[weight.layer.point]}"
            lines.append(f"{title}: {', '.join([*parts, read])}")
        return [*lines, *self.missed]

    def _learn_steps(self) -> None:
        """Let scales of weights learn whose rule says so, from where the rule starts them."""
        now = self._compute(training=False)
        for number, weight in enumerate(self.layers):
            if WEIGHT_RULES[weight.rule].learned:
                start = self._weight_scales(number, self.stored(number).detach(), now)
                self.steps[str(number)] = nn.Parameter(start.log2())

    def knobs(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if n.endswith("logits")}

    def undecayed(self) -> list[nn.Parameter]:
        return [*self.scales.parameters(), *self.steps.values()]

    def project(self) -> None:
        self.scales.project()


def _variant(option: Option) -> Variant:
    """Return how a row runs that has one option."""
    return Variant({"w_bits": float(option.bits)}, engine=option.engine or None)
