"""The op table of a network that is quantized: which rows have which precisions, how probably."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwcost.recorder_values import Recording, Ref
from hwcost.search.choices import without
from hwcost.search.points_weights import WEIGHTED
from hwcost.search.quantized_layers import Weight
from hwcost.search.quantized_now import kept_choice
from hwcost.search.table import Count
from hwcost.search.variants import Variant
from hwcost.tracing import Traced

if TYPE_CHECKING:
    from hwcost.search.base import Search
    from hwcost.search.quantized import QuantizedMethod


@dataclass(frozen=True)
class Slice:
    """Output channels of a weight that a row computes.

    Attributes:
        number: of the weight.
        start: the first of its channels.
        stop: one after the last.
    """

    number: int
    start: int
    stop: int


@dataclass(eq=False)
class Entries:
    """Places of shares and probabilities in the vector of decisions.

    First, for every slice, a share for each option of its weight; then, for every point with
    several precisions, a probability for each.

    Attributes:
        slices: what rows compute; row of the table -> its slice.
        start: where they begin in the vector.
        total: how many entries there are.
    """

    slices: tuple[Slice, ...]
    of_row: Mapping[int, Slice]
    places: Mapping[Slice, int]
    points: Mapping[int, int]
    total: int
    rows: Tensor
    classes: Tensor
    group: Tensor
    start: int = 0

    def share(self, part: Slice, option: int) -> Count:
        """Return the count of a slice's share at an option."""
        return Count((self.start + self.places[part] + option,))

    def probability(self, point: int, choice: int) -> Count:
        """Return the count of a point's probability of a precision."""
        return Count((self.start + self.points[point] + choice,))

    def soft(self, method: "QuantizedMethod", alive: Tensor) -> Tensor:
        """Return the expected shares, shape ``(total,)``.

        Args:
            alive: share of each class of channels.
        """
        weights = None
        if method.weights is not None:
            weights = method.weights.probabilities()
            weights = without(weights, 0) if method.removes else weights
        acts = None if method.activations is None else method.activations.probabilities()
        return self._vector(method, weights, acts, alive)

    def hard(self, method: "QuantizedMethod", alive: Tensor) -> Tensor:
        """Return the shares of what an export would be made of, on the CPU."""
        weights = acts = None
        if method.weights is not None:
            kept = kept_choice(method.weights, method.removes).cpu()
            weights = torch.nn.functional.one_hot(kept, self._options(method)).float()
        if method.activations is not None:
            bank = method.activations
            acts = torch.nn.functional.one_hot(bank.chosen().cpu(), bank.logits.shape[1]).float()
        return self._vector(method, weights, acts, alive)

    def _options(self, method: "QuantizedMethod") -> int:
        return len(method.options) - method.removes

    def _vector(
        self,
        method: "QuantizedMethod",
        weights: Tensor | None,
        acts: Tensor | None,
        alive: Tensor,
    ) -> Tensor:
        device = alive.device
        padded = torch.cat([alive, alive.new_ones(1)])
        lives = padded[self.classes.to(device)].double()
        if weights is None:
            shares = lives.new_ones(len(lives), self._options(method))
        else:
            shares = weights.double()[self.rows.to(device)]
        shares = shares * lives[:, None]
        group = self.group.to(device)
        sums = shares.new_zeros(len(self.slices), shares.shape[1]).index_add(0, group, shares)
        sizes = torch.tensor([s.stop - s.start for s in self.slices], device=device)
        flat = [(sums / sizes[:, None]).flatten()]
        if acts is not None:
            flat.append(acts.double().flatten())
        return torch.cat(flat)


def entries_of(method: "QuantizedMethod", search: "Search") -> Entries:
    """Return which rows compute which channels, and where their shares stand."""
    of_row = dict(_slices(method, search))
    slices = tuple(dict.fromkeys(of_row.values()))
    options = len(method.options) - method.removes
    places = {part: number * options for number, part in enumerate(slices)}
    total = len(slices) * options
    points: dict[int, int] = {}
    if method.activations is not None:
        width = method.activations.logits.shape[1]
        points = {number: total + number * width for number in range(len(method.plans))}
        total += len(method.plans) * width
    rows, classes, group = [], [], []
    for number, part in enumerate(slices):
        weight = method.layers[part.number]
        for channel in range(part.start, part.stop):
            rows.append(weight.rows.start + (channel if weight.by_channel else 0))
            classes.append(int(weight.classes[channel]) if weight.by_channel else -1)
            group.append(number)
    columns = [torch.tensor(one, dtype=torch.int64) for one in (rows, classes, group)]
    return Entries(slices, of_row, places, points, total, columns[0], columns[1], columns[2])


def rows_of_weights(traced: Traced) -> Iterator[tuple[int, Ref, Ref]]:
    """Yield every row that multiplies by a parameter: the row, what it reads, the parameter."""
    recording = traced.recording
    stored = {recording.tensors[ref].storage: ref for ref in recording.parameters}
    for row, index in enumerate(traced.calls):
        call = recording.calls[index]
        ref = call.arg(WEIGHTED.get(call.op.name, ""))
        if type(ref) is Ref and recording.tensors[ref].storage in stored:
            yield row, ref, stored[recording.tensors[ref].storage]


def _slices(method: "QuantizedMethod", search: "Search") -> Iterator[tuple[int, Slice]]:
    recording = search.traced.recording
    for row, ref, whole in rows_of_weights(search.traced):
        number = method.numbers.get(recording.parameters[whole])
        if number is not None:
            yield row, _slice(recording, ref, whole, number, method.layers[number])


def _slice(recording: Recording, ref: Ref, whole: Ref, number: int, weight: Weight) -> Slice:
    """Return which channels a view of a weight has; a part of it is a part of its rows."""
    view, full = recording.tensors[ref], recording.tensors[whole]
    if view.numel == full.numel:
        return Slice(number, 0, weight.channels)
    start = (view.offset - full.offset) // max(full.stride[0], 1)
    return Slice(number, start, start + view.shape[0])


def variants_of(
    method: "QuantizedMethod", search: "Search", entries: Entries
) -> dict[int, list[Variant]]:
    """Return how every row that is quantized runs."""
    recording = search.traced.recording
    found = {}
    for row, which in enumerate(search.traced.quantizers):
        read, made = (_point(recording, index) for index in (which.read, which.made))
        part = entries.of_row.get(row)
        variants = list(_variants(method, search, entries, row, part, read, made))
        if part is not None or len(variants) > 1:
            found[row] = variants
    return found


def _point(recording: Recording, index: int) -> int:
    return -1 if index < 0 else int(recording.calls[index].arg("label"))


def _variants(
    method: "QuantizedMethod",
    search: "Search",
    entries: Entries,
    row: int,
    part: Slice | None,
    read: int,
    made: int,
) -> Iterator[Variant]:
    """Yield every combination of precisions of a row, with its probability or share."""
    weight = None if part is None else method.layers[part.number]
    reads, makes = _choices(method, read), _choices(method, made)
    case = 0
    for (r, a_bits), (m, o_bits) in product(reads, makes):
        if read == made and r != m:
            continue
        sizes = {} if a_bits is None else {"a_bits": float(a_bits)}
        sizes |= {} if o_bits is None else {"o_bits": float(o_bits)}
        pairs = {read: r, made: m}
        counts = [entries.probability(p, c) for p, c in pairs.items() if c is not None]
        if weight is None or part is None:
            yield Variant(sizes, factors={"weight": tuple(counts)}, case=case)
            case += 1
            continue
        for number, option in enumerate(weight.options):
            column = weight.columns[number]
            own = {**sizes, "w_bits": float(option.bits)}
            share = entries.share(part, column)
            engine = option.engine or None
            if weight.by_channel:
                parts = dict.fromkeys(_shrinking(search, row), share)
                yield Variant(own, parts, {"weight": tuple(counts)}, case, engine)
                continue
            chosen = (share,) if len(weight.options) > 1 else ()
            yield Variant(own, {}, {"weight": (*counts, *chosen)}, case, engine)
            case += 1
        case += weight.by_channel


def _choices(method: "QuantizedMethod", point: int) -> Sequence[tuple[int | None, int | None]]:
    """Return the columns and precisions of a point; None where there is nothing to choose."""
    if point < 0:
        return [(None, None)]
    plan = method.plans[point]
    if len(plan.bits) == 1:
        return [(None, plan.bits[0])]
    return list(zip(method.point_columns[point], plan.bits, strict=True))


def _shrinking(search: "Search", row: int) -> list[str]:
    """Return the columns that shrink with the output channels that a precision has."""
    traced = search.traced.workload.structure.traced
    cin, cout, groups = (float(traced[name][row]) for name in ("cin", "cout", "groups"))
    depthwise = groups == cin and groups > 1 and cout % groups == 0
    return ["cout", "cin", "groups"] if depthwise else ["cout"]
