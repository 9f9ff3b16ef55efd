"""SuperNet: branches, their probabilities, what runs, what it costs, what is left."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, TraceError, trace
from hwcost.errors import SearchError
from hwcost.search import Choice, PITSuperNet, SuperNet, SuperNetModule

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


class Net(nn.Module):
    """Two choices, the second with a choice inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        separable = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))
        self.first = Choice([nn.Conv2d(8, 8, 3, padding=1), separable, nn.Identity()])
        inner = Choice([nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 16, 1)])
        self.second = Choice([inner, nn.Conv2d(8, 16, 5, padding=2)])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)).relu())
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def searched(seed: int, single_path: bool = False) -> SuperNet:
    torch.manual_seed(0)
    costs = {"p": "counts:params", "m": "counts:macs"}
    search = SuperNet(Net(), X, cost=costs, single_path=single_path)
    torch.manual_seed(seed)
    with torch.no_grad():
        for logits in search.nas_parameters():
            logits.normal_()
    return search


def net_of(search: SuperNet) -> Net:
    assert isinstance(search.model, Net)
    return search.model


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("seed", range(6))
def test_the_export_computes_what_the_search_does(seed: int) -> None:
    search = searched(seed).eval()
    assert torch.equal(search.export()(X), search(X))


@pytest.mark.parametrize("seed", range(6))
def test_the_hard_cost_is_that_of_the_export(seed: int) -> None:
    search = searched(seed)
    exported = search.export()
    total = CostModel("counts", "macs").total(trace(exported, X))
    assert search.get_cost("m", hard=True) == total
    assert search.get_cost("p", hard=True) == size(exported)


def test_an_export_has_no_choice_left() -> None:
    exported = searched(0).export()
    assert type(exported) is Net
    assert not any(isinstance(module, Choice) for module in exported.modules())


def test_the_cost_is_the_mean_over_all_networks() -> None:
    search = searched(1)
    first, second, inner = (p.softmax(0).tolist() for p in search.nas_parameters())
    model = net_of(search)
    always = size(model.stem) + size(model.head)
    expected = always + sum(p * size(b) for p, b in zip(first, model.first.branches, strict=True))
    expected += second[1] * size(model.second.branches[1])
    nested_choice = model.second.branches[0]
    assert isinstance(nested_choice, Choice)
    nested = zip(inner, nested_choice.branches, strict=True)
    expected += second[0] * sum(p * size(b) for p, b in nested)
    assert float(search.get_cost("p").detach()) == pytest.approx(expected, rel=1e-6)


def test_the_output_is_the_mix_by_probability() -> None:
    search = searched(2)
    with torch.no_grad():
        model = net_of(search)
        stem = model.stem(X)
        logits = next(search.nas_parameters())
        parts = zip(logits.softmax(0), model.first.branches, strict=True)
        expected = sum((p * branch(stem) for p, branch in parts), torch.zeros(()))
        assert torch.allclose(model.first(stem), expected, atol=1e-6)


def test_mixing_has_the_gradient_of_a_weighted_sum() -> None:
    from hwcost.search.choice import mix

    weights = torch.tensor([0.2, 0.8], dtype=torch.float64, requires_grad=True)
    outputs = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda w, a, b: mix(w, [a, b]), (weights, *outputs))


def test_a_single_path_runs_one_branch() -> None:
    search = searched(0, single_path=True).train()
    ran: list[int] = []
    for number, branch in enumerate(net_of(search).first.branches):
        branch.register_forward_hook(lambda *_, n=number: ran.append(n))
    search(X)
    assert len(ran) == 1


def test_a_single_path_still_trains_every_decision() -> None:
    search = searched(0, single_path=True).train()
    search(X).square().sum().backward()
    first = next(search.nas_parameters())
    assert first.grad is not None and bool((first.grad != 0).all())


def test_choices_of_one_name_decide_together() -> None:
    def block() -> Choice:
        return Choice([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)], shared="block")

    search = SuperNet(nn.Sequential(block(), block()), X)
    logits = list(search.nas_parameters())
    with torch.no_grad():
        logits[0].copy_(torch.tensor([0.0, 1.0]))
    assert len(logits) == 1
    assert [m.kernel_size for m in search.export().children()] == [(3, 3), (3, 3)]


def test_a_branch_of_another_shape_is_named() -> None:
    model = nn.Sequential(Choice([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)]))
    with pytest.raises(TraceError, match=r"branch 1 .*\(2, 8, 8, 8\).*branch 0 .*\(2, 4, 8, 8\)"):
        SuperNet(model, X)


def test_a_model_without_choice_is_refused() -> None:
    with pytest.raises(SearchError, match="no Choice"):
        SuperNet(nn.Linear(2, 2), torch.zeros(1, 2))


def test_equal_names_need_equal_numbers_of_branches() -> None:
    one = Choice([nn.Identity()], shared="a")
    two = Choice([nn.Identity(), nn.Identity()], shared="a")
    with pytest.raises(SearchError, match="'1' has 2 branches"):
        SuperNet(nn.Sequential(one, two), X)


def test_a_model_outside_a_search_gives_the_mean() -> None:
    choice = Choice([nn.Identity(), nn.Hardtanh(-0.5, 0.5)])
    assert torch.allclose(choice(X), (X + X.clamp(-0.5, 0.5)) / 2)


def test_the_users_model_is_left_alone() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    SuperNet(model, X)(X)
    assert model.first.selector is None and not model.first.traced
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_old_spellings() -> None:
    model = nn.Sequential(SuperNetModule([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)]))
    search = PITSuperNet(model, input_shape=(3, 8, 8), regularizer="macs")
    loss = search.get_regularization_loss()
    assert loss.requires_grad
    assert [type(module) for module in search.arch_export().children()] == [nn.Conv2d]
