"""Search methods on a platform that cuts ops into tiles: what a search costs, its export does."""

import copy
import math
from pathlib import Path

import pytest
import torch

from hwcost import CostModel, Workload, trace, zoo
from hwcost.search import ODiMO, Pruner
from tests.searchcases import CASES, FEW, Case, built, decide, given, randomise
from tests.searchnets import NETS

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

SOC = Path(__file__).parent / "data" / "tiled_soc.yaml"

#: Nets of the quick suite.
QUICK = {"MobileNet", "Branches"}

#: All but those that price channels by engine, which have a platform of their own.
ANYWHERE = [case for case in CASES if case.method != "ODiMO" and not case.slow]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[] if case.net in QUICK else [pytest.mark.slow])
        for case in ANYWHERE
        if case.branching or case.net in FEW
    ],
)
def test_the_hard_cost_is_that_of_the_exports_own_tiles(case: Case) -> None:
    model, search = CostModel(SOC, "cycles"), copy.deepcopy(built(case))
    search.cost_specification = {"cycles": model}
    for seed in range(2):
        randomise(search, seed)
        expected = model.total(trace(search.export(), given(case)))
        assert search.get_cost("cycles", hard=True) == expected, f"seed {seed}"
        assert bool(search.get_cost("cycles").isfinite())


@pytest.mark.parametrize("net", ["Residual", "MobileNet", "CausalTCN"])
@pytest.mark.parametrize("method", ["PIT", "MPS"])
def test_a_decided_search_costs_what_its_export_does(method: str, net: str) -> None:
    search = copy.deepcopy(built(Case(method, net, "removal" if method == "MPS" else "")))
    search.cost_specification = {"cycles": CostModel(SOC, "cycles")}
    for seed in range(3):
        decide(search, seed)
        soft, hard = search.cost.item(), search.get_cost(hard=True).item()
        assert soft == pytest.approx(hard, rel=1e-9), f"seed {seed}"


@pytest.mark.parametrize(
    "net", ["Residual", *(pytest.param(net, marks=pytest.mark.slow) for net in sorted(FEW))]
)
def test_channels_are_shared_by_an_engine_with_tiles_and_one_without(net: str) -> None:
    model, example = NETS[net]()
    search = ODiMO(model, example, platform=SOC, metric="latency")
    for seed in range(2):
        randomise(search, seed)
        expected = CostModel(SOC, "latency").total(trace(search.export(), example))
        assert search.get_cost(hard=True) == expected, f"seed {seed}"
        search.get_cost().backward()
    slopes = [p.grad for p in search.nas_parameters() if p.grad is not None]
    assert slopes
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_a_net_is_pruned_to_a_cost_in_tiles() -> None:
    model, example = zoo.ds_cnn()
    before = CostModel(SOC, "latency").total(trace(model, example))
    pruner = Pruner(model, input_size=tuple(example.shape[1:]))
    pruner.prune_to("latency <= 80 %", cost=str(SOC))
    after = CostModel(SOC, "latency").total(trace(model, example))
    assert float(after) <= 0.8 * float(before)


def test_fewer_bits_make_fewer_tiles() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3))
    work, model = trace(net, input_shape=(32, 8, 8)), CostModel(SOC, "cycles")
    few, many = (work.with_precision(w_bits=bits, a_bits=bits) for bits in (2, 8))
    sizes = {"cin": 32, "cout": 64, "oh": 6, "ow": 6}

    def count(bits: Workload) -> float:
        tiles = model.plan(bits).tiles
        return math.prod(-(-whole // float(tiles[f"tile.{n}"])) for n, whole in sizes.items())

    assert 2 * count(few) < count(many)
