"""From recorded calls to the rows of an op table, with the memory that their outputs take."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from hwcost.recorder_alternatives import ALTERNATIVES
from hwcost.recorder_quantize import FAKE_QUANTIZE
from hwcost.recorder_values import Call, Recording, Ref, refs_in
from hwcost.structure import Buffers
from hwcost.tracing_bits import Quantizers
from hwcost.tracing_facts import Facts, Row, from_outside, is_factory
from hwcost.tracing_light import flat, handler_of
from hwcost.tracing_memory import Memory
from hwcost.tracing_names import Named, names, plain_name
from hwcost.tracing_parallel import joins, merged_buffers, merged_ops, whole_sizes
from hwcost.tracing_patterns import attentions, is_padding
from hwcost.tracing_split import Part, Precisions, part_sizes
from hwcost.tracing_stored import Stored

#: Composites whose copies are torch's way to reach a matrix product, not the model's.
_NO_COPIES_IN = frozenset({"einsum", "tensordot", "inner", "kron", "chain_matmul"})


#: Layers also run at every inference on what is constant, such as learned queries: no compiler
#: can be trusted to compute them before.
_LAYERS = frozenset(
    f"aten.{name}"
    for name in (
        *("linear", "convolution", "_convolution", "scaled_dot_product_attention"),
        *("batch_norm", "native_layer_norm", "native_group_norm", "rms_norm"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"),
        *("rnn_tanh_cell", "rnn_relu_cell"),
    )
)


@dataclass(frozen=True, slots=True)
class Lifted:
    """Rows as columns of equal length, buffers, and a line for each op that nobody knew.

    ``calls`` is the index of the recorded call that each row stands for, the last where it stands
    for several. ``ops`` is the op of each row: a layer whose channels differ in bits or engine is
    several rows, and so are layers that engines compute parts of. ``unsplit`` is then the sizes
    of all its channels, of every row. ``weights`` is the constants that it multiplies by.
    """

    kinds: Sequence[str]
    sizes: Sequence[dict[str, float]]
    functions: Sequence[str]
    layers: Sequence[str]
    calls: Sequence[int]
    ops: Sequence[int]
    engines: Sequence[str | None]
    quantizers: Sequence[Quantizers]
    unsplit: Sequence[dict[str, float]]
    weights: Sequence[tuple[Ref, ...]]
    buffers: Buffers
    warnings: tuple[str, ...]
    samples: int


def lift(recording: Recording) -> Lifted:
    """Return the rows of a recording, in order; one row is one op.

    What does not depend on the model's inputs is computed before inference and has no row, unless
    it is a layer; nor have views. A call that nobody knows has a row of kind ``unknown``, and a
    warning.
    """
    lifting = _Lifting(recording, from_outside(recording, literals=False))
    if recording.how == "real" and not any(map(lifting.facts.is_data, recording.outputs)):
        # Nothing links the results to the inputs: the numbers went through numpy, or lists.
        lifting = _Lifting(recording, from_outside(recording, literals=True))
    return lifting.finished()


class _Run(NamedTuple):
    """A call that became rows: where, which function, what it read, made and overwrote."""

    scope: int
    function: str
    inputs: Sequence[Ref]
    rows: Sequence[Row]
    new: Sequence[Ref]
    written: Sequence[Ref]


#: Kinds whose batch is that of the network, or a multiple where dimensions are folded into it.
_BATCHED = ("conv", "conv_transpose", "pool", "rnn", "attention")


class _Lifting:
    def __init__(self, recording: Recording, outside: Iterable[Ref]) -> None:
        self.recording = recording
        self.facts = facts = Facts(recording)
        for parameter in recording.parameters:
            storage = facts.storage(parameter)
            facts.sources[storage] = facts.parameters_of([parameter]) | {parameter}
        facts.data |= {facts.storage(r) for r in (*recording.inputs, *outside)}
        self.readers = self._find_readers()
        reads = Counter({storage: len(calls) for storage, calls in self.readers.items()})
        reads.update({facts.storage(r) for r in recording.outputs})
        self.memory = Memory(facts, reads)
        self.patterns = attentions(facts)
        self.rows: list[tuple[str, dict[str, float]]] = []
        self.named: list[Named] = []
        self.calls: list[int] = []
        self.precisions = Precisions(facts)
        self.joins = joins(recording, self.precisions.rounding)
        self.quantizers: list[Quantizers] = []
        self.parts: list[Sequence[Part]] = []
        self.weights: list[tuple[Ref, ...]] = []
        self.unknown: list[tuple[int, str]] = []
        self.stored = Stored(facts)
        for index, call in enumerate(recording.calls):
            self.add(index, call)
        self.samples = self._count_samples()

    def _count_samples(self) -> int:
        """Return the network's batch and give it to linear rows; the rest are positions.

        A sequence-first tensor (tokens, samples, features) and windows folded into the batch
        look like many samples to the layer, but its weights stream over all of them at once.
        """
        certain = [int(sizes["batch"]) for kind, sizes in self.rows if kind in _BATCHED]
        shapes = [self.facts.shape(r) for r in self.recording.inputs]
        samples = gcd(*certain, *(shape[0] for shape in shapes[:1] if len(shape) > 1))
        for kind, sizes in self.rows:
            vectors = sizes["batch"] * sizes["positions"] if kind == "linear" else 0
            if samples and vectors and vectors % samples == 0:
                sizes |= {"batch": samples, "positions": vectors / samples}
        return samples or 1

    def _find_readers(self) -> dict[int, list[Call]]:
        """Return the calls that read each storage; views and factories read nothing."""
        readers: dict[int, list[Call]] = {}
        for call in self.recording.calls:
            if not is_factory(call) and (call.op.writes or self._new_outputs(call)):
                for storage in {self.facts.storage(r) for r in call.inputs}:
                    readers.setdefault(storage, []).append(call)
        return readers

    def _new_outputs(self, call: Call) -> list[Ref]:
        """Return the results in memory of their own; a view has none."""
        given = {self.facts.storage(r) for r in call.inputs}
        return [r for r in call.outputs if self.facts.storage(r) not in given]

    def add(self, index: int, call: Call) -> None:
        """Add the rows of a call, if it computes something at inference."""
        facts = self.facts
        written = refs_in([call.arg(name) for name in call.op.writes])
        new = self._new_outputs(call)
        if not (new or written) or is_factory(call):
            return
        changed = {facts.storage(r) for r in (*new, *written)}
        if not self._is_live(call):
            rounds = call.op.name == FAKE_QUANTIZE
            sources = facts.parameters_of(call.args[:1] if rounds else call.inputs)
            for storage in changed if sources else ():
                facts.sources[storage] = facts.sources.get(storage, frozenset()) | sources
                if rounds:
                    facts.rounded[storage] = call.args[0]
            return
        if not self._is_absorbed(index, call, new):
            self._emit(self._run_of(index, call, new, written), call)
            self.calls += [index] * (len(self.rows) - len(self.calls))
        facts.data |= changed

    def _is_live(self, call: Call) -> bool:
        """Whether the call runs at every inference: it depends on an input or on chance."""
        if any(self.facts.is_data(r) for r in call.inputs) or not self.recording.inputs:
            return True
        if call.op.name in _LAYERS:
            return "parametrizations" not in self.recording.scopes[call.scope].path.split(".")
        return call.op.random and not self.facts.parameters_of(call.inputs)

    def _is_absorbed(self, index: int, call: Call, new: Sequence[Ref]) -> bool:
        """Whether the call only prepares an op that, in hardware, does this itself."""
        if self.patterns.get(index, call) is None:
            return True
        copies = call.op.name in ("aten.clone", "aten._to_copy")
        pads = is_padding(call, self.facts, self.readers)
        for ref in new if pads else ():
            source = self.facts.before_padding(call.args[0])
            self.facts.unpadded[self.facts.storage(ref)] = source
        if pads or (copies and call.outer in _NO_COPIES_IN):
            self.memory.share(call.args[0], new)
            return True
        if call.op.name == FAKE_QUANTIZE:
            self.memory.share_all(call.args[0], new)
            return True
        if call.op.name == ALTERNATIVES or index in self.joins.parts:
            self.memory.share_any(call.inputs, new)
            return True
        if index in self.joins.picks:
            self.memory.share(call.args[0], new)
            return True
        return False

    def _run_of(self, index: int, call: Call, new: Sequence[Ref], written: Sequence[Ref]) -> "_Run":
        pattern = self.patterns.get(index)
        if pattern is not None:
            shared = self.memory.reads[self.facts.storage(pattern.extra)] > 1
            new = [*new, pattern.extra] if shared else new
            return _Run(call.scope, pattern.function, pattern.inputs, [pattern.row], new, written)
        handler = handler_of(call, self.facts)
        if handler is None:
            self.unknown.append((len(self.rows), f"{call.op.name}.{call.op.overload}"))
            handler = flat("unknown")
        function = call.outer or call.op.name.partition(".")[2].strip("_")
        return _Run(call.scope, function, call.inputs, handler(call, self.facts), new, written)

    def _emit(self, run: "_Run", call: Call) -> None:
        base = len(self.rows)
        passed_on = {i for row in run.rows for i in row.after}
        final = [i for i, row in enumerate(run.rows) if i not in passed_on and not row.internal]
        for i, row in enumerate(run.rows):
            if row.after:
                self.memory.read_rows([base + j for j in row.after], base + i)
            else:
                self.memory.read(run.inputs, base + i)
            if i in passed_on:
                self.memory.write_row(base + i, row.out)
        fused = self._place(run, {base + i: run.rows[i].out for i in final})
        results = call.outputs or run.written
        for i, row in enumerate(run.rows):
            weight = self._name_of(row.weight)
            self.named.append(Named(run.scope, run.function, weight, row.part))
            found = self.precisions.quantizers(row, run.inputs, results if i in final else ())
            self.quantizers.append(found)
            self.parts.append(self.precisions.parts(row, call, found))
            self.weights.append(self.facts.constants(row))
            sizes = {**self.stored.flagged(row), "fused": float(fused)}
            self.rows.append((row.kind, sizes | self.precisions.sizes(found)))

    def _place(self, run: "_Run", final: Mapping[int, int]) -> bool:
        """Give a call's results memory; return whether it is an input's.

        Args:
            run: the call.
            final: the rows that write its results, and how many numbers each.
        """
        if not run.new:
            fresh = [ref for ref in run.written if not self.memory.has(ref)]
            for ref in fresh:
                self.memory.write(ref, final)
            return not fresh
        data = [r for r in run.inputs if self.facts.is_data(r)]
        fusable = run.rows[0].fusable and len(data) == 1
        if fusable and self.memory.may_overwrite(data[0], run.new[0]):
            self.memory.share(data[0], run.new)
            return True
        for i, ref in enumerate(run.new):
            if i == 0 or self.memory.reads[self.facts.storage(ref)]:
                self.memory.write(ref, final)
        return False

    def _name_of(self, weight: Ref | None) -> str:
        sources = self.facts.parameters_of([weight]) if weight is not None else frozenset()
        found = {plain_name(self.recording.parameters[source]) for source in sources}
        return found.pop() if len(found) == 1 else ""

    def finished(self) -> Lifted:
        """Return all rows, named."""
        layers = names(self.recording.scopes, self.named)
        whole = [(row, part) for row, parts in enumerate(self.parts) for part in parts]
        rows = [row for row, _ in whole]
        ops = merged_ops(self.calls, self.joins.parts)
        unsplit = whole_sizes(self.rows, ops)
        return Lifted(
            kinds=[self.rows[row][0] for row in rows],
            sizes=[part_sizes(*self.rows[row], part) for row, part in whole],
            functions=[self.named[row].function for row in rows],
            layers=[layers[row] for row in rows],
            calls=[self.calls[row] for row in rows],
            ops=[ops[row] for row in rows],
            engines=[part.engine for _, part in whole],
            quantizers=[self.quantizers[row] for row in rows],
            unsplit=[unsplit[row] for row in rows],
            weights=[self.weights[row] for row in rows],
            buffers=merged_buffers(self.memory.finished(len(self.rows)), ops),
            warnings=tuple(_warning(layers[row], op) for row, op in self.unknown),
            samples=self.samples,
        )


def _warning(layer: str, op: str) -> str:
    return f"layer {layer!r}: {op!r} is an op of no known kind; it is a row of kind 'unknown'"
