"""What a search finds in networks of many styles, and that its exports are right."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from hwcost.recorder import record
from hwcost.search import PIT
from hwcost.search.attention import Attention
from hwcost.search.channels import find_channels
from tests import searchnets_more, searchnets_more_tokens
from tests.searchcases import decide, difference, outputs, randomise
from tests.searchnets_base import run, stirred
from tests.searchnets_more import AuxiliaryHead
from tests.searchnets_more_tokens import ATTENTIONS

NETS = searchnets_more.NETS | searchnets_more_tokens.NETS

every_net = pytest.mark.parametrize("name", NETS)

#: Why heads stay.
FIXED = ("AttendsReturned", "AttendsBiased")


@cache
def built(name: str) -> PIT:
    model, example = NETS[name]()
    search: PIT = PIT(model, example, cost={"p": "counts:params", "m": "counts:macs"})
    return search


def fresh(name: str, seed: int | None = None) -> PIT:
    search = copy.deepcopy(built(name))
    if seed is not None:
        randomise(search, seed)
    return search


def found(search: PIT) -> dict[str, int]:
    return {axis.name: axis.size for axis in search.channels.axes}


@every_net
def test_the_export_computes_what_the_search_does(name: str) -> None:
    search, example = fresh(name), NETS[name]()[1]
    for seed in range(4):
        randomise(search, seed)
        assert difference(search.export(), search, example) <= 1e-5, seed


@every_net
def test_an_undecided_search_computes_what_the_net_does(name: str) -> None:
    model, example = NETS[name]()
    assert difference(fresh(name), model, example) <= 1e-5


@every_net
def test_the_soft_cost_of_a_decided_search_is_that_of_its_export(name: str) -> None:
    search = fresh(name)
    for seed in range(3):
        decide(search, seed)
        for cost in ("p", "m"):
            soft, hard = search.get_cost(cost), search.get_cost(cost, hard=True)
            assert float(soft.detach()) == pytest.approx(float(hard), rel=1e-9), (cost, seed)


@every_net
def test_an_export_runs_in_training(name: str) -> None:
    search, example = fresh(name, seed=1), NETS[name]()[1]
    run(search.train(), example)
    run(search.export().train(), example)


@every_net
def test_axes_have_different_names(name: str) -> None:
    axes = built(name).channels.axes
    assert len({axis.name for axis in axes}) == len(axes)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name not in FIXED])
def test_whole_heads_of_attention_can_go(name: str) -> None:
    assert found(built(name))["attention"] == 4


@pytest.mark.parametrize("name", FIXED)
def test_heads_stay_where_they_are_averaged_or_biased(name: str) -> None:
    assert "attention" not in found(built(name))


@pytest.mark.parametrize("name", ["AttendsMasked", "AttendsFused", "AttendsWidths"])
def test_attention_without_some_heads_is_priced_as_attention(name: str) -> None:
    search = fresh(name, seed=0)
    exported = search.export()
    assert any(isinstance(module, Attention) for module in exported.modules())
    assert search.workload(hard=True).kinds == search.workload().kinds


def test_an_encoder_without_some_heads_takes_padding() -> None:
    layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    padding = torch.tensor([[False] * 5 + [True], [False] * 6])
    model = stirred(nn.Sequential(nn.Linear(8, 8), encoder, nn.Linear(8, 3)))
    search = PIT(model, torch.randn(2, 6, 8))
    randomise(search, 0)
    small = search.export().eval().get_submodule("1")
    x = torch.randn(2, 6, small.get_parameter("layers.0.linear1.weight").shape[1])
    with torch.no_grad():
        whole, short = small(x, src_key_padding_mask=padding), small(x[:1, :5])
    assert torch.allclose(whole[:1, :5], short, atol=1e-5)


def test_a_transformer_says_its_width() -> None:
    model = nn.Transformer(8, 2, 1, 1, 10, batch_first=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.model, self.head = nn.Linear(4, 8), model, nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            out: Tensor = self.head(self.model(x, x))
            return out

    search = PIT(stirred(Net()), torch.randn(2, 5, 4))
    assert found(search)["embed"] == 8
    randomise(search, 0)
    exported = search.export()
    assert exported.get_submodule("model").d_model == exported.get_submodule("embed").out_features


def test_a_head_of_training_alone_is_cut_but_not_searched() -> None:
    channels = built("AuxiliaryHead").channels
    assert "aux.conv.0" not in found(built("AuxiliaryHead"))
    assert channels.frozen["aux.conv.0.weight"] == "it runs in training only"
    assert [cut.role for cut in channels.cuts["aux.conv.0.weight"]] == ["in"]


def test_a_head_of_training_alone_gets_the_gradients_of_its_export() -> None:
    search, example = fresh("AuxiliaryHead", seed=2), NETS["AuxiliaryHead"]()[1]
    exported = search.export()
    for model in (search, exported):
        torch.manual_seed(0)
        run(model.train(), example)[1].square().sum().backward()
    for name in ("aux.hidden.weight", "aux.out.weight"):
        ours, theirs = (m.get_parameter(name).grad for m in (search.model, exported))
        assert ours is not None and theirs is not None
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_model_that_fails_in_training_says_so() -> None:
    class Failing(AuxiliaryHead):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("no targets")
            out: Tensor = super().forward(x)
            return out

    model, x = Failing().eval(), torch.randn(2, 3, 8, 8)
    channels = find_channels(model, record(model, (x,)), args=(x,))
    assert [axis.name for axis in channels.axes] == ["stem.0"]
    reasons = {b.layer: b.reason for b in channels.barriers if b.what == "training"}
    assert "aux.hidden" in reasons and "no targets" in reasons["aux.hidden"]


def test_what_nobody_reads_holds_no_channels_back() -> None:
    class Debug(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x.softmax(1).mean(1)
            out: Tensor = self.out(x)
            return out

    search = PIT(stirred(Debug()), torch.randn(1, 3, 6, 6))
    assert found(search) == {"conv": 8}
    randomise(search, 0)
    leaves, _ = outputs(search.export(), torch.randn(1, 3, 6, 6))
    assert leaves[0].shape == (1, 4, 4, 4)


def test_a_recording_in_training_keeps_torchs_layers_in_evaluation() -> None:
    model, example = NETS["AuxiliaryHead"]()
    recording = record(model, (example,), training=True)
    assert len(recording.outputs) == 2
    norms = [call for call in recording.calls if call.op.name == "aten.batch_norm"]
    assert len(norms) == 4 and not any(call.arg("training") for call in norms)
    assert model.training and isinstance(model, nn.Module)
