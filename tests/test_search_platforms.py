"""That searches run on every platform that comes with hwcost and has a latency."""

import copy
from functools import cache

import pytest
import torch

from hwcost import CostModel, load, trace
from hwcost.loading import available
from hwcost.search import MPS, PIT, ODiMO, Pruner, Search
from hwcost.zoo import mobilenet_v1, resnet8
from tests.searchcases import decide, randomise

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

LATENCY = [name for name in available() if "latency" in load(name).metrics]

#: Platforms that run all kinds of layers with 8 bits, on which MPS may remove channels.
WITH_8_BITS = [name for name in LATENCY if name != "darkside"]

TWO_ENGINES = [name for name in LATENCY if len(load(name).engines) > 1]

#: Of several engines, which one runs a layer is settled before a search; so is, on ``host``, which
#: kernel of PyTorch does.
SETTLED = [name for name in LATENCY if name not in TWO_ENGINES and load(name).status != "template"]

every_platform = pytest.mark.parametrize("platform", LATENCY)
every_8_bits = pytest.mark.parametrize("platform", WITH_8_BITS)


@cache
def pit() -> Search:
    return PIT(*resnet8(), cost="counts:macs")


@cache
def removing() -> Search:
    model, example = resnet8()
    return MPS(model, example, cost="counts:macs", w_bits=(0, 8), granularity="channel")


def priced(search: Search, platform: str) -> Search:
    own = copy.deepcopy(search)
    own.cost_specification = {"latency": f"{platform}:latency"}
    return own


def assert_exact(search: Search) -> None:
    """The hard cost is that of the export, and the soft one pulls at every decision it should."""
    randomise(search, 0)
    search.cost.backward()
    grads = [p.grad for p in search.nas_parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in grads)
    assert any(bool((g != 0).any()) for g in grads)
    latency = search.cost_specification["latency"]
    assert isinstance(latency, CostModel)
    exported = latency.total(trace(search.export(), resnet8()[1]))
    assert search.get_cost(hard=True).item() == pytest.approx(exported.item(), rel=1e-12)


@every_platform
def test_channels_are_searched(platform: str) -> None:
    assert_exact(priced(pit(), platform))


@every_8_bits
def test_bits_and_channels_are_searched(platform: str) -> None:
    assert_exact(priced(removing(), platform))


@pytest.mark.parametrize("platform", SETTLED)
def test_a_decided_search_costs_what_its_export_does(platform: str) -> None:
    search = priced(pit(), platform)
    decide(search, 0)
    assert search.cost.item() == pytest.approx(search.get_cost(hard=True).item(), rel=1e-9)


@every_platform
def test_a_network_is_pruned_to_a_latency(platform: str) -> None:
    model, example = resnet8()
    before = CostModel(platform, "latency").total(trace(model, example)).item()
    Pruner(model, example).prune_to("latency <= 70 %", cost=platform)
    after = CostModel(platform, "latency").total(trace(model, example)).item()
    assert 0.6 * before < after <= 0.7 * before


@pytest.mark.parametrize("platform", TWO_ENGINES)
def test_channels_are_mapped_onto_engines(platform: str) -> None:
    model, example = mobilenet_v1()
    search = ODiMO(model, example, platform=platform, metric="latency")
    randomise(search, 0)
    search.cost.backward()
    assert any(bool((p.grad != 0).any()) for p in search.nas_parameters() if p.grad is not None)
    [latency] = search.cost_specification.values()
    assert isinstance(latency, CostModel)
    exported = latency.total(trace(search.export(), example))
    assert search.get_cost(hard=True).item() == pytest.approx(exported.item(), rel=1e-12)
    assert torch.isfinite(exported)
