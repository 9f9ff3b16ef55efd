"""Methods together, by name, and of other packages."""

from collections.abc import Hashable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, SearchError, UnknownName, trace
from hwcost.search import PIT, Choice, Method, PITConv2d, PITSuperNet, Search, SuperNet, registry
from hwcost.search.pit import PITMethod

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    branches = [nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Identity()]
    tail = nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 5)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Choice(branches), *tail)


def drawn(search: Search, seed: int) -> Search:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.uniform_(-1, 1)
    return search.eval()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("first", ["PIT", "SuperNet"])
def test_two_methods_at_once_export_what_they_compute(first: str, seed: int) -> None:
    makers: list[Any] = [PIT, SuperNet]  # without a model, each makes a method
    methods: list[Method] = [make() for make in makers]
    methods = methods if first == "PIT" else methods[::-1]
    search = drawn(Search(net(), X, methods, cost="counts:macs"), seed)
    exported = search.export().eval()
    assert torch.allclose(exported(X), search(X), atol=1e-6)
    assert search.get_cost(hard=True) == CostModel("counts", "macs").total(trace(exported, X))


def test_two_methods_for_one_decision_are_refused() -> None:
    methods: list[Method] = [PITMethod(), PITMethod()]
    with pytest.raises(SearchError, match="two methods decide about the channels of layer '0'"):
        Search(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), X, methods)


def test_pit_supernet_is_the_two_together() -> None:
    names = [type(method).__name__ for method in PITSuperNet(net(), X).each_method()]
    assert sorted(names) == ["PITMethod", "SuperNetMethod"]


def test_own_layers_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), PITConv2d(8, 8, 3), nn.Conv2d(8, 2, 1))
    search = PIT(model, X, autoconvert_layers=False)
    assert search.alive.searched() == {"2"}
    assert [type(m) for m in search.export().children()].count(PITConv2d) == 0


@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_channels_stay_in_blocks(multiple: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 3), nn.Conv2d(24, 2, 1))
    search = drawn(PIT(model, X, channel_multiple=multiple), 1)
    exported = search.export()
    convs = [m for m in exported.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.out_channels % multiple == 0 for conv in convs[:2])
    assert torch.allclose(exported.eval()(X), search(X), atol=1e-6)


def test_switches_pause_kinds_of_decision() -> None:
    search = PIT(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), X)
    method = next(search.each_method())
    assert isinstance(method, PITMethod)
    method.train_rf = False
    search.train_net_and_nas()
    trained = {n.rpartition(".")[2]: p.requires_grad for n, p in search.named_nas_parameters()}
    assert trained == {"alpha": True, "beta": False}


@pytest.mark.parametrize(("discrete", "expected"), [(False, 0.75 * 8), (True, 8)])
def test_discrete_costs_count_what_is_alive(discrete: bool, expected: float) -> None:
    def channels(workload: object) -> Tensor:
        return workload.column("cout")[0]  # type: ignore[attr-defined,no-any-return]

    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    search = PIT(model, X, cost=channels, discrete_cost=discrete)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.fill_(0.75)
    assert search.cost == expected


def test_methods_have_names() -> None:
    assert registry.method_named("PIT") is PITMethod
    with pytest.raises(UnknownName, match="did you mean 'SuperNet'"):
        registry.method_named("Supernet")


class Halves(Method):
    """A method of another package: it asks for half of everything's executions."""

    title = "Halves"

    def attach(self, search: Search) -> None:
        self.share = nn.Parameter(torch.tensor([0.5]))

    def entries(self) -> Tensor:
        return self.share

    def decisions(self) -> Hashable:
        return 0


def test_another_package_adds_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("Halves", f"{__name__}:Halves", registry.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Halves)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    search = Search(nn.Conv2d(3, 4, 1), X, [registry.method_named("Halves")()])
    assert [name for name, _ in search.named_nas_parameters()] == ["methods.0.share"]


def test_what_another_package_adds_must_be_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("Odd", "builtins:dict", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(SearchError, match="builtins:dict"):
        registry.method_named("Odd")


def test_a_model_that_torch_cannot_copy_is_one_clear_error() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 2, 1))
    model(X)
    with pytest.raises(SearchError, match=r"layer '0'.*parametrizations"):
        PIT(model, X)


def test_types_of_parametrized_layers_can_be_left_out() -> None:
    first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    model = nn.Sequential(first, nn.Linear(6, 6), nn.Linear(6, 2))
    search = PIT(model, X, exclude_types=[nn.Conv2d])
    assert search.alive.searched() == {"1"}
    assert "parametrizations" not in str(PIT(model, X).summary())
