"""ODiMO: offers of engines, costs of splits, exports in a new order, tables of mappings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost import CostModel, Platform, Workload, trace, zoo
from hwcost.errors import SearchError, UnknownName
from hwcost.loading import loads
from hwcost.recorder_quantize import fake_quantize
from hwcost.search.base import Search
from hwcost.search.odimo import ODiMO, ODiMO_MPS
from hwcost.search.odimo_method import SMOOTH, ODiMOMethod
from hwcost.search.odimo_split import SplitConv
from hwcost.search.pit import PITMethod
from tests.searchnets import NETS
from tests.searchnets_base import run

DUO = """
hwcost: 1
name: duo
title: two engines of equal precision, one twice as fast, one without overhead
status: datasheet
sources: {s: made up}
params: {p_idle: {value: 1 mW, source: s}}
engines:
  fast:
    params: {p_active: {value: 30 mW, source: s}}
    precision: {w_bits: [8], a_bits: [8]}
    ops:
      - {match: conv, cycles: 5000 + cin/groups*cout*kh*kw*oh*ow/16}
      - {match: linear, as: {match: conv, kh: 1, kw: 1, oh: 1, ow: positions}}
      - {match: [pool, norm, activation, elementwise, copy], free: left out}
  slow:
    params: {p_active: {value: 8 mW, source: s}}
    precision: {w_bits: [8], a_bits: [A_BITS]}
    ops:
      - {match: conv, where: groups == 1, cycles: cin*cout*kh*kw*oh*ow/8}
metrics:
  latency: {unit: cycle, row: cycles, engines: max, ops: sum}
  energy: {unit: W*cycle, row: p_active*busy + p_idle*(span - busy), engines: sum, ops: sum}
deploy: {w_bits: 8, a_bits: 8}
"""


def duo(a_bits: int = 8) -> Platform:
    return loads(DUO.replace("A_BITS", str(a_bits)))


class Net(nn.Module):
    """A square convolution, a depthwise one, a 1x1 one, a residual sum, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.square, self.bn = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point, self.fc = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.bn(self.square(x)))
        x = F.relu(self.point(F.relu(self.deep(x))))
        return self.fc(x.mean((2, 3)))


IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def search(platform: str | Platform = "diana", metric: str = "latency", **options: Any) -> ODiMO:
    torch.manual_seed(0)
    return ODiMO(Net(), IMAGE, platform, metric, **options).eval()


def scatter(found: Search, seed: int = 0) -> Search:
    """Put every channel on a random engine."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.nas_parameters():
            parameter.normal_(0, 2, generator=draw)
    return found


def choose(found: ODiMO, layer: str, engines: Sequence[str]) -> None:
    """Put the channels of a layer on engines."""
    number = next(i for i, w in enumerate(found.odimo.layers) if w.path == layer)
    weight, bank = found.odimo.layers[number], found.odimo.weights
    assert bank is not None
    names = [option.engine for option in weight.options]
    for row, engine in zip(range(weight.rows.start, weight.rows.stop), engines, strict=True):
        bank.logits.data[row, weight.columns[names.index(engine)]] = 5.0


def engines_of(found: ODiMO, layer: str) -> list[str]:
    weight = next(w for w in found.odimo.layers if w.path == layer)
    return [option.engine for option in weight.options]


@torch.no_grad()
def difference(found: Search, example: Any = IMAGE) -> float:
    """How far the exported network is from the searched one, relative."""
    ours, theirs = run(found, example), run(found.export().eval(), example)
    return float((ours - theirs).abs().max() / ours.abs().max())


# Offers.


class Products(nn.Module):
    """Layers written as products of matrices, two of them of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(5, 8))
        self.b, self.u = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(5, 7))
        self.fc = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(torch.relu(torch.addmm(self.b, x, self.w)) @ self.v.t())
        return self.fc(torch.relu(torch.einsum("bi,io->bo", x, self.u)))


def test_engines_compute_products_with_weights() -> None:
    torch.manual_seed(0)
    found = ODiMO(Products(), torch.randn(3, 6))
    both = {"digital", "analog"}
    assert [{o.engine for o in w.options} for w in found.odimo.layers] == [both] * 4
    scatter(found.eval().double())
    assert difference(found, torch.randn(3, 6).double()) == 0
    assert float(found.get_cost(hard=True)) == pytest.approx(float(found.estimate()), rel=1e-12)


def test_weights_of_one_module_have_their_own_names() -> None:
    found = ODiMO(Products(), torch.randn(3, 6))
    names = ["w", "v", "u", "fc"]
    assert list(found.baselines()["this search"].channels) == names
    assert list(dict.fromkeys(share.layer for share in found.mapping().shares)) == names
    assert [line.partition(":")[0] for line in found.odimo.summary()] == names
    assert found.baselines()["all on analog"].on("analog") == 8 + 5 + 7 + 4


def test_diana_offers_both_arrays_for_dense_layers_and_one_for_depthwise_ones() -> None:
    found = search()
    assert engines_of(found, "stem") == ["digital", "analog"]
    assert engines_of(found, "fc") == ["digital", "analog"]
    assert engines_of(found, "deep") == ["digital"]
    assert [o.bits for o in found.odimo.options] == [8, 2]


def test_darkside_offers_two_operations_for_square_3x3_layers() -> None:
    found = search("darkside")
    assert engines_of(found, "square") == engines_of(found, "deep") == ["cluster", "dwe"]
    assert engines_of(found, "point") == engines_of(found, "stem") == ["cluster"]


def test_a_platform_with_one_engine_leaves_nothing_to_choose() -> None:
    found = search("gap8_compute")
    assert not list(found.nas_parameters())
    assert found.get_cost() == found.get_cost(hard=True)


def test_engines_of_equal_precision_are_options_too() -> None:
    found = search(duo())
    assert engines_of(found, "square") == ["fast", "slow"]
    assert engines_of(found, "deep") == engines_of(found, "fc") == ["fast"]


def test_engines_without_common_bits_of_tensors_are_an_error() -> None:
    with pytest.raises(SearchError, match="no bits of tensors in common: fast 8; slow 4"):
        search(duo(4))


def test_a_layer_that_no_engine_computes_is_named() -> None:
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(SearchError, match=r"layer '0': no engine of diana .*digital, analog"):
        ODiMO(net, torch.ones(1, 3, 4, 4, 4))


def test_an_excluded_layer_stays_in_floating_point() -> None:
    found = search(exclude_names=["stem"])
    assert "stem" not in [weight.path for weight in found.odimo.layers]
    weights = [model.get_parameter("stem.weight") for model in (found.export(), found.model)]
    assert torch.equal(*weights)


def test_names_that_do_not_exist_are_errors() -> None:
    for options in ({"start": {"digitl": 1.0}}, {"w_bits": {"digitl": 8}}):
        with pytest.raises(UnknownName, match="digital"):
            search(**options)
    with pytest.raises(SearchError, match="no 4-bit weights; known: 2"):
        search(w_bits={"analog": 4})


def test_all_engines_are_as_probable_at_the_start_and_ties_have_most_bits() -> None:
    found = search()
    assert found.odimo.weights is not None
    assert found.odimo.weights.probabilities()[0].tolist() == [0.5, 0.5]
    assert {o.engine for own in found.odimo.chosen() for o in own} == {"digital"}


def test_start_sets_logits() -> None:
    found = search(start={"analog": 1.0})
    assert {o.engine for o in found.odimo.chosen()[0]} == {"analog"}


def test_the_other_spelling_and_a_method_without_a_model() -> None:
    assert ODiMO_MPS is ODiMO
    method: object = ODiMO(platform="darkside")  # type: ignore[call-arg]
    assert isinstance(method, ODiMOMethod)


# Costs.


def by_hand(found: ODiMO, platform: str | Platform) -> Workload:
    """The table of a mapping, from the user's own network and how many channels are where."""
    frame: list[Any] = trace(Net().eval(), IMAGE).to_frame().to_dict("records")
    chosen = dict(zip([w.path for w in found.odimo.layers], found.odimo.chosen(), strict=True))
    depthwise = {"dwe"}
    rows: list[dict[str, Any]] = []
    for op, row in enumerate(frame):
        own = [o.engine for o in chosen.get(row["layer"], [])]
        places: list[str | None] = [*dict.fromkeys(own)]
        for engine in places or [None]:
            new: dict[str, Any] = {**row, "op": op, "engine": engine}
            if engine is not None:
                new["cout"] = own.count(engine)
            if row["layer"] == "deep" and platform == "darkside":
                new["groups"] = 1
            if engine in depthwise or (row["layer"] == "deep" and platform != "darkside"):
                new["cin"] = new["groups"] = new["cout"]
            rows.append(new)
    names = {name for row in rows for name in row}
    return Workload.from_frame({n: [row.get(n, float("nan")) for row in rows] for n in names})


@pytest.mark.parametrize("metric", ["latency", "energy"])
@pytest.mark.parametrize("platform", ["diana", "darkside", "duo"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_hard_cost_is_that_of_a_table_made_by_hand(
    platform: str, metric: str, seed: int
) -> None:
    target: str | Platform = duo() if platform == "duo" else platform
    found = search(target, metric)
    scatter(found, seed)
    expected = CostModel(target, metric).total(by_hand(found, platform))
    assert found.get_cost(hard=True).item() == pytest.approx(expected.item(), rel=1e-12)
    assert found.estimate().item() == pytest.approx(expected.item(), rel=1e-12)
    exported = CostModel(target, metric).total(trace(found.export(), IMAGE))
    assert exported == found.get_cost(hard=True)


def test_the_soft_cost_of_certain_choices_is_a_little_above_the_exact_one() -> None:
    found = search()
    scatter(found)
    with torch.no_grad():
        for parameter in found.nas_parameters():
            parameter.mul_(100)
    exact, soft = found.get_cost(hard=True).item(), found.get_cost().item()
    assert exact < soft < exact * 2 ** (1 / SMOOTH)


@pytest.mark.parametrize("metric", ["latency", "energy"])
def test_the_gradient_of_the_soft_cost_is_that_of_differences(metric: str) -> None:
    found = scatter(search(duo(), metric))
    (logits,) = found.nas_parameters()
    (gradient,) = torch.autograd.grad(found.get_cost(), [logits])
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    step = 1e-2

    def at(scale: float) -> float:
        with torch.no_grad():
            logits.add_(direction, alpha=scale)
            cost = found.get_cost().item()
            logits.sub_(direction, alpha=scale)
        return cost

    slope = (at(step) - at(-step)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_the_first_channel_of_an_engine_brings_its_overhead_by_its_probability() -> None:
    found = search(duo())
    (logits,) = found.nas_parameters()
    weight = found.odimo.layers[1]
    with torch.no_grad():
        logits[:, 1] = 10.0
        logits[weight.rows.start, 0] = 9.5
    (gradient,) = torch.autograd.grad(found.get_cost(), [logits])
    assert gradient[weight.rows.start, 0].abs() > 1e-6
    assert gradient.isfinite().all()


# Exports.

#: Nets with branches, groups, other orders of channels, several uses of a layer.
OTHERS = ["Residual", "DepthwiseSeparable", "ConvNeXt", "ChannelShuffle", "DenseBlocks", "Loop"]


@pytest.mark.parametrize("platform", ["diana", "darkside"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_export_computes_what_the_search_does(platform: str, seed: int) -> None:
    found = scatter(search(platform), seed)
    assert difference(found) < 1e-5


@pytest.mark.parametrize("platform", ["diana", "darkside"])
@pytest.mark.parametrize("name", OTHERS)
def test_an_export_of_other_nets_too(name: str, platform: str) -> None:
    net, given = NETS[name]()
    found = ODiMO(net, given, CostModel(platform).platform).eval()
    scatter(found)
    assert difference(found, given) < 1e-5
    assert found.get_cost(hard=True).item() == pytest.approx(found.estimate().item(), rel=1e-9)


def test_the_channels_of_an_engine_stand_together() -> None:
    found = search()
    choose(found, "point", ["digital", "analog"] * 3)
    assert all(share.together for share in found.mapping().shares)
    point: Any = found.export().get_submodule("point")
    weights = point.weight.detach()
    levels = [len(channel.unique()) for channel in weights]
    assert [count <= 3 for count in levels] == [False] * 3 + [True] * 3


def test_of_two_layers_that_make_the_same_channels_the_first_orders_them() -> None:
    found = search()
    choose(found, "stem", ["digital", "analog"] * 4)
    choose(found, "square", ["digital"] * 2 + ["analog"] * 3 + ["digital"] * 3)
    together = {share.layer: share.together for share in found.mapping().shares}
    assert together["stem"]
    assert not together["square"]
    assert "*" in str(found.mapping())
    assert difference(found) < 1e-5


def test_channels_that_the_network_returns_keep_their_order() -> None:
    found = search()
    choose(found, "fc", ["analog", "digital", "analog", "digital"])
    assert not {s.layer: s.together for s in found.mapping().shares}["fc"]
    assert difference(found) < 1e-5


def dense_and_depthwise(engines: Sequence[str], layer: str = "square") -> ODiMO:
    found = search("darkside")
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if "depthwise" in name:
                parameter.add_(torch.randn_like(parameter))
    choose(found, layer, engines)
    return found


@pytest.mark.parametrize("layer", ["square", "deep"])
def test_a_layer_may_become_dense_depthwise_or_a_split(layer: str) -> None:
    kinds = []
    for count in (0, 3, 8):
        found = dense_and_depthwise(["dwe"] * count + ["cluster"] * (8 - count), layer)
        module = found.export().get_submodule(layer)
        kinds.append(type(module).__name__ + str(module.groups))
        assert difference(found) < 1e-5
    assert kinds == ["Conv2d1", "SplitConv1", "Conv2d8"]


def test_a_split_is_two_rows_of_one_op() -> None:
    found = dense_and_depthwise(["cluster"] * 5 + ["dwe"] * 3)
    frame = found.workload(hard=True).to_frame()
    rows = frame[frame["layer"].str.startswith("square")]
    assert rows["op"].nunique() == 1
    pairs = dict(
        zip(rows["engine"], rows[["cin", "cout", "groups"]].to_numpy().tolist(), strict=True)
    )
    assert pairs == {"cluster": [8, 5, 1], "dwe": [3, 3, 3]}


class Joined(nn.Module):
    """Two convolutions on two engines, put together: of one tensor, or of two."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        self.alike = alike
        self.ours, self.theirs = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Any:
        made = []
        for conv, engine in ((self.ours, "fast"), (self.theirs, "slow")):
            scale, codes = conv.weight.new_ones(1), ([8], [-127], [127])
            weight = fake_quantize(conv.weight, scale, *codes, 0, "", engine)
            made.append(F.conv2d(x if self.alike or engine == "fast" else x + 1, weight))
        return torch.cat(made, 1)


@pytest.mark.parametrize(("alike", "ops"), [(True, 1), (False, 4)])
def test_only_parts_that_read_the_same_are_one_op(alike: bool, ops: int) -> None:
    assert trace(Joined(alike), IMAGE).structure.n_ops == ops


def test_one_depthwise_channel_is_still_depthwise() -> None:
    found = dense_and_depthwise(["cluster"] * 7 + ["dwe"])
    kinds = {s.engine: s.kind for s in found.mapping().shares if s.layer == "square"}
    assert kinds == {"cluster": "conv", "dwe": "depthwise"}
    assert found.get_cost(hard=True) == found.estimate()


def test_a_split_holds_the_memory_of_its_whole_result() -> None:
    ram = CostModel("darkside", "peak_ram")
    whole = search("darkside", cost=ram).get_cost(hard=True)
    found = dense_and_depthwise(["cluster"] * 5 + ["dwe"] * 3)
    assert found.mapping().shares
    assert ram.total(found.workload(hard=True)) == whole


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_picking_channels_takes_no_memory(seed: int) -> None:
    net, given = NETS["Residual"]()
    found = ODiMO(net, given, "darkside", cost=CostModel("darkside", "peak_ram")).eval()
    scatter(found, seed)
    assert not all(share.together for share in found.mapping().shares)
    assert found.get_cost(hard=True) == found.estimate()


def test_a_depthwise_layer_starts_as_it_is() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    deep = search("darkside").model.get_submodule("deep")
    kernel, dense = deep._parameters["weight_depthwise"], deep._parameters["weight"]
    assert kernel is not None
    assert dense is not None
    assert torch.equal(kernel, net.deep.weight)
    assert torch.equal(dense.diagonal(), kernel[:, 0].movedim(0, -1))


def test_a_layer_that_only_becomes_dense_has_one_weight() -> None:
    net, given = NETS["ConvNeXt"]()
    found = ODiMO(net, given, "darkside")
    assert not found.odimo.forms.kernels
    assert not [name for name, _ in found.model.named_parameters() if "depthwise" in name]
    assert [m.groups for m in found.export().modules() if isinstance(m, nn.Conv2d)] == [1, 1, 1]


def test_both_weights_of_a_layer_learn() -> None:
    found = search("darkside").train()
    found(IMAGE).square().sum().backward()
    grads = {n: p.grad for n, p in found.model.named_parameters() if "square" in n}
    assert all(g is not None and bool((g != 0).any()) for g in grads.values())


def test_a_split_tells_its_weights_as_one_convolution() -> None:
    found = dense_and_depthwise(["dwe", "cluster"] * 4)
    split = found.export().get_submodule("square")
    assert isinstance(split, SplitConv)
    x = torch.randn(2, 8, 5, 5)
    own = F.conv2d(x, split.weight, split.bias, padding=1)
    expected = own[:, split.order.argsort()[4:]]
    assert torch.allclose(split.depthwise(x[:, split.reads]), expected, atol=1e-5)


def test_another_method_may_not_remove_channels_of_such_a_layer() -> None:
    with pytest.raises(SearchError, match="'square' can be dense or depthwise"):
        Search(Net(), IMAGE, [PITMethod(), ODiMOMethod("darkside")], cost="darkside:latency")


def test_channels_may_be_pruned_and_mapped_together() -> None:
    torch.manual_seed(0)
    found = Search(Net(), IMAGE, [PITMethod(), ODiMOMethod()], cost="diana:latency").eval()
    scatter(found)
    assert difference(found) < 1e-5
    assert found.get_cost(hard=True).item() == pytest.approx(found.estimate().item(), rel=1e-9)


# Tables.


def test_the_mapping_tells_times_and_utilisation() -> None:
    found = search(duo())
    choose(found, "square", ["fast"] * 6 + ["slow"] * 2)
    shares = {(s.layer, s.engine): s for s in found.mapping().shares}
    fast, slow = shares["square", "fast"], shares["square", "slow"]
    assert (fast.channels, slow.channels) == (6, 2)
    assert (fast.latency, slow.latency) == (5000 + 8 * 6 * 9 * 64 / 16, 8 * 2 * 9 * 64 / 8)
    assert fast.utilisation == 1
    assert slow.utilisation == slow.latency / fast.latency
    assert "w8a8" in str(found.mapping())


def test_the_mapping_adds_up_to_the_cost() -> None:
    found = scatter(search())
    assert isinstance(found, ODiMO)
    table = found.mapping()
    assert table.span == pytest.approx(found.get_cost(hard=True).item(), rel=1e-12)
    assert table.cost == found.get_cost(hard=True).item()
    assert sum(map(table.channels, table.engines)) == 8 + 8 + 8 + 6 + 4


def test_baselines_of_one_engine_are_those_of_every_layer_on_it() -> None:
    found = search(duo())
    table = found.baselines()
    assert table.rows[0].name == "all on fast"
    assert "all on slow" not in [row.name for row in table.rows]
    assert table["all on fast"].cost == found.get_cost(hard=True).item()
    assert table["this search"].cost == found.get_cost(hard=True).item()
    assert "min-cost split" in str(table)
    with pytest.raises(UnknownName, match="all on fast"):
        table["all on fst"]


def test_the_min_cost_split_is_the_best_of_all_splits() -> None:
    """Layer by layer, each number of channels on the slow engine counted by hand."""
    found = search(duo())

    def best(cin: int, cout: int, taps: int) -> float:
        work = cin * taps * 64
        return min(
            max((5000 + work * (cout - k) / 16) * (k < cout), work * k / 8) for k in range(cout + 1)
        )

    fixed = 5000 + 8 * 9 * 64 / 16 + 5000 + 6 * 4 / 16
    expected = best(3, 8, 9) + best(8, 8, 9) + best(8, 6, 1) + fixed
    assert found.baselines()["min-cost split"].cost == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("metric", ["latency", "energy"])
@pytest.mark.parametrize("platform", ["diana", "darkside"])
def test_no_mapping_is_cheaper_than_the_min_cost_split(platform: str, metric: str) -> None:
    model, example = zoo.resnet8()
    found = ODiMO(model, example, platform, metric)
    table = found.baselines()
    least = table["min-cost split"].cost * (1 - 1e-9)
    assert all(row.cost >= least for row in table.rows)
    assert table["best engine for each layer"].cost >= least
    for seed in range(10):
        scatter(found, seed)
        assert found.estimate().item() >= least


def test_layer_by_layer_a_layer_has_one_engine() -> None:
    found = search(granularity="layer")
    scatter(found)
    assert all(len(set(own)) == 1 for own in found.odimo.chosen())
    assert difference(found) < 1e-5
    assert found.get_cost(hard=True).item() == pytest.approx(found.estimate().item(), rel=1e-12)


def test_the_timeline_has_a_lane_for_each_engine_and_a_bar_for_each_share(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = scatter(search())
    assert isinstance(found, ODiMO)
    figure = found.timeline(tmp_path / "engines.png")
    axes = figure.axes[0]
    assert len(axes.get_yticks()) == 2
    assert len(axes.patches) == len(found.mapping().shares)
    assert (tmp_path / "engines.png").stat().st_size > 1000


def test_without_matplotlib_the_timeline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(SearchError, match=r"pip install hwcost\[plot\]"):
        search().timeline()


@pytest.mark.parametrize("platform", ["diana", "darkside"])
def test_relative_costs_refer_to_the_users_network_at_most_bits(platform: str) -> None:
    """All on the first engine, but the depthwise layer where it runs as it is."""
    engine = {"diana": "digital", "darkside": "cluster"}[platform]
    placed = {"deep": "dwe"} if platform == "darkside" else {}
    layers = ("stem", "square", "deep", "point", "fc")
    own = trace(Net().eval(), IMAGE).with_engines({n: placed.get(n, engine) for n in layers})
    reference = search(platform).reference[f"{platform}:latency"]
    assert reference == CostModel(platform).total(own)
