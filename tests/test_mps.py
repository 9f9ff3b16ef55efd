"""MPS: plain training at one precision, expected costs, exports, ranges, methods together."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hwcost
from hwcost import CostModel, PrecisionError, SearchError, Workload, WorkloadError, load, trace
from hwcost.loading import available
from hwcost.search import (
    MPS,
    PIT,
    LayerQuant,
    Method,
    MPSType,
    Search,
    SuperNet,
    get_default_qinfo,
)
from hwcost.search.quantize import (
    WEIGHT_RULES,
    activation_grid,
    least_scales,
    mixed_activation,
    mixed_weight,
    quantize_bias,
    weight_grid,
)
from hwcost.search.quantized import QuantizedMethod
from tests.searchcases import as_double, decide, difference, randomise
from tests.searchnets import NETS
from tests.searchnets_base import Subject
from tests.searchnets_choices import CHOICE_NETS

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

X = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), head())


def head() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))


LAYERS = ("0", "2", "4.1")


def inside(search: Search) -> QuantizedMethod:
    return next(m for m in search.each_method() if isinstance(m, QuantizedMethod))


# One precision is plain quantization-aware training.


class ByHand(nn.Module):
    """``net()`` quantized at ``w`` and 8 bits, written out."""

    def __init__(self, model: nn.Sequential, log2: Tensor, bits: int) -> None:
        super().__init__()
        self.inner, self.bits = copy.deepcopy(model), bits
        self.log2 = nn.Parameter(log2.detach().clone())

    def activation(self, x: Tensor, point: int, signed: bool) -> tuple[Tensor, Tensor]:
        grid = activation_grid(8, signed)
        scale = self.log2[point : point + 1].exp2() / grid.high
        return mixed_activation(x, scale, None, [grid]), scale.detach()

    def parameters_of(self, layer: Any, step: Tensor) -> tuple[Tensor, Tensor]:
        grids, least = [weight_grid(self.bits)], least_scales(layer.bias.detach(), step.amin())
        scales = WEIGHT_RULES["auto"](layer.weight, 0, grids, least)
        weight = mixed_weight(layer.weight, scales, None, grids)
        return weight, quantize_bias(layer.bias, scales[:, 0] * step)

    def forward(self, x: Tensor) -> Tensor:
        x, step = self.activation(x, 0, signed=True)
        for number, place in enumerate((0, 2)):
            x = F.relu(F.conv2d(x, *self.parameters_of(self.inner[place], step)))
            x, step = self.activation(x, number + 1, signed=False)
        x = F.linear(x.flatten(1), *self.parameters_of(self.inner[4][1], step))  # type: ignore[index]
        return self.activation(x, 3, signed=True)[0]


@pytest.fixture(params=[2, 4, 8])
def trained(request: pytest.FixtureRequest) -> tuple[MPS, ByHand]:
    """A search with one precision and the same by hand, both after a training step's backward."""
    search: MPS = MPS(net(), X, w_bits=request.param, a_bits=8).train()
    hand = ByHand(net(), inside(search).scales.log2, request.param)
    for model in (search, hand):
        (model(X) - torch.linspace(-1, 1, 10).view(2, 5)).square().sum().backward()
    return search, hand


def test_one_precision_computes_what_plain_training_does(trained: tuple[MPS, ByHand]) -> None:
    search, hand = trained
    assert torch.equal(search(X), hand(X))


def test_one_precision_has_the_gradients_of_plain_training(trained: tuple[MPS, ByHand]) -> None:
    search, hand = trained
    found = dict(search.model.named_parameters())
    for name, parameter in hand.inner.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any())
        assert torch.equal(found[name].grad, parameter.grad), name  # type: ignore[arg-type]


def test_scales_learn_as_in_plain_training(trained: tuple[MPS, ByHand]) -> None:
    search, hand = trained
    scales = inside(search).scales
    assert hand.log2.grad is not None and scales.log2.grad is not None
    assert torch.allclose(scales.log2.grad, hand.log2.grad * scales.grad_scale, rtol=1e-5)


def test_one_precision_leaves_nothing_to_decide() -> None:
    assert not list(MPS(net(), X, w_bits=8).nas_parameters())


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_training_runs_the_mix_and_evaluation_the_choice(granularity: str) -> None:
    search = MPS(net(), X, granularity=granularity)
    mixed, chosen = search.train()(X), search.eval()(X)
    assert not torch.equal(mixed, chosen)
    only = MPS(net(), X, w_bits=8).eval()(X)
    assert torch.equal(chosen, only)  # at the start, the most bits are the most probable


# Expected costs.


def with_bits(table: Workload, weights: Mapping[str, float], read: Mapping[str, float]) -> Workload:
    """Return a float net's table with the bits of each layer."""
    w_bits = [weights.get(layer, 8.0) for layer in table.layers]
    a_bits = [read.get(layer, 8.0) for layer in table.layers]
    return table.with_precision(w_bits=w_bits, a_bits=a_bits)


BITS = (2, 4, 8)


def stirred(search: Search, seed: int = 0) -> Search:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.normal_()
    return search


@pytest.mark.parametrize(
    "cost", ["counts:weight_bytes", "counts:bitops", "mpic:latency", "mpic:energy"]
)
@pytest.mark.parametrize("seed", range(2))
def test_the_cost_is_the_expectation_over_all_assignments(cost: str, seed: int) -> None:
    search = stirred(MPS(net(), X, w_bits=BITS, a_bits=BITS, cost=cost), seed)
    method, table = inside(search), trace(net(), X)
    assert method.weights is not None and method.activations is not None
    of_weights = method.weights.probabilities().double().tolist()
    of_points = method.activations.probabilities().double()[1:3].tolist()
    model = CostModel(*cost.split(":"))
    expected = 0.0
    for ws in product(range(3), repeat=3):
        for points in product(range(3), repeat=2):
            share = prod(of_weights[i][w] for i, w in enumerate(ws))
            share *= prod(of_points[i][a] for i, a in enumerate(points))
            read = dict(zip(LAYERS[1:], (float(BITS[a]) for a in points), strict=True))
            bits = {layer: float(BITS[w]) for layer, w in zip(LAYERS, ws, strict=True)}
            expected += share * float(model.total(with_bits(table, bits, read)))
    assert float(search.cost.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", ["latency", "energy"])
def test_layers_on_either_engine_cost_the_expectation(metric: str) -> None:
    search = stirred(MPS(net(), X, w_bits=(2, 8), cost=f"diana:{metric}"))
    bank, table = inside(search).weights, trace(net(), X)
    assert bank is not None
    shares = bank.probabilities().double().tolist()
    model = CostModel("diana", metric)
    expected = 0.0
    for ws in product(range(2), repeat=3):
        bits = {layer: (2.0, 8.0)[w] for layer, w in zip(LAYERS, ws, strict=True)}
        total = float(model.total(with_bits(table, bits, {})))
        expected += prod(shares[i][w] for i, w in enumerate(ws)) * total
    assert float(search.cost.detach()) == pytest.approx(expected, rel=1e-6)


def test_channels_on_two_engines_take_as_long_as_the_slower() -> None:
    options: dict[str, Any] = {"w_bits": (2, 8), "granularity": "channel"}
    search = stirred(MPS(net(), X, cost="diana:latency", **options))
    method, table, model = inside(search), trace(net(), X), CostModel("diana", "latency")
    assert method.weights is not None
    shares = method.weights.probabilities().double()
    expected = 0.0
    for layer, weight in zip(LAYERS, method.layers, strict=True):
        row = table.slice(table.rows_of(layer)[0], table.rows_of(layer)[0] + 1)
        counts = shares[weight.rows].sum(0).tolist()
        parts = [
            row.with_columns(cout=[count]).with_precision(w_bits=bits, a_bits=8.0)
            for bits, count in zip((2.0, 8.0), counts, strict=True)
        ]
        expected += max(float(model.total(part)) for part in parts)
    assert float(search.cost.detach()) == pytest.approx(expected, rel=1e-6)


def test_formulas_see_the_expected_channels_at_each_precision() -> None:
    search = stirred(MPS(net(), X, w_bits=BITS, granularity="channel"))
    bank, table = inside(search).weights, search.workload()
    assert bank is not None
    expected = bank.probabilities()[:6].sum(0).double()
    assert torch.allclose(table.column("cout")[table.rows_of("0")], expected)
    assert table.column("w_bits")[table.rows_of("0")].tolist() == [2, 4, 8]


def test_removed_channels_leave_their_readers() -> None:
    search = stirred(MPS(net(), X, w_bits=(0, *BITS), granularity="channel"))
    bank, table = inside(search).weights, search.workload()
    assert bank is not None
    shares = bank.probabilities().double()[:6]
    own, readers = table.rows_of("0"), table.rows_of("2")
    assert torch.allclose(table.column("cout")[own], shares[:, 1:].sum(0))
    alive = (1 - shares[:, 0]).sum()
    assert torch.allclose(table.column("cin")[readers], alive.expand(3))


@pytest.mark.parametrize(("layer", "column"), [("0", "cout"), ("2", "cin")])
def test_removal_has_a_gradient_in_layer_and_reader(layer: str, column: str) -> None:
    search = stirred(MPS(net(), X, w_bits=(0, *BITS), granularity="channel"))
    bank, table = inside(search).weights, search.workload()
    assert bank is not None
    table.column(column)[table.rows_of(layer)].sum().backward()
    assert bank.logits.grad is not None
    assert bool((bank.logits.grad[:6, 0] < 0).all()) and not bool(bank.logits.grad[6:].any())


def test_removed_channels_are_gone_from_the_export() -> None:
    search = MPS(net(), X, w_bits=(0, *BITS), granularity="channel")
    bank = inside(search).weights
    assert bank is not None
    with torch.no_grad():
        bank.logits[[1, 4], 0] = 100.0
    exported = search.export()
    found, own = dict(exported.named_parameters()), dict(search.model.named_parameters())
    assert found["0.weight"].shape == (4, 3, 3, 3) and found["2.weight"].shape == (4, 4, 3, 3)
    assert torch.equal(found["0.weight"], own["0.weight"][[0, 2, 3, 5]])  # in their order


def test_the_networks_outputs_cannot_be_removed() -> None:
    search = stirred(MPS(net(), X, w_bits=(0, *BITS), granularity="channel"))
    bank = inside(search).weights
    assert bank is not None
    assert bank.allowed[:, 0].tolist() == [True] * 10 + [False] * 5


# One-hot costs, on all platforms that price bits.


def precisions(platform: str, column: str) -> set[int]:
    """The bits that the engines of a platform compute with, of those of ``BITS``."""
    engines = load(platform).engines.values()
    known = [set(engine.precision.get(column) or BITS) for engine in engines] or [set(BITS)]
    return set.union(*known) & set(BITS)


PRICING = [
    f"{platform}:{metric}"
    for platform in available()
    if len(precisions(platform, "w_bits")) > 1
    for metric in load(platform).metrics
]


@cache
def priced(cost: str, granularity: str) -> Search:
    platform = cost.split(":")[0]
    bits, a_bits = (sorted(precisions(platform, column)) for column in ("w_bits", "a_bits"))
    w_bits = [0, *bits] if granularity == "removal" else bits
    kind = "layer" if granularity == "layer" else "channel"
    search: Search = MPS(net(), X, w_bits=w_bits, a_bits=a_bits, granularity=kind, cost=cost)
    return search


@pytest.mark.parametrize("granularity", ["layer", "channel", "removal"])
@pytest.mark.parametrize("cost", PRICING)
def test_a_decided_search_costs_what_its_export_does(cost: str, granularity: str) -> None:
    search, model = copy.deepcopy(priced(cost, granularity)), CostModel(*cost.split(":"))
    for seed in range(3):
        decide(search, seed)
        table = trace(search.export(), X)
        expected, soft = float(model.total(table)), float(search.cost.detach())
        assert float(search.get_cost(hard=True)) == expected
        known, now = engines(model, search.workload()), engines(model, table)
        if all(known.get(op, engine) == engine for op, engine in now.items()):
            assert soft == pytest.approx(expected, rel=1e-9)
        else:  # a layer left with few channels is faster on another engine
            assert model.platform.name == "gap9" and soft >= expected * (1 - 1e-12)


def engines(model: CostModel, table: Workload) -> dict[tuple[str, float], int]:
    """Return which engine runs each layer at each number of bits."""
    found = (table.layers, table.column("w_bits").tolist(), model.plan(table).engine.tolist())
    there = (table.column("weight") * table.column("cout") > 0).tolist()
    rows = zip(*found, there, strict=True)
    return {(layer, bits): engine for layer, bits, engine, alive in rows if alive}


def test_several_platforms_price_bits() -> None:
    assert {"counts", "diana", "mpic", "ne16_compute"} <= {c.split(":")[0] for c in PRICING}


def test_bits_without_an_engine_are_an_error_that_names_the_layer() -> None:
    with pytest.raises(PrecisionError, match=r"layer '2' .*ne16_compute.*a_bits 8.*qinfo"):
        _ = MPS(net(), X, a_bits=(4, 8), cost="ne16_compute:latency").cost


def test_a_cost_without_bits_works_too() -> None:
    search = MPS(net(), X, w_bits=(0, 2, 8), granularity="channel", cost="counts:macs")
    assert float(search.get_cost(relative=True).detach()) < 1


def test_pit_says_that_mps_decides_about_bits(tmp_path: Path) -> None:
    lines = (Path(hwcost.__file__).parent / "platforms/mpic.yaml").read_text().splitlines()
    file = tmp_path / "open.yaml"
    file.write_text("\n".join(line for line in lines if not line.startswith("deploy")))
    with pytest.raises(WorkloadError, match=r"'[aw]_bits'.*MPS"):
        PIT(net(), X, cost=f"{file}:latency")


# Life of a search.

VARIANTS: dict[str, dict[str, Any]] = {
    "layer": {"a_bits": BITS},
    "channel": {"granularity": "channel"},
    "removal": {"w_bits": (0, *BITS), "granularity": "channel"},
}

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_the_cost_follows_the_decisions_right_after_a_step(variant: str) -> None:
    search = MPS(net(), X, cost="counts:bitops", **VARIANTS[variant])
    optimizer = torch.optim.SGD(search.nas_parameters(), lr=10.0)
    before = search.get_cost(relative=True)
    before.backward()
    optimizer.step()
    assert float(search.get_cost(relative=True).detach()) < float(before.detach())


@every_variant
def test_a_cost_in_the_loss_lowers_the_bits(variant: str) -> None:
    search = MPS(net(), X, cost="counts:weight_bytes", **VARIANTS[variant])
    optimizer = torch.optim.Adam(search.nas_parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        search.get_cost(relative=True).backward()
        optimizer.step()
    assert max(option.bits for own in inside(search).chosen() for option in own) == 2


@every_variant
@pytest.mark.parametrize("mode", ["nas", "net"])
def test_only_one_half_can_be_trained(variant: str, mode: str) -> None:
    search = MPS(net(), X, **VARIANTS[variant])
    getattr(search, f"train_{mode}_only")()
    (search.train()(X).square().sum() + search.cost).backward()
    own = search.nas_parameters() if mode == "nas" else search.net_parameters()
    other = search.net_parameters() if mode == "nas" else search.nas_parameters()
    assert all(p.grad is None for p in other) and any(p.grad is not None for p in own)


@pytest.mark.parametrize("mode", ["soft", "gumbel", "hard", "hard+gumbel"])
def test_every_way_of_sampling_trains(mode: str) -> None:
    search = MPS(net(), X, a_bits=BITS, w_bits=(0, *BITS), granularity="channel").train()
    search.sampling.mode = mode
    search(X).square().sum().backward()
    gradients = [p.grad for p in search.nas_parameters()]
    assert all(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in gradients)


# Ranges.


def scale_of_input(search: Search) -> float:
    return float(inside(search).scales.scales()[0].detach()[0])


def test_calibration_sets_ranges_by_data() -> None:
    search = MPS(net(), X)
    search.calibrate([(3 * X, 0), (0.5 * X, 1)])
    assert scale_of_input(search) == pytest.approx(3 / 127, rel=1e-3)


def test_a_percentile_leaves_outliers_out() -> None:
    search, x = MPS(net(), X), X.clone()
    x[0, 0, 0, 0] = 100.0
    search.calibrate([x], percentile=99.0)
    assert 0.9 / 127 < scale_of_input(search) < 1.1 / 127


def test_data_decide_whether_an_input_is_signed() -> None:
    search = MPS(net(), X)
    search.calibrate([X.abs()])
    assert scale_of_input(search) == pytest.approx(1 / 255, rel=1e-3)


def test_a_calibrated_search_keeps_its_ranges_in_training() -> None:
    search = MPS(net(), X)
    search.calibrate([3 * X])
    before = inside(search).scales.log2.detach().clone()
    search.train()(X)
    assert torch.equal(inside(search).scales.log2, before)


def test_the_first_batch_sets_ranges() -> None:
    search = MPS(net(), X)
    search.train()(2 * X)
    assert scale_of_input(search) == pytest.approx(2 / 127, rel=1e-3)


def test_a_search_without_numbers_is_calibrated_by_its_first_batch() -> None:
    search = MPS(net(), input_shape=(3, 6, 6))
    search.train()(X)
    assert scale_of_input(search) == pytest.approx(1 / 127, rel=1e-3)


# How each layer is quantized.


def bits_of(search: Search) -> list[list[int]]:
    return [[option.bits for option in layer.options] for layer in inside(search).layers]


def test_qinfo_says_how_each_layer_is_quantized() -> None:
    qinfo = {**get_default_qinfo((4, 8), (8,)), "2": LayerQuant((2,), (4, 8))}
    search = MPS(net(), X, qinfo=qinfo)
    assert bits_of(search) == [[4, 8], [2], [4, 8]]
    assert [plan.bits for plan in inside(search).plans] == [(8,), (4, 8), (8,), (8,)]


def test_qinfo_takes_patterns() -> None:
    search = MPS(net(), X, qinfo={"default": LayerQuant((2, 8)), "4.*": LayerQuant((8,))})
    assert bits_of(search) == [[2, 8], [2, 8], [8]]


def test_a_layer_can_stay_as_it_is() -> None:
    search = MPS(net(), X, qinfo={"default": LayerQuant(), "2": LayerQuant(quantize=False)})
    assert [layer.name for layer in inside(search).layers] == ["0.weight", "4.1.weight"]


def test_layers_may_have_other_quantizers() -> None:
    qinfo = {"default": LayerQuant(weight="minmax", activation="lsq")}
    search = MPS(net(), X, qinfo=qinfo)
    assert {layer.rule for layer in inside(search).layers} == {"minmax"}
    assert {plan.quantizer for plan in inside(search).plans} == {"lsq"}
    assert difference(search.double().export(), search, X.double()) <= 1e-5


@pytest.mark.parametrize(
    ("spelling", "choices"), [(MPSType.PER_LAYER, 3), (MPSType.PER_CHANNEL, 15)]
)
def test_the_granularity_has_an_older_spelling(spelling: MPSType, choices: int) -> None:
    bank = inside(MPS(net(), X, w_search_type=spelling)).weights
    assert bank is not None and len(bank) == choices


def test_default_qinfo_is_that_of_the_bits() -> None:
    search = MPS(net(), X, qinfo=get_default_qinfo((2, 4), (8,)))
    assert bits_of(search) == bits_of(MPS(net(), X, w_bits=(2, 4)))


def test_a_summary_has_a_line_for_each_layer() -> None:
    lines = str(MPS(net(), X).summary())
    assert all(f"{layer}: w8, a8" in lines for layer in LAYERS)


# Several methods.

JOINT = (
    *("Plain", "Residual", "MobileNet", "UNet", "Inception", "DenseBlocks", "SqueezeExcite"),
    *("ChannelShuffle", "Transposed", "Volumes", "CausalTCN", "Kernels", "ConvNeXt"),
    *("GroupNorms", "MultiheadAttention", "ViT", "ConvLSTM", "Tied", "InPlace", "Functional"),
)


def joint(subject: Subject, *methods: Callable[[], Method]) -> tuple[Search, Any]:
    model, example = subject
    cost = {"bitops": "counts:bitops", "memory": "counts:peak_ram", "bytes": "counts:weight_bytes"}
    made = [make() for make in methods]
    return Search(model, example, made, cost=cost), example


def exports_exactly(search: Search, example: Any) -> bool:
    wide = copy.deepcopy(search).double()
    return difference(wide.export(), wide, as_double(example)) <= 1e-5


def pit() -> Any:
    return PIT()  # type: ignore[call-arg]


def supernet() -> Any:
    return SuperNet()  # type: ignore[call-arg]


def mps() -> Any:
    return MPS(w_bits=BITS, a_bits=(4, 8), granularity="channel")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", JOINT)
def test_pit_and_mps_together_export_what_they_compute(name: str) -> None:
    search, example = joint(NETS[name](), pit, mps)
    for seed in range(2):
        randomise(search, seed)
        assert exports_exactly(search, example)
        table = trace(search.export(), example)
        for cost in ("bitops", "peak_ram", "weight_bytes"):
            own = {"bitops": "bitops", "peak_ram": "memory", "weight_bytes": "bytes"}[cost]
            assert search.get_cost(own, hard=True) == CostModel("counts", cost).total(table)


@pytest.mark.parametrize("name", JOINT)
def test_pit_and_mps_decided_cost_what_their_export_does(name: str) -> None:
    search, _ = joint(NETS[name](), mps, pit)
    decide(search, 1)  # 0 leaves Residual one channel, which its own squeeze() removes
    for cost in ("bitops", "memory", "bytes"):
        soft, hard = search.get_cost(cost), search.get_cost(cost, hard=True)
        assert float(soft.detach()) == pytest.approx(float(hard), rel=1e-9), cost


@pytest.mark.parametrize("name", [name for name in CHOICE_NETS if name != "OnlyAChoice"])
def test_branches_and_bits_together_export_what_they_compute(name: str) -> None:
    search, example = joint(CHOICE_NETS[name](), supernet, mps)
    for seed in range(2):
        randomise(search, seed)
        assert exports_exactly(search, example)
        expected = CostModel("counts", "bitops").total(trace(search.export(), example))
        assert search.get_cost("bitops", hard=True) == expected


# A recount of random nets.


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(F.relu(self.a(x)))
        return x + out


def drawn(seed: int) -> nn.Sequential:
    """Return a random small net on images of 3 channels."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def pick(*values: int) -> int:
        return values[int(torch.randint(len(values), (), generator=draw))]

    layers: list[nn.Module] = []
    channels = 3
    for _ in range(pick(1, 2, 3)):
        wider, kernel = pick(2, 3, 5, 6), pick(1, 3)
        blocks: list[list[nn.Module]] = [
            [nn.Conv2d(channels, wider, kernel, padding=kernel // 2, stride=pick(1, 2))],
            [nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)],
            [Residual(channels)],
        ]
        kind = pick(0, 0, 1, 2)
        channels = wider if kind == 0 else channels
        layers += [*blocks[kind], *([nn.BatchNorm2d(channels)] if pick(0, 1) else [])]
        layers += [nn.ReLU()] if pick(0, 1) else []
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, pick(2, 4))]
    return nn.Sequential(*layers, *tail)


def recounted(search: Search, exported: nn.Module, x: Tensor) -> dict[str, float]:
    """Return what an export costs, from its parameters, its layers' results, and chosen bits."""
    results: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, args, out, path=path: results.__setitem__(path, out)
        )
        for path, module in exported.named_modules()
    ]
    exported.eval()(x)
    for hook in hooks:
        hook.remove()
    method, counts = inside(search), {"bytes": 0.0, "bitops": 0.0, "params": 0.0}
    points = method.chosen_bits()
    for number, (layer, options) in enumerate(zip(method.layers, method.chosen(), strict=True)):
        weight, out = dict(exported.named_parameters())[layer.name], results[layer.path]
        positions = len(out) * prod(out.shape[2:])
        kept = method.kept(number).tolist()
        assert len(weight) == out.shape[1] == len(kept)
        for channel, place in zip(weight, kept, strict=True):
            bits = options[place].bits
            counts["bytes"] += channel.numel() * bits / 8
            counts["bitops"] += channel.numel() * positions * bits * points[layer.layer.point]
    counts["params"] = sum(p.numel() for p in exported.parameters())
    return counts


GROUPS = 20


def check(seed: int) -> None:
    x = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    options = list(VARIANTS.values())[seed % 3]
    costs = {"bytes": "counts:weight_bytes", "bitops": "counts:bitops", "params": "counts:params"}
    search = MPS(drawn(seed), x, cost=costs, **options)
    decide(search, seed)
    assert exports_exactly(search, x), seed
    for cost, expected in recounted(search, search.export(), x).items():
        hard, soft = search.get_cost(cost, hard=True), search.get_cost(cost)
        assert float(hard) == pytest.approx(expected, rel=1e-12), (seed, cost)
        assert float(soft.detach()) == pytest.approx(expected, rel=1e-9), (seed, cost)


@pytest.mark.parametrize("seed", range(GROUPS))
def test_costs_of_random_nets_equal_a_recount(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("group", range(1, 10))
def test_costs_of_many_random_nets_equal_a_recount(group: int) -> None:
    for seed in range(group * GROUPS, (group + 1) * GROUPS):
        check(seed)


def test_a_network_that_is_a_choice_is_refused() -> None:
    with pytest.raises(SearchError, match=r"put it into an nn\.Sequential"):
        joint(CHOICE_NETS["OnlyAChoice"](), supernet, mps)
