"""Patterns of n of every m weights: which stay, how the others train, what an export has."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from hwcost import SearchError, UnknownName, trace
from hwcost.search import Search
from hwcost.search.nm import NMMethod, NMPruning
from hwcost.search.nm_patterns import Pruned, kept, pattern
from hwcost.search.nm_sparse import check_form, check_weight, has_pattern, to_sparse
from hwcost.search.pit import PITMethod
from hwcost.search.registry import METHODS


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))


X = torch.ones(2, 16)


def weight_of(model: nn.Module, path: str) -> Tensor:
    """Return a weight as who reads it sees it."""
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight


def stored_in(search: Search, path: str) -> nn.Parameter:
    """Return a weight as it is stored."""
    weight = search.model.get_submodule(path)._parameters["weight"]
    assert weight is not None
    return weight


def brute_force(weight: Tensor, dim: int, n: int, m: int) -> Tensor:
    """The pattern by sorting each group in Python."""
    moved = weight.abs().movedim(dim, -1)
    mask = torch.zeros(moved.shape, dtype=torch.bool)
    for row, scores in zip(
        mask.view(-1, moved.shape[-1]), moved.reshape(-1, moved.shape[-1]), strict=True
    ):
        for start in range(0, len(scores), m):
            group = scores[start : start + m].tolist()
            by_size = sorted((-score, i) for i, score in enumerate(group))
            for _, i in by_size[: -(-len(group) * n // m)]:
                row[start + i] = True
    return mask.movedim(-1, dim)


@pytest.mark.parametrize("n, m", [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (1, 16), (5, 12), (4, 4)])
@pytest.mark.parametrize("shape, dim", [((5, 16), 1), ((4, 19, 3, 2), 1), ((21, 5, 3), 0)])
def test_the_largest_of_each_group_stay(n: int, m: int, shape: tuple[int, ...], dim: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(4).round()
    assert torch.equal(pattern(weight, dim, n, m), brute_force(weight, dim, n, m))


def test_of_the_rest_of_a_group_as_large_a_share_stays_rounded_up() -> None:
    assert [kept(size, 2, 4) for size in (3, 4, 5, 6, 7)] == [2, 2, 3, 3, 4]
    assert [kept(size, 1, 4) for size in (1, 2, 3, 4)] == [1, 1, 1, 1]


def test_of_equal_ones_the_first_stay() -> None:
    assert pattern(torch.ones(1, 4), 1, 2, 4).tolist() == [[True, True, False, False]]


def test_groups_are_counted_over_what_is_alive() -> None:
    weight = torch.tensor([[5.0, 9, 9, 4, 3, 2, 1, 8]])
    alive = torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).bool()
    found = pattern(weight, 1, 2, 4, alive=alive)
    assert found.tolist() == [[True, False, False, True, False, False, False, True]]


def test_blocks_have_groups_of_their_own() -> None:
    weight = torch.arange(10.0).view(10, 1)
    found = pattern(weight, 0, 1, 4, blocks=2).flatten().nonzero().flatten()
    assert found.tolist() == [3, 4, 8, 9]


def test_blocks_that_differ_in_what_is_alive() -> None:
    weight = torch.arange(8.0).view(8, 1)
    alive = torch.tensor([1, 1, 1, 1, 1, 0, 1, 0]).bool()
    found = pattern(weight, 0, 1, 2, blocks=2, alive=alive).flatten().nonzero().flatten()
    assert found.tolist() == [1, 3, 6]


def test_gradients_go_to_all_weights_and_the_others_decay() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    mask = torch.tensor([False, True])
    out: Tensor = Pruned.apply(weight, mask, 0.1)  # type: ignore[no-untyped-call]
    assert out.tolist() == [0, 2]
    out.backward(torch.tensor([10.0, 20.0]))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([10 + 0.1 * 1, 20.0]))


def test_the_forward_sees_the_pattern_and_the_stored_weight_is_whole() -> None:
    model = perceptron()
    search = NMPruning(model, X, n=2, m=4)
    seen = weight_of(search.model, "0")
    assert int((seen.unflatten(1, (-1, 4)) != 0).sum(2).max()) == 2
    assert torch.equal(stored_in(search, "0"), weight_of(model, "0"))


def test_the_pattern_follows_the_weights() -> None:
    search = NMPruning(perceptron(), X, n=1, m=4)
    with torch.no_grad():
        stored_in(search, "0")[:, :4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        assert weight_of(search.model, "0")[0, :4].tolist() == [0, 0, 0, 4]
        stored_in(search, "0")[:, 1] = 9
        assert weight_of(search.model, "0")[0, :4].tolist() == [0, 9, 0, 0]


def test_weights_that_do_not_stay_shrink_in_training() -> None:
    search = NMPruning(perceptron(), X, n=1, m=4, decay=0.5).train()
    stored = stored_in(search, "0")
    before, stay = stored.detach().clone(), weight_of(search.model, "0").detach() != 0
    optimizer = torch.optim.SGD(search.parameters(), lr=0.1)
    (search(torch.zeros(2, 16)) * 0).sum().backward()
    optimizer.step()
    torch.testing.assert_close(stored.detach(), torch.where(stay, before, before * (1 - 0.05)))


def test_a_pattern_is_made_once_for_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(torch.relu(self.layer(x)))
            return out

    search = NMPruning(Twice(), X)
    made: list[int] = []
    usual = NMMethod._mask

    def counted(self: NMMethod, number: int, weight: Tensor) -> Tensor:
        made.append(number)
        return usual(self, number, weight)

    monkeypatch.setattr(NMMethod, "_mask", counted)
    search(X)
    assert made == [0]


def test_training_goes_down() -> None:
    torch.manual_seed(0)
    x, goal = torch.randn(64, 16), torch.randn(64, 8)
    search = NMPruning(perceptron(), X, n=2, m=4).train()
    optimizer = torch.optim.Adam(search.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(search(x), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    exported = search.export()
    assert F.mse_loss(exported(x), goal).item() == pytest.approx(
        F.mse_loss(search(x), goal).item(), rel=1e-6
    )


def channels_last(layer: nn.Conv2d) -> nn.Conv2d:
    weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
    layer.weight = nn.Parameter(weight)
    return layer


SHAPES: dict[str, tuple[nn.Module, tuple[int, ...], int, float]] = {
    "conv1d": (nn.Conv1d(8, 6, 3), (1, 8, 9), 1, 0.5),
    "conv2d": (nn.Conv2d(8, 6, 3), (1, 8, 9, 9), 1, 0.5),
    "conv3d": (nn.Conv3d(8, 6, 3), (1, 8, 4, 4, 4), 1, 0.5),
    "grouped": (nn.Conv2d(16, 6, 3, groups=2), (1, 16, 9, 9), 1, 0.5),
    "transposed": (nn.ConvTranspose2d(8, 6, 3), (1, 8, 9, 9), 0, 0.5),
    "transposed in groups": (nn.ConvTranspose2d(16, 6, 3, groups=2), (1, 16, 9, 9), 0, 0.5),
    "linear": (nn.Linear(8, 6), (1, 8), 1, 0.5),
    "a rest": (nn.Linear(10, 6), (1, 10), 1, 0.5),
    "rgb": (nn.Conv2d(3, 6, 3), (1, 3, 9, 9), 1, 2 / 3),
    "channels last": (channels_last(nn.Conv2d(8, 6, 3)), (1, 8, 9, 9), 1, 0.5),
}


@pytest.mark.parametrize("name", SHAPES)
def test_groups_lie_along_input_channels(name: str) -> None:
    layer, shape, dim, share = SHAPES[name]
    exported = NMPruning(nn.Sequential(copy.deepcopy(layer)), torch.ones(shape), n=2, m=4).export()
    weight = weight_of(exported, "0").detach()
    whole = weight.shape[dim] // 4 * 4
    groups = weight.narrow(dim, 0, whole).unflatten(dim, (-1, 4)) if whole else weight[:0]
    assert bool(((groups != 0).sum(dim + 1) == 2).all())
    assert float((weight != 0).double().mean()) == pytest.approx(share)
    assert float(trace(exported, torch.ones(shape)).column("density")[0]) == pytest.approx(share)


def test_depthwise_convolutions_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    search = NMPruning(model, torch.ones(1, 8, 9, 9))
    assert "0: stays dense: depthwise, see depthwise=True" in str(search.summary())
    assert bool((weight_of(search.export(), "0") != 0).all())


def test_depthwise_convolutions_are_pruned_along_their_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    search = NMPruning(model, torch.ones(1, 8, 9, 9), n=1, m=3, depthwise=True)
    kernels = weight_of(search.export(), "0").flatten(1)
    assert bool(((kernels.unflatten(1, (3, 3)) != 0).sum(2) == 1).all())
    assert "0: 1 of 3 along the kernel, density 0.333" in str(search.summary())


class Products(nn.Module):
    """Products with parameters, as they are and turned."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(16, 8))
        self.b = nn.Parameter(torch.randn(8, 8))
        self.c = nn.Parameter(torch.randn(8, 12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x @ self.a @ self.b.t(), self.c.t())


def test_products_with_parameters() -> None:
    exported = NMPruning(Products(), X, n=2, m=4).export()
    for name, dim in (("a", 0), ("b", 1), ("c", 0)):
        parameter = exported.get_parameter(name)
        groups = parameter.unflatten(dim, (-1, 4))
        assert bool(((groups != 0).sum(dim + 1) == 2).all())
    assert trace(exported, X).column("density").tolist() == [0.5, 0.5, 0.5]


def test_projections_of_attention() -> None:
    model, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(1, 5, 8)
    search = NMPruning(model, (x, x, x), n=2, m=4).eval()
    exported = search.export().eval()
    torch.testing.assert_close(search(x, x, x)[0], exported(x, x, x)[0])
    density = dict(
        zip(
            trace(exported, (x, x, x)).layers,
            trace(exported, (x, x, x)).column("density").tolist(),
            strict=True,
        )
    )
    assert (density["in_proj"], density["out_proj"]) == (0.5, 0.5)


def test_weight_norm_keeps_its_pattern() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 4)))
    search = NMPruning(model, X, n=2, m=4).eval()
    exported = search.export().eval()
    torch.testing.assert_close(search(X), exported(X))
    assert trace(exported, X).column("density").tolist() == [0.5]


def test_the_table_has_the_density_and_the_reference_has_none() -> None:
    search = NMPruning(perceptron(), X, n=1, m=4)
    assert search.workload().column("density").tolist() == [0.25, 1, 0.25]
    assert search.workload(hard=True).column("density").tolist() == [0.25, 1, 0.25]
    assert search.workload_reference.column("density").tolist() == [1, 1, 1]


def test_the_density_is_exact() -> None:
    layer = nn.Linear(27, 5)
    search = NMPruning(nn.Sequential(layer), torch.ones(1, 27), n=1, m=3)
    search7 = NMPruning(nn.Sequential(layer), torch.ones(1, 27), n=2, m=7)
    assert search.workload().column("density").tolist() == [9 / 27]
    assert search7.workload().column("density").tolist() == [8 / 27]
    assert search7.workload(hard=True).column("density").tolist() == [8 / 27]


def test_relative_costs_refer_to_the_dense_network() -> None:
    def mean_density(workload: Any) -> Tensor:
        mean: Tensor = workload.column("density").mean()
        return mean

    search = NMPruning(nn.Sequential(nn.Linear(16, 4)), X, cost=mean_density, n=2, m=4)
    assert float(search.get_cost(relative=True)) == 0.5
    assert float(search.get_cost(hard=True, relative=True)) == 0.5


def test_a_network_that_had_zeros_is_its_own_reference() -> None:
    layer = nn.Linear(16, 4)
    with torch.no_grad():
        layer.weight[:, :4] = 0
    search = NMPruning(nn.Sequential(layer), X, n=2, m=4)
    assert search.workload_reference.column("density").tolist() == [0.75]


def test_hard_costs_see_zeros_come_and_go() -> None:
    search = NMPruning(perceptron(), X, n=2, m=4)
    stored = stored_in(search, "0")
    assert search.workload(hard=True).column("density")[0] == 0.5
    with torch.no_grad():
        stored.zero_()
    assert search.workload(hard=True).column("density")[0] == 0


def test_channels_and_patterns_together() -> None:
    search = Search(perceptron(), X, [PITMethod(), NMMethod(n=2, m=4)]).eval()
    with torch.no_grad():
        for name, parameter in search.named_nas_parameters():
            if name.endswith("alpha"):
                parameter.copy_(torch.arange(12) % 3 != 1)
    exported = search.export().eval()
    weight = weight_of(exported, "2")
    assert weight.shape == (8, 8)
    assert bool(((weight.unflatten(1, (2, 4)) != 0).sum(2) == 2).all())
    torch.testing.assert_close(search(X), exported(X))


def test_the_density_counts_over_what_is_alive() -> None:
    search = Search(perceptron(), X, [PITMethod(), NMMethod(n=2, m=4)])
    with torch.no_grad():
        for name, parameter in search.named_nas_parameters():
            if name.endswith("alpha"):
                parameter.copy_(torch.arange(12) < 7)
    assert search.hard_table().column("density")[2] == 4 / 7
    assert search.workload(hard=True).column("density")[2] == 4 / 7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 5, "m": 4}, "n is 5 and m is 4"),
        ({"n": 0, "m": 4}, "n is 0; expected a whole number, 1 or more"),
        ({"n": 1, "m": 1}, "m is 1; expected a whole number, 2 or more"),
        ({"n": 0.5}, "n is 0.5; expected a whole number"),
        ({"n": True}, "n is True; expected a whole number"),
        ({"decay": -1.0}, "decay is -1.0; expected 0 or more"),
        ({"decay": float("nan")}, "decay is nan; expected 0 or more"),
        ({"decay": "2e-4"}, "decay is '2e-4'; expected a number"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=re.escape(message)):
        NMPruning(perceptron(), X, **options)


def test_no_layer_to_prune() -> None:
    with pytest.raises(SearchError, match="Sequential has no layer that NMPruning can prune"):
        NMPruning(nn.Sequential(nn.ReLU()), X)
    with pytest.raises(SearchError, match="left out: 0, 2"):
        NMPruning(perceptron(), X, exclude_names=["0", "2"])
    with pytest.raises(SearchError, match="0: stays dense: depthwise"):
        NMPruning(nn.Sequential(nn.Conv1d(4, 4, 3, groups=4)), torch.ones(1, 4, 8))


def test_layers_are_left_out() -> None:
    search = NMPruning(perceptron(), X, exclude_names=["0"])
    assert search.workload().column("density").tolist() == [1, 1, 0.25]
    with pytest.raises(UnknownName, match="exclude_names: no layer 'zero'"):
        NMPruning(perceptron(), X, exclude_names=["zero"])
    with pytest.raises(SearchError, match="left out: Linear"):
        NMPruning(perceptron(), X, exclude_types=[nn.Linear])


def test_a_summary_has_a_line_for_each_layer() -> None:
    lines = str(NMPruning(perceptron(), X, n=2, m=4).summary()).splitlines()
    assert lines[:2] == ["0: 2 of 4, density 0.5", "2: 2 of 4, density 0.5"]


def test_without_a_model_it_is_the_method() -> None:
    assert isinstance(NMPruning(n=2, m=4), NMMethod)  # type: ignore[call-arg]
    assert METHODS["NMPruning"] is NMMethod


# The kernels themselves need a GPU.


def halved() -> nn.Module:
    return NMPruning(perceptron(), X, n=2, m=4).export()


def test_sparse_kernels_need_a_gpu() -> None:
    with pytest.raises(SearchError, match="layer '0' is on 'cpu'; 2:4 kernels need a GPU"):
        to_sparse(halved())


def test_sparse_kernels_need_the_pattern() -> None:
    with pytest.raises(SearchError, match="has no linear layer with 2 of every 4 weights 0"):
        to_sparse(perceptron())
    with pytest.raises(SearchError, match="left out: 0, 2"):
        to_sparse(halved(), exclude_names=["0", "2"])


@pytest.mark.parametrize(
    "weight, message",
    [
        (torch.ones(64, 64), "weights of torch.float32; 2:4 kernels take torch.float16"),
        (
            torch.ones(10, 64).half(),
            "shape (10, 64); for torch.float16, 2:4 kernels take multiples",
        ),
        (torch.ones(64, 70).bfloat16(), "exclude_names=['head']"),
    ],
)
def test_sparse_kernels_take_some_types_and_shapes(weight: Tensor, message: str) -> None:
    with pytest.raises(SearchError, match=re.escape(message)):
        check_form("head", weight)


def test_a_form_that_sparse_kernels_take() -> None:
    check_form("head", torch.ones(64, 128).half())


def test_an_old_gpu_has_no_sparse_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGPU(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(SearchError, match="'head' is on Tesla T4, which has no 2:4 tensor cores"):
        check_weight("head", torch.ones(64, 64).half().as_subclass(OnGPU))


def test_the_pattern_of_a_weight() -> None:
    assert has_pattern(torch.tensor([[1.0, 0, 2, 0]]))
    assert not has_pattern(torch.tensor([[1.0, 0, 2, 3]]))
    assert not has_pattern(torch.ones(4, 6))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sparse_kernels_compute_the_same() -> None:
    model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 64))
    x = torch.randn(32, 128)
    exported = NMPruning(model, x, n=2, m=4).export().cuda().half()
    sparse = to_sparse(exported)
    expected = exported(x.cuda().half())
    torch.testing.assert_close(sparse(x.cuda().half()), expected, rtol=1e-2, atol=1e-2)
