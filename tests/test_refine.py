"""refine: higher precision where it is free, on any platform."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hwcost import zoo
from hwcost.errors import SearchError
from hwcost.search import MPS, PIT, refine
from hwcost.search.quantized import QuantizedMethod

#: Low precisions cost more than high ones: what a search meets on a board without small kernels.
ODD = """
hwcost: 1
name: odd
title: tiles of eight channels, four bits are the dearest
status: datasheet
sources: {here: a test}
let: {tiles: ceil(cout/8)*oh*ow}
engines:
  core:
    precision: {w_bits: [2, 4, 8], a_bits: [8]}
    ops:
      - match: conv
        cycles: tiles*where(w_bits == 4, 3, where(w_bits == 2, 1, 2))
      - {match: linear, as: {match: conv, oh: 1, ow: positions}}
      - {match: [pool, norm, activation, elementwise, softmax, embedding, copy], free: not in here}
metrics:
  latency: {unit: cycle, row: cycles}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.fixture(params=["ne16_compute:latency", "mpic:latency", "odd"])
def cost(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "odd":
        return str(request.param)
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    return f"{path}:latency"


def drawn(cost: str, w_bits: tuple[int, ...], seed: int) -> MPS:
    model, example = zoo.resnet8()
    search = MPS(model, example, cost=cost, w_bits=w_bits, granularity="channel")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in search.nas_parameters():
            logits.normal_(0, 2, generator=generator)
    return search


def bits(search: MPS) -> list[list[int]]:
    method = search.methods[0]
    assert isinstance(method, QuantizedMethod)
    kept = [method.kept(number).tolist() for number in range(len(method.layers))]
    return [[o[i].bits for i in k] for o, k in zip(method.chosen(), kept, strict=True)]


@pytest.mark.parametrize("w_bits", [(2, 4, 8), (0, 2, 4, 8)])
def test_nothing_gets_dearer_or_coarser(cost: str, w_bits: tuple[int, ...]) -> None:
    search = drawn(cost, w_bits, seed=1)
    before, price = [b for row in bits(search) for b in row], float(search.get_cost(hard=True))
    result = refine(search)
    after = [b for row in bits(search) for b in row]
    assert all(b <= a for b, a in zip(before, after, strict=True))
    assert float(search.get_cost(hard=True)) == result.after <= price == result.before


def test_unfilled_tiles_are_filled() -> None:
    search = drawn("ne16_compute:latency", (2, 4, 8), seed=0)
    result = refine(search)
    assert sum(result.raised.values()) > 0
    assert sum(refine(search).raised.values()) == 0


def test_a_dearer_precision_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    search = drawn(f"{path}:latency", (2, 4), seed=0)
    low = [row.count(2) for row in bits(search)]
    result = refine(search)
    assert result.after <= result.before
    assert [row.count(2) for row in bits(search)] <= low


def test_what_it_says_is_what_the_export_costs() -> None:
    search = drawn("ne16_compute:latency", (2, 4, 8), seed=2)
    text = str(refine(search))
    assert f"{float(search.get_cost(hard=True)):.4g} cycle" in text


def test_it_needs_choices_of_bits() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(SearchError, match="needs choices of bits"):
        refine(PIT(model, torch.zeros(1, 3, 8, 8)))
