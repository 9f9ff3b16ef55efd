"""What a model computes from a module's output on, as a list of operators that runs again.

``Recorder`` writes down every operator of one run. ``affected`` says which of them depend on what
was marked, and matter to the output. ``Capture`` is a further run of the model, on more samples
perhaps, that keeps those operators with all that they read from elsewhere; ``Steps`` runs them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Where a tensor stands in an operator's arguments: which one, and which item if it is a list.
Place = tuple[int, int]

#: An operator that stands for what is done to a module's output.
MARK = "mark"


class Unlike(Exception):
    """Two runs of a model were not alike, or an operator cannot be run again by itself."""


class Node(NamedTuple):
    """One operator that ran.

    Attributes:
        func: the operator, ``MARK`` for a mark.
        inputs: its tensors, numbered in order of first use, with their places.
        outputs: the tensors that it returned.
        reads: what storages it reads; writes: which it returns or overwrites.
        overwrites: which it overwrites.
        versions: of inputs and outputs, how often each had been overwritten.
        args: its arguments.
        named: whether a tensor is among its keyword arguments.
    """

    func: Any
    inputs: tuple[tuple[Place, int], ...]
    outputs: tuple[int, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    overwrites: frozenset[int]
    versions: Mapping[int, tuple[int, int]]
    args: tuple[Any, ...]
    named: bool


def places(args: Sequence[Any]) -> Iterator[tuple[Place, Tensor]]:
    """Return the tensors among arguments, and in lists among them."""
    for i, arg in enumerate(args):
        if isinstance(arg, Tensor):
            yield (i, -1), arg
        elif isinstance(arg, (list, tuple)):
            yield from (((i, j), a) for j, a in enumerate(arg) if isinstance(a, Tensor))


class Recorder(TorchDispatchMode):
    """Writes down every operator that runs; all tensors are kept.

    Attributes:
        nodes: the operators.
        tensors: by number.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._marking = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = tuple((place, self.number(t)) for place, t in places(args))
        before = {n: self.tensors[n]._version for _, n in inputs}
        written = _written(func, args, kwargs)
        output = func(*args, **kwargs)
        named = any(isinstance(v, Tensor) for v in tree_leaves(kwargs))
        self._note(func, args, inputs, before, tree_leaves(output), written, named)
        return output

    def mark(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is what a module returned; return what to go on with."""
        self._marking = True
        return tensor.clone()

    def number(self, tensor: Tensor) -> int:
        """Return the number of a tensor."""
        number = self._numbers.setdefault(id(tensor), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(tensor)
        return number

    def _note(
        self,
        func: Any,
        args: tuple[Any, ...],
        inputs: tuple[tuple[Place, int], ...],
        before: dict[int, int],
        outputs: list[Any],
        written: list[Tensor],
        named: bool,
    ) -> None:
        made = [t for t in outputs if isinstance(t, Tensor)]
        numbers = tuple(self.number(t) for t in made)
        both = (*before, *numbers)
        versions = {n: (before.get(n, -1), self.tensors[n]._version) for n in both}
        reads = frozenset(_storage(self.tensors[n]) for _, n in inputs)
        over = frozenset(_storage(t) for t in written)
        writes = over.union(_storage(t) for t in made)
        func, self._marking = MARK if self._marking else func, False
        node = Node(func, inputs, numbers, reads, writes, over, versions, args, named)
        self.nodes.append(node)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors that an operator overwrites."""
    found = []
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += [v for v in tree_leaves(value) if isinstance(v, Tensor)]
    return found + ([v for v in tree_leaves(kwargs.get("out")) if isinstance(v, Tensor)])


def affected(nodes: Sequence[Node], outputs: Sequence[Tensor]) -> list[bool]:
    """Return which operators depend on a mark and matter to the outputs.

    Dependence goes by storage: where a marked value is written into a tensor, all that made or
    reads that tensor is run again.

    Raises:
        Unlike: one of them cannot be run again by itself.
    """
    overwritten = [n.overwrites for n in nodes]
    touched: set[int] = set()
    for node in nodes:
        if node.func == MARK:
            touched |= node.writes
    while True:
        hit = [n.func == MARK or not touched.isdisjoint(n.reads | n.writes) for n in nodes]
        grown = touched.union(*(n.writes for n, h in zip(nodes, hit, strict=True) if h))
        read = frozenset[int]().union(*(n.reads for n, h in zip(nodes, hit, strict=True) if h))
        grown.update(*(w & read for w in overwritten))
        if grown == touched:
            break
        touched = grown
    live = {_storage(t) for t in outputs}
    for i in reversed(range(len(nodes))):
        hit[i] = hit[i] and not live.isdisjoint(nodes[i].writes)
        if hit[i]:
            live |= nodes[i].reads
            _refuse(nodes[i])
    return hit


def _refuse(node: Node) -> None:
    if node.func == MARK:
        return
    random = torch.Tag.nondeterministic_seeded in node.func.tags
    if node.named or (random and not _still(node)):
        raise Unlike(f"{node.func} cannot be run again by itself")


def _still(node: Node) -> bool:
    """Whether an operator that may draw random numbers does not: attention without dropout."""
    names = [a.name for a in node.func._schema.arguments]
    at = names.index("dropout_p") if "dropout_p" in names else len(names)
    return "dropout_p" in names and (len(node.args) <= at or node.args[at] == 0)


@dataclass(eq=False)
class Step:
    """One operator to run again.

    Attributes:
        index: of its node.
        func: the operator, ``MARK`` for a mark.
        args: its arguments, ``None`` in place of those that earlier steps make.
        kwargs: likewise.
        inputs: place -> number of the tensor that goes there.
        outputs: numbers of the tensors that it returns.
        shapes: shape of each of the inputs.
        last: the tensors that no later step reads.
    """

    index: int
    func: Any
    args: list[Any]
    kwargs: dict[str, Any]
    inputs: tuple[tuple[Place, int], ...]
    outputs: tuple[int, ...]
    shapes: Mapping[int, torch.Size]
    last: tuple[int, ...] = ()

    def run(self, values: dict[int, Tensor]) -> None:
        """Run on values by number, and add the results to them."""
        args = self.args.copy()
        for (i, j), number in self.inputs:
            if j < 0:
                args[i] = values[number]
            else:
                args[i] = list(args[i])
                args[i][j] = values[number]
        results = self.func(*args, **self.kwargs)
        found = [t for t in tree_leaves(results) if isinstance(t, Tensor)]
        for number, result in zip(self.outputs, found, strict=True):
            values[number] = result


@dataclass(eq=False)
class Capture(TorchDispatchMode):
    """A run of a model whose operators were recorded: keeps those that are to run again.

    Attributes:
        nodes: the operators of the recorded run.
        kept: which of them to keep.
        made: the tensors that the kept ones make.
        steps: what was kept.
    """

    nodes: Sequence[Node]
    kept: Sequence[bool]
    made: frozenset[int]
    steps: list[Step] = field(default_factory=list)
    _at: int = 0
    _marking: bool = False
    _foreign: list[tuple[Tensor, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._keep(func, args, kwargs)
        return func(*args, **kwargs)

    def mark(self, tensor: Tensor) -> Tensor:
        """Do what ``Recorder.mark`` does."""
        self._marking = True
        return tensor.clone()

    def _keep(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        at, self._at = self._at, self._at + 1
        func, self._marking = MARK if self._marking else func, False
        if at >= len(self.nodes) or self.nodes[at].func is not func:
            raise Unlike(f"the model ran {func} where it ran another operator before")
        if not self.kept[at]:
            return
        node = self.nodes[at]
        inputs = tuple((place, n) for place, n in node.inputs if n in self.made)
        here = dict(places(args))
        shapes = {number: here[place].shape for place, number in inputs}
        own = {place for place, _ in inputs}
        self._foreign += [(t, t._version) for place, t in here.items() if place not in own]
        given = list(args)
        for i, j in own:
            if j < 0:
                given[i] = None
            else:
                given[i] = [None if k == j else a for k, a in enumerate(given[i])]
        self.steps.append(Step(at, func, given, kwargs, inputs, node.outputs, shapes))

    def finish(self, outputs: Sequence[int]) -> list[Step]:
        """Return the steps, once the run is over; ``outputs`` are kept to the end."""
        if self._at != len(self.nodes):
            raise Unlike("the model ran fewer operators than before")
        if any(t._version != version for t, version in self._foreign):
            raise Unlike("a tensor that is read is overwritten later")
        seen = set(outputs)
        for step in reversed(self.steps):
            used = [n for n in (*(n for _, n in step.inputs), *step.outputs) if n not in seen]
            step.last = tuple(dict.fromkeys(used))
            seen.update(used)
        return self.steps


def run_steps(
    steps: Sequence[Step], values: dict[int, Tensor], mark: Callable[[Tensor], Tensor]
) -> None:
    """Run steps on values by number; those that nobody reads any more are dropped.

    A mark returns what ``mark`` makes of its input.
    """
    for step in steps:
        if step.func == MARK:
            (source,) = step.args if not step.inputs else (values[step.inputs[0][1]],)
            values[step.outputs[0]] = mark(source)
        else:
            step.run(values)
        for number in step.last:
            values.pop(number, None)
