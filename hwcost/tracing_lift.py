"""From recorded calls to the rows of an op table, with the memory that their outputs take."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hwcost.ops import KINDS
from hwcost.recorder_values import Call, Recording, Ref, refs_in
from hwcost.tracing_facts import Facts, Row
from hwcost.tracing_light import flat, handler_of
from hwcost.tracing_memory import Memory
from hwcost.tracing_names import Named, names
from hwcost.tracing_patterns import attentions
from hwcost.workload import Buffers

#: Composites whose copies are torch's way to reach a matrix product, not the model's.
_NO_COPIES_IN = frozenset({"einsum", "tensordot", "inner", "kron", "chain_matmul"})

#: Operators that pad by themselves -> the number they pad with.
_PADDING = {
    "aten.convolution": 0.0,
    "aten.max_pool1d": float("-inf"),
    "aten.max_pool2d_with_indices": float("-inf"),
    "aten.max_pool3d_with_indices": float("-inf"),
}


@dataclass(frozen=True, slots=True)
class Lifted:
    """Rows as columns of equal length, buffers, and a line for each op that nobody knew."""

    kinds: Sequence[str]
    sizes: Sequence[dict[str, float]]
    functions: Sequence[str]
    layers: Sequence[str]
    buffers: Buffers
    warnings: tuple[str, ...]


def lift(recording: Recording) -> Lifted:
    """Return the rows of a recording, in order; one row is one op.

    What does not depend on the model's inputs is computed before inference and has no row, nor
    have views. A call that nobody knows has a row of kind ``unknown`` and a warning.
    """
    lifting = _Lifting(recording)
    for index, call in enumerate(recording.calls):
        lifting.add(index, call)
    return lifting.finished()


class _Lifting:
    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.facts = facts = Facts(recording)
        for parameter in recording.parameters:
            storage = facts.storage(parameter)
            facts.sources[storage] = facts.parameters_of([parameter]) | {parameter}
        facts.data |= {facts.storage(r) for r in recording.inputs}
        self.readers = self._find_readers()
        reads = Counter({storage: len(calls) for storage, calls in self.readers.items()})
        reads.update({facts.storage(r) for r in recording.outputs})
        self.memory = Memory(facts, reads)
        self.patterns = attentions(facts)
        self.rows: list[tuple[str, dict[str, float]]] = []
        self.named: list[Named] = []
        self.unknown: list[tuple[int, str]] = []
        self.stored: set[object] = set()

    def _find_readers(self) -> dict[int, list[Call]]:
        """Return the calls that read each storage; views and factories read nothing."""
        readers: dict[int, list[Call]] = {}
        for call in self.recording.calls:
            if not _is_factory(call) and (call.op.writes or self._new_outputs(call)):
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
        if not (new or written) or _is_factory(call):
            return
        changed = {facts.storage(r) for r in (*new, *written)}
        if not self._is_live(call, written):
            sources = facts.parameters_of(call.inputs)
            for storage in changed if sources else ():
                facts.sources[storage] = facts.sources.get(storage, frozenset()) | sources
            return
        if not self._is_absorbed(index, call, new):
            pattern = self.patterns.get(index)
            inputs, rows = call.inputs, self._rows_of(call) if pattern is None else [pattern.row]
            function = call.outer or call.op.name.partition(".")[2].strip("_")
            if pattern is not None:
                inputs, function = pattern.inputs, pattern.function
                new = [*new, pattern.extra]
            self._emit(_Run(call.scope, function, inputs, rows, new, written))
        facts.data |= changed

    def _is_live(self, call: Call, written: Sequence[Ref]) -> bool:
        """Whether the call runs at every inference: it depends on an input or on chance."""
        if any(self.facts.is_data(r) for r in call.inputs) or not self.recording.inputs:
            return True
        return call.op.random and not self.facts.parameters_of(call.inputs)

    def _is_absorbed(self, index: int, call: Call, new: Sequence[Ref]) -> bool:
        """Whether the call only prepares an op that, in hardware, does this itself."""
        if self.patterns.get(index, call) is None:
            return True
        copies = call.op.name in ("aten.clone", "aten._to_copy")
        pads = self._is_padding_of_its_readers(call)
        for ref in new if pads else ():
            source = self.facts.before_padding(call.args[0])
            self.facts.unpadded[self.facts.storage(ref)] = source
        if pads or (copies and call.outer in _NO_COPIES_IN):
            self.memory.share(call.args[0], new)
            return True
        return False

    def _is_padding_of_its_readers(self, call: Call) -> bool:
        """Whether all that read a padded tensor could pad by themselves, as `same` padding does."""
        if call.op.name != "aten.constant_pad_nd":
            return False
        pad, value = call.arg("pad"), float(call.arg("value") or 0)
        storage = self.facts.storage(call.outputs[0])
        rank = len(self.facts.shape(call.outputs[0])) - 2
        if (
            min(pad) < 0
            or len(pad) > 2 * rank
            or any(self.facts.storage(r) == storage for r in self.recording.outputs)
        ):
            return False
        readers = self.readers.get(storage, [])
        return bool(readers) and all(
            _PADDING.get(r.op.name) == value
            and not r.arg("transposed")
            and self.facts.storage(r.args[0]) == storage
            for r in readers
        )

    def _rows_of(self, index: int, call: Call) -> list[Row]:
        known = self.patterns.get(index)
        if known is not None:
            return [known]
        handler = handler_of(call)
        if handler is None:
            self.unknown.append((len(self.rows), f"{call.op.name}.{call.op.overload}"))
            handler = flat("unknown")
        return handler(call, self.facts)

    def _emit(
        self, call: Call, rows: Sequence[Row], new: Sequence[Ref], written: Sequence[Ref]
    ) -> None:
        base = len(self.rows)
        passed_on = {i for row in rows for i in row.after}
        final = [i for i, row in enumerate(rows) if i not in passed_on and not row.internal]
        for i, row in enumerate(rows):
            if row.after:
                self.memory.read_rows([base + j for j in row.after], base + i)
            else:
                self.memory.read(call.inputs, base + i)
            if i in passed_on:
                self.memory.write_row(base + i, row.out)
        fused = self._place(call, rows, [base + i for i in final], new, written)
        function = call.outer or call.op.name.partition(".")[2].strip("_")
        for row in rows:
            weight = self._name_of(row.weight)
            self.named.append(Named(call.scope, function, weight, row.part))
            self.rows.append((row.kind, {**self._flagged(row), "fused": float(fused)}))

    def _place(
        self,
        call: Call,
        rows: Sequence[Row],
        final: Sequence[int],
        new: Sequence[Ref],
        written: Sequence[Ref],
    ) -> bool:
        """Give the results of a call their memory; return whether it is one of its inputs'."""
        if not new:
            for ref in written:
                if not self.memory.has(ref):
                    self._write(ref, rows, final)
                    return False
            return True
        data = [r for r in call.inputs if self.facts.is_data(r)]
        if rows[0].fusable and len(data) == 1 and self.memory.may_overwrite(data[0], new[0]):
            self.memory.share(data[0], new)
            return True
        for i, ref in enumerate(new):
            if i == 0 or self.memory.reads[self.facts.storage(ref)]:
                self._write(ref, rows, final)
        return False

    def _write(self, ref: Ref, rows: Sequence[Row], final: Sequence[int]) -> None:
        base = len(self.rows)
        self.memory.write(ref, final, [rows[i - base].out for i in final])

    def _name_of(self, weight: Ref | None) -> str:
        sources = self.facts.parameters_of([weight]) if weight is not None else frozenset()
        return self.recording.parameters[next(iter(sources))] if len(sources) == 1 else ""

    def _flagged(self, row: Row) -> dict[str, float]:
        """Return the sizes with ``coeffs`` and with what of the weights counts as stored."""
        if "coeffs" not in KINDS[row.kind].sizes:
            once, bias_once = self._first(row.weight), self._first(row.bias)
            return {**row.sizes, "w_once": float(once), "bias_once": float(bias_once)}
        operands = self.facts.parameters_of(row.operands)
        new = [p for p in sorted(operands) if self._first(p)]
        coeffs = sum(self.facts.info(p).numel for p in new or operands)
        once = bool(new) or not operands
        return {**row.sizes, "coeffs": coeffs, "w_once": float(once), "bias_once": 1.0}

    def _first(self, ref: Ref | None) -> bool:
        """Whether a constant is read for the first time; what is computed is not stored."""
        if ref is None:
            return True
        if self.facts.is_data(ref):
            return False
        info = self.facts.info(ref)
        sources = self.facts.parameters_of([ref])
        own = any(self.facts.storage(p) == info.storage for p in sources)
        # A weight derived anew at each use (weight_norm) has its parameters' identity.
        place: object = sources if sources and not own else info.storage
        key = place, info.offset, info.distinct
        if key in self.stored:
            return False
        self.stored.add(key)
        return True

    def finished(self) -> Lifted:
        """Return all rows, named."""
        layers = names(self.recording.scopes, self.named)
        return Lifted(
            kinds=[kind for kind, _ in self.rows],
            sizes=[sizes for _, sizes in self.rows],
            functions=[named.function for named in self.named],
            layers=layers,
            buffers=self.memory.finished(len(self.rows)),
            warnings=tuple(_warning(layers[row], op) for row, op in self.unknown),
        )


def _warning(layer: str, op: str) -> str:
    return f"layer {layer!r}: {op!r} is an op of no known kind; it is a row of kind 'unknown'"


def _is_factory(call: Call) -> bool:
    """Whether the call only takes shape and type from its inputs."""
    name = call.op.name.rpartition(".")[2]
    return not call.op.random and (name.startswith("new_") or name.endswith("_like"))
