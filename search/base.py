"""Search: a network, what is to be decided about it, and what the decisions cost."""

import copy
from collections.abc import Hashable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hwcost.errors import SearchError
from hwcost.search.alive import Alive
from hwcost.search.attention import slow_path
from hwcost.search.cells import channel_cells
from hwcost.search.channels import find_channels
from hwcost.search.channels_readers import reading
from hwcost.search.converted import converted
from hwcost.search.costs import Costs, Specification
from hwcost.search.decisions import Decisions
from hwcost.search.gates import Sampling
from hwcost.search.lean import LeanForward, is_lean
from hwcost.search.method import Method, Trace
from hwcost.search.norms import MaskedNorm
from hwcost.search.priced import Priced
from hwcost.search.rnn import MaskedInput
from hwcost.search.slicing import slice_channels
from hwcost.search.summary import Summary, summarise
from hwcost.search.swap import (
    add_transform,
    copied,
    owners,
    refuse_searched,
    replace_forward,
    restore,
)
from hwcost.search.table import Cell, Table
from hwcost.search.variants import Variant, expanded
from hwcost.search.weights import Mask, Masks, WeightMask
from hwcost.tracing import rerun, run
from hwcost.workload import Workload

#: Modules with a fused path in evaluation mode.
ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


class Search(Priced):
    """A deep copy of a model in which channels, kernels, branches, ... are trainable.

    Args:
        model: the network; it is copied and never changed.
        example: an input, as for ``hwcost.trace``.
        methods: what decides: ``[PIT(exclude_names=...), SuperNet()]``.
        cost: a CostModel, ``"PLATFORM:METRIC"``, a function from a Workload to a scalar tensor,
            or a dict of these.
        input_shape: in place of an example, the shape of the input without the batch.
        input_example: another name of ``example``.
        seed: of whatever is drawn at random.

    Attributes:
        model: the searched network, of the user's own class.
        channels: which channels stand or fall together.
        workload_reference: the table before the first step; what ``relative`` costs refer to.
        reference: name -> the cost of that table.

    Raises:
        SearchError: there is nothing to decide, or a cost is not understood.
        TraceError: the model does not run on the example.
        UnsupportedOp: a cost's platform cannot price a layer.
    """

    #: The method of a subclass that has one: without a model, the class makes this.
    method: ClassVar[type[Method] | None] = None

    def __new__(cls, model: nn.Module | None = None, *args: Any, **options: Any) -> Any:
        """Return a search, or its method alone where no model is given."""
        if cls.method is not None and model is None and "model" not in options:
            return cls.method(*args, **options)
        return super().__new__(cls)

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        methods: Iterable[Method] = (),
        *,
        cost: Costs = "counts:params",
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        refuse_searched(model)
        costs = Specification(cost)
        self.methods = nn.ModuleList(methods)
        if not len(self.methods):
            raise SearchError("a search needs a method, as in Search(model, example, [PIT()])")
        self.model = copied(model)
        self.sampling = Sampling(seed)
        trace = Trace(
            partial(run, example=example, input_shape=input_shape, input_example=input_example)
        )
        for method in sorted(self.each_method(), key=lambda method: -method.order):
            method.prepare(self.model, trace)
        self.traced = trace(self.model)
        self.channels = find_channels(
            self.model, self.traced.recording, args=self.traced.args, kwargs=self.traced.kwargs
        )
        self._inputs = self.traced.args, self.traced.kwargs
        self._attach()
        self._exported: tuple[Hashable, Workload] | None = None
        del self.traced  # large, and needed by methods only while they attach
        self.cost_specification = costs

    def _attach(self) -> None:
        """Let the methods find their decisions; make masks and the op table of them."""
        self.alive = Alive(self.channels)
        self.decisions = Decisions(self.alive, self.methods)
        self._has_attention = any(isinstance(m, ATTENTION) for m in self.model.modules())
        self._trainable = {n for n, p in self.model.named_parameters() if p.requires_grad}
        self.masks = Masks(self.decisions.binary)
        self._masked: dict[str, Mask] = {}
        self._entries = self.channels.n_classes
        for method in self.each_method():
            method.attach(self)
        self._mask_readers()
        for method in self.each_method():
            method.finish(self)
        cells = [*channel_cells(self.traced, self.channels)]
        for method in self.each_method():
            cells += method.cells()
        variants: dict[int, Sequence[Variant]] = {}
        for method in self.each_method():
            variants |= method.variants()
        self._table = Table(*expanded(self.traced.workload, cells, variants), self._entries)
        self.workload_reference = self._before(cells)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network under the present decisions."""
        if self.training:
            for method in self.each_method():
                method.begin(self.model, args, kwargs)
                method.project()
        with ExitStack() as stack:
            stack.enter_context(self.masks.shared())
            for method in self.each_method():
                stack.enter_context(method.shared())
            if self._has_attention:
                stack.enter_context(slow_path())
            return self.model(*args, **kwargs)

    def workload(self, hard: bool = False) -> Workload:
        """Return the op table: of the soft decisions, or, if hard, of the exported network."""
        if not hard:
            return self._table(self.decisions.soft())
        key = tuple(method.decisions() for method in self.each_method())
        key = (self.alive.hard().numpy().tobytes() if self.channels.n_classes else b"", *key)
        if self._exported is None or self._exported[0] != key:
            exported = rerun(self._export(), *self._example())
            self._exported = key, exported.workload
        return self._exported[1]

    def _example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the example in the type that the network has now."""
        like = next((p for p in self.model.parameters() if p.is_floating_point()), None)

        def cast(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(like.dtype) if floating and like is not None else value

        args, kwargs = tree_map(cast, self._inputs)
        return args, kwargs

    def table(self, decisions: Tensor) -> Workload:
        """Return the op table at a vector of decisions, see ``Decisions``."""
        return self._table(decisions)

    def hard_table(self) -> Workload:
        """Return the op table of what is decided now, without exporting."""
        return self._table(self.decisions.hard())

    def export(self, form: str = "torch", path: str | Path | None = None) -> nn.Module:
        """Return the network that the present decisions make, of the user's own classes.

        Its weights are copies. In evaluation mode it computes what the search computes.

        Args:
            form: ``"torch"``; of a quantized network also ``"integer"``, an ``IntegerNet`` that
                computes with whole numbers only, or ``"onnx"``, which also writes a file.
            path: of that file; it has quantizers and whole weights.

        Raises:
            SearchError: the form is unknown, a decision is NaN, or there is no such form of an op.
        """
        model = self._export()
        return model if form == "torch" else converted(model, form, path, *self._example())

    def _export(self) -> nn.Module:
        self.refuse_nan()
        memo = {id(kept): kept for kept in (self.masks, *self.methods)}
        exported = copy.deepcopy(self.model, memo)
        restore(exported)
        for name, parameter in exported.named_parameters():
            parameter.requires_grad_(name in self._trainable)
        slice_channels(exported, self.channels, self.alive.hard())
        for method in sorted(self.each_method(), key=lambda method: method.order):
            exported = method.export(exported)
        for parameter in exported.parameters():
            parameter.grad = None
        return exported

    def kept(self) -> dict[str, str]:
        """Return why layers keep all their channels: weight -> reason."""
        return dict(self.channels.frozen)

    def summary(self) -> Summary:
        """Return what is decided now, what stays and why, and the costs; print it."""
        return summarise(self)

    @property
    def temperature(self) -> float:
        """The temperature of all choices."""
        return self.sampling.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.sampling.temperature = value

    def reserve(self, entries: int) -> int:
        """Return where a method's entries begin in the vector of decisions."""
        start = self._entries
        self._entries += entries
        return start

    def mask_weight(self, name: str, entries: Tensor) -> None:
        """Multiply a weight by decisions wherever it is read.

        Args:
            name: of the parameter.
            entries: places in the vector of decisions, -1 for 1; int64, of a shape that
                broadcasts to the weight's.
        """
        if name in self._masked:
            self.masks.multiply(self._masked[name], entries)
            return
        self._masked[name] = self.masks.add(entries)
        for module, attribute in owners(self.model, self._tensor(name)):
            product = WeightMask(self._masked[name])
            add_transform(module, attribute, product)
            if attribute == "weight" and is_lean(module):
                replace_forward(module, LeanForward(product))

    @torch.no_grad()
    def _before(self, cells: Sequence[Cell]) -> Workload:
        """Return the table of the network with all its channels, at the highest precisions."""
        workload = self.traced.workload
        for method in self.each_method():
            workload = method.reference(workload)
        start = self.decisions.soft().detach().clone()
        start[: self.channels.n_classes] = 1
        return Table(workload, cells, self._entries)(start)

    def _tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer as it is stored."""
        path, _, attribute = name.rpartition(".")
        module = self.model.get_submodule(path)
        found = {**module._buffers, **module._parameters}[attribute]
        assert found is not None
        return found

    def _mask_readers(self) -> None:
        """Let all who mix channels leave dead ones out, if any can die."""
        if not self.alive.factors:
            return
        for name, cut in reading(self.model, self.channels):
            if name.rpartition(".")[0] not in self.channels.inputs:
                shape = [1] * self._tensor(name).dim()
                shape[cut.dim] = -1
                self.mask_weight(name, cut.classes.view(shape))
        for path, norm in self.channels.norms.items():
            mask = self.masks.add(norm.classes)
            replace_forward(self.model.get_submodule(path), MaskedNorm(mask))
        for path, classes in self.channels.inputs.items():
            mask = self.masks.add(classes)
            replace_forward(self.model.get_submodule(path), MaskedInput(mask))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle without ``__new__``, which needs a model."""
        return _blank, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_exported": None}


def _blank(cls: type[Search]) -> Search:
    search: Search = nn.Module.__new__(cls)
    return search
