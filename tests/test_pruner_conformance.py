"""Pruning every net: what is left computes the same, trains the same, and takes its state along."""

import copy
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwcost.errors import SearchError
from hwcost.search import Pruner
from hwcost.search.attention import slow_path
from hwcost.search.coupling import Coupling
from tests.channel_proof import ignoring
from tests.searchnets import NETS

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
}


def net(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    torch.manual_seed(0)
    model, example = NETS[name]()
    args = (
        example if isinstance(example, tuple) else () if isinstance(example, dict) else (example,)
    )
    return model, args, example if isinstance(example, dict) else {}


def tensors(model: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    found = torch.utils._pytree.tree_leaves(model(*args, **kwargs))
    return [t for t in found if isinstance(t, Tensor) and t.is_floating_point()]


def loss(model: nn.Module, args: Any, kwargs: Any) -> Tensor:
    return torch.stack([t.square().mean() for t in tensors(model, args, kwargs)]).sum()


def random_units(coupling: Coupling, generator: torch.Generator) -> dict[str, list[int]]:
    """Return units of every layer that has some to prune."""
    found = {}
    for path in coupling.producers:
        units = coupling.units(path)
        free = [i for i, c in enumerate(units.tolist()) if c >= 0]
        order = torch.randperm(len(free), generator=generator).tolist()
        found[path] = [free[i] for i in order[: max(1, len(free) // 4)]]
    return found


def prune_some(pruner: Pruner, seed: int) -> int:
    """Prune units of every layer of a net, layer by layer; return how often it could be done."""
    generator, done = torch.Generator().manual_seed(seed), 0
    for path, _ in random_units(pruner.coupling, generator).items():
        units = random_units(pruner.coupling, generator).get(path, [])
        try:
            pruner.prune_model(path, units)
        except SearchError as error:
            assert "must stay" in str(error)
        else:
            done += 1
    return done


@pytest.mark.parametrize("name", NETS)
def test_a_pruned_net_computes_what_the_net_does_whose_units_nobody_reads(name: str) -> None:
    model, args, kwargs = net(name)
    model.double().eval()
    args, kwargs = _double(args), _double(kwargs)
    pruner = Pruner(model, args or kwargs)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for path in pruner.coupling.producers:
        coupling = pruner.coupling
        units = random_units(coupling, generator)[path]
        alive = torch.ones(coupling.channels.n_classes, dtype=torch.bool)
        alive[coupling.units(path)[units]] = False
        full = ignoring(model, coupling.channels, alive)
        try:
            pruner.prune_model(path, units)
        except SearchError as error:
            assert "must stay" in str(error)
            continue
        with torch.no_grad():
            found = tensors(model, args, kwargs)
            with slow_path():  # the reference replaces forwards that a fused encoder passes by
                due = tensors(full, args, kwargs)
        for a, b in zip(found, due, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("title", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_training_goes_on_as_that_of_a_net_built_small(name: str, title: str) -> None:
    model, args, kwargs = net(name)
    model.train()
    optimizer = OPTIMIZERS[title](model.parameters())
    last = loss(model, args, kwargs)  # stays alive, with its graph
    last.backward()
    optimizer.step()
    _mark(optimizer)
    pruner = Pruner(model, args or kwargs, optimizer=optimizer)
    known = {n: id(p) for n, p in model.named_parameters()}
    if not prune_some(pruner, 1):
        return
    assert known == {n: id(p) for n, p in model.named_parameters()}
    _check_marks(optimizer)
    small = copy.deepcopy(model)
    other = OPTIMIZERS[title](small.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net_, steps in ((model, optimizer), (small, other)):
        for _ in range(2):
            torch.manual_seed(3)
            steps.zero_grad()
            loss(net_, args, kwargs).backward()
            steps.step()
    for (key, a), (_, b) in zip(
        model.state_dict().items(), small.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", NETS)
def test_undo_gives_back_the_net_and_its_training(name: str) -> None:
    model, args, kwargs = net(name)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    loss(model, args, kwargs).backward()
    optimizer.step()
    average = copy.deepcopy(model)
    pruner = Pruner(model, args or kwargs, optimizer=optimizer, ema=average)
    before = _everything(model, optimizer, average)
    for path, units in random_units(pruner.coupling, torch.Generator().manual_seed(2)).items():
        try:
            pruner.prune_model(path, units)
        except SearchError:
            continue
        loss(model, args, kwargs).backward()
        optimizer.step()
        pruner.undo()
        break
    assert _everything(model, optimizer, average) == before


def _double(given: Any) -> Any:
    return torch.utils._pytree.tree_map(
        lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, given
    )


def _mark(optimizer: Optimizer) -> None:
    """Make gradients and state say which number of the parameter they belong to."""
    with torch.no_grad():
        for parameter, state in optimizer.state.items():
            if parameter.grad is not None:
                parameter.grad.copy_(3 * parameter)
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.copy_(2 * parameter.abs())


def _check_marks(optimizer: Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        assert parameter.grad is None or torch.equal(parameter.grad, 3 * parameter)
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim():
                assert torch.equal(value, 2 * parameter.abs()), key


def _everything(model: nn.Module, optimizer: Optimizer, average: nn.Module) -> Any:
    found = [
        (name, tuple(t.shape), t.detach().flatten().tolist())
        for each in (model, average)
        for name, t in (*each.named_parameters(), *each.named_buffers())
    ]
    grads = [None if p.grad is None else p.grad.flatten().tolist() for p in model.parameters()]
    states = [
        (k, v.flatten().tolist() if isinstance(v, Tensor) else v)
        for p in model.parameters()
        for k, v in optimizer.state.get(p, {}).items()
    ]
    texts = [repr(each) for each in (model, average)]
    return found, grads, states, texts
