"""That patterns of weights go together with every other method, on every net."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hwcost import SearchError
from hwcost.search import Method, Search
from hwcost.search.mps import MPSMethod
from hwcost.search.nm import NMMethod
from hwcost.search.odimo_method import ODiMOMethod
from hwcost.search.pit import PITMethod
from hwcost.search.supernet import SuperNetMethod
from tests.searchcases import VARIED, as_double, decide, difference, randomise, task_loss
from tests.searchnets import NETS
from tests.searchnets_choices import CHOICE_NETS

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

#: Name -> methods beside the pruning, and whether they come first.
OTHERS: dict[str, Callable[[], list[Method]]] = {
    "PIT": lambda: [PITMethod(), NMMethod(n=2, m=4)],
    "PIT last": lambda: [NMMethod(n=1, m=3), PITMethod(train_dilation=False)],
    "bits": lambda: [
        MPSMethod(w_bits=(2, 4, 8), a_bits=(8, 16), granularity="channel"),
        NMMethod(n=2, m=4),
    ],
    "removal": lambda: [
        NMMethod(n=1, m=4),
        MPSMethod(w_bits=(0, 4, 8), a_bits=(16,), granularity="channel"),
    ],
    "PIT and bits": lambda: [PITMethod(), MPSMethod(w_bits=(4,)), NMMethod(n=2, m=4)],
}

#: Nets of which no weight can be pruned, and those with exact halves of steps; see the suite.
LEFT_OUT = {"TiedAutoencoder", "UNet"}

#: Where norms are folded, PIT finds nothing in these.
KEPT = {"TupleOutputs", "Split"}

QUICK = {"Residual", "MobileNet", "GroupNorms", "Transposed"}

every_pair = pytest.mark.parametrize(
    ("net", "other"),
    [
        pytest.param(net, other, marks=() if net in QUICK else pytest.mark.slow)
        for net in NETS
        for other in OTHERS
        if net not in LEFT_OUT
        and not (net in KEPT and other == "PIT and bits")
        and ("PIT" in other or net in VARIED or net in QUICK)
    ],
)


def joint(net: str, other: str) -> tuple[Search, Any]:
    """Return a search in float64, and an example."""
    model, example = NETS[net]()
    return Search(model, example, OTHERS[other]()).double(), as_double(example)


def pruning(search: Search) -> NMMethod:
    """Return the method that prunes."""
    return next(method for method in search.each_method() if isinstance(method, NMMethod))


@every_pair
def test_the_export_computes_what_the_search_does(net: str, other: str) -> None:
    search, example = joint(net, other)
    for seed in range(3):
        randomise(search, seed)
        assert difference(search.export(), search, example) <= 1e-5, f"seed {seed}"


@every_pair
def test_the_pattern_is_that_of_the_remaining_channels(net: str, other: str) -> None:
    search, _ = joint(net, other)
    method = pruning(search)
    for seed in range(3):
        randomise(search, seed)
        exported = search.export()
        for layer in method.layers:
            weight = dict(exported.named_parameters(remove_duplicate=False))[layer.weight]
            owner = exported.get_submodule(layer.path)
            blocks = int(getattr(owner, "groups", 1)) if layer.blocks > 1 else 1
            for part in weight.chunk(blocks, layer.dim) if not layer.kernel else ():
                assert most_in_groups(part, layer.dim, method.m) <= method.n


def most_in_groups(weight: torch.Tensor, dim: int, m: int) -> int:
    """Return the most numbers that are not 0 in m consecutive ones, of whole groups."""
    there = (weight != 0).movedim(dim, -1)
    whole = there.shape[-1] // m * m
    return int(there[..., :whole].unflatten(-1, (-1, m)).sum(-1).max()) if whole else 0


@every_pair
def test_the_density_of_the_table_is_that_of_the_export(net: str, other: str) -> None:
    search, _ = joint(net, other)
    for seed in range(3):
        decide(search, seed)
        expected = densities(search.workload(hard=True))
        for workload in (search.workload(), search.hard_table()):
            assert densities(workload) == expected, f"seed {seed}"


def densities(workload: Any) -> dict[str, set[float]]:
    """Return the densities of each layer's rows, those of removed layers and variants aside."""
    found: dict[str, set[float]] = {}
    weighted = ("conv", "conv_transpose", "linear")
    rows = zip(workload.layers, workload.kinds, workload.column("density").tolist(), strict=True)
    for layer, kind, density in rows:
        if kind in weighted:
            found.setdefault(layer, set()).add(density)
    return found


def test_kernels_are_searched_or_pruned() -> None:
    model = nn.Sequential(nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 9, groups=8), nn.Conv1d(8, 4, 1))
    x = torch.ones(1, 4, 32)
    with pytest.raises(SearchError, match=r"layer '1': NMPruning\(depthwise=True\) prunes along a"):
        Search(model, x, [PITMethod(), NMMethod(depthwise=True)])
    search = Search(
        model, x, [NMMethod(depthwise=True), PITMethod(train_rf=False, train_dilation=False)]
    )
    randomise(search, 0)
    assert difference(search.export(), search, x) <= 1e-5


def test_engines_and_patterns_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    methods = [ODiMOMethod(platform="diana", metric="latency"), NMMethod(n=2, m=4)]
    with pytest.raises(SearchError, match="ODiMO orders the channels of an export by engine"):
        Search(model, torch.ones(1, 3, 9, 9), methods)


@pytest.mark.parametrize("net", [n for n in CHOICE_NETS if n != "OnlyAChoice"])
def test_branches_are_pruned(net: str) -> None:
    model, example = CHOICE_NETS[net]()
    search = Search(model, example, [SuperNetMethod(), NMMethod(n=2, m=4)])
    for seed in range(3):
        randomise(search, seed)
        assert difference(search.export(), search, example) <= 1e-5
    task_loss(search.train(), example).backward()
    assert any(p.grad is not None for p in search.net_parameters())
