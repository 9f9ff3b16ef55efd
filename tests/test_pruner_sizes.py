"""What modules say of their sizes after pruning, rates of dropout, and pruning module by module."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search import Pruner

IMAGE = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)
SERIES = torch.linspace(-1, 1, 2 * 5 * 6).view(2, 5, 6)


def between(middle: nn.Module, *, cin: int = 8, cout: int = 8) -> Any:
    """A net in which a module lies between two convolutions of images."""
    return nn.Sequential(nn.Conv2d(3, cin, 1), middle, nn.Conv2d(cout, 4, 1))


def says(module: nn.Module, **sizes: Any) -> bool:
    return {name: getattr(module, name) for name in sizes} == sizes


# Attributes


#: A module with 8 channels in and out, and what it says after units 0 and 5 of these went.
MIDDLES: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "conv": (nn.Conv2d(8, 8, 3), {"in_channels": 6, "out_channels": 8, "groups": 1}),
    "transposed": (nn.ConvTranspose2d(8, 8, 3), {"in_channels": 6, "out_channels": 8}),
    "depthwise": (
        nn.Conv2d(8, 8, 3, groups=8),
        {"in_channels": 6, "out_channels": 6, "groups": 6},
    ),
    "transposed depthwise": (
        nn.ConvTranspose2d(8, 8, 3, groups=8),
        {"in_channels": 6, "out_channels": 6, "groups": 6},
    ),
    "batch norm": (nn.BatchNorm2d(8), {"num_features": 6}),
    "batch norm without affine": (nn.BatchNorm2d(8, affine=False), {"num_features": 6}),
    "batch norm without anything": (
        nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        {"num_features": 6},
    ),
    "instance norm": (nn.InstanceNorm2d(8), {"num_features": 6}),
    "instance norm with affine": (nn.InstanceNorm2d(8, affine=True), {"num_features": 6}),
    "group norm of all": (nn.GroupNorm(1, 8), {"num_channels": 6, "num_groups": 1}),
    "group norm of each": (nn.GroupNorm(8, 8), {"num_channels": 6, "num_groups": 6}),
    "group norm without affine": (
        nn.GroupNorm(1, 8, affine=False),
        {"num_channels": 6, "num_groups": 1},
    ),
    "PReLU": (nn.PReLU(8), {"num_parameters": 6}),
    "one PReLU": (nn.PReLU(), {"num_parameters": 1}),
}


@pytest.mark.parametrize("title", MIDDLES)
def test_a_module_says_its_new_sizes(title: str) -> None:
    middle, sizes = MIDDLES[title]
    model = between(copy.deepcopy(middle))
    Pruner(model, IMAGE).prune_model("0", [0, 5])
    assert says(model[1], **sizes), model[1]
    assert model(IMAGE).shape[1] == 4


@pytest.mark.parametrize("title", MIDDLES)
def test_undo_gives_its_sizes_back(title: str) -> None:
    model = between(copy.deepcopy(MIDDLES[title][0]))
    before = repr(model)
    pruner = Pruner(model, IMAGE)
    pruner.prune_model("0", [0, 5])
    pruner.undo()
    assert repr(model) == before


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("cls", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_of_the_last_dimension_says_its_size(cls: Any, affine: bool) -> None:
    norm = cls(8, elementwise_affine=affine)
    model: Any = nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 3))
    Pruner(model, SERIES).prune_model("0", [0, 5])
    assert tuple(norm.normalized_shape) == (6,)
    assert model(SERIES).shape == (2, 5, 3)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cls", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_recurrent_layer_says_its_input(cls: Any, bidirectional: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 8)
            self.rnn = cls(8, 4, num_layers=2, batch_first=True, bidirectional=bidirectional)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rnn(self.first(x))[0]
            return out

    model: Any = Recurrent()
    Pruner(model, SERIES).prune_model("first", [0, 5])
    assert says(model.rnn, input_size=6, hidden_size=4)
    assert model.rnn.weight_ih_l0.shape[1] == 6
    assert model(SERIES).shape[:2] == (2, 5)


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_says_its_width(cls: Any) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.last = cls(10, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            out: Tensor = self.last(x + self.mix(x))
            return out

    model: Any = Tokens()
    tokens = torch.arange(6).view(2, 3)
    Pruner(model, tokens).prune_model("embed", [0, 5])
    assert says(model.embed, embedding_dim=6, num_embeddings=10)
    assert model(tokens).shape[-1] == 3


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.last(self.attention(x, x, x)[0])
        return out


@pytest.mark.parametrize("bias", [True, False])
def test_attention_loses_heads(bias: bool) -> None:
    model: Any = Attention(bias=bias).eval()
    whole = copy.deepcopy(model)
    Pruner(model, SERIES).prune_model("attention", [1])
    assert says(model.attention, num_heads=2, head_dim=4)
    with torch.no_grad():
        whole.attention.out_proj.weight[:, 4:8] = 0
    torch.testing.assert_close(model(SERIES), whole(SERIES))


def test_attention_loses_inputs() -> None:
    model: Any = Attention()
    Pruner(model, SERIES).prune_model("first", [0])
    assert model(SERIES).shape == (2, 5, 2)


def test_a_pruned_attention_has_its_units_looked_up_again() -> None:
    pruner = Pruner(Attention(), SERIES)
    pruner.prune_model("attention", [1])
    pruner.prune_model("attention", [0])
    with pytest.raises(SearchError, match="all its 1 units"):
        pruner.prune_model("attention", [0])


# Dropout


def dropped(p: float, cls: Any = nn.Dropout2d, width: int = 8) -> tuple[Any, Any]:
    drop = cls(p)
    return drop, between(drop, cin=width, cout=width)


@pytest.mark.parametrize("cls", [nn.Dropout, nn.Dropout2d])
def test_as_many_units_stay_active_on_average(cls: Any) -> None:
    drop, model = dropped(0.5, cls)
    Pruner(model, IMAGE).prune_model("0", [0, 1])
    assert (1 - drop.p) * 6 == pytest.approx(0.5 * 8)


def test_a_rate_ends_at_0_where_fewer_units_are_left_than_were_active() -> None:
    drop, model = dropped(0.25)
    Pruner(model, IMAGE).prune_model("0", [0, 1, 2])
    assert drop.p == 0


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_dropout_of_nothing_or_all_keeps_its_rate(p: float) -> None:
    drop, model = dropped(p)
    Pruner(model, IMAGE).prune_model("0", [0])
    assert drop.p == p


def test_a_dropout_elsewhere_keeps_its_rate() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.5), *between(nn.ReLU()))
    Pruner(model, IMAGE).prune_model("1", [0])
    assert model[0].p == 0.5


def test_a_dropout_in_two_places_keeps_the_mean_over_both() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 2)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(self.drop(self.b(self.drop(self.a(x)))))
            return out

    model: Any = Shared()
    Pruner(model, SERIES).prune_model("a", [0, 1])
    assert (1 - model.drop.p) * (6 + 4) == pytest.approx(0.5 * (8 + 4))


def test_a_dropout_given_its_input_by_name_follows() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.b = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.drop(input=self.a(x)))
            return out

    model: Any = Named()
    Pruner(model, SERIES).prune_model("a", [0, 1])
    assert (1 - model.drop.p) * 6 == pytest.approx(4)


def test_rates_follow_step_by_step_and_are_undone() -> None:
    drop, model = dropped(0.5)
    pruner = Pruner(model, IMAGE)
    for _ in range(2):
        pruner.prune_model("0", [0])
    assert (1 - drop.p) * 6 == pytest.approx(4)
    pruner.undo()
    assert (1 - drop.p) * 7 == pytest.approx(4)


def test_rates_of_a_model_in_training_follow() -> None:
    drop, model = dropped(0.5)
    model.train()
    Pruner(model, IMAGE).prune_model("0", [0, 1])
    assert (1 - drop.p) * 6 == pytest.approx(4)


def test_rates_of_an_average_follow() -> None:
    _, model = dropped(0.5)
    average = copy.deepcopy(model)
    Pruner(model, IMAGE, ema=average).prune_model("0", [0, 1])
    assert repr(average) == repr(model)


# A list of modules


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.act = nn.Dropout(0.5), nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.flatten, self.fc = nn.Flatten(), nn.Linear(8 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.act(self.norm(self.conv(x))))
        out: Tensor = self.fc(self.flatten(self.depthwise(x)))
        return out


EVERY = ["norm", "act", "drop", "depthwise", "flatten", "fc"]


def test_a_list_of_all_does_what_is_found_from_the_trace() -> None:
    listed: Any = Listed().eval()
    traced = copy.deepcopy(listed)
    Pruner(listed, IMAGE).prune_model("conv", [1, 4], EVERY)
    Pruner(traced, IMAGE).prune_model("conv", [1, 4])
    assert repr(listed) == repr(traced)
    assert torch.equal(listed(IMAGE), traced(IMAGE))


def test_a_list_may_hold_modules() -> None:
    model: Any = Listed()
    Pruner(model, IMAGE).prune_model(model.conv, [1], [getattr(model, name) for name in EVERY])
    assert model(IMAGE).shape == (2, 5)


def test_exactly_the_listed_are_pruned() -> None:
    model: Any = Listed()
    Pruner(model, IMAGE).prune_model("conv", [1], ["norm"])
    assert (model.conv.out_channels, model.norm.num_features) == (7, 7)
    assert (model.depthwise.in_channels, model.fc.in_features, model.drop.p) == (8, 288, 0.5)


def test_an_empty_list_prunes_the_module_alone() -> None:
    model: Any = Listed()
    Pruner(model, IMAGE).prune_model("conv", [1], [])
    assert (model.conv.out_channels, model.norm.num_features) == (7, 8)


def test_the_trace_is_followed_again_after_a_list() -> None:
    model: Any = Listed()
    pruner = Pruner(model, IMAGE)
    pruner.prune_model("conv", [1, 4], EVERY)
    pruner.prune_model("conv", [0])
    assert model.fc.in_features == 5 * 36


# By hand


def test_outputs_of_one_module() -> None:
    model = between(nn.ReLU())
    whole = model[0].weight.detach().clone()
    removed = Pruner(model, IMAGE).prune_module("0", [1])
    assert torch.equal(model[0].weight, whole[[0, 2, 3, 4, 5, 6, 7]])
    assert (model[0].out_channels, model[2].in_channels) == (7, 8)
    assert removed.units["0.weight"] == (1,)


def test_inputs_of_one_module() -> None:
    model = between(nn.ReLU())
    pruner = Pruner(model, IMAGE)
    pruner.prune_module("0", [1])
    pruner.prune_module("2", [1], "in")
    assert model(IMAGE).shape[1] == 4


def test_inputs_behind_a_flatten_go_in_pieces() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 2))
    whole = model[2].weight.detach().clone()
    pruner = Pruner(model, IMAGE)
    pruner.prune_module("0", [1])
    pruner.prune_module("2", [1], "in", original_len=4)
    assert torch.equal(model[2].weight, torch.cat([whole[:, :36], whole[:, 72:]], 1))
    assert model(IMAGE).shape == (2, 2)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_both_sides_of_a_depthwise_convolution_go_together(direction: str) -> None:
    model = between(nn.Conv2d(8, 8, 3, groups=8))
    Pruner(model, IMAGE).prune_module("1", [0], direction)
    assert says(model[1], in_channels=7, out_channels=7, groups=7)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_groups_are_refused(direction: str) -> None:
    model = between(nn.Conv2d(8, 8, 3, groups=2))
    with pytest.raises(SearchError, match="its groups must keep equal sizes"):
        Pruner(model, IMAGE).prune_module("1", [0], direction)


def test_a_parameter_alone() -> None:
    model = between(nn.ReLU())
    whole = model[2].weight.detach().clone()
    Pruner(model, IMAGE).prune_parameter("2", "weight", [0, 2], axis=1)
    assert torch.equal(model[2].weight, whole[:, [1, 3, 4, 5, 6, 7]])
    assert model[2].in_channels == 6


def test_an_axis_is_counted_from_the_end() -> None:
    model = between(nn.ReLU())
    Pruner(model, IMAGE).prune_parameter(model[2], "weight", [0], axis=-3)
    assert model[2].weight.shape[1] == 7


def test_a_buffer_alone() -> None:
    model = between(nn.BatchNorm2d(8))
    Pruner(model, IMAGE).prune_parameter("1", "running_mean", [0])
    assert model[1].running_mean.shape == (7,)
    assert model[1].running_var.shape == (8,)


def test_gradients_and_momentum_are_cut_by_hand_too() -> None:
    model = between(nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters())
    model(IMAGE).sum().backward()
    optimizer.step()
    Pruner(model, IMAGE, optimizer=optimizer).prune_module("0", [1])
    grad = model[0].weight.grad
    assert grad is not None and grad.shape[0] == 7
    assert optimizer.state[model[0].weight]["exp_avg"].shape[0] == 7


def test_a_functional_use_of_a_weight_follows() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 6))
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(F.linear(x, self.weight))
            return out

    model: Any = Functional()
    Pruner(model, SERIES).prune_model("", [0])
    assert (model.weight.shape[0], model.last.in_features) == (7, 7)
