"""Which channels of a network go together, and that it computes the same without dead ones."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.recorder import record
from hwcost.recorder_alternatives import alternatives
from hwcost.recorder_values import tensors_in
from hwcost.search.channels import Channels, find_channels
from hwcost.search.slicing import slice_channels
from tests.channel_nets import AXES, NETS
from tests.channel_nets_base import conv, head, image, of, tokens
from tests.channel_proof import ignoring, random_alive, stir
from tests.models import MODELS


def channels_of(model: nn.Module, *args: Any) -> Channels:
    return find_channels(model, record(model, args), args=args)


def made(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    model, args = NETS[name]()
    return stir(model), args


def sizes(channels: Channels) -> dict[str, int]:
    return {axis.name: axis.size for axis in channels.axes}


def outputs(model: nn.Module, *args: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors_in(model(*args))


def sliced(model: nn.Module, channels: Channels, alive: Tensor) -> nn.Module:
    model = copy.deepcopy(model)
    slice_channels(model, channels, alive)
    return model


def numbers(module: nn.Module, *names: str) -> list[Any]:
    return [getattr(module, name) for name in names]


@pytest.mark.parametrize("name", NETS)
def test_axes_are_those_counted_by_hand(name: str) -> None:
    model, args = made(name)
    assert sizes(channels_of(model, *args)) == AXES[name]


@pytest.mark.parametrize("name", NETS)
def test_a_sliced_net_computes_what_one_does_that_ignores_dead_channels(name: str) -> None:
    model, args = made(name)
    channels, generator = channels_of(model, *args), torch.Generator().manual_seed(1)
    for _ in range(3):
        alive = random_alive(channels, generator)
        small, large = (f(model, channels, alive) for f in (sliced, ignoring))
        for a, b in zip(outputs(small, *args), outputs(large, *args), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_a_sliced_net_has_the_classes_that_were_left(name: str) -> None:
    model, args = made(name)
    channels = channels_of(model, *args)
    alive = random_alive(channels, torch.Generator().manual_seed(2))
    again = channels_of(sliced(model, channels, alive), *args)
    left = {a.name: int(alive[a.start : a.start + a.size].sum()) for a in channels.axes}
    assert {name: size for name, size in left.items() if size > 1}.items() <= sizes(again).items()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_that_runs_can_be_analysed(name: str) -> None:
    torch.manual_seed(0)
    model, args = MODELS[name]()
    channels = channels_of(model, *args)
    if channels.n_classes:
        small = sliced(model, channels, random_alive(channels, torch.Generator()))
        assert record(small, args).calls


@pytest.mark.parametrize("name", NETS)
def test_fields_have_the_rank_of_their_tensor_and_broadcast(name: str) -> None:
    model, args = made(name)
    recording = record(model, args)
    channels = find_channels(model, recording, args=args)
    for ref, fields in channels.fields.items():
        shape = recording.tensors[ref].shape
        for found in fields:
            assert found.classes.dim() == len(shape)
            assert found.classes.expand(shape).max() < channels.n_classes


@pytest.mark.parametrize(
    ("name", "weight", "reason"),
    [
        ("residual", "head.2.weight", "the network returns them"),
        ("spatial_gate", "gate.weight", "it makes one channel"),
        ("halves_by_number", "stem.0.weight", "the model's code fixes how channels are divided"),
        ("one_channel_selected", "b.0.weight", "'select' over channels"),
        ("mixer", "tokens.2.weight", "'add' with a tensor that keeps all its channels"),
        ("vit", "qkv.weight", "'scaled_dot_product_attention' of two activations sums over"),
        ("viewed_with_a_number", "b.weight", "the model's code fixes the size: RuntimeError: "),
        ("scaled_by_width", "b.0.weight", "a number in 'aten.div' depends on the channels"),
        ("mean_over_channels", "b.0.weight", "'mean' over channels"),
        ("bounded_weights", "0.weight", "its weight is computed from other tensors"),
        ("attention_with_all_fixed", "1.v.weight", "the model's code fixes how channels are split"),
    ],
)
def test_a_frozen_layer_says_why(name: str, weight: str, reason: str) -> None:
    model, args = made(name)
    assert reason in channels_of(model, *args).frozen[weight]


def test_an_unknown_op_is_a_barrier_with_its_layer() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.linalg.qr(x)[0]

    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), Sorted(), nn.Linear(6, 2))
    channels = channels_of(net, torch.randn(8, 4))
    assert sizes(channels) == {"0": 6}
    (barrier,) = channels.barriers
    assert barrier.layer == "2"
    assert barrier.reason == "'aten.linalg_qr' is an op that the search does not know"


def test_a_module_that_refuses_another_width_keeps_it() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.b(m.a(x))
        assert x.shape[1] == 6
        return F.relu(m.c(x))

    net, args = of(forward, image(), a=conv(3, 5), b=conv(5, 6), c=conv(6, 2))
    channels = channels_of(net, *args)
    assert sizes(channels) == {"a": 5}
    assert "the model's code fixes the size: AssertionError" in channels.frozen["b.weight"]


def test_branches_of_a_choice_share_their_channels() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(alternatives([m.a(x), m.b(x)]))

    net, args = of(forward, image(), a=conv(3, 8), b=conv(3, 8, 1), head=head(8))
    (axis,) = channels_of(net, *args).axes
    assert axis.producers == ("a.weight", "b.weight")


def test_a_branch_that_keeps_its_channels_keeps_those_of_the_others() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(alternatives([x, m.a(x)]))

    net, args = of(forward, image(8), a=conv(8, 8), head=head(8))
    channels = channels_of(net, *args)
    assert channels.axes == ()
    assert "keeps all its channels" in channels.frozen["a.weight"]


def test_scripted_weights_stay() -> None:
    net, args = MODELS["scripted"]()
    assert channels_of(net, *args).frozen["0.0.weight"] == "a script reads it"


def test_channels_written_into_a_new_tensor_go_with_it() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.a(x)
        whole = x.new_zeros(x.shape[0], x.shape[1], 8, 16)
        whole[..., ::2], whole[..., 1::2] = x, m.b(x)
        return m.head(whole)

    net, args = of(forward, image(), a=conv(3, 6), b=conv(6, 6), head=head(6))
    (axis,) = channels_of(net, *args).axes
    assert (axis.size, len(axis.producers)) == (6, 2)


def test_channels_written_into_the_input_stay() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = x.clone()
        y[:, :, 2:4] = m.a(x)[:, :, 2:4]
        return m.head(y)

    net, args = of(forward, image(4), a=conv(4, 4), head=head(4))
    assert channels_of(net, *args).axes == ()


def test_an_instance_of_a_subclass_is_sliced_like_its_base() -> None:
    class Mine(nn.Conv2d):
        pass

    net = nn.Sequential(Mine(3, 8, 1), nn.ReLU(), Mine(8, 4, 1))
    channels = channels_of(net, image())
    small = sliced(net, channels, torch.arange(8) < 3)
    first, last = small.get_submodule("0"), small.get_submodule("2")
    assert numbers(first, "out_channels") + numbers(last, "in_channels") == [3, 3]
    assert type(first) is Mine


def test_attributes_follow_the_weights() -> None:
    net, args = made("transposed")
    channels = channels_of(net, *args)
    alive = torch.ones(channels.n_classes, dtype=torch.bool)
    alive[channels.axes[1].start] = False
    small = sliced(net, channels, alive)
    deep = [m for m in small.modules() if isinstance(m, nn.ConvTranspose2d)][1:]
    assert [m.groups for m in deep] == [5, 2]
    assert [(m.in_channels, m.out_channels) for m in deep] == [(5, 10), (10, 6)]


def test_slicing_keeps_the_parameter_and_drops_its_gradient() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    channels = channels_of(net, torch.randn(2, 3))
    net(torch.randn(2, 3)).sum().backward()
    before = list(net.parameters())
    slice_channels(net, channels, torch.arange(8) < 5)
    assert [id(p) for p in net.parameters()] == [id(p) for p in before]
    assert before[0].shape == (5, 3) and before[0].grad is None
    assert before[3].grad is not None


def test_channels_last_weights_stay_so() -> None:
    net = nn.Sequential(conv(3, 8), conv(8, 2))
    for weight in (net.get_parameter("0.weight"), net.get_parameter("1.weight")):
        weight.data = weight.data.to(memory_format=torch.channels_last)
    small = sliced(net, channels_of(net, image()), torch.arange(8) < 5)
    assert small.get_parameter("1.weight").is_contiguous(memory_format=torch.channels_last)


def test_a_tied_weight_is_cut_once_where_both_uses_meet() -> None:
    net, args = made("tied_weights")
    channels = channels_of(net, *args)
    assert "head.weight" not in channels.cuts
    (cut,) = channels.cuts["embedding.weight"]
    assert (cut.dim, cut.role, len(cut.classes)) == (1, "in", 12)


def test_all_groups_of_a_convolution_lose_as_much_where_its_input_stays() -> None:
    net = nn.Sequential(nn.Conv2d(4, 12, 1, groups=2), nn.ReLU(), nn.Conv2d(12, 3, 1))
    channels = channels_of(net, image(4))
    small = sliced(net, channels, torch.arange(6) < 4).get_submodule("0")
    assert sizes(channels) == {"0": 6}
    assert numbers(small, "in_channels", "out_channels", "groups") == [4, 8, 2]


def test_groups_of_a_norm_go_whole_where_they_are_the_smaller() -> None:
    net, args = made("group_norms")
    channels = channels_of(net, *args)
    small = sliced(net, channels, random_alive(channels, torch.Generator().manual_seed(5)))
    norms = [m for m in small.modules() if isinstance(m, nn.GroupNorm)]
    assert [n.num_channels // n.num_groups for n in norms][::3] == [2, 1]
    assert [n.num_groups for n in norms[1:3]] == [2, 1]
    assert set(channels.norms) == {"4", "7"}


def test_the_model_is_not_changed() -> None:
    net, args = made("attention_with_all_fixed")
    before, state = dict(net.named_parameters()), pickle.dumps(net.state_dict())
    channels_of(net, *args)
    assert all(p is before[name] for name, p in net.named_parameters())
    assert pickle.dumps(net.state_dict()) == state


def test_a_recurrent_net_reads_as_many_features_as_are_left() -> None:
    net, args = made("lstm_behind_a_convolution")
    channels = channels_of(net, *args)
    small = sliced(net, channels, torch.arange(8) < 3)
    lstm = small.get_submodule("lstm")
    assert isinstance(lstm, nn.LSTM)
    assert lstm.input_size == 3
    assert lstm.weight_ih_l0_reverse.shape == (20, 3)
    assert channels.inputs["lstm"].tolist() == list(range(8))


def test_code_that_needs_another_reading_gets_it_in_every_block() -> None:
    blocks = [NETS["attention_with_fixed_head_size"]()[0] for _ in range(4)]
    between = [nn.Linear(4, 5) for _ in range(4)]
    net = nn.Sequential(*(m for pair in zip(blocks, between, strict=True) for m in pair))
    assert len(channels_of(net, tokens(5)).axes) == 4 * 5 - 1


def test_an_attention_of_the_users_says_how_many_heads_are_left() -> None:
    net, args = made("attention_with_heads_of_its_own")
    channels = channels_of(net, *args)
    heads = next(axis for axis in channels.axes if axis.name == "1.q")
    alive = torch.ones(channels.n_classes, dtype=torch.bool)
    alive[heads.start + 1] = False
    small = sliced(net, channels, alive).get_submodule("1")
    assert numbers(small, "num_heads", "head_dim", "inner_dim") == [2, 4, 8]
    assert numbers(net.get_submodule("1"), "num_heads", "head_dim", "inner_dim") == [3, 4, 12]
