"""Which sizes of a traced table depend on which channels."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from torch import Tensor

from hwcost.recorder_values import Call, Recording, Ref
from hwcost.search.channels import Channels, Field
from hwcost.search.channels_constants import WEIGHT_NORM
from hwcost.search.table import Cell, Count, Term
from hwcost.tracing import Traced
from hwcost.workload import Workload


def channel_cells(traced: Traced, channels: Channels) -> list[Cell]:
    """Return a cell for every size of the table that shrinks with some channels."""
    source = _Source(traced, channels)
    cells: list[Cell] = []
    for row, kind in enumerate(traced.workload.kinds):
        rule = RULES.get(kind, _flat)
        for column, terms, per in rule(source, row):
            if any(term.counts for term in (*terms, *per)):
                cells.append(Cell(row, column, tuple(terms), tuple(per)))
    return cells


#: A size that changes: its column, its terms, and the terms of its divisor.
Change = tuple[str, Sequence[Term], Sequence[Term]]


@dataclass(eq=False)
class _Source:
    traced: Traced
    channels: Channels

    @property
    def recording(self) -> Recording:
        return self.traced.recording

    @property
    def workload(self) -> Workload:
        return self.traced.workload

    @cached_property
    def parameters(self) -> dict[int, str]:
        """Storage -> the name of the parameter that lies there."""
        tensors = self.recording.tensors
        return {tensors[ref].storage: name for ref, name in self.recording.parameters.items()}

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        names = ("cin", "cout", "groups", "batch", "positions", "elements", "reads", "coeffs")
        more = ("m", "n", "k", "heads", "dhead", "dv", "w_once")
        positions = ("id", "ih", "iw", "od", "oh", "ow")
        columns = {n: self.workload.column(n).tolist() for n in (*names, *more, *positions)}
        count = len(self.workload)
        return [{name: column[i] for name, column in columns.items()} for i in range(count)]

    def call(self, row: int) -> Call:
        return self.recording.calls[self.traced.calls[row]]

    def counts(self, ref: Ref, dims: Iterable[int] | None = None) -> tuple[Count, ...]:
        """Return the counts of a tensor's fields, of those that lie within ``dims`` if given."""
        within = None if dims is None else {d % max(self.rank(ref), 1) for d in dims}
        fields = self.channels.fields.get(ref, ())
        chosen = [f for f in fields if within is None or _footprint(f) <= within]
        return tuple(_count(field.classes) for field in chosen)

    def rank(self, ref: Ref) -> int:
        return len(self.recording.tensors[ref].shape)

    def first_data(self, call: Call) -> Ref:
        """Return the first input that is no parameter."""
        data = [ref for ref in call.inputs if not self.parameter(ref)]
        return data[0] if data else call.inputs[0]

    def parameter(self, ref: Ref) -> str | None:
        return self.parameters.get(self.recording.tensors[ref].storage)

    def written(self, call: Call) -> Ref:
        if call.outputs:
            return call.outputs[0]
        written: Ref = next(call.arg(name) for name in call.op.writes)
        return written


def _footprint(field: Field) -> set[int]:
    return {dim for dim, size in enumerate(field.classes.shape) if size > 1}


def _count(classes: Tensor) -> Count:
    """Return the count of a field; repeats that all entries share cancel out."""
    entries = Counter(classes.flatten().tolist())
    fixed = entries.pop(-1, 0)
    common = gcd(fixed, *entries.values())
    repeated = (entry for entry, times in sorted(entries.items()) for _ in range(times // common))
    return Count(tuple(repeated), fixed // common)


def _conv(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    if not call.op.name.endswith("convolution"):
        return []
    read = source.counts(call.arg("input"), [1])
    made = source.counts(source.written(call), [1])
    changes = [_scaled("cin", sizes, read), _scaled("cout", sizes, made)]
    changes.append(_scaled("batch", sizes, source.counts(source.written(call), [0])))
    for dim, letter in zip(range(source.rank(call.arg("input")) - 1, 1, -1), "whd", strict=False):
        changes.append(_scaled("i" + letter, sizes, source.counts(call.arg("input"), [dim])))
        changes.append(_scaled("o" + letter, sizes, source.counts(source.written(call), [dim])))
    if sizes["groups"] > 1:
        changes.append(_scaled("groups", sizes, read))
    return [*changes, *_lengths(source, call, sizes, read if sizes["groups"] == 1 else (), made)]


def _linear(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    out = source.written(call)
    last = source.rank(out) - 1
    read, made = source.counts(source.first_data(call), [-1]), source.counts(out, [last])
    return [
        _scaled("cin", sizes, read),
        _scaled("cout", sizes, made),
        _scaled("positions", sizes, source.counts(out, range(last))),
        *(_lengths(source, call, sizes, read, made) or _stored(sizes, (*read, *made))),
    ]


def _lengths(
    source: _Source,
    call: Call,
    sizes: dict[str, float],
    read: tuple[Count, ...],
    made: tuple[Count, ...],
) -> list[Change]:
    """Return the share of weights that are stored where these are directions and lengths."""
    weight = call.arg("weight")  # a matmul has none, and is a linear row where one side is constant
    producer = -1 if weight is None else source.recording.tensors[weight].producer
    calls = source.recording.calls
    if producer < 0 or calls[producer].op.name != WEIGHT_NORM or sizes["w_once"] <= 1:
        return []
    directions, lengths = (source.recording.tensors[r].numel for r in calls[producer].inputs)
    weights = Term(directions, (*read, *made))
    return [("w_once", [weights, Term(lengths, made)], [weights])]


def _stored(sizes: dict[str, float], counts: tuple[Count, ...]) -> list[Change]:
    """Return the share of weights that are stored; constants stored with them do not shrink."""
    weights = Term(sizes["cin"] * sizes["cout"], counts)
    others = (sizes["w_once"] - 1) * weights.amount
    return [("w_once", [weights, Term(others)], [weights])] if others > 0 else []


def _pool(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    read, made = source.counts(source.first_data(call)), source.counts(source.written(call))
    return [_scaled("cin", sizes, read), _scaled("cout", sizes, made)]


def _rnn(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    first = source.traced.calls.index(source.traced.calls[row])
    directions = 2 if call.arg("bidirectional") else 1
    if row - first >= directions:
        return []
    return [_scaled("cin", sizes, source.counts(source.first_data(call), [-1]))]


def _matmul(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    if len(call.inputs) < 2:
        return []
    left, right, out = call.inputs[-2], call.inputs[-1], source.written(call)
    last = source.rank(out) - 1
    return [
        _scaled("m", sizes, source.counts(left, [-2])),
        _scaled("n", sizes, source.counts(right, [-1])),
        _scaled("batch", sizes, source.counts(out, range(last - 1))),
    ]


def _attention(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    query, value = call.arg("query"), call.arg("value")
    if query is None or value is None:
        return _products(source, call, sizes)
    rank = source.rank(query)
    return [
        _scaled("heads", sizes, source.counts(query, [-3])),
        _scaled("dhead", sizes, source.counts(query, [-1])),
        _scaled("dv", sizes, source.counts(value, [-1])),
        _scaled("batch", sizes, source.counts(query, range(rank - 3))),
    ]


def _products(source: _Source, call: Call, sizes: dict[str, float]) -> list[Change]:
    """Attention as products of matrices; samples and heads are one dimension."""
    if not call.op.name.endswith("bmm"):
        return []
    return [
        _scaled("heads", sizes, source.counts(source.written(call), [0])),
        _scaled("dv", sizes, source.counts(source.written(call), [-1])),
    ]


def _flat(source: _Source, row: int) -> list[Change]:
    call, sizes = source.call(row), source.rows[row]
    if call.op.name.endswith("bilinear"):
        return []
    out = source.counts(source.written(call))
    return [
        _scaled("elements", sizes, out),
        *_reads(source, call, sizes, out),
        *_coeffs(source, call, sizes),
    ]


def _reads(
    source: _Source, call: Call, sizes: dict[str, float], out: tuple[Count, ...]
) -> list[Change]:
    """Return how much is read for each number written, where the two shrink differently."""
    total = sizes["reads"] * sizes["elements"]
    data = [ref for ref in call.inputs if not source.parameter(ref)]
    known = [ref for ref in data if ref in source.channels.fields]
    terms = [Term(source.recording.tensors[r].distinct, source.counts(r)) for r in known]
    read = sum(term.amount for term in terms)
    if abs(read - total) > 1e-6 * total:
        terms = [Term(total, source.counts(known[0]))] if known and total else []
    if not terms or all(set(term.counts) == set(out) for term in terms):
        return []
    return [("reads", terms, [Term(sizes["elements"], out)])]


def _coeffs(source: _Source, call: Call, sizes: dict[str, float]) -> list[Change]:
    """Return the trained numbers of a row, those along searched channels apart."""
    names = {source.parameter(ref): ref for ref in call.inputs if source.parameter(ref)}
    terms = []
    for name in names:
        cuts = source.channels.cuts.get(str(name), ())
        size = next(
            source.recording.tensors[r].numel
            for r, known in source.recording.parameters.items()
            if known == name
        )
        terms.append(Term(size, tuple(_count(cut.classes) for cut in cuts)))
    rest = sizes["coeffs"] - sum(term.amount for term in terms)
    if rest < 0 or not any(term.counts for term in terms):
        return []
    return [("coeffs", [*terms, Term(rest)] if rest else terms, [])]


def _scaled(column: str, sizes: dict[str, float], counts: tuple[Count, ...]) -> Change:
    return column, [Term(sizes[column], counts)], []


Rule = Callable[[_Source, int], list[Change]]

#: Kind of op -> which of its sizes shrink; the others have the sizes of flat kinds.
RULES: dict[str, Rule] = {
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _linear,
    "pool": _pool,
    "rnn": _rnn,
    "matmul": _matmul,
    "attention": _attention,
}
