"""Params inside the formulas of tiles, fitted to measured rows."""

import random
from pathlib import Path

import pytest

from hwcost.fit import fit
from hwcost.loading import loads
from tests.fitcases import Row, cost, write_board, write_rows

BOARD = """\
hwcost: 1
name: board
title: an engine that cuts ops into tiles
status: datasheet
params:
  clock: {value: 100 MHz, source: made}
  mac: {value: 1 cycle, fit: true, bounds: [0.01 cycle, 9 cycle], source: guess}
  dma: {value: 4 B/cycle, fit: true, bounds: [0.1 B/cycle, 64 B/cycle], source: guess}
  call: {value: 100 cycle, fit: true, bounds: [0 cycle, 100 kcycle], source: guess}
memories: {l1: {size: 4 KiB, source: made}}
engines:
  npu:
    ops:
      - match: conv
        tile: {sizes: [cin, cout, oh], memory: l1, double_buffer: true}
        cycles: tcin*tcout*toh*tow*kh*kw*mac
        load: (tile_in_bytes + tile_w_bytes)/dma
        store: tile_out_bytes/dma
        once: call
metrics:
  latency: {unit: ms, row: cycles/clock}
deploy: {w_bits: 8, a_bits: 8}
"""

TRUE = {"mac": "0.2 cycle", "dma": "2.5 B/cycle", "call": "1500 cycle"}


def rows(count: int) -> list[Row]:
    draw, board = random.Random(0), loads(BOARD).with_params(**TRUE)
    found: list[Row] = []
    for i in range(count):
        side, kernel = draw.randint(4, 20), draw.choice([1, 3])
        op: Row = {"kind": "conv", "cin": draw.randint(4, 40), "cout": draw.randint(4, 40)}
        op |= {"kh": kernel, "kw": kernel, "ih": side, "iw": side, "oh": side, "ow": side}
        latency = cost(board, op) * draw.gauss(1, 0.01)
        found.append({"net": f"net{i % 3}", "layer": f"l{i}", **op, "latency": latency})
    return found


def test_params_in_formulas_of_tiles_are_recovered(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board.yaml", BOARD)
    found = fit(board, write_rows(tmp_path / "rows.csv", rows(30)))
    known = {"mac": 0.2, "dma": 2.5, "call": 1500.0}
    assert {f.param.name: f.value for f in found.params} == pytest.approx(known, rel=0.03)
