"""The column ``density``: what a trace measures, and what tables and formulas do with it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from hwcost import CostModel, Workload, WorkloadError, report, trace
from hwcost.search import MPS, PIT

A100 = Path(__file__).parents[1] / "docs" / "examples" / "a100_sparse.yaml"


def density(model: nn.Module, example: Any, row: int = 0) -> float:
    """Return the density of a row with a weight."""
    workload = trace(model, example)
    heavy = ("conv", "conv_transpose", "linear", "rnn")
    rows = [i for i, kind in enumerate(workload.kinds) if kind in heavy]
    return float(workload.column("density")[rows[row]])


@torch.no_grad()
def halved(module: nn.Module, name: str = "weight") -> nn.Module:
    """Set half of a parameter to 0 and the rest to 1."""
    parameter = module.get_parameter(name)
    flat = torch.arange(parameter.numel()).view(parameter.shape)
    parameter.copy_((flat % 2).to(parameter.dtype))
    return module


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3), (1, 4, 8)),
    "conv2d": (nn.Conv2d(4, 6, 3, groups=2), (1, 4, 8, 8)),
    "conv3d": (nn.Conv3d(2, 2, 3), (1, 2, 4, 4, 4)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 8, 8)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (1, 4, 8, 8)),
    "linear": (nn.Linear(8, 6), (1, 8)),
    "tokens": (nn.Linear(8, 6), (2, 5, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    layer, shape = LAYERS[name]
    assert density(halved(layer), torch.ones(shape)) == 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    layer = halved(nn.Linear(8, 6)).to(dtype)
    assert density(layer, torch.ones(1, 8, dtype=dtype)) == 0.5


def test_a_negative_zero_is_a_zero() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.fill_(-1.0).mul_(torch.tensor([1.0, 0, 1, 0]))
    assert density(layer, torch.ones(1, 4)) == 0.5


def test_a_dense_layer_has_1() -> None:
    assert density(nn.Linear(8, 6), torch.ones(1, 8)) == 1


def test_biases_and_norms_do_not_count() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name == "0.weight" else 0.0)
    assert bool((trace(model, torch.ones(1, 2, 4, 4)).column("density") == 1).all())


class Functional(nn.Module):
    """A product with a parameter, perhaps changed before."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda w: w) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 4))
        self.change = change
        self.register_buffer("mask", torch.tensor([0.0, 1, 1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.change(self.w)


@pytest.mark.parametrize("turned", [False, True])
def test_a_parameter_in_a_product(turned: bool) -> None:
    model = Functional((lambda w: w.t()) if turned else (lambda w: w))
    assert density(halved(model, "w"), torch.ones(1, 4)) == 0.5


def test_a_part_of_a_parameter_counts_alone() -> None:
    model = Functional(lambda w: w[:, :2])
    with torch.no_grad():
        model.w[:, 0] = 0
        model.w[:, 3] = 0
    assert density(model, torch.ones(1, 4)) == 0.5


def test_a_mask_in_the_code() -> None:
    class Masked(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.w * self.get_buffer("mask"))

    assert density(Masked(), torch.ones(1, 4)) == 0.75


def test_a_weight_that_is_put_together_in_place() -> None:
    def change(w: Tensor) -> Tensor:
        made = torch.zeros_like(w)
        made[:, 1:] = w[:, 1:]
        return made

    model = Functional(change)
    assert density(model, torch.ones(1, 4)) == 0.75
    assert bool((model.w == 1).all())


def test_zeros_made_with_a_device_and_a_type() -> None:
    def change(w: Tensor) -> Tensor:
        return torch.cat([w[:2], torch.zeros(2, 4, device=w.device, dtype=w.dtype)])

    assert density(Functional(change), torch.ones(1, 4)) == 0.5


def test_a_weight_of_random_numbers_is_taken_for_dense() -> None:
    model = Functional(lambda w: w * torch.bernoulli(torch.full_like(w, 0.5)))
    assert bool((trace(model, torch.ones(1, 4)).column("density") == 1).all())


def test_a_weight_that_depends_on_the_input_is_taken_for_dense() -> None:
    class Dynamic(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.w * x[:, :1])

    assert bool((trace(halved(Dynamic(), "w"), torch.ones(4, 4)).column("density") == 1).all())


def test_a_plain_tensor_of_a_module_is_taken_for_dense() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.eye(4)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w

    assert density(Constant(), torch.ones(1, 4)) == 1


def test_torch_pruning() -> None:
    layer = nn.Linear(8, 8)
    prune.l1_unstructured(layer, "weight", 0.25)
    assert density(layer, torch.ones(1, 8)) == 0.75


class Tril(nn.Module):
    """A parametrization."""

    def forward(self, w: Tensor) -> Tensor:
        return w.tril()


def test_a_parametrization() -> None:
    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", Tril())
    assert density(layer, torch.ones(1, 4)) == 10 / 16


def test_a_parametrization_with_a_tensor_of_its_own() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = torch.eye(4)

        def forward(self, w: Tensor) -> Tensor:
            return w * self.mask

    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", Masked())
    assert density(layer, torch.ones(1, 4)) == 0.25


def test_weight_norm() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 4))
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original1")[:, :1] = 0
    assert density(layer, torch.ones(1, 4)) == 0.75


def test_a_searched_class() -> None:
    search = PIT(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 4))
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.copy_(torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert density(search.model, torch.ones(1, 4), row=1) == 0.75
    assert density(search, torch.ones(1, 4), row=1) == 0.75


def test_what_rounding_makes_0_is_not_counted() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.fill_(1e-6)
        layer.weight[:, 0] = 1
        layer.weight[:, 1] = 0
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2))
    exported = MPS(model, torch.ones(1, 4), w_bits=4).export()
    rounded = exported.get_submodule("0").weight
    assert isinstance(rounded, Tensor) and int(rounded.count_nonzero()) == 4
    assert density(exported, torch.ones(1, 4)) == 0.75


def test_a_recurrent_layer_counts_all_its_matrices() -> None:
    model = nn.LSTM(4, 4, proj_size=2)
    with torch.no_grad():
        model.get_parameter("weight_hh_l0").zero_()
    whole = 4 * 4 * 4 + 4 * 4 * 2 + 2 * 4
    assert density(model, torch.ones(3, 1, 4)) == (whole - 4 * 4 * 2) / whole


def test_a_recurrent_cell() -> None:
    model = nn.GRUCell(4, 4)
    with torch.no_grad():
        model.weight_ih.zero_()
    assert density(model, torch.ones(1, 4)) == 0.5


def test_layers_of_a_recurrent_network_count_apart() -> None:
    model = nn.GRU(4, 4, num_layers=2, bias=False)
    with torch.no_grad():
        model.get_parameter("weight_hh_l1").zero_()
    x = torch.ones(3, 1, 4)
    assert (density(model, x, 0), density(model, x, 1)) == (1, 0.5)


def test_projections_of_attention() -> None:
    model = nn.MultiheadAttention(4, 2, bias=False)
    with torch.no_grad():
        model.in_proj_weight[:4] = 0
    x = torch.ones(3, 1, 4)
    assert density(model, (x, x, x)) == pytest.approx(2 / 3)
    y = torch.ones(3, 1, 4)
    assert density(model, (x, y, y)) == 0  # queries alone read those


def test_one_weight_under_two_readers() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            return F.linear(self.embed(tokens), self.embed.weight)

    model = halved(Tied(), "embed.weight")
    assert density(model, torch.zeros(1, 3, dtype=torch.int64)) == 0.5


def test_a_model_without_numbers_is_taken_for_dense() -> None:
    layer = nn.Linear(4, 4, device="meta")
    assert density(layer, torch.ones(1, 4, device="meta")) == 1


def test_a_model_that_runs_on_real_tensors_only() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if float(x.sum()) > 0 else x

    assert density(halved(Branching(), "layer.weight"), torch.ones(1, 4)) == 0.5


def test_tables_show_it_only_where_it_is_not_1() -> None:
    layer = nn.Linear(8, 6)
    assert "density" not in trace(layer, torch.ones(1, 8)).to_frame()
    assert "density" in trace(halved(layer), torch.ones(1, 8)).to_frame()


def test_reports_show_it_only_where_it_is_not_1() -> None:
    layer = nn.Linear(8, 6)
    for model, shown in ((layer, False), (halved(copy.deepcopy(layer)), True)):
        told = report(trace(model, torch.ones(1, 8)), "counts")
        assert ("density" in told.to_frame(), "density" in str(told)) == (shown, shown)


def test_a_frame_without_it_is_dense() -> None:
    frame: dict[str, list[Any]] = {"layer": ["a"], "kind": ["linear"], "cin": [4], "cout": [4]}
    assert Workload.from_frame(frame).column("density").tolist() == [1]
    assert Workload.from_frame({**frame, "density": [0.25]}).column("density").tolist() == [0.25]


def test_a_frame_comes_back() -> None:
    workload = trace(halved(nn.Linear(8, 6)), torch.ones(1, 8))
    assert Workload.from_frame(workload.to_frame()).column("density").tolist() == [0.5]


def test_more_than_1_is_refused() -> None:
    with pytest.raises(WorkloadError, match="density is 2; expected 0 to 1"):
        Workload.from_columns("linear", cin=4, cout=4, density=2)


def test_a_formula_reads_it() -> None:
    model = CostModel(str(A100), "latency")
    whole = {"batch": 1, "positions": 4096, "cin": 4096, "cout": 4096}
    times = [
        float(model.total(Workload.from_columns("linear", **whole, density=d)))
        for d in (1, 0.75, 0.5)
    ]
    assert times == pytest.approx([440.5095, 440.5095, 220.2548], rel=1e-6)


def test_dense_platforms_do_not_read_it() -> None:
    layer = nn.Linear(8, 6)
    model = CostModel("gap8_compute", "latency")
    before = model.total(trace(layer, torch.ones(1, 8)))
    assert model.total(trace(halved(layer), torch.ones(1, 8))) == before
