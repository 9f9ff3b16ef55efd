"""Conditions of entries on sizes that follow from others."""

import pytest

from hwcost import CostModel, Workload
from hwcost.loading import loads

CHIP = """
hwcost: 1
name: chip
title: chip
status: datasheet
params: {clock: {value: 1 Hz, source: s}, cache: {value: 4 KiB, source: s}}
engines:
  core:
    ops:
    - {match: conv, cycles: 1}
    - {match: conv, where: in_elems > 1000, cycles: 2}
    - {match: conv, where: in_elems > 1000 and in_bytes > cache, cycles: 3}
    default: {cycles: 0, note: free}
metrics: {latency: {unit: s, row: cycles/clock}}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.mark.parametrize(("side", "cycles"), [(8, 1), (20, 2), (40, 3)])
def test_a_condition_may_read_derived_sizes(side: int, cycles: int) -> None:
    op = Workload.from_columns(
        "conv", cin=4, cout=8, kh=1, kw=1, ih=side, iw=side, oh=side, ow=side
    )
    assert CostModel(loads(CHIP)).total(op).item() == cycles
