"""Searches in two processes, which must take the same decisions on different data."""

import gc
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from hwcost.search import MPS
from hwcost.search.quantized import QuantizedMethod
from tests.searchcases import Case, build, given, task_loss

#: Searches that run, all in one pair of processes: with masks, kernels, drawn branches, bits.
SEARCHES = {
    "masks": (Case("PIT", "Residual"), "soft"),
    "kernels": (Case("PIT", "CausalTCN"), "soft"),
    "branches": (Case("SuperNet", "InARow"), "hard+gumbel"),
    "both": (Case("PITSuperNet", "InARow"), "gumbel"),
    "bits": (Case("MPS", "Residual", "removal"), "gumbel"),
}

STEPS = 3


def decisions(search: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in search.named_nas_parameters()}


def train(name: str, rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the decisions before and after some steps on the process's own data."""
    case, mode = SEARCHES[name]
    search = build(case)
    search.sampling.mode = mode
    before = decisions(search)
    parallel = DistributedDataParallel(search)
    optimizer = torch.optim.Adam(search.param_groups(lr=1e-2, nas_lr=5e-2))
    data = given(case) + rank
    for _ in range(STEPS):
        optimizer.zero_grad()
        (task_loss(parallel, data) + 0.1 * search.get_cost("macs", relative=True)).backward()
        optimizer.step()
    return before, decisions(search)


class Sides(nn.Module):
    """One layer for what is positive on the whole, another for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Identity(), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return (self.up(x) if x[0, 0] > 0 else self.down(x)) * 2


#: Way to set the ranges of tensors -> what it does with a batch.
WAYS: dict[str, Callable[[MPS, Tensor], object]] = {
    "calibrated": lambda search, x: search.calibrate([x]),
    "first batch": lambda search, x: search.train()(x),
    "no batch in one process": lambda search, x: search.calibrate([x] if x[0, 0] > 0 else []),
}


def ranges(rank: int, way: str) -> tuple[Tensor, list[bool]]:
    """Return the ranges of tensors, and which are signed; each process runs another branch."""
    example = torch.ones(2, 4)
    if rank == 0:
        MPS(Sides(), example)  # a search that the other process does not make
    torch.manual_seed(0)
    search = MPS(Sides(), example)
    WAYS[way](search, example * (-5.0 if rank else 3.0))
    method = search.methods[0]
    assert isinstance(method, QuantizedMethod)
    return method.scales.log2.detach(), method.signed


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found: dict[str, Any] = {name: train(name, rank) for name in SEARCHES}
    found |= {way: ranges(rank, way) for way in WAYS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    # Wrappers in cycles hold the group, whose threads must not outlive the interpreter.
    gc.collect()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each process found."""
    folder: Path = tmp_path_factory.mktemp("ddp")
    spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("name", SEARCHES)
def test_two_processes_take_the_same_decisions(name: str, results: list[Any]) -> None:
    (before, one), (_, other) = (result[name] for result in results)
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
        assert not torch.equal(value, before[key]), key


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("way", WAYS)
def test_ranges_are_those_of_all_processes(way: str, results: list[Any]) -> None:
    (one, signed), (other, other_signed) = (result[way] for result in results)
    alone = way == "no batch in one process"
    assert torch.equal(one, other)
    assert float(one[0].exp2()) == pytest.approx(3.0 if alone else 5.0)  # the input's
    assert signed == other_signed and signed[0] is not alone
