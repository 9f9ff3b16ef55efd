"""What is quantized where: the points of small nets, against lists made by hand."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.search import MPS
from hwcost.search.fold import fold_norms, plain_weights
from hwcost.search.quantized import QuantizedMethod
from hwcost.tracing import run

X = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


class Net(nn.Module):
    """Parts, and a forward that is given."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.code = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def conv(cin: int = 3, cout: int = 4, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 1, bias=bias)


def found(forward: Callable[..., Tensor], x: Tensor = X, **parts: nn.Module) -> QuantizedMethod:
    return method(Net(forward, **parts), x)


def method(net: nn.Module, x: Tensor = X) -> QuantizedMethod:
    torch.manual_seed(0)
    made = next(MPS(net, x).each_method())
    assert isinstance(made, QuantizedMethod)
    assert not made.missed
    return made


def points(made: QuantizedMethod) -> list[str]:
    """The name of each point, and "u" where nothing is negative, else "s"."""
    return [
        f"{plan.point.name} {'s' if signed else 'u'}"
        for plan, signed in zip(made.plans, made.signed, strict=True)
    ]


def test_a_sum_and_its_operands_share_a_scale() -> None:
    made = found(lambda m, x: m.b(y := m.a(x)) + y, a=conv(), b=conv(4))
    assert points(made) == ["model input s", "a s", "model add s"]
    assert [len(plan.point.sites) for plan in made.plans] == [1, 2, 1]


def test_concat_does_not_force_a_scale() -> None:
    made = found(
        lambda m, x: m.c(torch.cat([F.relu(m.a(x)), m.b(x)], 1)), a=conv(), b=conv(), c=conv(8)
    )
    assert points(made) == ["model input s", "model relu u", "b s", "model cat s", "c s"]


def test_a_layer_a_folded_norm_and_a_relu_have_one_point() -> None:
    net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(4))
    assert points(method(net)) == ["model input s", "2 u", "3 s"]


def test_a_norm_that_stands_alone_has_a_point() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), conv())
    assert points(method(net)) == ["model input s", "0 s", "1 s"]


def test_a_result_that_two_read_is_quantized_before_its_relu() -> None:
    made = found(lambda m, x: m.b(F.relu(y := m.a(x))) * y, a=conv(), b=conv(4))
    assert points(made) == ["model input s", "a s", "model relu u", "b s", "model mul s"]


@pytest.mark.parametrize(
    "through",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: x[:, :, 1:3],
        lambda x: F.pad(x, (1, 1)),
        lambda x: x.permute(0, 1, 3, 2),
        lambda x: F.interpolate(x, scale_factor=2),
        nn.Dropout(0.5).eval(),
        lambda x: x.flip(2),
    ],
    ids=["max pool", "slice", "padding", "permute", "nearest", "dropout", "flip"],
)
def test_what_moves_numbers_stays_on_their_grid(through: Callable[[Tensor], Tensor]) -> None:
    made = found(lambda m, x: m.b(through(torch.tanh(m.a(x)))), a=conv(), b=conv(4))
    assert points(made) == ["model input s", "a s", "model tanh s", "b s"]


@pytest.mark.parametrize(
    ("name", "function", "sign"),
    [
        ("mean", lambda x: x.mean((2, 3), keepdim=True), "s"),
        ("mul", lambda x: x * 0.3, "s"),
        ("sigmoid", torch.sigmoid, "u"),
        ("softmax", lambda x: x.softmax(1), "u"),
        ("avg_pool2d", lambda x: F.avg_pool2d(x, 2), "s"),
        ("gelu", F.gelu, "s"),
        ("exp", lambda x: x.exp(), "u"),
    ],
)
def test_results_of_functions_are_quantized(
    name: str, function: Callable[[Tensor], Tensor], sign: str
) -> None:
    made = found(lambda m, x: m.b(function(m.a(x))), a=conv(), b=conv(4))
    assert points(made) == ["model input s", "a s", f"model {name} {sign}", "b s"]


@pytest.mark.parametrize(
    ("activation", "sign"),
    [
        (nn.ReLU(), "u"),
        (nn.ReLU6(), "u"),
        (nn.Hardtanh(), "s"),
        (nn.Hardtanh(0, 1), "u"),
        (nn.ReLU(inplace=True), "u"),
        (nn.Threshold(0.0, 0.0), "u"),
        (nn.Threshold(-1.0, -1.0), "s"),
    ],
    ids=str,
)
def test_activations_that_clip_are_one_with_their_layer(activation: nn.Module, sign: str) -> None:
    assert points(method(nn.Sequential(conv(), activation, conv(4)))) == [
        "model input s",
        f"1 {sign}",
        "2 s",
    ]


def test_a_sum_of_positive_tensors_is_unsigned() -> None:
    made = found(lambda m, x: m.b(F.relu(m.a(x)) + F.relu(m.c(x))), a=conv(), b=conv(4), c=conv())
    assert points(made) == ["model input s", "model relu u", "model add u", "b s"]


def test_a_difference_of_positive_tensors_is_signed() -> None:
    made = found(lambda m, x: m.b(F.relu(m.a(x)) - F.relu(m.c(x))), a=conv(), b=conv(4), c=conv())
    assert points(made) == ["model input s", "model relu u", "model sub s", "b s"]


def test_a_sum_with_a_negative_number_is_signed() -> None:
    made = found(lambda m, x: m.b(F.relu(m.a(x)) + -0.5), a=conv(), b=conv(4))
    assert points(made)[2] == "model add s"


def test_an_addend_that_may_be_negative_makes_its_group_signed() -> None:
    made = found(lambda m, x: m.b(F.relu(m.a(x)) + m.c(x)), a=conv(), b=conv(4), c=conv())
    assert points(made) == ["model input s", "model relu s", "model add s", "b s"]


def test_an_input_without_negatives_is_unsigned() -> None:
    assert points(method(nn.Sequential(conv(), conv(4)), X.abs()))[0] == "model input u"


def test_operations_in_place_are_points() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)  # type: ignore[operator]
        y += m.c(x)  # type: ignore[operator]
        y.mul_(0.5)
        return m.b(y.relu_())  # type: ignore[no-any-return,operator]

    made = found(forward, a=conv(), b=conv(4), c=conv())
    assert points(made) == [
        *("model input s", "a s", "model add_ s", "model relu_ u", "b s"),
    ]


def test_a_module_called_twice_has_a_point_for_each_result() -> None:
    made = found(lambda m, x: m.b(m.a(m.a(x))), a=conv(3, 3), b=conv())
    # One weight reads input and first result, which therefore share a scale.
    assert points(made) == ["model input s", "a call 1 s", "b s"]
    assert [len(plan.point.sites) for plan in made.plans] == [2, 1, 1]


def test_a_branch_for_training_only_leaves_numbers_of_sites_right() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(), conv(4)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x + torch.sigmoid(x) * 0
            y = torch.sigmoid(self.a(x))
            z: Tensor = self.b(y)
            return z

    search = MPS(Noisy(), X, w_bits=8).train()
    search(X)  # ranges
    codes: list[Tensor] = []
    search.model.get_submodule("b").register_forward_pre_hook(
        lambda module, args: codes.append(args[0] * 255)
    )
    scale = next(search.each_method()).get_submodule("scales").scales()[2]  # type: ignore[operator]
    search(X)
    held = codes[0] / 255 / scale
    assert torch.allclose(held, held.round(), atol=1e-3)


def test_attention_has_its_projections_scores_and_products() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inside(x, x, x, need_weights=False)[0]
            return out

    made = method(Attends(), torch.linspace(-1, 1, 80).view(2, 5, 8))
    weights = [layer.name for layer in made.layers]
    assert weights == ["inside.in_proj_weight", "inside.out_proj.weight"]
    assert len(made.plans) >= 4 and all(layer.layer.point >= 0 for layer in made.layers)


def test_every_layer_reads_a_point() -> None:
    made = found(lambda m, x: m.b(F.relu(m.a(x))), a=conv(), b=conv(4))
    assert [layer.layer.point for layer in made.layers] == [0, 1]


def test_inputs_and_outputs_have_8_bits_whatever_is_searched() -> None:
    search = MPS(nn.Sequential(conv(), nn.ReLU(), conv(4)), X, a_bits=(2, 4))
    made = next(search.each_method())
    assert isinstance(made, QuantizedMethod)
    assert [plan.bits for plan in made.plans] == [(8,), (2, 4), (8,)]


# Norms that are folded.


def folded(net: nn.Module, x: Tensor) -> tuple[list[str], nn.Module]:
    copied = copy.deepcopy(net).double().eval()
    plain_weights(copied)
    return fold_norms(copied, run(copied, x.double()).recording), copied


@torch.no_grad()
def norm(kind: type[nn.Module], channels: int, **options: bool) -> nn.Module:
    made = kind(channels, **options)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.3, 2)
    return made


FOLDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), lambda: norm(nn.BatchNorm1d, 4), (3, 9)),
    "conv2d": (
        lambda: nn.Conv2d(3, 4, 3, bias=False),
        lambda: norm(nn.BatchNorm2d, 4),
        (3, 6, 6),
    ),
    "conv3d": (lambda: nn.Conv3d(3, 4, 2), lambda: norm(nn.BatchNorm3d, 4), (3, 4, 4, 4)),
    "depthwise": (
        lambda: nn.Conv2d(4, 4, 3, groups=4),
        lambda: norm(nn.BatchNorm2d, 4),
        (4, 6, 6),
    ),
    "transposed": (
        lambda: nn.ConvTranspose2d(3, 4, 3),
        lambda: norm(nn.BatchNorm2d, 4),
        (3, 6, 6),
    ),
    "linear": (lambda: nn.Linear(5, 4), lambda: norm(nn.BatchNorm1d, 4), (5,)),
    "no affine": (
        lambda: nn.Conv2d(3, 4, 3),
        lambda: norm(nn.BatchNorm2d, 4, affine=False),
        (3, 6, 6),
    ),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: norm(nn.BatchNorm2d, 4),
        (3, 6, 6),
    ),
}


@pytest.mark.parametrize("what", FOLDS)
def test_a_folded_norm_computes_the_same(what: str) -> None:
    layer, after, shape = FOLDS[what]
    torch.manual_seed(1)
    net, x = nn.Sequential(layer(), after()).eval(), torch.randn(4, *shape)
    gone, short = folded(net, x)
    assert gone == ["1"] and type(short.get_submodule("1")) is nn.Identity
    expected = copy.deepcopy(net).double()(x.double())
    assert torch.allclose(short(x.double()), expected, rtol=1e-5, atol=1e-6)


STANDING: dict[str, Callable[[], nn.Module]] = {
    "statistics of the batch": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(4, track_running_stats=False)
    ),
    "a ReLU between": lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4)),
    "two readers": lambda: Net(
        lambda m, x: m.n(y := m.a(x)) + y, a=conv(), n=norm(nn.BatchNorm2d, 4)
    ),
    "a layer called twice": lambda: Net(
        lambda m, x: m.n(m.a(m.a(x))), a=conv(3, 3), n=norm(nn.BatchNorm2d, 3)
    ),
    "transposed in groups": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 6, 2, groups=3), norm(nn.BatchNorm2d, 6)
    ),
}


@pytest.mark.parametrize("why", STANDING)
def test_a_norm_that_cannot_be_folded_stands(why: str) -> None:
    gone, _ = folded(STANDING[why](), X)
    assert not gone


def test_the_users_norm_is_kept() -> None:
    net = nn.Sequential(conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(), conv(4))
    before = copy.deepcopy(net.state_dict())
    MPS(net, X)
    assert type(net[1]) is nn.BatchNorm2d and net[0].bias is None
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_norms_without_affine_and_bias_are_folded_in_a_search() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False), conv(4))
    search = MPS(net, X)
    assert [name for name, _ in search.model.named_parameters()] == [
        *("0.weight", "0.bias", "2.weight", "2.bias"),
    ]


class Products(nn.Module):
    """Layers written as products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(5, 8))
        self.b = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.addmm(self.b, x, self.w)) @ self.v.t()


def test_weights_of_matrix_products_are_quantized() -> None:
    example = torch.randn(3, 6)
    cost = {"bytes": "counts:weight_bytes"}
    search = MPS(Products(), example, w_bits=(2, 8), granularity="channel", cost=cost)
    method = search.methods[0]
    assert isinstance(method, QuantizedMethod)
    found = [(w.name, w.layer.axis, w.layer.bias) for w in method.layers]
    assert found == [("w", 1, "b"), ("v", 0, None)]
    with torch.no_grad():
        for logits in search.nas_parameters():
            logits.normal_(generator=torch.Generator().manual_seed(0))
    search.eval().double()
    assert torch.equal(search.export().eval()(example.double()), search(example.double()))
    assert float(search.get_cost("bytes", hard=True)) == float(search.estimate("bytes"))


class Own(nn.Module):
    """A function of the input and a parameter, and a linear layer."""

    def __init__(self, function: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(torch.randn(shape)), function
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.function(x, self.w)))
        return out


#: Way to read a weight on inputs (3, 7, 6) -> the net, and its axis of channels, None if it stays.
READ: dict[str, tuple[Callable[[], Own], int | None]] = {
    "einsum": (lambda: Own(lambda x, w: torch.einsum("bti,io->bto", x, w), 6, 8), 1),
    "einsum turned": (lambda: Own(lambda x, w: torch.einsum("bti,oi->bot", x, w), 8, 6), 0),
    "tensordot": (lambda: Own(lambda x, w: torch.tensordot(x, w, 1), 6, 8), 1),
    "one channel": (lambda: Own(lambda x, w: x @ w.t(), 1, 6), 0),
    "a convolution": (lambda: Own(lambda x, w: F.conv1d(x, w[:, :, None]), 8, 7), 0),
    "a part": (lambda: Own(lambda x, w: F.linear(x, w[2:6]), 8, 6), 0),
    "a reshaped matrix": (lambda: Own(lambda x, w: x @ w.view(6, 8), 8, 6), None),
    "channels in two dimensions": (lambda: Own(lambda x, w: x @ w.view(6, 8), 6, 2, 4), None),
    "heads": (lambda: Own(lambda x, w: F.linear(x, w.view(8, 6)), 2, 4, 6), None),
    "from the left": (lambda: Own(lambda x, w: w @ x.transpose(1, 2), 8, 6), None),
}


@pytest.mark.parametrize("way", READ)
def test_a_weight_is_quantized_where_a_dimension_of_it_is_the_channels(way: str) -> None:
    torch.manual_seed(0)
    make, axis = READ[way]
    x = torch.randn(3, 7, 6)
    net = make()
    net(x)
    search = MPS(net, x, w_bits=(2, 8), granularity="channel")
    method = search.methods[0]
    assert isinstance(method, QuantizedMethod)
    assert {w.name: w.layer.axis for w in method.layers}.get("w") == axis
    assert [line.startswith("w: as ") for line in method.missed] == [True] * (axis is None)
    search.eval().double()
    assert torch.equal(search.export().eval()(x.double()), search(x.double()))
