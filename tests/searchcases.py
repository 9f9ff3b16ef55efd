"""What the suites of the search methods run on: every method with every net that it can search."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import hwcost.search
from hwcost import UnsupportedOp
from hwcost.search import Search
from tests.searchnets import NETS
from tests.searchnets_base import Nets, run
from tests.searchnets_choices import CHOICE_NETS

#: Method -> its class, all that the package has.
METHODS: dict[str, type[Search]] = {
    name: found
    for name in hwcost.search.__all__
    if isinstance(found := getattr(hwcost.search, name), type)
    and issubclass(found, Search)
    and found is not Search
}

#: Methods that decide among branches, and so need nets that have some.
BRANCHING = {"SuperNet", "PITSuperNet"}

#: What is priced wherever a platform knows all ops.
COSTS = {
    "params": "counts:params",
    "macs": "counts:macs",
    "memory": "counts:peak_ram",
    "latency": "gap8_compute:latency",
}

#: Costs that are no staircases: their slopes are those of their values.
SMOOTH = ("params", "macs", "memory")


class Case(NamedTuple):
    """A method on a net."""

    method: str
    net: str

    def __str__(self) -> str:
        return f"{self.method}-{self.net}"

    @property
    def branching(self) -> bool:
        """Whether the method decides among branches."""
        return self.method in BRANCHING


CASES = [Case(m, net) for m in METHODS for net in (CHOICE_NETS if m in BRANCHING else NETS)]


def subject(case: Case) -> tuple[nn.Module, Any]:
    """Return the case's net, always with the same weights, and its example."""
    nets: Nets = CHOICE_NETS if case.branching else NETS
    return nets[case.net]()


def build(case: Case, model: nn.Module | None = None) -> Search:
    """Return a new search, in training mode, with all costs of ``COSTS`` that have a price."""
    made, example = subject(case)
    smooth = {name: COSTS[name] for name in SMOOTH}
    search = METHODS[case.method](model or made, example, cost=smooth)
    try:
        search.cost_specification = COSTS
    except UnsupportedOp:
        search.cost_specification = smooth
    return search


@cache
def built(case: Case) -> Search:
    """Return the case's search, made once; to be copied, not changed."""
    return build(case)


def fresh(case: Case, seed: int | None = None) -> Search:
    """Return a search of its own, at the start or with random decisions."""
    search = copy.deepcopy(built(case))
    if seed is not None:
        randomise(search, seed)
    return search


@torch.no_grad()
def randomise(search: Search, seed: int) -> None:
    """Draw all decisions: masks of channels are half alive, kernels have lost some taps."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in search.named_nas_parameters():
        if name.endswith("logits"):
            parameter.normal_(0, 2, generator=draw)
            continue
        parameter.uniform_(-1, 1, generator=draw)
        if not name.endswith("alpha"):
            parameter.mul_(torch.rand(parameter.shape, generator=draw) < 0.4)


@torch.no_grad()
def decide(search: Search, seed: int) -> None:
    """Draw decisions of which none is undecided: masks of 0 and 1, one branch of each choice.

    In every mask something is alive: what a search keeps in an empty one has a share of 0.
    """
    draw = torch.Generator().manual_seed(seed)
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        for name, parameter in search.named_nas_parameters():
            if name.endswith("logits"):
                chosen = int(torch.randint(len(parameter), (), generator=draw))
                parameter.fill_(0.0)[chosen] = 1e4
            else:
                drawn = torch.rand(parameter.shape, generator=draw) < share
                parameter.copy_(drawn)
        if torch.equal(search.alive.soft() > 0, search.alive.hard()):
            return


@torch.no_grad()
def between(search: Search, seed: int) -> None:
    """Draw decisions none of which is at a kink of its soft value."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in search.named_nas_parameters():
        if name.endswith("logits"):
            parameter.normal_(generator=draw)
        elif name.endswith("alpha"):
            parameter.uniform_(-1, 1, generator=draw)
        else:
            parameter.uniform_(0.01, 0.09, generator=draw)  # sums of them stay below 1


def masks(search: Search) -> Iterator[tuple[str, nn.Parameter, slice]]:
    """Yield every single mask: a name, the parameter that it is in, and where."""
    for name, parameter in search.named_nas_parameters():
        path, _, last = name.rpartition(".")
        places = getattr(search.get_submodule(path), "places", {})
        if last == "alpha" and places:
            yield from ((f"{name}[{key}]", parameter, place) for key, place in places.items())
        elif parameter.numel():
            yield name, parameter, slice(None)


def given(case: Case) -> Any:
    """Return the case's example."""
    return subject(case)[1]


@torch.no_grad()
def outputs(model: nn.Module, example: Any, training: bool = False) -> tuple[list[Any], str]:
    """Return all that a model returns, flat, and how it was nested."""
    leaves, spec = tree_flatten(run(model.train(training), example))
    return leaves, str(spec)


def difference(model: nn.Module, other: nn.Module, example: Any, training: bool = False) -> float:
    """Return by how much outputs differ, the largest of all, relative to the tensor's largest."""
    leaves, spec = outputs(model, example, training)
    expected, spec_expected = outputs(other, example, training)
    assert spec == spec_expected
    assert any(isinstance(leaf, Tensor) for leaf in expected)
    found = 0.0
    for leaf, value in zip(leaves, expected, strict=True):
        if not isinstance(value, Tensor):
            assert leaf == value
            continue
        assert leaf.shape == value.shape and leaf.dtype == value.dtype
        assert bool(value.isfinite().all()) and bool(leaf.isfinite().all())
        scale = max(float(value.abs().max()), 1e-30)
        found = max(found, float((leaf - value).abs().max()) / scale)
    return found


def task_loss(search: nn.Module, example: Any) -> Tensor:
    """Return a loss in which every output takes part."""
    leaves, _ = tree_flatten(run(search, example))
    floats = [leaf.float() for leaf in leaves if isinstance(leaf, Tensor)]
    # Differences from a fixed pattern: sums of squares alone are constant behind a norm.
    goals = [torch.linspace(-1, 1, leaf.numel()).view(leaf.shape) for leaf in floats]
    return torch.stack([(f - g).square().mean() for f, g in zip(floats, goals, strict=True)]).sum()


def relative_cost(search: Search) -> Tensor:
    """Return the sum of a search's smooth costs, each relative to what it was."""
    return torch.stack([search.get_cost(name, relative=True) for name in SMOOTH]).sum()


def train(search: Search, optimizer: torch.optim.Optimizer, example: Any, steps: int) -> None:
    """Take steps that change network and decisions."""
    search.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (task_loss(search, example) + 0.1 * relative_cost(search)).backward()
        optimizer.step()
