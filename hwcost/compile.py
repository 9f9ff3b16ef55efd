"""Compile a sympy expression to a torch function of columns.

Values are exact: whole sizes give what sympy gives. Slopes go straight through ceil and floor.
The stages: ``lowering`` (sympy to a graph of quotients), ``emission`` (graph to a program, with
what is known already computed), ``program`` (steps forward and back).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import sympy
import torch
from torch import Tensor

from hwcost.emission import Scope
from hwcost.errors import FormulaError, WorkloadError
from hwcost.lowering import lower
from hwcost.program import evaluate, is_plain
from hwcost.quotient import Graph
from hwcost.steps import Operand, Slot

#: Rows that are computed at once on a CPU; more would not be faster, and need more memory.
CHUNK = 2**16


def compile_formula(expr: sympy.Basic) -> "Formula":
    """Return the function that an expression or condition of sizes describes.

    Raises:
        FormulaError: the expression has something that formulas do not have, or divides by 0.
    """
    if not isinstance(expr, sympy.Basic):
        raise TypeError(f"expected a sympy expression, not {type(expr).__name__}")
    try:
        graph, root = lower(expr)
        return Formula(graph, root, {})
    except RecursionError:
        raise FormulaError("the formula is nested too deeply") from None


class Formula:
    """A compiled expression; it never changes, and may be pickled and shared between threads.

    Args:
        graph: the operations.
        root: the node of the result.
        static: columns that are known already, shape ``(rows,)``, ``(1,)`` or ``()``.

    Attributes:
        names: the columns that it still reads, sorted.
        program: its steps, whose inputs are those columns; for callers that fuse formulas.
    """

    def __init__(self, graph: Graph, root: int, static: Mapping[str, Tensor]) -> None:
        self._graph, self._root, self._static = graph, root, dict(static)
        nodes = {n.data: i for i, n in enumerate(graph.nodes) if n.kind == "column"}
        self.names = tuple(sorted(n for n in nodes if n not in static))
        self._shape = _common_shape(static)
        # Tensors made in inference mode could not be saved for a backward pass later.
        with torch.inference_mode(False), torch.no_grad():
            known: dict[int, Operand] = {nodes[n]: _known(c) for n, c in static.items()}
            if self.names:
                known = {node: _one_number(c) for node, c in known.items()}
            known |= {nodes[n]: Slot(-1 - i) for i, n in enumerate(self.names)}
            self._like = torch.zeros((), dtype=torch.float64, device="cpu")
            self.program = Scope(graph, known, root).program(len(self.names))

    def __repr__(self) -> str:
        return f"Formula({', '.join(self.names)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Formula, (self._graph, self._root, self._static)

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the value for each row.

        Args:
            columns: at least those of ``names``, of shape ``(rows,)``, ``(1,)`` or ``()``.

        Returns:
            The columns' common shape, that of the static ones included, ``()`` where the formula
            reads none; of their dtype, or bool for a condition. May share memory with a column.

        Raises:
            WorkloadError: a column is missing, or two differ in their number of rows.
            FormulaError: a table look-up is outside of its axes.
            CostError: none of the formula's cases applies to a row.
        """
        try:
            inputs = [columns[name] for name in self.names]
        except KeyError as missing:
            reads = ", ".join(self.names)
            raise WorkloadError(f"no column {missing}; the formula reads {reads}") from None
        shape = inputs[0].shape if inputs else self._shape
        if len(shape) != 1 or not self._fits(shape, inputs):
            inputs = [_floating(x) for x in inputs]
            shape = _common_shape(dict(zip(self.names, inputs, strict=True)), self._shape)
            inputs = [x.expand(shape or (1,)) for x in inputs]
        result = self._result(inputs)
        return result if result.shape == shape else _reshaped(result, shape)

    def _fits(self, shape: torch.Size, inputs: Sequence[Tensor]) -> bool:
        """Whether the inputs can be computed with as they are."""
        for x in inputs:
            if x.shape != shape or not x.is_floating_point():
                return False
        return len(self._shape) == 0 or self._shape in ((1,), shape)

    def _result(self, inputs: Sequence[Tensor]) -> Tensor:
        if self.program.output <= len(inputs):
            return inputs[self.program.output - 1]
        if not inputs:
            constant: Tensor = self.program.run(self._like, ())
            return constant
        if not is_plain():
            traced: Tensor = self.program.trace(inputs[0], inputs)
            return traced
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return evaluate(self.program, inputs)
        if len(inputs[0]) > CHUNK and self._shape in ((), (1,)) and inputs[0].is_cpu:
            return self._in_chunks(inputs)
        result: Tensor = self.program.run(inputs[0], inputs)
        return result

    def _in_chunks(self, inputs: Sequence[Tensor]) -> Tensor:
        rows = len(inputs[0])
        result: Tensor | None = None
        for start in range(0, rows, CHUNK):
            part = [x[start : start + CHUNK] for x in inputs]
            values = self.program.run(part[0], part)
            if result is None:
                result = values.new_empty(rows)
            result[start : start + CHUNK] = values
        assert result is not None
        return result

    def specialize(self, static: Mapping[str, Tensor]) -> "Formula":
        """Return the formula of the other columns, with all that depends on these computed.

        No slope leads to a static column. Columns are not copied; names that the formula does
        not read are ignored.

        Args:
            static: shape ``(rows,)``, ``(1,)`` or ``()``.
        """
        given = {n: _floating(static[n].detach()) for n in self.names if n in static}
        if not given:
            return self
        if len(given) < len(self.names):
            return Formula(self._graph, self._root, self._static | given)
        # Nothing remains: the value itself, computed in chunks, in place of the graph.
        with torch.inference_mode(False), torch.no_grad():
            value = self(given)
        graph = Graph()
        return Formula(graph, graph.add("column", "value"), {"value": value})


def _floating(column: Tensor) -> Tensor:
    # Whole-number tensors divide in float32, which has too few digits.
    return column if column.is_floating_point() else column.to(torch.float64)


def _known(column: Tensor) -> Tensor:
    """A static column as a vector that a backward pass may save."""
    column = column.clone() if column.is_inference() else column
    return column.reshape(1) if column.dim() == 0 else column


def _one_number(column: Operand) -> Operand:
    """A static column as a number where it is the same for all rows: fewer steps remain."""
    if not isinstance(column, Tensor) or not len(column) or column.is_meta or not is_plain():
        return column
    return column[0].item() if bool((column == column[:1]).all()) else column


def _common_shape(columns: Mapping[str, Tensor], given: Sequence[int] = ()) -> torch.Size:
    """The shape that all columns have or are repeated to.

    Raises:
        WorkloadError: there is none, or it has more than one dimension.
    """
    shape: torch.Size | None = None
    with suppress(RuntimeError):
        shape = torch.broadcast_shapes(*(c.shape for c in columns.values()), given)
    if shape is None or len(shape) > 1:
        shapes = ", ".join(f"{name} {tuple(c.shape)}" for name, c in columns.items())
        beside = f" beside static ones of {tuple(given)}" if given else ""
        raise WorkloadError(f"columns do not fit each other: {shapes}{beside}")
    return shape


def _reshaped(result: Tensor, shape: torch.Size) -> Tensor:
    return result.expand(shape) if len(shape) else result.reshape(())
