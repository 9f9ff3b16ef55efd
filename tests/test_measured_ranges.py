"""Measured platforms away from their rows: rates and powers in the ranges known of the chips."""

from functools import cache
from itertools import product

import pytest
import torch

import hwcost
from hwcost.costmodel import CostModel
from hwcost.loading import available, load
from hwcost.workload import Workload

CHIPS = [n for n in available() if load(n).calibration or load(n).status == "datasheet"]

#: Multiply-accumulates in a cycle that the hardware cannot exceed.
PEAKS = {
    "xg24": 2,
    "gap8": 15.5,
    "gap9": 9 * 9 * 16 / 8,
    "ndp9120": 32,
    "ethos_u55_128": 128,
    "stm32h743_cmsisnn": 2,
    "stm32h743_tinyengine": 2,
    "stm32l4r5_xcubeai": 2,
    "stm32h7a3_xcubeai": 2,
    "stm32u575_xcubeai": 2,
}


@cache
def model(name: str) -> CostModel:
    return CostModel(name, "latency")


@cache
def network(name: str) -> Workload:
    return hwcost.trace(*hwcost.zoo.ZOO[name]())


@cache
def clock(name: str) -> float:
    return float(load(name).params["clock"].quantity.value)


def cycles(name: str, kind: str, **sizes: float) -> float:
    return float(model(name).total(Workload.from_columns(kind, **sizes))) * clock(name)


def rate(name: str, **sizes: float) -> float:
    """Multiply-accumulates in a cycle of a 3x3 convolution without padding."""
    of = {"cin": 64.0, "cout": 64.0, "kh": 3.0, "kw": 3.0, "oh": 14.0, "ow": 14.0} | sizes
    stride, dilation = of.get("sh", 1), of.get("dh", 1)
    of["ih"] = of.get("ih", (of["oh"] - 1) * stride + (of["kh"] - 1) * dilation + 1)
    of["iw"] = of.get("iw", (of["ow"] - 1) * stride + (of["kw"] - 1) * dilation + 1)
    taps = of["kh"] * of["kw"] * of["oh"] * of["ow"]
    return taps * of["cin"] * of["cout"] / of.get("groups", 1) / cycles(name, "conv", **of)


def test_every_chip_has_a_peak() -> None:
    assert set(CHIPS) == set(PEAKS)


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
def test_no_convolution_is_faster_than_the_hardware(name: str, depthwise: bool) -> None:
    grid = product([2, 3, 16, 64, 512], [1, 2, 3, 5, 7, 11], [1, 7, 56], [1, 2])
    cin, kernel, size, stride = torch.tensor([*grid], dtype=torch.float64).T
    inputs = (size - 1) * stride + kernel
    sizes = {"kh": kernel, "kw": kernel, "sh": stride, "sw": stride, "cin": cin, "cout": cin}
    image = {"oh": size, "ow": size, "ih": inputs, "iw": inputs}
    groups = cin if depthwise else torch.ones_like(cin)
    seconds = model(name).rows(Workload.from_columns("conv", **sizes, **image, groups=groups))
    found = (kernel * size * cin) ** 2 / groups / (seconds * clock(name))
    assert float(found.min()) > 0
    assert float(found.max()) < PEAKS[name]


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("conv", {"cin": 16, "cout": 16, "kh": 3, "kw": 3, "oh": 9, "ow": 9}),
        ("conv", {"cin": 16, "cout": 16, "groups": 16, "kh": 3, "kw": 3, "oh": 9, "ow": 9}),
        ("linear", {"cin": 64, "cout": 64}),
        ("pool", {"cin": 16, "cout": 16, "kh": 2, "kw": 2, "oh": 9, "ow": 9}),
    ],
    ids=["dense", "depthwise", "linear", "pool"],
)
def test_a_batch_takes_as_long_as_its_samples(
    name: str, kind: str, sizes: dict[str, float]
) -> None:
    image = {"ih": 9, "iw": 9} if "kh" in sizes else {}
    one, eight = (cycles(name, kind, **sizes, **image, batch=b) for b in (1, 8))
    assert eight == pytest.approx(8 * one)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("gap8", 107, 107),
        ("gap9", 19, 29),
        ("gap9@0.8V", 41, 65),
        ("stm32l4r5_xcubeai", 43, 47),
        ("stm32h7a3_xcubeai", 122, 161),
        ("stm32u575_xcubeai", 25.5, 25.5),
    ],
)
@pytest.mark.parametrize("net", ["autoencoder", "resnet8"])
def test_power_in_milliwatts(name: str, low: float, high: float, net: str) -> None:
    rows = network(net)
    power = float(CostModel(name, "energy").total(rows)) / float(model(name).total(rows)) * 1e3
    assert low - 0.5 < power < high + 0.5


@pytest.mark.parametrize("net", ["autoencoder", "resnet8", "mobilenet_v1"])
def test_computing_is_56_to_74_percent_of_a_network_on_gap9(net: str) -> None:
    computing = float(CostModel("ne16_compute", "latency").total(network(net)))
    assert 0.56 < computing / (float(model("gap9").total(network(net))) * 240e6) < 0.74


def test_the_way_from_l3_of_gap8_is_0_22_to_0_40_bytes_a_cycle() -> None:
    assert 0.22 <= float(load("gap8").params["l3"].quantity.value) <= 0.40


@pytest.mark.parametrize("channels", [32, 64, 128, 256])
def test_pointwise_outputs_of_the_h743_take_6_cycles_and_1_8_for_each_input(channels: int) -> None:
    sizes = {"cin": channels, "cout": channels, "kh": 1, "kw": 1, "oh": 20, "ow": 20}
    found = cycles("stm32h743_cmsisnn", "conv", **sizes) / (400 * channels)
    assert found == pytest.approx(6.3 + 1.80 * channels, rel=0.10)


@pytest.mark.parametrize("channels", [8, 16, 64, 128])
def test_depthwise_outputs_of_the_h743_take_88_to_134_cycles(channels: int) -> None:
    sizes = {"cin": channels, "cout": channels, "groups": channels, "kh": 3, "kw": 3}
    found = cycles("stm32h743_cmsisnn", "conv", **sizes, oh=20, ow=20) / (400 * channels)
    assert 88 <= found <= 134


@pytest.mark.parametrize("cin", [8, 32, 128, 640, 2048])
def test_linear_layers_of_xg24_make_0_4_to_0_7_macs_a_cycle(cin: int) -> None:
    one, two = (cycles("xg24", "linear", cin=cin, cout=c) for c in (64, 128))
    assert 0.4 < 64 * cin / (two - one) < 0.7


@pytest.mark.parametrize("cin", [8, 16, 64, 256])
@pytest.mark.parametrize(("size", "stride"), [(8, 1), (16, 2), (32, 1), (39, 1)])
def test_3x3_convolutions_of_xg24_make_1_24_to_1_8_macs_a_cycle(
    cin: int, size: int, stride: int
) -> None:
    sizes = {"cin": cin, "oh": size, "ow": size, "ih": stride * size, "iw": stride * size}
    assert 1.24 < rate("xg24", **sizes, sh=stride, sw=stride) < 1.8


@pytest.mark.parametrize(("channels", "kernel", "size"), [(8, 3, 48), (128, 3, 6), (512, 5, 3)])
def test_depthwise_convolutions_of_xg24_make_0_3_to_1_6_macs_a_cycle(
    channels: int, kernel: int, size: int
) -> None:
    sizes = {"cin": channels, "cout": channels, "groups": channels, "kh": kernel, "kw": kernel}
    found = rate("xg24", **sizes, oh=size, ow=size, ih=size, iw=size)
    assert 0.28 < found < 1.6


def test_xg24_takes_two_inputs_of_a_linear_layer_at_once_where_their_number_is_even() -> None:
    odd, even = (cycles("xg24", "linear", cin=c, cout=64) for c in (63, 64))
    assert odd > 1.5 * even


def test_xg24_takes_two_depthwise_channels_at_once_where_their_number_is_even() -> None:
    sizes = {"kh": 5, "kw": 5, "oh": 14, "ow": 14}
    odd, even = (rate("xg24", cin=c, cout=c, groups=c, **sizes) for c in (511, 512))
    assert even == pytest.approx(2 * odd, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "fast"),
    [
        ({"kh": 3, "kw": 3}, True),
        ({"kh": 3.3, "kw": 3.3}, True),
        ({"kh": 1, "kw": 5}, True),
        ({"kh": 7, "kw": 7}, True),
        ({"kh": 4, "kw": 4}, False),
        ({"kh": 1, "kw": 9}, False),
        ({"kh": 3, "kw": 3, "dh": 2, "dw": 2}, False),
    ],
)
@pytest.mark.parametrize("groups", [1, 64])
def test_gap8_is_slow_at_sizes_without_a_kernel(
    sizes: dict[str, float], fast: bool, groups: int
) -> None:
    assert (rate("gap8", **sizes, groups=groups) > 2) is fast
