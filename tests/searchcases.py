"""What the suites of the search methods run on: every method with every net that it can search."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

import hwcost.search
from hwcost import CostModel, PrecisionError, UnsupportedOp
from hwcost.search import Search
from hwcost.search.nm import NMPruning
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
    and found.__name__ == name  # an older spelling is the same class
} | {"NMPruning": NMPruning}

#: Methods that decide among branches, and so need nets that have some.
BRANCHING = {"SuperNet", "PITSuperNet"}

#: Methods that quantize, and so fold norms and decide about bits.
QUANTIZING = {"MPS", "ODiMO"}

#: Nets on which methods that quantize, or prune in patterns, are tested in the quick suite.
VARIED = {
    *("Residual", "MobileNet", "ConvNeXt", "CausalTCN", "UNet", "MultiheadAttention"),
    *("GroupNorms", "ConvLSTM", "InPlace", "Sequences", "WeightNorm"),
}

#: Nets on which, in the quick suite, more than one variant of a method is tested.
FEW = {"Residual", "MobileNet", "MultiheadAttention", "GroupNorms"}

#: Method -> the variant that is tested on all of ``VARIED``; the others are on ``FEW``.
FULLEST = {"MPS": "removal", "NMPruning": "2of4"}

#: Method -> the ways in which it is run, by name; others run as they are.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "MPS": {
        "layer": {"w_bits": (2, 4, 8), "a_bits": (2, 4, 8)},
        "channel": {"w_bits": (2, 4, 8), "granularity": "channel"},
        "removal": {"w_bits": (0, 2, 4, 8), "granularity": "channel"},
    },
    "ODiMO": {"diana": {"platform": "diana", "metric": "latency"}},
    "NMPruning": {
        "2of4": {"n": 2, "m": 4},
        "1of3": {"n": 1, "m": 3, "depthwise": True},
    },
}

#: Method and net -> why the net cannot be searched, and what the search says.
UNSEARCHED: dict[str, dict[str, tuple[str, str]]] = {
    "ODiMO": {
        **dict.fromkeys(
            ("UNet", "Transposed", "Volumes"),
            ("diana has dense convolutions of 1 and 2 dimensions only", "no engine of diana"),
        ),
        **dict.fromkeys(
            (
                *("HandAttention", "FusedAttention", "MultiheadAttention", "ViT", "ConvLSTM"),
                *("Encoder-batch-pre", "Encoder-batch-post"),
                *("Encoder-tokens-pre", "Encoder-tokens-post"),
            ),
            ("diana has no attention and no recurrent layers", "diana.*has no formula for"),
        ),
    },
    "NMPruning": {
        "TiedAutoencoder": ("one matrix is read both ways", "read along several dimensions"),
    },
}

#: What is priced everywhere.
COSTS = {"params": "counts:params", "macs": "counts:macs", "memory": "counts:peak_ram"}

#: What a method that decides about bits is priced by as well.
BIT_COSTS = {"weight_bytes": "counts:weight_bytes", "bitops": "counts:bitops"}

#: What is priced where a platform knows all ops and bits; these may be staircases.
HARDWARE = {"latency": "gap8_compute:latency"}
BIT_HARDWARE = {"mpic": "mpic:latency", "ne16": "ne16_compute:latency"}
ENGINE_HARDWARE = {"latency": "diana:latency", "energy": "diana:energy"}


class Case(NamedTuple):
    """A method on a net."""

    method: str
    net: str
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(word for word in (self.method, self.variant, self.net) if word)

    @property
    def branching(self) -> bool:
        """Whether the method decides among branches."""
        return self.method in BRANCHING

    @property
    def quantizing(self) -> bool:
        """Whether the method decides about bits."""
        return self.method in QUANTIZING

    @property
    def faithful(self) -> bool:
        """Whether a search computes what the net does until something is decided."""
        return not (self.branching or self.quantizing or self.method == "NMPruning")

    @property
    def slow(self) -> bool:
        """Whether other cases say nearly the same sooner."""
        if not (self.quantizing or self.method == "NMPruning"):
            return False
        fullest = FULLEST.get(self.method, self.variant) == self.variant
        return self.net not in (VARIED if fullest else FEW)

    @property
    def costs(self) -> dict[str, str]:
        """The costs that have a price wherever the method runs."""
        return COSTS | BIT_COSTS if self.quantizing else COSTS

    @property
    def hardware(self) -> dict[str, str]:
        """The costs that have a price on some nets."""
        if self.method == "ODiMO":
            return ENGINE_HARDWARE
        return BIT_HARDWARE if self.quantizing else HARDWARE


CASES = [
    Case(method, net, variant)
    for method in METHODS
    for variant in VARIANTS.get(method, {"": {}})
    for net in (CHOICE_NETS if method in BRANCHING else NETS)
    if net not in UNSEARCHED.get(method, {})
]


def parametrised(cases: Iterable[Case], varied: bool = False) -> pytest.MarkDecorator:
    """Run a test on cases; those that are slow are marked so.

    Args:
        varied: of methods that quantize, those on nets outside ``VARIED`` are slow too.
    """

    def is_slow(case: Case) -> bool:
        return case.slow or (varied and case.quantizing and case.net not in VARIED)

    marks = ((case, [pytest.mark.slow] if is_slow(case) else []) for case in cases)
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=str(case), marks=mark) for case, mark in marks]
    )


#: Every method in each of its variants, on no net in particular.
KINDS = list(dict.fromkeys((case.method, case.variant) for case in CASES))


def subject(case: Case) -> tuple[nn.Module, Any]:
    """Return the case's net, always with the same weights, and its example."""
    nets: Nets = CHOICE_NETS if case.branching else NETS
    return nets[case.net]()


def build(case: Case, model: nn.Module | None = None) -> Search:
    """Return a new search, in training mode, with all its costs that have a price."""
    made, example = subject(case)
    options = VARIANTS.get(case.method, {}).get(case.variant, {})
    search = METHODS[case.method](model or made, example, cost=case.costs, **options)
    for name, cost in case.hardware.items():
        with suppress(UnsupportedOp, PrecisionError):
            CostModel(*cost.split(":")).total(search.workload())
            search.cost_specification = {**search.cost_specification, name: cost}
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


def exact(case: Case, search: Search) -> tuple[Search, Any]:
    """Return a search, and its example, in which no other order of a sum changes a code.

    A code may be any of two where the last bit of a sum decides: those of float32 often differ,
    those of float64 never did.
    """
    example = given(case)
    if not case.quantizing:
        return search, example
    return search.double(), as_double(example)


def as_double(example: Any) -> Any:
    """Return an example in float64."""
    floats = (Tensor, lambda x: x.double() if x.is_floating_point() else x)
    return tree_map_only(*floats, example)


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
    """Draw decisions of which none is undecided: masks of 0 and 1, one option of each choice.

    In every mask something is alive: what a search keeps in an empty one has a share of 0.
    """
    draw = torch.Generator().manual_seed(seed)
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        for name, parameter in search.named_nas_parameters():
            if name.endswith("logits"):
                scores = torch.rand(parameter.shape, generator=draw)
                scores[..., 0] *= 2 * (1 - share)  # the option that may remove a channel
                chosen = scores.masked_fill(~allowed(search, name), -1).argmax(-1, keepdim=True)
                parameter.zero_().scatter_(-1, chosen, 1e4)
            else:
                drawn = torch.rand(parameter.shape, generator=draw) < share
                parameter.copy_(drawn)
        if torch.equal(search.alive.soft() > 0, search.alive.hard()):
            return


def allowed(search: Search, name: str) -> Tensor:
    """Return which options each choice of some logits has, bool, of their shape."""
    path, _, _ = name.rpartition(".")
    logits = dict(search.named_nas_parameters())[name]
    everything = torch.ones(logits.shape, dtype=torch.bool)
    found: Tensor = getattr(search.get_submodule(path), "allowed", everything)
    return found


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


def masks(search: Search) -> Iterator[tuple[str, nn.Parameter, Any]]:
    """Yield every single mask or choice: a name, the parameter that it is in, and where."""
    for name, parameter in search.named_nas_parameters():
        path, _, last = name.rpartition(".")
        places = getattr(search.get_submodule(path), "places", {})
        if last == "alpha" and places:
            yield from ((f"{name}[{key}]", parameter, place) for key, place in places.items())
        elif last == "logits" and parameter.dim() > 1:
            open_rows = (allowed(search, name).sum(1) > 1).nonzero().flatten().tolist()
            yield from ((f"{name}[{row}]", parameter, row) for row in open_rows)
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


def learners(search: Search) -> list[nn.Parameter]:
    """Return the decisions, or of a search that has none, such as of patterns, its weights."""
    return list(search.nas_parameters()) or list(search.net_parameters())


def smooth(search: Search) -> list[str]:
    """Return the costs that are no staircases: their slopes are those of their values."""
    stairs = HARDWARE | BIT_HARDWARE | ENGINE_HARDWARE
    return [name for name in search.cost_specification if name not in stairs]


def relative_cost(search: Search) -> Tensor:
    """Return the sum of a search's smooth costs, each relative to what it was."""
    costs = [search.get_cost(name, relative=True) for name in smooth(search)]
    total = torch.stack(costs).sum()
    return total if total.requires_grad else total.requires_grad_()  # nothing is decided


def train(search: Search, optimizer: torch.optim.Optimizer, example: Any, steps: int) -> None:
    """Take steps that change network and decisions."""
    search.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (task_loss(search, example) + 0.1 * relative_cost(search)).backward()
        optimizer.step()
