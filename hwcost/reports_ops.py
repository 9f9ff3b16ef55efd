"""The op table of a network as a report, before any platform prices it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwcost.derived_rows import derived
from hwcost.explain_sizes import sizes_text
from hwcost.reports_format import Column, Sheet
from hwcost.reports_layers import density_column, row_sizes
from hwcost.reports_table import whole_sizes
from hwcost.reports_tabular import Tabular
from hwcost.units import engineering
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class OpTable(Tabular):
    """The ops of a network: layers, kinds, sizes, MACs and trained numbers."""

    name: str
    workload: Workload

    def _counts(self, what: str) -> list[float]:
        return derived(self.workload, {}, what).tolist()

    def columns(self) -> Mapping[str, Any]:
        """Return the op table's own columns, with MACs and params at the end."""
        frame = self.workload.to_frame()
        columns = {str(name): frame[name].tolist() for name in frame}
        functions = self.workload.structure.functions
        columns |= {"function": list(functions)} if functions else {}
        return columns | {"macs": self._counts("macs"), "params": self._counts("params")}

    def to_csv(self) -> str:
        """Return the rows as a fit reads them: with the network's name, sizes as whole numbers."""
        frame = whole_sizes(self.to_frame())
        frame.insert(0, "net", self.name)
        return str(frame.to_csv(index=False, lineterminator="\n"))

    def sheet(self) -> Sheet:
        """Return the table as text."""
        w, macs, params = self.workload, self._counts("macs"), self._counts("params")
        weights = w.column("weight").tolist()
        columns = [
            Column("layer", [name or "(model)" for name in w.layers], least=20),
            Column("kind", w.kinds),
            Column("function", list(w.structure.functions) or [""] * len(w), rank=4),
            Column("sizes", [sizes_text(k, s) for k, s in row_sizes(w)], rank=2),
            *density_column(w),
            Column("MACs", [engineering(m, "1") if m else "" for m in macs], True, 1),
            Column("params", [engineering(p, "1") if p else "" for p in params], True, 3),
        ]
        whole = sum(m * n for m, n in zip(macs, weights, strict=True) if m == m)
        results = [
            ("ops", str(w.structure.n_ops)),
            ("MACs", f"{whole:,.10g}"),
            ("params", f"{sum(p for p in params if p == p):,.10g}"),
        ]
        notes = [f"warning: {text}" for text in w.structure.warnings]
        return Sheet(self.name, columns, results=results, notes=notes)
