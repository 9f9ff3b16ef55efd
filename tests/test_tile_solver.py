"""The tiles that are found are those of a search through all."""

import itertools
import random

import pytest
import torch
from sympy import Expr
from torch import Tensor

from hwcost.compile import compile_formula
from hwcost.errors import FormulaError
from hwcost.loading import loads
from hwcost.platform import Entry, Platform
from hwcost.tile_pieces import pieces
from hwcost.tile_solver import Question, Solver
from tests.test_tile import CHIP, TILED, chip, linear

#: Changes to the platform of the tests: all sorts of bytes, steps and memories.
CHANGES = {
    "as it is": [],
    "nearly nothing fits": [("16 KiB", "500 B"), ("2 KiB", "300 B")],
    "other bytes": [
        (
            "memory: l1, overlap",
            "bytes: '2*tile_in_bytes + tile_w_bytes + where(depthwise, 4*tcout, 0)',"
            " memory: tiny, overlap",
        ),
        (
            "[m, n, k], memory: l1",
            "[k, n, m], memory: tiny, step: {m: 4, k: 8}, bytes:"
            " 'max(tile_in_bytes, tile_out_bytes) + 16*ceil(tn/4)'",
        ),
    ],
    "groups cut along all sizes": [
        ("[cout, oh], memory: l1", "[ow, cin, oh, cout], memory: tiny, step: {cout: 2, oh: 3}")
    ],
}


def platform(change: str) -> Platform:
    text = TILED.read_text()
    for old, new in CHANGES[change]:
        assert old in text
        text = text.replace(old, new)
    return loads(text)


def entries(platform: Platform) -> list[Entry]:
    found = platform.engines["npu"].entries.values()
    return [entry for some in found for entry in some if entry.tile is not None]


def sizes(draw: random.Random, kind: str) -> dict[str, float]:
    found = {n: float(draw.choice([1, 2, 3, 5])) for n in ("kh", "kw", "kd", "heads", "reads")}
    found |= {n: float(draw.choice([1, 2, 3])) for n in ("sh", "sw", "sd", "dh", "dw")}
    found |= {
        n: float(draw.choice([1, 7, 14, 25])) for n in ("oh", "ow", "m", "n", "k", "lq", "lk")
    }
    found |= {n: float(draw.choice([1, 6, 16, 31, 64])) for n in ("cin", "cout", "dhead", "dv")}
    found |= {n: float(draw.choice([2, 4, 8])) for n in ("w_bits", "a_bits", "o_bits")}
    found |= {"elements": float(draw.randint(1, 999)), "positions": float(draw.randint(1, 40))}
    found |= {f"i{a}": found.get(f"o{a}", 1.0) * found[f"s{a}"] for a in "dhw"}
    if "conv" in kind and draw.random() < 0.5:
        groups = found["cin"] if draw.random() < 0.5 else 2.0
        found |= {"groups": groups, "cin": found["cin"] * groups, "cout": found["cout"] * groups}
        found |= {"cin": groups, "cout": groups} if groups > 2 else {}
    return found


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(3))
def test_the_tile_is_the_best_of_all(change: str, seed: int) -> None:
    draw, board = random.Random(seed), platform(change)
    for entry in entries(board):
        assert entry.tile is not None
        solver = Solver(Question.of(entry.tile, board.numbers(board.engines["npu"])))
        ops = [sizes(draw, entry.kind) for _ in range(5)]
        read = {n: torch.tensor([op.get(n, 1.0) for op in ops]).double() for n in solver.reads}
        found, fits = solver.tiles(read)
        for row in range(len(ops)):
            best = best_by_trying_all(solver, {n: float(c[row]) for n, c in read.items()})
            assert (tuple(found[row].tolist()) if bool(fits[row]) else None) == best, ops[row]


def best_by_trying_all(solver: Solver, op: dict[str, float]) -> tuple[float, ...] | None:
    """The best tile of an op; None where none fits."""
    question = solver.question
    whole = [int(x) for x in solver.sizes({n: torch.tensor([v]) for n, v in op.items()})[0]]
    together = op.get("groups", 1) > 1
    lists = []
    for name, size, step in zip(question.cut, whole, question.steps, strict=True):
        each = size if together and name == "cin" else step
        # Of the tiles that cut a size into so many pieces, the smallest.
        by_pieces = {-(-size // t): t for t in (size, *reversed(range(each, size, each)))}
        lists.append(sorted(by_pieces.values()))
    tiles = torch.tensor(list(itertools.product(*lists)), dtype=torch.float64)
    need, moved = (
        values(formula, op, solver, tiles) for formula in (question.need, question.moved)
    )
    count = (torch.tensor(whole) / tiles).ceil()
    pairs = [p for p in (("oh", "ow"), ("m", "n")) if {*p} <= {*question.cut}]
    one, other = (question.cut.index(n) for n in pairs[0]) if pairs else (0, 0)
    oblong = (tiles[:, one] - tiles[:, other]).abs()
    keys = torch.stack([count.prod(1), moved, oblong, *count.unbind(1), *tiles.unbind(1)], 1)
    able = keys[need <= float(question.capacity)].tolist()
    return tuple(min(able)[-len(whole) :]) if able else None


def values(expr: Expr, op: dict[str, float], solver: Solver, tiles: Tensor) -> Tensor:
    """A formula at tiles of an op, its parts not taken apart."""
    formula = compile_formula(expr)
    read = dict(zip(solver.question.names, tiles.unbind(1), strict=True))
    sizes = {n: torch.full((len(tiles),), v, dtype=torch.float64) for n, v in op.items()}
    return formula({n: (sizes | read)[n] for n in formula.names}).expand(len(tiles))


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 97, 100])
def test_the_numbers_of_pieces_are_those_that_tiles_make(size: int) -> None:
    found = pieces(torch.tensor([float(size), 100.0]))[0]
    expected = sorted({-(-size // tile) for tile in range(1, size + 1)})
    assert found[: len(expected)].tolist() == expected
    assert bool(found[len(expected) :].isinf().all())


def test_an_op_of_huge_sizes_has_a_tile() -> None:
    cost = chip().total(linear(123457.0, 1e6))
    assert bool(cost.isfinite())


def test_bytes_that_shrink_with_the_tile_are_refused() -> None:
    model = chip("memory: l1}", "memory: l1, bytes: '2000 - tile_w_bytes'}")
    with pytest.raises(FormulaError, match=r"chip\.yaml:11: 'bytes' are fewer for a larger tile"):
        model.total(linear(20, 60))


def test_bytes_may_read_derived_sizes() -> None:
    # 20 inputs stay whole beside 20 columns of weights, 400 bytes; 21 would take 440.
    text = CHIP.replace("memory: l1}", "memory: l1, bytes: in_bytes + 20*tcout + 579}")
    plan = chip(CHIP, text).plan(linear(20, 60))
    assert plan.tiles["tile.cout"].tolist() == [20]
