"""Slopes of costs at a fixed tile are those of the line that whole tiles make."""

from dataclasses import replace

import pytest
import torch

from hwcost.costmodel import CostModel
from hwcost.workload import Workload
from tests.test_tile import TILED

#: Ops of which each size that is cut has several tiles, or one.
OPS: dict[str, tuple[str, dict[str, float]]] = {
    "conv1d": ("conv", {"cin": 60, "cout": 90, "kh": 1, "kw": 9, "iw": 300, "ow": 292}),
    "conv2d": ("conv", {"cin": 200, "cout": 90, "kh": 3, "kw": 3, "ih": 40, "iw": 40}),
    "strided": ("conv", {"cin": 30, "cout": 90, "kh": 5, "kw": 5, "ih": 80, "iw": 80, "sh": 2}),
    "conv3d": ("conv", {"cin": 30, "cout": 40, "kd": 3, "kh": 3, "kw": 3, "id": 6, "od": 4}),
    "grouped": ("conv", {"cin": 64, "cout": 96, "groups": 2, "kh": 3, "kw": 3, "ih": 50}),
    "transposed": ("conv_transpose", {"cin": 16, "cout": 70, "kh": 2, "kw": 2, "sh": 2, "sw": 2}),
    "linear": ("linear", {"cin": 500, "cout": 300, "positions": 50}),
    "matmul": ("matmul", {"m": 200, "n": 300, "k": 100}),
    "pool": ("pool", {"cout": 300, "kh": 3, "kw": 3, "ih": 60, "iw": 60, "sh": 2, "sw": 2}),
    "elementwise": ("elementwise", {"elements": 5000, "reads": 2}),
}


def work(name: str) -> Workload:
    kind, sizes = OPS[name]
    if kind in ("conv", "conv_transpose", "pool"):
        usual = {"ih": 1 if name == "conv1d" else 40, "iw": 40}
        sizes = usual | sizes
        outputs = {f"o{a}": sizes[f"i{a}"] // sizes.get(f"s{a}", 1) for a in "hw"}
        sizes = outputs | sizes
    return Workload.from_columns(kind, **sizes)


#: Op -> sizes in one step of a rounding in its formula; 4 for others.
PERIODS = {"elementwise": 16}


def tiles(model: CostModel, name: str) -> dict[str, float]:
    """Size of the op -> its tile, of the sizes that the op has."""
    columns = model.plan(work(name)).tiles
    found = {column.removeprefix("tile."): float(tile[0]) for column, tile in columns.items()}
    if name != "linear":
        return found
    return {"cin": found["cin"], "cout": found["cout"], "positions": found["ow"]}


def held(model: CostModel, op: Workload) -> Workload:
    """The op with the tiles that it has now, whatever its sizes become."""
    return replace(op, changed={**op.changed, **model.plan(op).tiles})


def slope(model: CostModel, op: Workload, size: str, at: float) -> float:
    leaf = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(model.total(op.with_columns(**{size: leaf})), leaf)[0].item()


def secant(model: CostModel, op: Workload, size: str, low: float, high: float) -> float:
    ends = [float(model.total(op.with_columns(**{size: at}))) for at in (low, high)]
    return (ends[1] - ends[0]) / (high - low)


@pytest.mark.parametrize("name", OPS)
def test_a_slope_is_that_from_whole_tiles_to_one_more(name: str) -> None:
    model, found = CostModel(TILED, "cycles"), []
    op = held(model, work(name))
    for size, tile in tiles(model, name).items():
        whole = op.column(size).item()
        if whole > tile:
            count = whole // tile
            expected = secant(model, op, size, count * tile, (count + 1) * tile)
            # A tile of half the channels has more of the groups while there are fewer channels.
            exact = 1e-4 if name == "grouped" else 1e-9
            assert slope(model, op, size, whole) == pytest.approx(expected, rel=exact), size
            found.append(size)
    assert found


@pytest.mark.parametrize("name", OPS)
def test_a_slope_within_a_tile_is_that_between_whole_steps(name: str) -> None:
    model, found, period = CostModel(TILED, "cycles"), [], PERIODS.get(name, 4)
    op = held(model, work(name))
    for size, tile in tiles(model, name).items():
        low = tile // 2 // period * period
        if low and low + period <= tile:
            expected = secant(model, op, size, low, low + period)
            assert slope(model, op, size, low + 0.5) == pytest.approx(expected, rel=1e-6), size
            found.append(size)
    assert found
