"""The tile clause: which tile is found, what an op then costs, and what is refused."""

import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.errors import DescriptorError, HwcostWarning, UnsupportedOp, WorkloadError
from hwcost.explain import explain
from hwcost.loading import loads
from hwcost.tracing import trace
from hwcost.workload import Workload
from hwcost.zoo import ds_cnn

TILED = Path(__file__).parent / "data" / "tiled.yaml"

CHIP = """
hwcost: 1
name: chip
title: a chip
status: published
params: {dma: {value: 2 B/cycle, source: made}}
memories: {l1: {size: 1000 B}, l0: {size: 40 B}}
engines:
  npu:
    ops:
    - match: linear
      tile: {sizes: [cin, cout], memory: l1}
      cycles: 10*tcin*tcout
    - match: conv
      tile: {sizes: [cout, oh], memory: l1, double_buffer: true, step: {cout: 4}}
      cycles: 3*tcout*toh*tow
      load: (tile_in_bytes + tile_w_bytes)/dma
      store: tile_out_bytes/dma
      once: 7
metrics: {latency: {unit: cycle, row: cycles}}
deploy: {w_bits: 8, a_bits: 8}
"""


def chip(old: str = "", new: str = "") -> CostModel:
    assert old in CHIP
    return CostModel(loads(CHIP.replace(old, new, 1), "chip.yaml"))


def conv(**sizes: float) -> Workload:
    usual = {"cin": 2, "cout": 8, "kh": 3, "kw": 3, "ih": 10, "iw": 10, "oh": 10, "ow": 10}
    return Workload.from_columns("conv", **{**usual, **sizes})


def linear(cin: float, cout: float | Tensor) -> Workload:
    return Workload.from_columns("linear", cin=cin, cout=cout)


def tile(model: CostModel, workload: Workload) -> dict[str, float]:
    return {name: float(column[0]) for name, column in model.plan(workload).tiles.items()}


def cost(model: CostModel, workload: Workload) -> float:
    return float(model.total(workload))


def test_an_op_that_fits_is_one_tile() -> None:
    # 20 inputs, 40 outputs and 800 weights take 860 bytes of 1000.
    assert tile(chip(), linear(20, 40)) == {"tile.cin": 20, "tile.cout": 40}


def test_pieces_are_of_equal_size() -> None:
    # 20 + 60 + 1200 bytes do not fit; halves of the outputs move least: 20 + 30 + 600 bytes.
    assert tile(chip(), linear(20, 60)) == {"tile.cin": 20, "tile.cout": 30}


def test_a_tile_is_a_multiple_of_its_step_or_the_whole_size() -> None:
    model = chip("[cin, cout], memory: l1}", "[cout], memory: l1, step: {cout: 16}}")
    assert tile(model, linear(20, 60)) == {"tile.cout": 32}
    assert tile(model, linear(20, 45)) == {"tile.cout": 45}


def test_two_tiles_must_fit_with_double_buffering() -> None:
    single = chip("[cin, cout], memory: l1}", "[cout], memory: l1}")
    double = chip("[cin, cout], memory: l1}", "[cout], memory: l1, double_buffer: true}")
    assert tile(single, linear(20, 40)) == {"tile.cout": 40}
    assert tile(double, linear(20, 40)) == {"tile.cout": 20}


def test_bytes_say_what_a_tile_needs() -> None:
    model = chip("[cin, cout], memory: l1}", "[cout], memory: l1, bytes: tile_w_bytes + 400}")
    assert tile(model, linear(20, 40)) == {"tile.cout": 20}


def test_a_tile_of_many_pieces_is_found_as_well() -> None:
    # 3 * 3 * 2 weights and 3 rows of 2 * 10 inputs for one channel and row: 4 of them fit twice.
    model = chip("l1: {size: 1000 B}", "l1: {size: 400 B}")
    assert tile(model, conv(cout=400, oh=100, ih=100)) == {"tile.cout": 4, "tile.oh": 1}


def test_equal_tiles_are_square() -> None:
    # In and out, 4 tiles of 90 x 90 or of 45 x 180 fit into 16 KiB, 3 of 60 x 180 do not.
    sizes = {"cout": 1, "kh": 1, "kw": 1, "ih": 180, "iw": 180, "oh": 180, "ow": 180}
    work = Workload.from_columns("pool", **sizes)
    assert tile(CostModel(TILED), work) == {"tile.cout": 1, "tile.oh": 90, "tile.ow": 90}


def test_transfers_run_beside_the_computation() -> None:
    # 4 channels of 10 rows: 200 bytes of inputs and 72 of weights come in, 400 go out.
    model, work = chip("1000 B", "1400 B"), conv()
    assert tile(model, work) == {"tile.cout": 4, "tile.oh": 10}
    assert cost(model, work) == 7 + 136 + 2 * max(1200, 136 + 200) + 200


def test_without_overlap_times_add_up() -> None:
    apart = CHIP.replace("double_buffer: true", "double_buffer: true, overlap: false")
    model = CostModel(loads(apart.replace("1000 B", "1400 B")))
    assert cost(model, conv()) == 7 + 2 * (136 + 1200 + 200)


def test_slow_transfers_decide() -> None:
    model = CostModel(loads(CHIP.replace("1000 B", "1400 B").replace("2 B/cycle", "0.1 B/cycle")))
    assert cost(model, conv()) == 7 + 2720 + 2 * (2720 + 4000) + 4000


def test_a_formula_is_one_of_a_sample() -> None:
    model = chip()
    assert cost(model, conv(batch=3)) == 3 * cost(model, conv())


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [({"sh": 1}, 7), ({"sh": 2}, 11), ({"kh": 1}, 5), ({"dh": 2}, 9), ({"ih": 6}, 6)],
)
def test_input_rows_come_from_output_rows_stride_and_kernel(
    sizes: dict[str, float], rows: float
) -> None:
    text = CHIP.replace("1000 B", "1400 B").replace("3*tcout*toh*tow", "where(toh == 5, tih, 0)")
    model = CostModel(loads(re.sub(r"      (load|store|once).*\n", "", text)))
    assert cost(model, conv(**{"ih": 99, **sizes})) in (2 * rows, 0)


def test_a_size_that_is_not_cut_is_whole() -> None:
    model = chip("cycles: 10*tcin*tcout", "cycles: tpositions")
    work = Workload.from_columns("linear", cin=4, cout=4, positions=5)
    assert cost(model, work) == 5


def test_a_tile_of_a_depthwise_convolution_has_its_own_input_channels() -> None:
    text = re.sub(r"      (load|store|once).*\n", "", CHIP)
    model = CostModel(loads(text.replace("3*tcout*toh*tow", "tcin/n_tiles")))
    work = conv(cin=16, cout=16, groups=16)
    assert cost(model, work) == tile(model, work)["tile.cout"]


def test_the_tile_is_a_constant_for_the_gradient() -> None:
    cout = torch.tensor([60.0], dtype=torch.float64, requires_grad=True)
    model = chip()
    model.total(linear(20, cout)).backward()
    # Two tiles of 30 columns at 6000 cycles: a column adds a thirtieth of a tile.
    assert cout.grad is not None
    assert cout.grad.item() == 10 * 20 * 30 / 30


def test_a_slope_is_the_same_at_one_tile() -> None:
    cout = torch.tensor([40.0], dtype=torch.float64, requires_grad=True)
    chip().total(linear(20, cout)).backward()
    assert cout.grad is not None
    assert cout.grad.item() == 200


def test_fewer_channels_than_a_tile_are_a_smaller_tile() -> None:
    model, work = chip(), linear(20, 40)
    for cout in (39, 10.5, 1):
        assert cost(model, work.with_columns(cout=cout)) == 10 * 20 * cout


def test_more_channels_are_cut_into_tiles_of_their_own() -> None:
    model, work = chip(), linear(20, 60)
    assert cost(model, work.with_columns(cout=61)) == 2 * 10 * 20 * 31


def test_channels_in_part_have_the_tiles_of_whole_ones() -> None:
    model, work = chip(), linear(20, 60)
    assert cost(model, work.with_columns(cout=61.5)) == cost(model, linear(20, 62))


def test_what_fits_nowhere_names_sizes_and_memory() -> None:
    model = chip("memory: l1, double", "memory: l0, double")
    message = (
        r"layer 'conv 0': chip/npu: no tile of 'conv' with cout=8, oh=10 fits into 'l0':"
        r" the smallest \(tcout=4, toh=1\) takes 344 B, twice because of double_buffer;"
        r" the memory has 40 B \(chip.yaml:14\)"
    )
    with pytest.raises(UnsupportedOp, match=message):
        model.total(conv())


def test_what_fits_on_no_engine_names_the_memory_of_each() -> None:
    other = "  dsp:\n    ops:\n    - match: conv\n      tile: {sizes: [ow], memory: l0}\n"
    text = CHIP.replace("memory: l1, double", "memory: l0, double")
    model = CostModel(loads(text.replace("metrics:", f"{other}      cycles: tow\nmetrics:")))
    message = (
        r"'conv 0': chip/npu: no tile .* cout=8, oh=10 fits into 'l0'.*;"
        r" chip/dsp: no tile of 'conv' with ow=10 fits into 'l0': .* takes 284 B; the memory has"
    )
    with pytest.raises(UnsupportedOp, match=message):
        model.total(conv())


def test_what_fits_nowhere_can_be_left_out() -> None:
    platform = loads(CHIP.replace("memory: l1, double", "memory: l0, double"))
    model = CostModel(platform, on_unsupported="warn")
    with pytest.warns(HwcostWarning, match="fits into 'l0'"):
        rows = model.rows(Workload.concat([conv(), linear(4, 4)]))
    assert math.isnan(rows[0]) and rows[1] == 160


def test_another_engine_runs_what_does_not_fit() -> None:
    other = "  cpu: {ops: [{match: conv, cycles: 1000*cout}]}\nmetrics:"
    text = CHIP.replace("memory: l1, double", "memory: l0, double").replace("metrics:", other)
    assert cost(CostModel(loads(text)), conv()) == 8000


def test_engines_are_compared_by_their_tiles() -> None:
    other = "  cpu: {ops: [{match: conv, cycles: 1000*cout}]}\nmetrics:"
    model = CostModel(loads(CHIP.replace("metrics:", other)))
    assert cost(model, conv()) == cost(chip(), conv())


def test_an_alias_has_the_tiles_of_its_kind() -> None:
    text = CHIP.replace(
        "    - match: linear\n      tile: {sizes: [cin, cout], memory: l1}\n"
        "      cycles: 10*tcin*tcout\n",
        "    - {match: linear, as: {match: conv, kh: 1, kw: 1, ih: 1, iw: positions, oh: positions,"
        " ow: 1}}\n",
    )
    model = CostModel(loads(text))
    work = Workload.from_columns("linear", cin=3, cout=64, positions=50)
    same = conv(cin=3, cout=64, kh=1, kw=1, ih=1, iw=50, oh=50, ow=1)
    assert cost(model, work) == cost(model, same)


def test_an_alias_without_input_sizes_names_them() -> None:
    text = CHIP.replace(
        "    - match: linear\n      tile: {sizes: [cin, cout], memory: l1}\n"
        "      cycles: 10*tcin*tcout\n",
        "    - {match: linear, as: {match: conv, kh: 1, kw: 1, oh: 1, ow: positions}}\n",
    )
    with pytest.raises(DescriptorError, match="the formula of 'conv' reads 'ih', which 'linear'"):
        loads(text)


def test_a_table_without_an_input_size_names_it() -> None:
    work = Workload.from_columns("conv", cin=1, cout=1, kh=1, kw=1, oh=1, ow=1, iw=1)
    with pytest.raises(WorkloadError, match=r"'conv 0' .* no size 'ih', which latency"):
        chip().total(work)


def test_let_formulas_may_read_tiles() -> None:
    text = CHIP.replace("engines:", "let: {work: 10*tcin*tcout}\nengines:", 1)
    text = text.replace("cycles: 10*tcin*tcout", "cycles: work")
    assert cost(CostModel(loads(text)), linear(20, 60)) == 2 * 10 * 20 * 30


def test_scratch_may_read_tiles() -> None:
    text = CHIP.replace("cycles: 10*tcin*tcout", "cycles: 1\n      scratch: 2*tcout")
    text = text.replace("row: cycles}", "row: cycles}, peak: {unit: B, reduce: peak_live}")
    model = CostModel(loads(text), "peak")
    net = torch.nn.Sequential(torch.nn.Linear(20, 60))
    assert cost(model, trace(net, input_shape=(20,))) == 20 + 60 + 2 * 30


def test_tables_one_after_another_cost_the_sum() -> None:
    model, works = chip(), [conv(), conv(cout=64), linear(20, 60)]
    assert cost(model, Workload.concat(works)) == sum(cost(model, w) for w in works)


def test_a_grid_costs_what_its_rows_cost() -> None:
    model = chip()
    grid = Workload.grid("linear", cin=range(1, 60, 7), cout=range(1, 400, 37))
    alone = [
        cost(model, linear(*pair))
        for pair in zip(grid.column("cin").tolist(), grid.column("cout").tolist(), strict=True)
    ]
    assert model.rows(grid).tolist() == alone


def test_a_model_survives_pickle() -> None:
    model, work = CostModel(TILED), trace(*ds_cnn())
    assert torch.equal(pickle.loads(pickle.dumps(model)).rows(work), model.rows(work))


def test_another_memory_size_makes_other_tiles() -> None:
    assert tile(chip("1000 B", "500 B"), linear(20, 60)) == {"tile.cin": 20, "tile.cout": 20}


def test_the_platform_of_the_page_is_the_example() -> None:
    docs = Path(__file__).parent.parent / "docs"
    block = re.search(r"```yaml\n(.*?)```", (docs / "tiling.md").read_text(), re.DOTALL)
    assert block is not None
    assert (docs / "examples" / "tiled_mcu.yaml").read_text().endswith(block[1])


def line(text: str, start: str) -> str:
    found = re.search(rf"^ *{re.escape(start)} +(.*)$", text, re.MULTILINE)
    assert found is not None, f"{start!r} in\n{text}"
    return found.group(1)


def test_explain_shows_the_tile_and_its_parts() -> None:
    text = explain(chip("1000 B", "1400 B"), conv(), "conv 0")
    assert line(text, "cycles") == "once + load + n_tiles*max(compute, load + store) + store"
    assert line(text, "compute") == "3*tcout*toh*tow = 1200"
    assert line(text, "tcout") == "4 of cout = 8, a multiple of 4"
    assert line(text, "n_tiles") == "ceil(cout/tcout)*ceil(oh/toh) = 2, tiles of one sample"
    assert line(text, "l1").startswith("two tiles take 1.31 KiB of 1400 B, 96 %")
    assert line(text, "in numbers") == "7 + 136 + 2*max(1200, 136 + 200) + 200"
    assert line(text, "is") == "2,743 cycles"


def test_latex_shows_what_tiles_are() -> None:
    text = chip().latex()
    assert r"\mathrm{n}_{\mathrm{tiles}} &= \left\lceil\frac{\mathrm{cin}}" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("memory: l1}", "memory: l2}", "chip.yaml:11: no memory 'l2'; known: l1, l0"),
        ("[cin, cout], memory", "[cin, oh], memory", "'linear' cannot be cut along 'oh'"),
        ("[cin, cout], memory", "[cin, cin], memory", "'sizes' of the tile names 'cin' twice"),
        ("step: {cout: 4}", "step: {ow: 4}", "'step' names 'ow', which is not cut"),
        ("step: {cout: 4}", "step: {cout: 0}", "chip.yaml:15: .*step.cout' is 0; expected greater"),
        ("cycles: 10*tcin*tcout", "cycles: toh", "a tile of 'linear' has no 'toh'; known: tcin"),
        ("cycles: 10*tcin*tcout", "cycles: batch", "a tile is one of one sample"),
        ("load: (tile_in", "load: cin*(tile_in", None),
        ("store: tile_out_bytes/dma", "store: tile_out_bytes/dma**2", "'store' is in"),
        ("memory: l1}", "memory: l1, bytes: tile_w_bytes/dma}", "'bytes' is in cycle; expected B"),
        ("memory: l1}", "memory: l1, bytes: cin*cout}", "chip.yaml:11: 'bytes' is 'cin.cout', the"),
        ("once: 7", "once: 7\n    - {match: pool, cycles: tcout}", "'tcout' is the size of a tile"),
        ("once: 7", "once: 7\n    - {match: pool, cycles: 1, load: 1}", "'load' has a meaning"),
        ("row: cycles", "row: cycles*n_tiles", "'n_tiles' is the size of a tile"),
        ("params: {", "params: {tow: {value: 1, source: made}, ", "'tow', which is a size of til"),
        ("once: 7", "free: 'no'", "an op entry has exactly one of cycles, as, free"),
        ("match: linear", "match: rnn", "'rnn' cannot be cut into tiles"),
        ("match: linear", "match: linear\n      where: tcin > 2", "'tcin' is the size of a tile"),
        ("double_buffer", "double_bufer", "unknown key 'double_bufer'; did you mean"),
    ],
)
def test_a_wrong_clause_is_refused(old: str, new: str, message: str | None) -> None:
    if message is None:
        assert chip(old, new)
        return
    with pytest.raises(DescriptorError, match=message):
        chip(old, new)
