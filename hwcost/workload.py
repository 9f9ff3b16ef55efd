"""Workload: the op table, one row for each executed op."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hwcost.columns import (
    Values,
    as_column,
    check_kind_name,
    check_size_name,
    check_values,
    completed,
    frame_column,
    joined_cases,
    kind_defaults,
    length,
    numbered,
)
from hwcost.errors import UnknownName, WorkloadError, did_you_mean
from hwcost.ops import BITS, SIZES, kind_sizes
from hwcost.structure import KIND_CODES, NumberedLayers, Structure

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True, eq=False)
class Workload:
    """A table of ops: fixed structure, and columns that may carry gradients.

    Attributes:
        structure: names, kinds, the traced sizes and the schedule.
        changed: columns that differ from the traced ones, float64, shape ``(rows,)``.
    """

    structure: Structure
    changed: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.structure.kind_codes)

    def __repr__(self) -> str:
        return f"Workload({len(self)} rows, changed: {', '.join(self.changed) or 'none'})"

    @property
    def layers(self) -> Sequence[str]:
        """The layer of each row."""
        return self.structure.layers

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each row."""
        return self.structure.kinds

    def column(self, name: str) -> Tensor:
        """Return one column, float64, shape ``(rows,)``, NaN where a row lacks the size.

        Raises:
            UnknownName: no size has this name.
        """
        if name in self.changed:
            return self.changed[name]
        check_size_name(name)
        return self.structure.traced[name]

    def with_columns(self, **columns: Values) -> "Workload":
        """Return the same ops with other sizes, gradients kept.

        Which formula prices a row is still decided by the traced sizes.

        Args:
            columns: shape ``(rows,)`` or one number for all rows.

        Raises:
            UnknownName: no size has this name.
            WorkloadError: bits are given (see ``with_precision``), or a wrong length.
        """
        changed = dict(self.changed)
        for name, values in columns.items():
            check_size_name(name)
            if name in BITS:
                raise WorkloadError(f"{name!r} is not a size; use with_precision({name}=...)")
            changed[name] = as_column(name, values, len(self))
        return replace(self, changed=changed)

    def with_precision(
        self,
        w_bits: float | Sequence[float] | Tensor | None = None,
        a_bits: float | Sequence[float] | Tensor | None = None,
        o_bits: float | Sequence[float] | Tensor | None = None,
    ) -> "Workload":
        """Return the same ops at fixed bits, one number or shape ``(rows,)``; None keeps them."""
        given = {"w_bits": w_bits, "a_bits": a_bits, "o_bits": o_bits}
        bits = {n: as_column(n, b, len(self)) for n, b in given.items() if b is not None}
        check_values(bits, self.layers, may_lack=False)
        return self._restructured(traced={**self.structure.traced, **bits})

    def with_engines(self, engines: str | Mapping[str, str] | Sequence[str | None]) -> "Workload":
        """Return the same ops placed on engines: one for all, by layer, or one for each row.

        Raises:
            UnknownName: a layer in the mapping does not exist.
        """
        placed = list(self.structure.engines)
        if isinstance(engines, str):
            placed = [engines] * len(self)
        elif isinstance(engines, Mapping):
            for layer, engine in engines.items():
                for row in self.rows_of(layer):
                    placed[row] = engine
        else:
            placed = list(engines)
            if len(placed) != len(self):
                raise WorkloadError(f"{len(placed)} engines for {len(self)} rows")
        return self._restructured(engines=tuple(placed))

    def slice(self, start: int, stop: int) -> "Workload":
        """Return rows ``start`` to ``stop`` as a table of its own, without a schedule."""
        s, part = self.structure, slice(start, stop)
        rows = len(s.kind_codes[part])
        structure = Structure(
            layers=s.layers[part],
            kind_codes=s.kind_codes[part],
            traced={name: column[part] for name, column in s.traced.items()},
            ops=torch.arange(rows) if s.one_row_per_op else s.ops[part] - s.ops[start],
            engines=s.engines[part],
            functions=s.functions[part],
            cases=None if s.cases is None else s.cases[part],
            unsplit={name: column[part] for name, column in s.unsplit.items()},
        )
        return Workload(structure, {name: column[part] for name, column in self.changed.items()})

    def rows_of(self, layer: str) -> list[int]:
        """Return the rows whose layer is ``layer``.

        Raises:
            UnknownName: there is none.
        """
        rows = [row for row, name in enumerate(self.layers) if name == layer]
        if not rows:
            raise UnknownName(f"no layer {layer!r}{did_you_mean(layer, set(self.layers))}")
        return rows

    def _restructured(self, **changes: Any) -> "Workload":
        return replace(self, structure=replace(self.structure, **changes))

    @staticmethod
    def trace(model: "nn.Module", example: Any = None, **options: Any) -> "Workload":
        """Return the table of one inference of a model; see ``hwcost.trace``."""
        from hwcost.tracing import trace

        return trace(model, example, **options)

    @staticmethod
    def from_columns(kind: str, **columns: Values) -> "Workload":
        """Return a table whose rows are all of one kind, without layer names.

        Args:
            columns: sizes of shape ``(rows,)``, or one number for all rows; gradients are kept.

        Raises:
            UnknownName: no such kind, or no such size.
            WorkloadError: a size that the kind lacks, columns of unequal length, or a value
                below 0, NaN or infinite.
        """
        check_kind_name(kind)
        for name in columns:
            check_size_name(name)
            if name not in kind_sizes(kind):
                raise WorkloadError(f"{kind!r} has no size {name!r}")
        rows = max((length(c) for c in columns.values()), default=1)
        sizes = {name: as_column(name, c, rows) for name, c in columns.items()}
        check_values(sizes, may_lack=False)
        traced = completed(sizes, rows)
        traced |= {n: c for n, c in kind_defaults(kind, traced).items() if n not in columns}
        searched = {name: c for name, c in sizes.items() if c.requires_grad}
        traced |= {name: c.detach() for name, c in searched.items()}
        code = torch.tensor(KIND_CODES[kind]).expand(rows)
        layers = NumberedLayers(kind, range(rows))
        structure = Structure(layers, code, traced, torch.arange(rows), (None,) * rows)
        return Workload(structure, searched)

    @staticmethod
    def grid(kind: str, **axes: Iterable[float] | float) -> "Workload":
        """Return a table with one row for every combination of the sizes, the last one fastest."""
        points = [list(a) if isinstance(a, Iterable) else [a] for a in axes.values()]
        lengths = [len(p) for p in points]
        columns: dict[str, Values] = {}
        for i, (name, values) in enumerate(zip(axes, points, strict=True)):
            after = math.prod(lengths[i + 1 :])
            before = math.prod(lengths[:i])
            column = torch.tensor(values, dtype=torch.float64).repeat_interleave(after)
            columns[name] = column.repeat(before)
        return Workload.from_columns(kind, **columns)

    @staticmethod
    def from_frame(frame: "pd.DataFrame | Mapping[str, Sequence[Any]]") -> "Workload":
        """Return the table of a pandas frame or a mapping of columns.

        ``layer`` and ``kind`` are needed, and the sizes that the formulas read. ``engine`` places
        a row; rows with the same ``op`` are one op that several engines share, and those of its
        rows that differ in ``case`` exclude each other. An empty cell (NaN) means that the row
        leaves the size out.

        Raises:
            UnknownName: an unknown column or kind.
            WorkloadError: ``layer`` or ``kind`` is missing, or a value is negative or infinite;
                the message names the row.
        """
        data = {str(name): list(frame[name]) for name in frame}  # type: ignore[index]
        for name in ("layer", "kind"):
            if name not in data:
                raise WorkloadError(f"the table has no column {name!r}")
        layers = tuple(str(layer) for layer in data.pop("layer"))
        kinds = [str(kind) for kind in data.pop("kind")]
        for kind in kinds:
            check_kind_name(kind)
        engines = tuple(
            e if isinstance(e, str) else None for e in data.pop("engine", [None] * len(kinds))
        )
        ops = numbered(data.pop("op", range(len(kinds))))
        cases = numbered(data.pop("case")) if "case" in data else None
        sizes = {name: frame_column(name, values) for name, values in data.items()}
        for name in sizes:
            check_size_name(name)
        check_values(sizes, layers, may_lack=True)
        traced = completed(sizes, len(kinds))
        for kind in set(kinds):
            mask = torch.tensor([k == kind for k in kinds])
            for name, default in kind_defaults(kind, traced).items():
                missing = mask & traced[name].isnan()
                traced[name] = torch.where(missing, default, traced[name])
        codes = torch.tensor([KIND_CODES[kind] for kind in kinds], dtype=torch.int64)
        return Workload(Structure(layers, codes, traced, ops, engines, cases=cases))

    @staticmethod
    def concat(workloads: Sequence["Workload"]) -> "Workload":
        """Return one table with the rows of all, one network after another; gradients are kept.

        Activation memory is not carried over: two networks have no common schedule.
        """
        if not workloads:
            raise WorkloadError("nothing to concatenate")
        structures = [w.structure for w in workloads]
        names = list(SIZES)
        offsets = [0]
        for s in structures:
            offsets.append(offsets[-1] + s.n_ops)
        joined = Structure(
            layers=tuple(layer for s in structures for layer in s.layers),
            kind_codes=torch.cat([s.kind_codes for s in structures]),
            traced={n: torch.cat([s.traced[n] for s in structures]) for n in names},
            ops=torch.cat([s.ops + o for s, o in zip(structures, offsets, strict=False)]),
            engines=tuple(e for s in structures for e in s.engines),
            functions=tuple(f for s in structures for f in (s.functions or [""] * len(s.layers))),
            warnings=tuple(w for s in structures for w in s.warnings),
            cases=joined_cases([s.cases for s in structures], [s.ops for s in structures]),
            unsplit={
                n: torch.cat([s.unsplit.get(n, s.traced[n]) for s in structures])
                for n in {n for s in structures for n in s.unsplit}
            },
        )
        changed = {n for w in workloads for n in w.changed}
        return Workload(joined, {n: torch.cat([w.column(n) for w in workloads]) for n in changed})

    def to_frame(self) -> "pd.DataFrame":
        """Return the table as a pandas frame: layer, kind, then every column that is used.

        ``density`` is one where some row's is not 1.
        """
        import pandas as pd

        columns: dict[str, Any] = {"layer": list(self.layers), "kind": list(self.kinds)}
        if any(self.structure.engines):
            columns["engine"] = list(self.structure.engines)
        if not self.structure.one_row_per_op:
            columns["op"] = self.structure.ops.tolist()
        if self.structure.cases is not None:
            columns["case"] = self.structure.cases.tolist()
        for name in SIZES:
            values = self.column(name).detach()
            dense = name == "density" and bool((values == 1).all())
            if not dense and not bool(values.isnan().all()):
                columns[name] = values.tolist()
        return pd.DataFrame(columns)
