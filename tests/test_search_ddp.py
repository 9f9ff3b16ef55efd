"""Searches in two processes, which must take the same decisions on different data."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

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
    found = {name: train(name, rank) for name in SEARCHES}
    torch.save(found, f"{folder}/{rank}.pt")
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
