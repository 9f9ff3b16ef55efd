"""Attributions against loops that zero, differentiate and count by hand."""

import copy
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwcost.errors import HwcostError, SearchError, UnknownName
from hwcost.search import attributions
from hwcost.search.attributions import (
    APoZAttributionMetric,
    AttributionMetric,
    RandomAttributionMetric,
    SensitivityAttributionMetric,
    ShapleyAttributionMetric,
    TaylorAttributionMetric,
    WeightNormAttributionMetric,
)

METRICS = [getattr(attributions, n) for n in attributions.__all__ if n != "AttributionMetric"]
ON_DATA = [m for m in METRICS if m._on_data]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
each_on_data = pytest.mark.parametrize("metric", ON_DATA, ids=lambda m: m.__name__)


class Tokens(nn.Module):
    """Embedding, a transformer layer without its norm first, and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(self.embed(x)).mean(1))


class Twice(nn.Module):
    """One linear layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


class Dense(nn.Module):
    """A layer whose output is read before and after what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = torch.cat([x, self.conv(x.relu())], 1).amax((2, 3))
        return self.head(torch.cat([y, F.max_pool2d(x, 6).flatten(1)], 1))


class Steps(nn.Module):
    """Layers that take the time steps first, and data that decides on the way."""

    def __init__(self, branches: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)
        self.branches = branches

    def forward(self, x: Tensor) -> Any:
        y = self.first(x.transpose(0, 1)).relu_()
        if self.branches and float(y.detach().sum()) < 0:
            y = y * 2
        return self.head(y.mean(0))


def _classes(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator)
    return x, torch.randint(0, 3, shape[:1], generator=generator)


def _convs(rank: int, groups: int = 1) -> nn.Module:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]
    first = [conv(2, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True)]
    second = [conv(6, 6, 3, groups=groups), norm(6), nn.ReLU()]
    return nn.Sequential(*first, *second, pool(1), nn.Flatten(), nn.Linear(6, 3))


#: Name -> a network, its data, and the path of a module.
CASES: dict[str, Callable[[], tuple[nn.Module, Tensor, Tensor, str]]] = {
    "linear": lambda: (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        *_classes(5, 4),
        "0",
    ),
    "conv1d": lambda: (_convs(1), *_classes(5, 2, 6), "0"),
    "conv2d": lambda: (_convs(2), *_classes(5, 2, 6, 6), "0"),
    "conv2d norm": lambda: (_convs(2), *_classes(5, 2, 6, 6), "1"),
    "conv2d in place": lambda: (_convs(2), *_classes(5, 2, 6, 6), "2"),
    "conv2d depthwise": lambda: (_convs(2, groups=6), *_classes(5, 2, 6, 6), "0"),
    "conv2d groups": lambda: (_convs(2, groups=2), *_classes(5, 2, 6, 6), "0"),
    "conv2d last": lambda: (_convs(2), *_classes(5, 2, 6, 6), "3"),
    "conv3d": lambda: (_convs(3), *_classes(4, 2, 4, 4, 4), "0"),
    "output": lambda: (_convs(2), *_classes(5, 2, 6, 6), "8"),
    "tokens": lambda: (Tokens(), torch.randint(0, 7, (4, 4)), torch.tensor([0, 1, 2, 0]), "embed"),
    "hidden": lambda: (
        Tokens(),
        torch.randint(0, 7, (4, 4)),
        torch.tensor([0, 1, 2, 0]),
        "layer.linear1",
    ),
    "conv2d dense": lambda: (Dense(), *_classes(5, 2, 6, 6), "stem"),
    "twice": lambda: (Twice(), *_classes(5, 5), "shared"),
    "steps first": lambda: (Steps(), *_classes(5, 5, 4), "first"),
    "branches": lambda: (Steps(branches=True), *_classes(5, 5, 4), "first"),
}
each_case = pytest.mark.parametrize("case", CASES)


def built(case: str) -> tuple[nn.Module, Tensor, Tensor, nn.Module, int]:
    """Return a network with statistics, its data, a module and the dimension of its units."""
    torch.manual_seed(0)
    model, x, y, path = CASES[case]()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = torch.rand(module.num_features) - 0.5
            nn.init.uniform_(module.bias, -0.5, 0.5)
    module = model.get_submodule(path)
    return model, x, y, module, 1 if case.startswith("conv") else -1


def batches(x: Tensor, y: Tensor, size: int = 100) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def hooked(
    model: nn.Module, module: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]
) -> Any:
    """Return the output of a copy's run with what the module returns changed."""
    handle = module.register_forward_hook(lambda m, a, out: change(out))
    try:
        return model(x)
    finally:
        handle.remove()


def loss_without(
    model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, units: Any, dim: int
) -> float:
    def zero(out: Tensor) -> Tensor:
        return out.index_fill(dim, torch.tensor(list(units), dtype=torch.int64), 0)

    with torch.no_grad():
        return float(F.cross_entropy(hooked(model.eval(), module, x, zero), y))


def gradient_rows(
    model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, dim: int, what: str
) -> list[float]:
    """Return the sum over positions, and calls, of |g| or of -g z, for one sample."""
    outputs: list[Tensor] = []

    def keep(out: Tensor) -> Tensor:
        outputs.append(out)
        return out.clone()

    loss = F.cross_entropy(hooked(model.eval(), module, x, keep), y)
    rows: list[float] = [0.0] * outputs[0].shape[dim]
    for out, grad in zip(outputs, torch.autograd.grad(loss, outputs), strict=True):
        for unit in range(len(rows)):
            z, g = out.detach().select(dim, unit), grad.select(dim, unit)
            rows[unit] += float(g.abs().sum() if what == "sensitivity" else -(g * z).sum())
    return rows


@each_case
def test_sensitivity_is_the_sum_of_absolute_gradients(case: str) -> None:
    model, x, y, module, dim = built(case)
    found = SensitivityAttributionMetric(
        model, batches(x, y), F.cross_entropy, reduction="none"
    ).run(module)
    for i in range(len(x)):
        due = gradient_rows(model, module, x[i : i + 1], y[i : i + 1], dim, "sensitivity")
        np.testing.assert_allclose(found[i], due, rtol=1e-3, atol=1e-6)


@each_case
def test_taylor_is_the_absolute_sum_of_gradients_times_values(case: str) -> None:
    model, x, y, module, dim = built(case)
    metric = TaylorAttributionMetric(model, batches(x, y), F.cross_entropy, reduction="none")
    found, signed = metric.run(module), metric.run(module, signed=True)
    for i in range(len(x)):
        due = gradient_rows(model, module, x[i : i + 1], y[i : i + 1], dim, "taylor")
        np.testing.assert_allclose(signed[i], due, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found[i], np.abs(due), rtol=1e-3, atol=1e-6)


@each_case
def test_apoz_counts_positive_outputs(case: str) -> None:
    model, x, y, module, dim = built(case)
    counts: list[float] = []
    sizes: list[int] = []

    def count(out: Tensor) -> Tensor:
        each = [int((out.select(dim, u) > 0).sum()) for u in range(out.shape[dim])]
        counts[:] = [a + b for a, b in zip(counts or [0] * len(each), each, strict=True)]
        sizes.append(out.numel() // len(each))
        return out.clone()

    with torch.no_grad():
        hooked(model.eval(), module, x, count)
    metric = APoZAttributionMetric(model, batches(x, y), F.cross_entropy, reduction="sum")
    np.testing.assert_allclose(metric.run(module), counts)
    shares = metric.run(module, fraction=True) / len(x)
    np.testing.assert_allclose(shares, np.array(counts) / sum(sizes))


@each_case
def test_shapley_values_are_means_over_permutations(case: str) -> None:
    model, x, y, module, dim = built(case)
    metric = ShapleyAttributionMetric(
        model, batches(x, y), F.cross_entropy, generator=torch.Generator().manual_seed(3)
    )
    found = metric.run(module, sv_samples=2)
    generator = torch.Generator().manual_seed(3)
    due = np.zeros(len(found))
    for _ in range(2):
        gone: list[int] = []
        before = loss_without(model, module, x, y, gone, dim)
        for unit in torch.randperm(len(found), generator=generator).tolist():
            gone.append(unit)
            after = loss_without(model, module, x, y, gone, dim)
            due[unit] += (after - before) / 2
            before = after
    np.testing.assert_allclose(found, due, rtol=1e-3, atol=2e-6)


@each_case
def test_shapley_values_sum_to_the_loss_of_all_units(case: str) -> None:
    model, x, y, module, dim = built(case)
    found = ShapleyAttributionMetric(model, batches(x, y), F.cross_entropy, sv_samples=1)
    values = found.run(module)
    all_ = loss_without(model, module, x, y, range(len(values)), dim)
    none = loss_without(model, module, x, y, (), dim)
    assert values.sum() == pytest.approx(all_ - none, abs=2e-6)


@each_on_data
@each_case
def test_scores_do_not_depend_on_the_batch_size(metric: Any, case: str) -> None:
    model, x, y, module, _ = built(case)
    found = [
        metric(
            model, batches(x, y, size), F.cross_entropy, generator=torch.Generator().manual_seed(0)
        ).run(module)
        for size in (1, 3, 100)
    ]
    np.testing.assert_allclose(found[0], found[2], rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(found[1], found[2], rtol=1e-3, atol=2e-6)


class Max(nn.Module):
    """The largest of its units."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = nn.Identity()
        self.count = units

    def forward(self, x: Tensor) -> Any:
        return self.units(x).amax(1, keepdim=True)


def _airport(x: Tensor) -> list[float]:
    """Return Shapley values of the units of max(), above 0: each step is shared by those above."""
    values = x.clamp(min=0).tolist()
    order = sorted(range(len(values)), key=lambda i: values[i])
    shares, below, sofar = [0.0] * len(values), 0.0, 0.0
    for rank, unit in enumerate(order):
        sofar += (values[unit] - below) / (len(values) - rank)
        below = values[unit]
        shares[unit] = sofar
    return shares


def test_shapley_values_of_the_largest_gaussian_unit_are_the_closed_form() -> None:
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)).abs()
    metric = ShapleyAttributionMetric(
        Max(5), [(x, torch.zeros(300, 1))], lambda out, y: -out, sv_samples=400
    )
    due = np.array([_airport(row) for row in x]).mean(0)
    np.testing.assert_allclose(metric.run("units"), due, atol=0.02)


def test_shapley_values_of_every_permutation_are_exact() -> None:
    torch.manual_seed(0)
    model, x, y, module, _ = built("linear")
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    module = model[0]
    due = np.zeros(4)
    for order in permutations(range(4)):
        for at, unit in enumerate(order):
            after = loss_without(model, module, x, y, order[: at + 1], 1)
            due[unit] += (after - loss_without(model, module, x, y, order[:at], 1)) / 24
    metric = ShapleyAttributionMetric(model, batches(x, y), F.cross_entropy, sv_samples=4000)
    np.testing.assert_allclose(metric.run(module), due, atol=0.01)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("metric", [RandomAttributionMetric, ShapleyAttributionMetric])
def test_a_generator_makes_scores_repeatable(metric: Any, seed: int) -> None:
    model, x, y, module, _ = built("conv2d")
    runs = [
        metric(
            model, batches(x, y), F.cross_entropy, generator=torch.Generator().manual_seed(seed)
        ).run(module)
        for _ in range(2)
    ]
    assert (runs[0] == runs[1]).all()


def test_weight_norm_is_the_sum_of_absolute_weights() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2)
    due = [float(conv.weight[i].detach().abs().sum()) for i in range(6)]
    np.testing.assert_allclose(WeightNormAttributionMetric(conv).run(""), due, rtol=1e-6)


def test_weight_norm_knows_transposed_convolutions() -> None:
    conv = nn.ConvTranspose2d(4, 6, 3, groups=2)
    weight = conv.weight.detach()
    due = [float(weight[2 * (i // 3) : 2 * (i // 3) + 2, i % 3].abs().sum()) for i in range(6)]
    np.testing.assert_allclose(WeightNormAttributionMetric(conv).run(conv), due, rtol=1e-6)


@pytest.mark.parametrize(
    ("module", "units"),
    [
        (nn.LSTM(3, 5, 2), 5),
        (nn.GRU(3, 5, bidirectional=True), 10),
        (nn.Embedding(4, 6), 6),
        (nn.MultiheadAttention(8, 2), 8),
        (nn.BatchNorm2d(7), 7),
        (nn.LSTM(3, 5, proj_size=2), 2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_weight_norms_are_one_for_each_unit(module: nn.Module, units: int) -> None:
    assert WeightNormAttributionMetric(module).run(module).shape == (units,)


def state_of(model: nn.Module) -> list[Any]:
    """Return all that a run must not change."""
    return [
        [m.training for m in model.modules()],
        [
            (p.requires_grad, None if p.grad is None else p.grad.tolist())
            for p in model.parameters()
        ],
        [b.tolist() for b in model.buffers()],
        [sorted(m.__dict__) for m in model.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    ]


@each_metric
def test_the_model_is_as_before(metric: Any) -> None:
    model, x, y, module, _ = built("conv2d")
    F.cross_entropy(model(x), y).backward()
    model.get_submodule("3").eval()
    model.get_submodule("4").requires_grad_(False)
    before = state_of(model)
    grads = [p.grad for p in model.parameters()]
    metric(model, batches(x, y), F.cross_entropy).run(module, find_best_evaluation_module=True)
    assert state_of(model) == before
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))


@each_on_data
def test_the_model_is_as_before_after_an_error(metric: Any) -> None:
    model, x, y, module, _ = built("conv2d")
    before = state_of(model)

    def fails(output: Tensor, y: Tensor) -> Tensor:
        raise ArithmeticError("no loss")

    if metric is APoZAttributionMetric:
        x = x[:, :1]
    with pytest.raises((ArithmeticError, RuntimeError)):
        metric(model, batches(x, y), fails).run(module)
    assert state_of(model) == before


@each_on_data
def test_leftover_gradients_and_modes_do_not_matter(metric: Any) -> None:
    model, x, y, module, _ = built("conv2d")
    model.eval()
    generator = torch.Generator()
    fresh = metric(model, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0))
    due = fresh.run(module)
    F.cross_entropy(model(x), y).backward()
    model.train()
    used = metric(model, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0))
    assert (used.run(module) == due).all()


@each_on_data
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_reduction_of_the_criterion_does_not_matter(metric: Any, reduction: str) -> None:
    model, x, y, module, _ = built("linear")
    generator = torch.Generator()
    due = metric(
        model, batches(x, y), nn.CrossEntropyLoss(), generator=generator.manual_seed(0)
    ).run(module)
    criterion = nn.CrossEntropyLoss(reduction=reduction)
    found = metric(model, batches(x, y), criterion, generator=generator.manual_seed(0)).run(module)
    np.testing.assert_allclose(found, due, rtol=1e-5)


@each_on_data
def test_a_criterion_in_plain_python_is_run_for_each_sample(metric: Any) -> None:
    model, x, y, module, _ = built("linear")

    def plain(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y) * (2 if int(y[0]) >= 0 else 0)

    generator = torch.Generator()
    found = metric(model, batches(x, y), plain, generator=generator.manual_seed(0)).run(module)
    due = metric(
        model,
        batches(x, y),
        lambda output, y: 2 * F.cross_entropy(output, y),
        generator=generator.manual_seed(0),
    ).run(module)
    np.testing.assert_allclose(found, due, rtol=1e-5)


@each_on_data
def test_frozen_models_work_under_no_grad(metric: Any) -> None:
    model, x, y, module, _ = built("conv2d")
    generator = torch.Generator()
    due = metric(model, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0))
    scores = due.run(module)
    model.requires_grad_(False)
    frozen = metric(model, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(frozen.run(module), scores, rtol=1e-5)


class NoGrad(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def test_gradients_get_through_code_under_no_grad() -> None:
    model, x, y, module, _ = built("conv2d")
    due = TaylorAttributionMetric(model, batches(x, y), F.cross_entropy).run(module)
    found = TaylorAttributionMetric(NoGrad(model), batches(x, y), F.cross_entropy).run(module)
    assert (found == due).all()


@each_on_data
def test_samples_stay_together_where_code_squeezes_their_dimension(metric: Any) -> None:
    class Squeezed(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            out = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
            return out.squeeze()

    torch.manual_seed(0)
    model = Squeezed(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = _classes(5, 4)
    assert np.isfinite(metric(model, batches(x, y), F.cross_entropy).run("0")).all()


@each_on_data
def test_an_iterator_is_read_once_and_kept(metric: Any) -> None:
    model, x, y, module, _ = built("linear")
    once: Iterator[Any] = iter(batches(x, y, 2))
    kept = metric(model, once, F.cross_entropy, generator=torch.Generator().manual_seed(0))
    first = kept.run(module)
    kept.generator.manual_seed(0)
    assert (kept.run(module) == first).all()


@each_on_data
def test_inputs_may_be_tuples_and_dicts(metric: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, left: Tensor, right: Tensor) -> Any:
            return self.b(torch.relu(self.a(left - right)))

    model = Two()
    x, y = _classes(5, 4)
    generator = torch.Generator()
    found = [
        metric(model, [(given, y)], F.cross_entropy, generator=generator.manual_seed(0)).run("a")
        for given in ((x, x / 2), {"left": x, "right": x / 2})
    ]
    assert (found[0] == found[1]).all()


def test_reductions_over_samples() -> None:
    model, x, y, module, _ = built("linear")
    run = {
        how: TaylorAttributionMetric(model, batches(x, y, 2), F.cross_entropy, reduction=how).run(
            module
        )
        for how in ("none", "mean", "sum")
    }
    assert run["none"].shape == (5, 6)
    np.testing.assert_allclose(run["mean"], run["none"].mean(0))
    np.testing.assert_allclose(run["sum"], run["none"].sum(0))
    spread = TaylorAttributionMetric(
        model, batches(x, y, 2), F.cross_entropy, reduction=lambda a: a.std(0)
    )
    np.testing.assert_allclose(spread.run(module), run["none"].std(0))


def _best(model: nn.Module, path: str, x: Tensor) -> nn.Module:
    metric = TaylorAttributionMetric(model, [(x, torch.zeros(len(x)))], F.mse_loss)
    return metric.find_evaluation_module(path, find_best_evaluation_module=True)


class Blocks(nn.Module):
    """Norm and activation defined before the layer that they follow, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.norm = nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        self.stem, self.drop = nn.Conv2d(2, 4, 3, padding=1), nn.Dropout2d()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last, self.pool = nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.norm(self.drop(self.stem(x))))
        x = F.relu(self.bn(self.conv(x)) + x)
        return self.pool(F.gelu(self.last(x)))


@pytest.mark.parametrize(
    ("path", "best"), [("stem", "act"), ("conv", "bn"), ("last", "last"), ("norm", "act")]
)
def test_the_best_module_is_the_last_that_the_units_alone_go_through(path: str, best: str) -> None:
    model = Blocks()
    assert _best(model, path, torch.randn(2, 2, 5, 5)) is model.get_submodule(best)


def test_the_best_module_needs_no_data_in_a_sequence() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))
    assert _best(model, "0", torch.randn(4, 2)) is model[2]


@pytest.mark.parametrize("metric", [RandomAttributionMetric, WeightNormAttributionMetric])
def test_metrics_of_weights_look_at_the_module_itself(metric: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert metric(model).find_evaluation_module(model[0], True) is model[0]


def test_a_model_with_forward_partial_runs_from_the_module_on() -> None:
    class Parts(nn.Sequential):
        whole = 0

        def forward(self, x: Tensor) -> Any:
            self.whole += 1
            return nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]

        def forward_partial(self, x: Tensor, to_module: Any = None, from_module: Any = None) -> Any:
            on = from_module is None
            for module in self:
                x = module(x) if on else x
                on = on or module is from_module
                if module is to_module:
                    break
            return x

    torch.manual_seed(0)
    model = Parts(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = _classes(5, 4)
    generator = torch.Generator()
    plain = nn.Sequential(*copy.deepcopy(model))
    found, due = (
        ShapleyAttributionMetric(
            m, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0)
        ).run("0")
        for m in (model, plain)
    )
    np.testing.assert_allclose(found, due, atol=1e-6)
    assert model.whole <= 2


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        return self.head(self.act(x + self.b(x)).mean((2, 3)))


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
@each_metric
def test_units_of_a_group_are_scored_together(metric: Any, how: str) -> None:
    torch.manual_seed(0)
    model = Residual()
    x, y = _classes(5, 2, 4, 4)
    generator = torch.Generator()
    made = metric(model, batches(x, y), F.cross_entropy, generator=generator.manual_seed(0))
    alone = [made.run("a"), made.run("b")]
    generator.manual_seed(0)
    due = getattr(np, how)(alone, axis=0)
    np.testing.assert_allclose(made.run("a", group=how), due, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("metric", "options", "comparable"),
    [
        (RandomAttributionMetric, {}, False),
        (WeightNormAttributionMetric, {}, False),
        (APoZAttributionMetric, {}, False),
        (APoZAttributionMetric, {"fraction": True}, True),
        (SensitivityAttributionMetric, {}, False),
        (TaylorAttributionMetric, {}, True),
        (ShapleyAttributionMetric, {}, True),
    ],
)
def test_a_metric_says_whether_modules_compare(
    metric: type[AttributionMetric], options: dict[str, Any], comparable: bool
) -> None:
    assert metric(nn.Linear(1, 1), [], F.mse_loss, **options).comparable is comparable


def _broken(**changes: Any) -> Callable[[], Any]:
    def run() -> Any:
        model, x, y, _, _ = built("linear")
        call = {"module": "0", **changes.pop("run", {})}
        data = changes.pop("data", batches(x, y))
        criterion = changes.pop("criterion", F.cross_entropy)
        return changes.pop("metric", TaylorAttributionMetric)(
            changes.pop("model", model), data, criterion, **changes
        ).run(**call)

    return run


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.cut = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.used(x) + self.cut(x).detach()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (_broken(data=[]), "the data yielded no batch"),
        (_broken(data=[torch.ones(2, 4)]), r"batch 0 of the data is a tensor \(2, 4\); expected a"),
        (_broken(data=[(torch.ones(2, 4), torch.ones(3))]), "2 inputs and 3 targets"),
        (_broken(data=None), "TaylorAttributionMetric needs data"),
        (_broken(criterion=None), "TaylorAttributionMetric needs a criterion"),
        (_broken(criterion=lambda o, y: 3.0), "the criterion returned float; expected a tensor"),
        (_broken(reduction="median"), "reduction is 'median'; expected 'mean', 'sum', 'none'"),
        (_broken(run={"module": "O"}), "no module 'O'"),
        (_broken(run={"module": nn.Linear(1, 1)}), "this Linear is not a module of the model"),
        (_broken(run={"group": "prod"}), "group is 'prod'; expected None, 'sum'"),
        (_broken(model=Unused(), run={"module": "unused"}), "'unused' .Linear. does not run"),
        (_broken(model=Unused(), run={"module": "cut"}), "no gradient of the loss reaches"),
        (_broken(metric=ShapleyAttributionMetric, sv_samples=0), "sv_samples is 0; expected"),
        (
            _broken(metric=WeightNormAttributionMetric, run={"module": "1"}),
            r"module '1' \(ReLU\) has no weight to score units by",
        ),
    ],
)
def test_mistakes_are_named(run: Callable[[], Any], message: str) -> None:
    with pytest.raises(HwcostError, match=message) as caught:
        run()
    assert isinstance(caught.value, (SearchError, UnknownName))


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="no option 'sv_sample'; did you mean 'sv_samples'"):
        _broken(run={"sv_sample": 3})()


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    _broken(progress=True)()
    assert "1/1" in capsys.readouterr().err
