"""Attributions on every net of the zoo: a score for each unit, whatever the module and the code."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hwcost.search import Pruner, ShapleyAttributionMetric, TaylorAttributionMetric
from hwcost.search.coupling import find_coupling
from tests.searchnets import NETS


def loss(output: Any, target: Tensor) -> Tensor:
    floats = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    return torch.stack([t.square().mean() for t in floats]).sum()


def subject(name: str) -> tuple[nn.Module, Any, list[str]]:
    torch.manual_seed(0)
    model, x = NETS[name]()
    args, kwargs = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
    coupling = find_coupling(model, args, kwargs)
    return model, x, [path for path in coupling.producers if coupling.returns_units(path)]


def samples(x: Any) -> int:
    return next(len(t) for t in tree_leaves(x) if isinstance(t, Tensor))


@pytest.mark.parametrize("name", NETS)
def test_every_unit_has_a_gradient_score(name: str) -> None:
    model, x, paths = subject(name)
    metric = TaylorAttributionMetric(model, [(x, torch.zeros(samples(x)))], loss)
    for path in paths[:3]:
        for best in (False, True):
            found = metric.run(path, find_best_evaluation_module=best)
            assert found.ndim == 1 and np.isfinite(found).all() and (found >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_unit_has_a_shapley_value(name: str) -> None:
    model, x, paths = subject(name)
    metric = ShapleyAttributionMetric(model, [(x, torch.zeros(samples(x)))], loss, sv_samples=1)
    for path in paths[:2]:
        assert np.isfinite(metric.run(path)).all()


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_pruned_by_a_metric(name: str) -> None:
    model, x, _ = subject(name)
    metric = TaylorAttributionMetric(model, [(x, torch.zeros(samples(x)))], loss)
    pruner = Pruner(model, x)
    if pruner.coupling.channels.n_classes:
        reached = pruner.prune_to("params <= 90 %", metric=metric)
        assert reached.after <= 0.9 * reached.before
