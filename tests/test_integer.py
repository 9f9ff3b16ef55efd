"""Export to whole numbers: the same codes as the fake-quantized model, without floats."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwcost.errors import SearchError
from hwcost.search.integer import to_integer
from tests import quantnets as nets
from tests.quantcases import NETS, made


class NoFloats(TorchDispatchMode):
    """Refuse every operator that reads or makes a tensor of floats."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs, out)):
            assert not (isinstance(tensor, Tensor) and tensor.is_floating_point()), func
            assert not isinstance(tensor, float), func
        return out


@pytest.mark.parametrize("name", NETS)
def test_integers_give_the_codes_of_the_float_model(name: str) -> None:
    net, x = made(name)
    whole = to_integer(net, (x[:2],))
    with torch.no_grad():
        expected = net(x)
    steps = ((whole(x) - expected) / net.q_out.scale).round()
    assert steps.shape == expected.shape
    assert steps.abs().max() <= 1 and (steps != 0).float().mean() <= 1e-3


@pytest.mark.parametrize("name", NETS)
def test_no_float_lies_between_the_quantizers(name: str) -> None:
    net, x = made(name)
    whole = to_integer(net, (x[:2],))
    slots = whole.quantize(x)
    with NoFloats():  # type: ignore[no-untyped-call]
        whole.integers(slots, len(x))


@pytest.mark.parametrize("name", ["concat", "gate", "tokens", "permuted", "pools"])
@pytest.mark.parametrize("example", [1, 3])
def test_the_number_of_samples_is_free(name: str, example: int) -> None:
    net, x = made(name)
    whole = to_integer(net, (x[:example],))
    assert whole.program.batch is None
    together = whole.codes(x)
    assert torch.equal(torch.cat([whole.codes(part) for part in x.split(5)]), together)


def test_a_number_of_samples_in_the_code_is_kept() -> None:
    net = nets.Function(lambda x: x.view(2, -1) if len(x) == 2 else x * 2)
    x = torch.randn(2, *net.shape)
    nets.observe(net, x)
    with pytest.raises(SearchError, match=r"3 samples given, .* the example's 2 only"):
        to_integer(net, (x,))(torch.cat([x, x[:1]]))


def test_copies_give_the_same() -> None:
    net, x = made("residual")
    whole = to_integer(net, (x[:2],))
    other = to_integer(net, (x[:2],))
    other.load_state_dict(whole.state_dict())
    for copied in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole)), other):
        assert torch.equal(copied.codes(x), whole.codes(x))


def test_weights_are_int8_and_biases_int32() -> None:
    net, x = made("residual")
    state = to_integer(net, (x[:2],)).state_dict()
    kinds = {kind: {t.dtype for n, t in state.items() if kind in n} for kind in ("weight", "bias")}
    assert kinds == {"weight": {torch.int8}, "bias": {torch.int32}}
    assert sum("weight" in name for name in state) == 3


@pytest.mark.parametrize("name", ["addmm", "product", "turned product"])
def test_a_product_is_a_linear_layer_of_int8_weights(name: str) -> None:
    net, x = made(name)
    state = to_integer(net, (x[:2],)).state_dict()
    (weight,) = (t for n, t in state.items() if "weight" in n)
    assert weight.dtype is torch.int8 and weight.shape == (7, 12)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, w, b: torch.addmm(b, x, w, alpha=2), "addmm, .*: alpha and beta must be 1"),
        (lambda x, w, b: torch.addmm(x[:, :7], x, w), "addmm, .*: what it adds is no bias"),
    ],
)
def test_a_product_that_is_no_layer_is_refused(function: Any, said: str) -> None:
    net = nets.OneLayer(nets.Product(12, 7, function), (12,))
    x = torch.randn(2, 12)
    nets.observe(net, x)
    with pytest.raises(SearchError, match=said):
        to_integer(net, (x,))


def test_tables_reproduce_the_float_model_exactly() -> None:
    net, x = made("tables")
    with torch.no_grad():
        assert torch.equal(to_integer(net, (x[:2],))(x), net(x))


def test_halves_go_to_even() -> None:
    net = nets.Function(lambda x: x * 0.5)
    for act in (net.q_in, net.q_out):
        act.scale.fill_(0.25)
    x = torch.arange(-128, 128).view(4, 4, 4, 4) * 0.25
    assert torch.equal(to_integer(net, (x,))(x), net(x))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.softmax(1), "has no form of aten._softmax, layer ''"),
        (lambda x: F.layer_norm(x, (8,)), "has no form of aten.native_layer_norm"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "aten.scaled_dot_product_attention"),
        (lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)), "aten.convolution, .* not quantized"),
        (lambda x: x.sigmoid() * x.mean(), "has no form of aten.mul"),
    ],
)
def test_what_has_no_integer_form_is_named(function: Any, said: str) -> None:
    net = nets.Function(function)
    x = torch.randn(2, *net.shape)
    nets.observe(net, x)
    with pytest.raises(SearchError, match=said):
        to_integer(net, (x,))


def test_a_function_of_an_accumulator_needs_a_quantizer() -> None:
    net = nets.OneLayer(nn.Conv2d(4, 6, 3), function=F.gelu)
    x = torch.randn(2, *net.shape)
    nets.observe(net, x)
    with pytest.raises(SearchError, match=r"aten.gelu, layer ''"):
        to_integer(net, (x,))


def test_an_input_must_be_quantized() -> None:
    with pytest.raises(SearchError, match=r"aten.linear, layer '': it reads the input before"):
        to_integer(nn.Linear(3, 2), (torch.randn(1, 3),))


def test_an_accumulator_of_more_than_32_bits_is_refused() -> None:
    net = nets.OneLayer(nn.Linear(12, 7), (12,))
    x = torch.randn(2, *net.shape)
    nets.observe(net, x)
    net.layer.b_scale.fill_(1.0)
    net.layer.inner.bias.data.fill_(2e9)
    with pytest.raises(SearchError, match="32 bits"):
        to_integer(net, (x,))
