"""Pruning to a cost: targets, costs, what goes first, what stays, and what is refused."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, HwcostError, UnknownName, Workload, load, trace
from hwcost.errors import SearchError, UnitError
from hwcost.search import Pruner
from hwcost.search.pruner_reach import Reached

X = torch.zeros(1, 3, 8, 8)
V = torch.zeros(1, 6)


class Net(nn.Module):
    """Three convolutions, two of them in a residual block, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.block = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1))
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = (x + self.block(x)).mean((2, 3))
        out: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return out


def two_layers(width: int = 32) -> Any:
    """Two linear layers of free width and a last one."""
    middle = nn.Linear(width, width, bias=False)
    return nn.Sequential(
        nn.Linear(6, width, bias=False), nn.ReLU(), middle, nn.ReLU(), nn.Linear(width, 2)
    )


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


CHIP = """
hwcost: 1
name: chip
title: a chip that computes 16 output channels at once
status: published
sources: {paper: "Someone, A paper, 2024"}
params:
  clock: {value: 1 MHz, source: paper}
engines:
  core:
    ops:
    - {match: [conv, linear], cycles: "1000*ceil(cout/16)", source: paper}
    - {match: [activation], free: folded}
metrics:
  latency: {unit: s, row: cycles/clock}
"""


@pytest.fixture(scope="session")
def chip(tmp_path_factory: pytest.TempPathFactory) -> CostModel:
    path = tmp_path_factory.mktemp("platforms") / "chip.yaml"
    path.write_text(CHIP)
    return CostModel(path)


def widths(workload: Workload) -> Tensor:
    """The cost of a table as a function: all output channels."""
    return workload.column("cout").nansum()


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def looks(model: nn.Module) -> tuple[str, dict[str, list[float]]]:
    return repr(model), {k: v.flatten().tolist() for k, v in model.state_dict().items()}


# Targets


@pytest.mark.parametrize(
    "target", ["params <= 0.5", "params<=50%", "params <= 50 %", " 50 % ", 0.5, "0.5"]
)
def test_half_of_the_parameters(net: Net, target: Any) -> None:
    before = count(net)
    reached = Pruner(net, X).prune_to(target)
    assert reached.before == before
    assert reached.after == count(net) <= before / 2 == reached.goal


def test_a_plain_number_above_1_is_an_amount(net: Net) -> None:
    reached = Pruner(net, X).prune_to("params <= 5000")
    assert reached.goal == 5000 and 4500 < count(net) <= 5000


@pytest.mark.parametrize("target", ["latency <= 100 us", "latency <= 0.1 ms", "latency<=1e-4 s"])
def test_a_quantity_is_in_any_unit_of_its_dimension(net: Net, target: str) -> None:
    reached = Pruner(net, X).prune_to(target, "gap8_compute")
    assert reached.goal == pytest.approx(1e-4)
    assert 0 < reached.after <= 1e-4


COSTS: dict[str, Callable[[], Any]] = {
    "platform": lambda: "gap8_compute",
    "platform:metric": lambda: "gap8_compute:latency",
    "CostModel": lambda: CostModel("gap8_compute", "latency"),
    "dict": lambda: {"latency": "gap8_compute:latency", "size": "counts:params"},
}


@pytest.mark.parametrize("title", COSTS)
def test_a_cost_is_given_as(net: Net, title: str) -> None:
    reached = Pruner(net, X).prune_to("latency <= 60 %", COSTS[title]())
    assert reached.name == "latency" and reached.unit == "s"
    assert reached.after == pytest.approx(float(CostModel("gap8_compute").total(trace(net, X))))
    assert reached.after <= 0.6 * reached.before


@pytest.mark.parametrize("target", [0.5, "50 %", "widths <= 50 %", "widths <= 0.5"])
def test_a_function_is_a_cost(target: Any) -> None:
    model = two_layers(8)
    reached = Pruner(model, V).prune_to(target, widths)
    assert reached.name == "widths"
    assert reached.after == model[0].out_features + model[2].out_features + 2 <= 9


def test_of_several_costs_the_target_names_one(net: Net) -> None:
    costs = {"time": "gap8_compute:latency", "size": "counts:params"}
    with pytest.raises(SearchError, match="several costs, 'time', 'size'"):
        Pruner(net, X).prune_to(0.5, costs)
    assert Pruner(net, X).prune_to("size <= 70 %", costs).name == "size"


def test_a_target_above_the_cost_changes_nothing(net: Net) -> None:
    before, pruner = looks(net), Pruner(net, X)
    reached = pruner.prune_to("params <= 1000000")
    assert looks(net) == before
    assert reached.after == reached.before
    with pytest.raises(SearchError, match="no step of pruning to undo"):
        pruner.undo()


Prune = Callable[[Pruner], object]

MISTAKES: dict[str, tuple[Prune, type[Exception], str]] = {
    "unit of another dimension": (
        lambda p: p.prune_to("latency <= 5 J", "gap8_compute"),
        UnitError,
        "target 'latency'.*5 J",
    ),
    "unknown unit": (
        lambda p: p.prune_to("latency <= 5 parsec", "gap8_compute"),
        UnitError,
        "parsec",
    ),
    "no unit": (
        lambda p: p.prune_to("latency <= 5", "gap8_compute"),
        SearchError,
        "5 of what.*'latency' is in s",
    ),
    "unknown metric": (lambda p: p.prune_to("parms <= 0.5"), UnknownName, "did you mean 'params'"),
    "unknown metric of a platform": (
        lambda p: p.prune_to("latncy <= 0.5", "gap8_compute"),
        UnknownName,
        "did you mean 'latency'",
    ),
    "unknown platform": (
        lambda p: p.prune_to("latency <= 0.5", "gap8_compte"),
        HwcostError,
        "did you mean 'gap8_compute'",
    ),
    "unknown cost of several": (
        lambda p: p.prune_to("siz <= 0.5", {"size": "counts:params", "n": "counts:macs"}),
        UnknownName,
        "did you mean 'size'",
    ),
    "other metric": (
        lambda p: p.prune_to("energy <= 0.5", CostModel("gap8_compute")),
        SearchError,
        "the target is for 'energy', the cost is 'latency'",
    ),
    "share alone of a platform": (lambda p: p.prune_to(0.5, "gap8_compute"), HwcostError, "metric"),
    "other direction": (lambda p: p.prune_to("params >= 0.5"), SearchError, "expected such as"),
    "strictly less": (lambda p: p.prune_to("params < 0.5"), SearchError, "expected such as"),
    "no amount": (lambda p: p.prune_to("params <="), SearchError, "expected such as"),
    "nothing": (lambda p: p.prune_to(""), SearchError, "expected such as"),
    "None": (lambda p: p.prune_to(None), SearchError, "expected such as"),  # type: ignore[arg-type]
    "True": (lambda p: p.prune_to(True), SearchError, "expected such as"),
    "zero": (lambda p: p.prune_to(0), SearchError, "expected more than 0"),
    "negative": (lambda p: p.prune_to(-0.5), SearchError, "expected more than 0"),
    "NaN": (lambda p: p.prune_to(float("nan")), HwcostError, "nan"),
    "a cost that is none": (lambda p: p.prune_to(0.5, 3), HwcostError, "got int"),  # type: ignore[arg-type]
    "unreachable": (
        lambda p: p.prune_to("params <= 10"),
        SearchError,
        "params: .* is the least that pruning can reach, of .*; the target is 10.*'fc2' stays",
    ),
    "unreachable with a minimum": (
        lambda p: p.prune_to("params <= 10 %", minimum=20),
        SearchError,
        "the least that pruning can reach",
    ),
    "minimum of 0.5 units": (lambda p: p.prune_to(0.5, minimum=2.5), SearchError, "minimum is 2.5"),
    "negative minimum": (lambda p: p.prune_to(0.5, minimum=-1), SearchError, "minimum is -1"),
    "multiple of 0": (lambda p: p.prune_to(0.5, multiple=0), SearchError, "multiple is 0"),
    "half a multiple": (lambda p: p.prune_to(0.5, multiple=2.5), SearchError, "multiple is 2.5"),  # type: ignore[arg-type]
    "ignore of nothing": (lambda p: p.prune_to(0.5, ignore=["fc3"]), UnknownName, "did you mean"),
    "ignore a name": (lambda p: p.prune_to(0.5, ignore="fc1"), SearchError, "expected a list"),
    "ignore of another model": (
        lambda p: p.prune_to(0.5, ignore=[nn.Linear(3, 3)]),
        UnknownName,
        "not a module of the model",
    ),
    "schedule of 0 steps": (lambda p: p.prune_to(0.5, schedule=0), SearchError, "schedule is 0"),
    "schedule down": (lambda p: p.prune_to(0.5, schedule=[0.7, 0.3]), SearchError, "schedule is"),
    "schedule not to 1": (lambda p: p.prune_to(0.5, schedule=[0.5]), SearchError, "schedule is"),
    "schedule of text": (lambda p: p.prune_to(0.5, schedule="2"), SearchError, "schedule is '2'"),  # type: ignore[arg-type]
    "fine_tune": (
        lambda p: p.prune_to(0.5, fine_tune=3),  # type: ignore[arg-type]
        SearchError,
        "fine_tune is 3; expected a function",
    ),
    "metric by name": (
        lambda p: p.prune_to(0.5, metric="taylor"),
        SearchError,
        "metric is 'taylor'",
    ),
    "metric of other sizes": (
        lambda p: p.prune_to(0.5, metric=lambda m: np.ones(3)),
        SearchError,
        r"layer 'stem': function returns \(3,\); expected 32 scores",
    ),
    "metric with NaN": (
        lambda p: p.prune_to(0.5, metric=lambda m: np.full(m.weight.shape[0], np.nan)),
        SearchError,
        "returns NaN",
    ),
    "metric that returns nothing": (
        lambda p: p.prune_to(0.5, metric=lambda m: None),
        SearchError,
        "layer 'stem': function returns None",
    ),
}


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_explained_and_changes_nothing(net: Net, title: str) -> None:
    do, error, text = MISTAKES[title]
    before = looks(net)
    with pytest.raises(error, match=text):
        do(Pruner(net, X))
    assert looks(net) == before


def test_what_holds_a_network_back_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(SearchError, match="'1' stays: the network returns them"):
        Pruner(model, X).prune_to(0.5)


# What is reached


@pytest.mark.parametrize("name", ["latency", "energy", "weight_bytes", "peak_ram"])
@pytest.mark.parametrize("platform", ["gap8_compute", "diana"])
def test_the_cost_is_that_of_the_network_as_it_is_now(net: Net, platform: str, name: str) -> None:
    if name not in load(platform).metrics:
        pytest.skip(f"{platform} has no {name}")
    reached = Pruner(net, X).prune_to(f"{name} <= 60 %", platform)
    now = float(CostModel(platform, name).total(trace(net, X)))
    assert reached.after == pytest.approx(now, rel=1e-9)
    assert reached.after <= reached.goal == pytest.approx(0.6 * reached.before)


def test_what_layers_keep_is_said(net: Net) -> None:
    reached = Pruner(net, X).prune_to(0.5)
    assert reached.units["stem"] == (32, net.stem.out_channels)
    assert reached.units["fc1"] == (48, net.fc1.out_features)
    assert f"stem: 32 -> {net.stem.out_channels} units" in str(reached)


def test_it_comes_close_to_the_target(net: Net) -> None:
    reached = Pruner(net, X).prune_to(0.5)
    assert reached.after > 0.95 * reached.goal


def test_the_network_trains_on(net: Net) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    Pruner(net, X, optimizer=optimizer).prune_to(0.5)
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()


def test_one_step_is_undone(net: Net) -> None:
    before, pruner = looks(net), Pruner(net, X)
    pruner.prune_to(0.5)
    pruner.undo()
    assert looks(net) == before


def test_a_lower_target_goes_on_from_there(net: Net) -> None:
    pruner = Pruner(net, X)
    first = pruner.prune_to("params <= 5000")
    second = pruner.prune_to("params <= 3000")
    assert second.before == first.after
    assert second.units["fc1"][0] == first.units["fc1"][1]


# What stays


@pytest.mark.parametrize("minimum", [12, 0.4])
def test_every_layer_keeps_its_minimum(net: Net, minimum: float) -> None:
    reached = Pruner(net, X).prune_to(0.6, minimum=minimum)
    least = [now >= (minimum if minimum >= 1 else minimum * was) for was, now in sizes(reached)]
    assert all(least)


def sizes(reached: Reached) -> list[tuple[int, int]]:
    """What layers had and have, but for the output."""
    return [both for path, both in reached.units.items() if path != "fc2"]


def test_layers_keep_a_multiple(net: Net) -> None:
    reached = Pruner(net, X).prune_to(0.5, multiple=8)
    assert {now % 8 for _, now in sizes(reached)} == {0}


def test_a_share_of_every_layer_goes(net: Net) -> None:
    reached = Pruner(net, X).prune_to(0.5, per_layer=True)
    left = [now / was for was, now in sizes(reached)]
    assert max(left) - min(left) < 0.05


@pytest.mark.parametrize(
    ("ignore", "stay"),
    [
        (["fc1"], {"fc1"}),
        (["block.0"], {"block.0"}),
        (["block"], {"stem", "block.0", "block.2"}),
        ([nn.Conv2d], {"stem", "block.0", "block.2"}),
        (["stem"], {"stem", "block.2"}),
    ],
)
def test_what_is_ignored_keeps_its_units(net: Net, ignore: list[Any], stay: set[str]) -> None:
    reached = Pruner(net, X).prune_to(0.9, ignore=ignore)
    whole = {path for path, (was, now) in reached.units.items() if was == now}
    assert stay <= whole


def test_a_module_is_ignored_by_itself(net: Net) -> None:
    reached = Pruner(net, X).prune_to(0.9, ignore=[net.block, net.fc2])
    assert reached.units["block.0"] == (32, 32)
    assert net.fc1.out_features < 48


# The order


def test_the_least_important_units_go_first(net: Net) -> None:
    with torch.no_grad():
        net.fc1.bias.copy_(torch.arange(48.0).flip(0))
    own = {net.fc1: net.fc1.bias.detach().clone()}
    ones = torch.full((32,), 100.0)
    Pruner(net, X).prune_to("params <= 95 %", metric=lambda module: own.get(module, ones))
    left = net.fc1.out_features
    assert left < 48
    assert net.fc1.bias.tolist() == [47.0 - n for n in range(left)]


def test_a_metric_is_an_object_that_runs(net: Net) -> None:
    class Ones:
        def __init__(self) -> None:
            self.seen: list[nn.Module] = []

        def run(self, module: nn.Module) -> Any:
            self.seen.append(module)
            return np.ones(module.weight.shape[0])  # type: ignore[index]

    metric = Ones()
    Pruner(net, X).prune_to(0.6, metric=metric)
    assert set(metric.seen) == {net.stem, net.block[0], net.block[2], net.fc1}


def test_whole_tiles_go_and_no_unit_that_saves_nothing(chip: CostModel) -> None:
    model = two_layers(64)
    reached = Pruner(model, V).prune_to("latency <= 5.4 ms", chip)  # of 4 + 4 + 1 tiles
    left = model[0].out_features, model[2].out_features
    assert [width % 16 for width in left] == [0, 0] and sum(left) == 64
    assert reached.after == pytest.approx(5e-3)


def test_a_tile_that_is_partly_filled_goes_first(chip: CostModel) -> None:
    model = two_layers(64)
    pruner = Pruner(model, V)
    pruner.prune_model("0", range(12))  # leaves 3 tiles and 4 units
    pruner.prune_to("latency <= 8 ms", chip)
    assert (model[0].out_features, model[2].out_features) == (48, 64)


def test_of_a_tile_the_least_important_units_go(chip: CostModel) -> None:
    model = two_layers(32)
    sums = model[2].weight.detach().abs().sum(1)
    whole = model[2].weight.detach().clone()
    Pruner(model, V).prune_to("latency <= 4 ms", chip, ignore=["0"])
    best = sums.argsort(descending=True)[:16].sort().values
    assert torch.equal(model[2].weight, whole[best])


def macs_of(first: int, second: int) -> int:
    return 6 * first + first * second + 2 * second


@pytest.mark.parametrize("seed", range(5))
def test_the_first_unit_is_the_one_of_the_best_ratio(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = two_layers(4)
    scores = {model[n]: torch.rand(4, generator=generator) + 0.1 for n in (0, 2)}
    saved = {model[0]: macs_of(4, 4) - macs_of(3, 4), model[2]: macs_of(4, 4) - macs_of(4, 3)}
    best = min(saved, key=lambda m: float(scores[m].min()) / saved[m])
    Pruner(model, V).prune_to(
        f"macs <= {macs_of(4, 4) - 1} op", metric=lambda m: scores.get(m, torch.ones(2))
    )
    gone = [m for m in (model[0], model[2]) if m.out_features < 4]
    assert gone == [best]


@pytest.mark.parametrize("goal", [24, 32, 40])
@pytest.mark.parametrize("seed", range(3))
def test_what_stays_is_close_to_the_best_of_all_choices(seed: int, goal: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = two_layers(4)
    scores = {model[n]: (torch.rand(4, generator=generator) + 0.1) for n in (0, 2)}
    sums = [s.sort(descending=True).values.cumsum(0) for s in scores.values()]
    best = max(
        float(sums[0][a - 1] + sums[1][b - 1])
        for a, b in product(range(1, 5), repeat=2)
        if macs_of(a, b) <= goal
    )
    Pruner(model, V).prune_to(f"macs <= {goal} op", metric=lambda m: scores[m])
    kept = float(sums[0][model[0].out_features - 1] + sums[1][model[2].out_features - 1])
    assert macs_of(model[0].out_features, model[2].out_features) <= goal
    assert kept >= 0.75 * best


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_scores_that_are_not_comparable_does_not_matter(factor: float) -> None:
    class Scores:
        comparable = False

        def __init__(self, factors: dict[nn.Module, float]) -> None:
            self.factors = factors

        def run(self, module: nn.Module) -> Tensor:
            return torch.arange(1.0, 9.0) * self.factors[module]

    found = []
    for first in (1.0, factor):
        model = two_layers(8)
        metric = Scores({model[0]: first, model[2]: 1.0})
        found.append(Pruner(model, V).prune_to("macs <= 50 %", metric=metric).units)
    assert found[0] == found[1]


# In steps


def test_a_schedule_tunes_after_each_step(net: Net) -> None:
    seen: list[int] = []
    before = count(net)
    Pruner(net, X).prune_to("params <= 25 %", schedule=2, fine_tune=lambda m: seen.append(count(m)))
    assert len(seen) == 2
    assert seen[0] <= 0.5 * before and seen[1] <= 0.25 * before  # equal ratios
    assert seen[0] > 0.45 * before


def test_a_schedule_of_shares(net: Net) -> None:
    seen: list[int] = []
    before = count(net)
    Pruner(net, X).prune_to(
        "params <= 25 %", schedule=[0.25, 1], fine_tune=lambda m: seen.append(count(m))
    )
    assert 0.65 * before < seen[0] <= 0.25**0.25 * before
    assert seen[1] <= 0.25 * before


def test_nothing_to_do_is_not_tuned(net: Net) -> None:
    seen: list[nn.Module] = []
    Pruner(net, X).prune_to("params <= 1000000", schedule=3, fine_tune=seen.append)
    assert seen == []


def test_the_last_step_is_undone_alone(net: Net) -> None:
    seen: list[int] = []
    pruner = Pruner(net, X)
    pruner.prune_to("params <= 25 %", schedule=2, fine_tune=lambda m: seen.append(count(m)))
    pruner.undo()
    assert count(net) == seen[0]


def test_what_a_function_of_the_user_raises_comes_through(net: Net) -> None:
    def broken(model: nn.Module) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pruner(net, X).prune_to(0.5, fine_tune=broken)
