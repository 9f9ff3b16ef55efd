"""A small platform with params to fit, and rows made with known ones."""

import csv
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwcost.costmodel import CostModel
from hwcost.loading import loads
from hwcost.platform import Platform
from hwcost.workload import Workload

BOARD = """\
hwcost: 1
name: board
title: a core with two rates
status: datasheet  # before the fit
params:
  clock: {value: 100 MHz, source: datasheet}
  # multiply-accumulates of one cycle
  rate: {value: 2 op/cycle, fit: true, bounds: [0.1 op/cycle, 32 op/cycle], source: guess}
  dw_rate: {value: 0.5 op/cycle, fit: true, bounds: [0.05 op/cycle, 8 op/cycle], source: guess}
  setup:
    value: 500 cycle  # of each layer
    fit: true
    bounds: [0 cycle, 100 kcycle]
    source: guess

engines:
  core:
    ops:
      - {match: conv, cycles: setup + ceil(cout/4)*4/cout*macs/rate}
      - {match: conv, where: depthwise, cycles: setup + macs/dw_rate}
      - {match: linear, cycles: setup + macs/rate}
      - {match: [pool, norm, activation, elementwise, copy, softmax], free: fused}
metrics:
  latency: {unit: ms, row: cycles/clock}
deploy: {w_bits: 8, a_bits: 8}
"""

#: What rows are made with.
TRUE = {"rate": "3.3 op/cycle", "dw_rate": "0.8 op/cycle", "setup": "2 kcycle"}

Row = dict[str, str | float]


def ops(count: int, seed: int = 0) -> list[Row]:
    """Return ops of different sizes, one of three sorts after the other."""
    draw = random.Random(seed)
    found: list[Row] = []
    for i in range(count):
        cin, cout, side = draw.randint(4, 32), draw.randint(4, 32), draw.randint(2, 12)
        image: Row = {"kh": 3, "kw": 3, "oh": side, "ow": side}
        sorts: list[Row] = [
            {"kind": "conv", "cin": cin, "cout": cout, **image},
            {"kind": "conv", "cin": cin, "cout": cin, "groups": cin, **image},
            {"kind": "linear", "cin": 4 * cin, "cout": cout},
        ]
        found.append(sorts[i % 3])
    return found


def true_board(text: str = BOARD, values: Mapping[str, str] = TRUE) -> Platform:
    """Return the platform that made the rows."""
    return loads(text).with_params(**values)


def cost(platform: Platform, row: Row, metric: str = "latency") -> float:
    """Return what an op costs, in SI units."""
    frame: dict[str, list[str | float]] = {
        "layer": ["op"],
        **{name: [value] for name, value in row.items()},
    }
    model = CostModel(platform, metric, place_by="latency")
    return float(model.total(Workload.from_frame(frame))) * float(model.metric.unit.value)


def measured(
    count: int = 36,
    nets: int = 1,
    noise: float = 0.05,
    outliers: int = 0,
    seed: int = 0,
    platform: Platform | None = None,
    factor: float = 6,
) -> list[Row]:
    """Return ops with latencies: noise of a relative size, each ``outliers``-th off by a factor."""
    draw, board = random.Random(seed), platform or true_board()
    rows: list[Row] = []
    for i, op in enumerate(ops(count, seed)):
        latency = cost(board, op) * math.exp(draw.gauss(0, noise))
        latency *= factor if outliers and i % outliers == outliers - 1 else 1
        rows.append({"net": f"net{i % nets}", "layer": f"l{i}", **op, "latency": latency})
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as CSV and return its path."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_board(path: Path, text: str = BOARD) -> Path:
    """Write a platform file and return its path."""
    path.write_text(text)
    return path


TWO = """\
hwcost: 1
name: two
title: two engines that wait for each other
status: datasheet
params:
  clock: {value: 100 MHz, source: x}
  p_run: {value: 20 mW, fit: true, bounds: [1 mW, 1 W], source: x}
  p_wait: {value: 5 mW, fit: true, bounds: [0.1 mW, 1 W], source: x}
engines:
  npu:
    params: {rate: {value: 1 op/cycle, fit: true, bounds: [0.1 op/cycle, 99 op/cycle], source: x}}
    ops: [{match: conv, cycles: macs/rate}]
  cpu:
    params: {rate: {value: 4 op/cycle, fit: true, bounds: [0.1 op/cycle, 99 op/cycle], source: x}}
    ops: [{match: [conv, linear], cycles: macs/rate}]
metrics:
  latency: {unit: s, row: cycles/clock, engines: max}
  energy: {unit: mJ, op: p_run*busy_npu + p_wait*span}
"""


def two(npu: str, cpu: str) -> Platform:
    """Return the board of two engines with other rates."""
    text = TWO.replace("1 op/cycle, fit", f"{npu}, fit").replace("4 op/cycle, fit", f"{cpu}, fit")
    return loads(text).with_params(p_run="40 mW", p_wait="8 mW")


def two_rows() -> list[Row]:
    """Rows of a board whose conv run on the first engine; by the file's rates, on the second."""
    board = two("20 op/cycle", "2 op/cycle")
    return [
        {"net": "n", **op, "latency": cost(board, op), "energy": cost(board, op, "energy")}
        for op in ops(18)
    ]
