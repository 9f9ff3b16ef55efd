"""Peak memory of runtimes: depthwise in place, reserved buffers, published figures."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwcost.costmodel import CostModel
from hwcost.errors import DescriptorError
from hwcost.explain import explain
from hwcost.explain_memory import alive
from hwcost.fit import fit
from hwcost.loading import load, loads
from hwcost.memory import overwritten
from hwcost.platform import Platform
from hwcost.reports import report
from hwcost.tracing import trace
from hwcost.workload import Workload
from tests.mcunet import nets, workload
from tests.models import Function

#: mit-han-lab/mcunet@0dedab54:README.md
MILLION_MACS = {
    **{"mcunet-vww0": 6.0, "mcunet-vww1": 11.6, "mcunet-vww2": 55.8, "mcunet-in0": 6.4},
    **{"mcunet-in1": 12.8, "mcunet-in2": 67.3, "mcunet-in3": 81.8, "mcunet-in4": 125.9},
    "mbv2-w0.35": 23.5,
}

CHIP = """
hwcost: 1
name: chip
title: a chip that computes depthwise convolutions in place
status: datasheet
note: for tests
memories: {sram: {size: 1 KiB, holds: [activations]}}
engines:
  core:
    ops:
    - {match: conv, cycles: macs, reserved: {columns: 2*cin, weights: w_elems}}
    - {match: conv, where: depthwise, cycles: macs, in_place: true, reserved: {columns: oh*ow}}
    - {match: linear, as: {match: conv, oh: 1, ow: 1, kh: 1, kw: 1}}
    default: {cycles: "1"}
metrics: {ram: {unit: B, reduce: peak_live}}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.fixture
def chip() -> Platform:
    return loads(CHIP, "chip.yaml")


@pytest.fixture
def bare() -> Platform:
    """The chip without reserved buffers."""
    text = CHIP.replace(", reserved: {columns: 2*cin, weights: w_elems}", "")
    return loads(text.replace(", reserved: {columns: oh*ow}", ""), "chip.yaml")


def net(stride: int = 1, channels: int = 3) -> nn.Module:
    """1x1 to 5 channels, depthwise, 1x1: on an image of 4x4."""
    depthwise = nn.Conv2d(5, 5, 3, stride, 1, groups=5)
    return nn.Sequential(nn.Conv2d(channels, 5, 1), nn.ReLU(), depthwise, nn.Conv2d(5, 2, 1))


def traced(model: nn.Module, channels: int = 3) -> Workload:
    return trace(model, torch.ones(1, channels, 4, 4))


def rows(platform: Platform, table: Workload) -> list[float]:
    found: list[float] = CostModel(platform, "ram").rows(table).tolist()
    return found


def published(runtime: str) -> dict[str, float]:
    """Network -> bytes."""
    with (Path(__file__).parent / "data" / "mcunet_memory.csv").open() as lines:
        found = list(csv.DictReader(lines))
    return {r["net"]: 1024 * float(r["sram [KiB]"]) for r in found if r["runtime"] == runtime}


def peak(platform: str, name: str) -> float:
    return float(CostModel(platform, "peak_ram").total(workload(name)))


@pytest.mark.parametrize("name", nets())
def test_peak_memory_is_that_of_a_runtime_in_place(name: str) -> None:
    # Published as whole KiB: half of one is 1 % of the smallest.
    due = published("TinyEngine")[name]
    assert peak("stm32h743_tinyengine", name) == pytest.approx(due, rel=0.01)


def test_the_stated_error_of_the_peak_is_that_of_the_networks() -> None:
    platform, due = load("stm32h743_tinyengine"), published("TinyEngine")
    stated = platform.error("peak_ram", of="nets")
    off = torch.tensor([peak(platform.name, name) / due[name] - 1 for name in nets()]).abs()
    assert stated is not None and stated.rows == len(off)
    assert stated.median == pytest.approx(off.median().item(), abs=1e-4)
    assert stated.p90 == pytest.approx(off.max().item(), abs=1e-4)


def test_the_latencies_of_the_platform_are_those_of_the_fit() -> None:
    data = Path(__file__).parents[1] / "docs" / "data" / "stm32h743_tinyengine.csv"
    params = load("stm32h743_tinyengine").params
    found = fit("stm32h743_tinyengine", data).params
    assert [p.text for p in found] == [params[p.param.name].quantity.text for p in found]


@pytest.mark.parametrize("name, size", [("mcunet-vww0", 60800), ("mcunet-vww1", 93992)])
def test_peak_memory_is_the_arena_of_generated_code(name: str, size: int) -> None:
    assert peak("stm32h743_tinyengine", name) == size


def test_a_peak_in_place_is_a_count_by_hand() -> None:
    activations, columns, weights = 32 * 32 * (8 + 48), 2 * (32 + 4) ** 2, 2 * 3 * 3 * 3 * 16
    assert activations + columns + weights == 60800


@pytest.mark.parametrize(
    "runtime, platform, least, most",
    [
        # Padded copies of inputs and numbers for each output channel are not in the platform.
        ("CMSIS-NN", "stm32h743_cmsisnn", -0.68, -0.27),
        ("X-CUBE-AI 7.3.0", "stm32h7a3_xcubeai", -0.35, 0.37),
        # Above the platform by 4 to 11 % only where activations are most of the memory.
        ("TinyEngine for MCUNet", "stm32h743_tinyengine", -0.82, -0.04),
    ],
)
def test_other_runtimes_are_off_as_the_docs_say(
    runtime: str, platform: str, least: float, most: float
) -> None:
    due = published(runtime)
    off = [peak(platform, name) / size - 1 for name, size in due.items()]
    assert (round(min(off), 2), round(max(off), 2)) == (least, most)


@pytest.mark.parametrize("name", nets())
def test_the_networks_have_the_published_macs(name: str) -> None:
    macs = float(CostModel("counts", "macs").total(workload(name)))
    assert round(macs / 1e6, 1) == MILLION_MACS[name]


def test_an_op_in_place_takes_the_memory_of_its_input(bare: Platform) -> None:
    # The first writes 5 channels, the second overwrites them, the third reads them.
    assert rows(bare, traced(net())) == [16 * (3 + 5), 16 * 5, 16 * 5, 16 * (5 + 2)]


def test_a_smaller_output_lies_in_its_input(bare: Platform) -> None:
    assert rows(bare, traced(net(stride=2)))[2:] == [16 * 5, 4 * (5 + 2)]


def test_an_op_in_place_keeps_what_a_later_op_reads(bare: Platform) -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = m.get_submodule("wide")(x)
        return y + m.get_submodule("deep")(y)  # type: ignore[no-any-return]

    deep = nn.Conv2d(5, 5, 3, 1, 1, groups=5)
    table = traced(Function(forward, wide=nn.Conv2d(3, 5, 1), deep=deep))
    assert rows(bare, table)[1] == 16 * (5 + 5)


def test_an_op_in_place_keeps_the_input_of_the_network(bare: Platform) -> None:
    assert rows(bare, traced(nn.Conv2d(3, 3, 3, 1, 1, groups=3))) == [16 * (3 + 3)]


def test_a_reserved_buffer_is_as_large_as_its_largest_user(chip: Platform, bare: Platform) -> None:
    table = traced(net())
    # The depthwise one uses 16 of the columns, the first 1x1 convolution 15 of the weights.
    more = [a - b for a, b in zip(rows(chip, table), rows(bare, table), strict=True)]
    assert more == [16 + 15] * 4


def test_an_alias_has_the_buffers_of_its_target(chip: Platform) -> None:
    table = trace(nn.Linear(10, 4), torch.ones(1, 10))
    assert rows(chip, table) == [10 + 4 + 2 * 10 + 10 * 4]


def test_the_gradient_in_place_is_a_difference() -> None:
    table = traced(net(stride=2))
    buffers = table.structure.buffers
    assert buffers is not None
    flags = torch.tensor([kind == "conv" for kind in table.kinds])
    sizes = (buffers.elements + torch.arange(len(buffers.elements))).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: overwritten(table.structure, s, flags), (sizes,))


def test_the_gradient_reaches_the_op_that_reserves_most(chip: Platform) -> None:
    table = traced(net())
    cout = table.column("cout").clone().requires_grad_()
    CostModel(chip, "ram").total(table.with_columns(cout=cout)).backward()
    # A channel of the first convolution: 16 numbers at the peak, and 3 weights reserved.
    assert cout.grad is not None
    assert cout.grad[0].item() == 16 + 3


@pytest.mark.parametrize("row", range(4))
def test_what_is_alive_adds_up(chip: Platform, row: int) -> None:
    model, table = CostModel(chip, "ram"), traced(net(stride=2))
    assert sum(size for _, size in alive(model, table, row)) == float(model.rows(table)[row])


def test_a_report_names_reserved_buffers(chip: Platform) -> None:
    text = str(report(net(), chip, ["ram"], input_shape=(3, 4, 4)))
    assert "buffer columns 16 B" in text


def test_an_explanation_says_what_is_overwritten(chip: Platform) -> None:
    text = explain(CostModel(chip, "ram"), traced(net()), "2")
    assert "80 B of the input overwritten" in text


@pytest.mark.parametrize("key", ["in_place: true", "reserved: {a: 1}"])
def test_an_op_that_does_not_run_has_no_memory_of_its_own(key: str) -> None:
    text = CHIP.replace("where: depthwise, cycles: macs, in_place: true", f"free: no, {key}")
    text = text.replace(", reserved: {columns: oh*ow}", "")
    name = key.partition(":")[0]
    with pytest.raises(DescriptorError, match=rf"chip.yaml:\d+: '{name}' goes with 'cycles'"):
        loads(text, "chip.yaml")


def test_a_reserved_buffer_is_in_bytes() -> None:
    with pytest.raises(DescriptorError, match=r"'reserved' is in B.2; expected B"):
        loads(CHIP.replace("columns: 2*cin", "columns: sram.size*sram.size"), "chip.yaml")
