"""SuperNet: one of several branches at each choice, by trainable probabilities.

Source:
    Liu et al., DARTS, arXiv:1806.09055 (softmax over branches); Dong and Yang, GDAS,
    arXiv:1910.04465 (one sampled path with the gradient of its probability).
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.choice import Choice
from hwcost.search.gates import ChoiceKnob
from hwcost.search.method import Method, Trace
from hwcost.search.table import Cell, Count, Term


class SuperNetMethod(Method):
    """SuperNet as one of several methods of a search; for its arguments see ``SuperNet``."""

    title = "SuperNet"
    order = 2

    def __init__(self, *, single_path: bool = False) -> None:
        super().__init__()
        self.single_path = single_path
        self.choices = nn.ModuleDict()
        self._of: dict[str, str] = {}
        self._cells: list[Cell] = []

    def prepare(self, model: nn.Module, trace: Trace) -> None:
        found = {p: m for p, m in model.named_modules() if isinstance(m, Choice)}
        if not found:
            raise SearchError(f"{type(model).__name__} has no Choice for SuperNet to decide")
        for path, choice in found.items():
            name = _key(choice.shared or path)
            self._of[path] = name
            self._check_shared(name, path, choice)
            if name not in self.choices:
                self.choices[name] = ChoiceKnob(len(choice.branches))
            choice.traced = True

    def _check_shared(self, name: str, path: str, choice: Choice) -> None:
        if name in self.choices and self._knob(name).size != len(choice.branches):
            raise SearchError(
                f"choice {path!r} has {len(choice.branches)} branches; the others that share "
                f"{choice.shared!r} have {self._knob(name).size}"
            )

    def attach(self, search: Search) -> None:
        for path, name in self._of.items():
            choice = search.model.get_submodule(path)
            assert isinstance(choice, Choice)
            choice.traced = False
            knob = self._knob(name)
            knob.sampling = search.sampling
            choice.selector = _Selector(self, knob, choice)
        starts: dict[str, int] = {}
        for name in self.choices:
            starts[name] = search.reserve(self._knob(name).size)
        self._cells = list(self._weights(search, starts))

    def _weights(self, search: Search, starts: dict[str, int]) -> Iterator[Cell]:
        """Yield the expected executions of each row within a branch."""
        traced = search.traced
        usual = traced.workload.column("weight").tolist()
        for row, index in enumerate(traced.calls):
            scope = traced.recording.scopes[traced.recording.calls[index].scope].path
            counts = [
                Count((starts[name] + int(scope.removeprefix(inside).split(".")[0]),))
                for path, name in self._of.items()
                if scope.startswith(inside := f"{path}.branches.".lstrip("."))
            ]
            if counts:
                yield Cell(row, "weight", (Term(usual[row], tuple(counts)),))

    def entries(self) -> Tensor | None:
        return torch.cat([self._knob(name).probabilities() for name in self.choices])

    def hard_entries(self) -> Tensor | None:
        knobs = [self._knob(name) for name in self.choices]
        return torch.cat([one_hot(torch.tensor(k.chosen()), k.size) for k in knobs]).float()

    def cells(self) -> list[Cell]:
        return self._cells

    def decisions(self) -> Hashable:
        return tuple(self._knob(name).chosen() for name in self.choices)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Draw every decision once for the body."""
        for name in self.choices:
            self._knob(name).hold()
        try:
            yield
        finally:
            for name in self.choices:
                self._knob(name).release()

    def export(self, model: nn.Module) -> nn.Module:
        paths = {path: module for path, module in model.named_modules()}
        chosen = {id(paths[p]): self._knob(name).chosen() for p, name in self._of.items()}
        return _resolved(model, chosen)

    def summary(self) -> list[str]:
        lines = []
        for path, name in self._of.items():
            knob = self._knob(name)
            shares = ", ".join(f"{p:.2f}" for p in knob.probabilities().tolist())
            lines.append(f"{path}: branch {knob.chosen()} of {knob.size} ({shares})")
        return lines

    def _knob(self, name: str) -> ChoiceKnob:
        knob = self.choices[name]
        assert isinstance(knob, ChoiceKnob)
        return knob


class _Selector:
    """What a choice asks while the network runs."""

    def __init__(self, method: SuperNetMethod, knob: ChoiceKnob, choice: Choice) -> None:
        self.method, self.knob, self.choice = method, knob, choice

    def weights(self) -> Tensor:
        return self.knob.sample()

    def path(self) -> tuple[int, Tensor | None] | None:
        if not self.choice.training:
            return self.knob.chosen(), None
        if not self.method.single_path:
            return None
        return self.knob.drawn()


def _key(name: str) -> str:
    """Return a name that a ModuleDict takes; no dot may be in it."""
    return name.replace(".", "/") or "model"


def _resolved(module: nn.Module, chosen: dict[int, int]) -> nn.Module:
    """Return a module with every choice in it replaced by the branch chosen."""
    while isinstance(module, Choice):
        module = module.branches[chosen[id(module)]]
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _resolved(child, chosen)
    return module


class SuperNet(Search):
    """Search over the branches of every ``Choice`` in a network.

    In training the output of a choice is the weighted sum of its branches' outputs; the weights
    follow ``search.sampling.mode``: probabilities (``"soft"``), Gumbel noise (``"gumbel"``), or
    one branch with a straight-through gradient (``"hard"``). In evaluation mode only the most
    probable branch runs: that which ``export`` leaves in the choice's place. The cost is the
    expected cost, exact for the branches' ops.

    Args:
        model, example, cost, input_shape, input_example, seed: as for ``Search``.
        single_path: run one drawn branch at each training step: time and memory of one path.

    Raises:
        SearchError: the model has no choice, or branches differ in shape.
    """

    method = SuperNetMethod

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        cost: Any = "counts:params",
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
        single_path: bool = False,
    ) -> None:
        inputs = {"input_shape": input_shape, "input_example": input_example}
        methods = [SuperNetMethod(single_path=single_path)]
        super().__init__(model, example, methods, cost=cost, seed=seed, **inputs)
