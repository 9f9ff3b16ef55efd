"""A traced op table: kinds, sizes, names, what is stored once, and clear errors."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.errors import HwcostWarning, TraceError
from hwcost.ops import SIZES, kind_sizes
from hwcost.tracing import trace
from hwcost.workload import Workload
from tests.models import MODELS, Function, Subject, weight
from tests.sizes import layers_of, sizes_of, total

ignore_unknown = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

#: What one of these does, nobody prices: heavy, and rare on small targets.
WITH_UNKNOWN = {"sampling_at_computed_places", "fourier_transform"}

#: Parameters that this run does not use, or that the module does not know.
WITH_OTHER_PARAMS = {
    *("branch_on_data", "branch_of_a_compiler", "an_exception_caught", "modules_in_a_plain_list"),
}


def traced(name: str) -> tuple[Subject, Workload]:
    model, args = MODELS[name]()
    return (model, args), trace(model, args)


@ignore_unknown
@pytest.mark.parametrize("name", MODELS)
def test_what_runs_traces_to_named_rows_of_complete_sizes(name: str) -> None:
    _, workload = traced(name)
    assert len(set(workload.layers)) == len(workload) > 0
    for row, kind in enumerate(workload.kinds):
        has = {n for n in SIZES if not bool(workload.column(n)[row].isnan())}
        assert has == set(kind_sizes(kind)) - {"w_bits", "a_bits", "o_bits"}


@pytest.mark.parametrize("name", MODELS)
def test_only_what_is_rare_is_unknown(name: str) -> None:
    model, args = MODELS[name]()
    if name in WITH_UNKNOWN:
        with pytest.warns(HwcostWarning, match="layer .* is an op of no known kind"):
            workload = trace(model, args)
        assert len(workload.structure.warnings) == workload.kinds.count("unknown")
    else:
        assert "unknown" not in trace(model, args).kinds


@ignore_unknown
@pytest.mark.parametrize("name", sorted(set(MODELS) - WITH_OTHER_PARAMS))
def test_every_parameter_is_stored_once(name: str) -> None:
    (model, _), workload = traced(name)
    assert total(workload, "params") == sum(p.numel() for p in model.parameters())


@ignore_unknown
@pytest.mark.parametrize("name", MODELS)
def test_a_trace_is_reproducible(name: str) -> None:
    model, args = MODELS[name]()
    first, second = trace(model, args), trace(model, args)
    assert (first.layers, first.kinds) == (second.layers, second.kinds)
    for column in SIZES:
        torch.testing.assert_close(first.column(column), second.column(column), equal_nan=True)


@ignore_unknown
@pytest.mark.parametrize("name", MODELS)
def test_no_buffer_is_read_before_it_is_written(name: str) -> None:
    _, workload = traced(name)
    buffers = workload.structure.buffers
    assert buffers is not None
    assert bool((buffers.first <= buffers.last).all())
    assert bool(((buffers.reader < 0) | (buffers.first <= buffers.reader)).all())
    assert bool((buffers.last <= len(workload)).all() and (buffers.elements >= 0).all())


def test_sizes_of_a_convolution() -> None:
    model = nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=4)
    sizes = sizes_of(trace(model, torch.ones(3, 8, 16, 20)), "conv2d")
    named = {"batch": 3, "cin": 8, "cout": 12, "groups": 4, "bias": 1, "weight": 1, "fused": 0}
    height = {"kh": 3, "sh": 2, "dh": 1, "ih": 16, "oh": 8}
    width = {"kw": 5, "sw": 1, "dw": 2, "iw": 20, "ow": 12}
    depth = {"kd": 1, "sd": 1, "dd": 1, "id": 1, "od": 1}
    shares = {"density": 1, "w_once": 1, "bias_once": 1}
    assert sizes == {**named, **depth, **height, **width, **shares}


def test_a_1d_convolution_has_its_length_in_the_width() -> None:
    sizes = sizes_of(trace(nn.Conv1d(2, 3, 5, bias=False), torch.ones(1, 2, 20)), "conv1d")
    assert [sizes[name] for name in ("kh", "kw", "ih", "iw", "oh", "ow")] == [1, 5, 1, 20, 1, 16]
    assert sizes["bias"] == 0


def test_sizes_of_a_transposed_convolution() -> None:
    model = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    sizes = sizes_of(trace(model, torch.ones(1, 4, 5, 5)), "conv_transpose2d")
    assert [sizes[n] for n in ("cin", "cout", "groups", "ih", "oh")] == [4, 6, 2, 5, 11]


@pytest.mark.parametrize("shape, batch, positions", [((3, 8), 3, 1), ((3, 5, 2, 8), 3, 10)])
def test_sizes_of_a_linear_layer(shape: tuple[int, ...], batch: int, positions: int) -> None:
    sizes = sizes_of(trace(nn.Linear(8, 4), torch.ones(shape)), "linear")
    assert (sizes["batch"], sizes["positions"]) == (batch, positions)
    assert (sizes["cin"], sizes["cout"]) == (8, 4)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x @ m.w,
        lambda m, x: F.linear(x, m.w.t()),
        lambda m, x: torch.einsum("btc,cd->btd", x, m.w),
        lambda m, x: torch.tensordot(x, m.w, 1),
        lambda m, x: torch.bmm(x, m.w.expand(2, -1, -1)),
        lambda m, x: torch.addmm(torch.zeros(4), x.reshape(6, 8), m.w),
        lambda m, x: (m.w.t() @ x.transpose(1, 2)).transpose(1, 2),
        lambda m, x: torch.stack([row @ m.w for row in x.view(6, 8)[:1].expand(6, 8)[:1]]),
    ],
)
def test_a_product_with_a_parameter_is_a_linear_layer(forward: Any) -> None:
    workload = trace(Function(forward, w=weight(8, 4)), torch.ones(2, 3, 8))
    (layer,) = layers_of(workload, "linear")
    sizes = sizes_of(workload, layer)
    assert (sizes["cin"], sizes["cout"], sizes["w_once"]) == (8, 4, 1)
    assert "matmul" not in workload.kinds


def test_a_product_of_activations_is_a_matmul() -> None:
    model = Function(lambda m, a, b: a @ b)
    sizes = sizes_of(trace(model, (torch.ones(2, 3, 4, 5), torch.ones(3, 5, 7))), "matmul")
    assert [sizes[n] for n in ("batch", "m", "n", "k")] == [6, 4, 7, 5]


def test_a_weight_that_is_computed_from_the_input_is_not_stored() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.linear(x, m.hyper(x).view(3, 4))

    workload = trace(Function(forward, hyper=nn.Linear(4, 12)), torch.ones(1, 4))
    assert total(workload, "params") == 4 * 12 + 12


def test_a_weight_that_a_parametrization_computes_stores_what_it_is_computed_from() -> None:
    _, workload = traced("parametrized_weights")
    assert workload.layers == ("0", "1", "2")
    # weight_norm keeps a length for each of the 8 channels beside the 8 x 3 x 3 x 3 weights.
    assert sizes_of(workload, "0")["w_once"] == 1 + 8 / 216


def test_a_table_that_two_layers_gather_from_is_stored_once() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        index = torch.arange(12) % 3
        first, second = (m.table[index + i].view(4, 3) for i in (0, 1))
        return x @ first + x @ second

    workload = trace(Function(forward, table=weight(4)), torch.ones(2, 4))
    assert workload.column("w_once")[:2].tolist() == [4 / 12, 0]


def test_attention_is_one_row_of_heads_and_lengths() -> None:
    model, args = MODELS["attention_of_other_widths"]()
    sizes = sizes_of(trace(model, args), "attention")
    # 6 keys and one that is learned.
    names = ("batch", "heads", "lq", "lk", "dhead", "dv")
    assert [sizes[n] for n in names] == [2, 4, 5, 7, 4, 4]


def test_grouped_queries_count_all_query_heads() -> None:
    _, workload = traced("grouped_query_attention_with_rotary_positions")
    sizes = sizes_of(workload, "attention")
    assert [sizes[n] for n in ("heads", "lq", "lk", "dhead")] == [4, 7, 7, 8]


def test_a_learned_mask_is_added_and_stored() -> None:
    _, workload = traced("attention_with_a_relative_position_table")
    assert workload.kinds == ("elementwise", "attention")
    assert sizes_of(workload, "attention.mask")["coeffs"] == 9


def test_layers_and_directions_of_a_recurrent_network_are_rows() -> None:
    _, workload = traced("lstm")
    assert workload.layers == ("lstm.l0", "lstm.l0_reverse", "lstm.l1", "lstm.l1_reverse")
    sizes = sizes_of(workload, "lstm.l1")
    names = ("batch", "positions", "cin", "cout", "hidden", "gates", "proj", "bias")
    assert [sizes[n] for n in names] == [2, 5, 8, 4, 8, 4, 1, 1]


def test_a_cell_is_a_row_at_each_step_and_stored_once() -> None:
    _, workload = traced("cells_in_a_loop")
    assert [layer for layer in workload.layers if layer.startswith("gru")] == [
        *("gru", "gru#2", "gru#3", "gru#4", "gru#5")
    ]
    once = [sizes_of(workload, name)["w_once"] for name in ("gru", "gru#2", "gru#5")]
    assert once == [1, 0, 0]


@pytest.mark.parametrize(
    "layer, kernel, stride",
    [
        (nn.MaxPool2d((2, 3), 2, 1), (2, 3), (2, 2)),
        (nn.AvgPool2d(3), (3, 3), (3, 3)),
        (nn.AdaptiveAvgPool2d(1), (12, 9), (12, 9)),
        (nn.AdaptiveMaxPool2d((3, 2)), (4, 5), (4, 4)),
        (Function(lambda m, x: x.mean((-1, -2))), (12, 9), (12, 9)),
        (Function(lambda m, x: x.amax((2, 3), keepdim=True)), (12, 9), (12, 9)),
    ],
)
def test_poolings_have_windows(
    layer: nn.Module, kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    workload = trace(layer, torch.ones(2, 5, 12, 9))
    assert workload.kinds == ("pool",)
    sizes = sizes_of(workload, workload.layers[0])
    assert (sizes["kh"], sizes["kw"]) == kernel
    assert (sizes["sh"], sizes["sw"]) == stride
    assert (sizes["batch"], sizes["cin"], sizes["cout"]) == (2, 5, 5)


def test_a_mean_over_channels_is_no_pooling() -> None:
    workload = trace(Function(lambda m, x: x.mean(1)), torch.ones(2, 5, 12, 9))
    sizes = sizes_of(workload, "mean")
    assert workload.kinds == ("elementwise",)
    assert (sizes["elements"], sizes["reads"]) == (2 * 12 * 9, 5)


@pytest.mark.parametrize(
    "layer, coeffs",
    [
        (nn.BatchNorm2d(4), 8),
        (nn.LayerNorm((4, 6, 6)), 2 * 144),
        (nn.GroupNorm(2, 4), 8),
        (nn.InstanceNorm2d(4, affine=True), 8),
        (nn.InstanceNorm2d(4), 0),
        (nn.RMSNorm(6), 6),
    ],
)
def test_normalisations_count_their_scale_and_shift(layer: nn.Module, coeffs: int) -> None:
    workload = trace(layer, torch.ones(1, 4, 6, 6))
    assert workload.kinds == ("norm",)
    assert sizes_of(workload, workload.layers[0])["coeffs"] == coeffs


def test_activations_are_functions_of_one_number() -> None:
    _, workload = traced("activations")
    ran = dict(zip(workload.layers, workload.kinds, strict=True))
    # The four that torch makes of arithmetic have rows for it: 16 Softsign, 17 Tanhshrink.
    names = [str(i) for i in range(1, 23) if str(i) in ran]
    assert {ran[name] for name in names} == {"activation"}
    assert sizes_of(workload, "9")["coeffs"] == 1
    assert len(names) >= 19


@pytest.mark.parametrize(
    "forward, kind",
    [
        (lambda m, x: x * x, "elementwise"),
        (lambda m, x: x - 1, "elementwise"),
        (lambda m, x: torch.where(x > 0, x, x * 2), "elementwise"),
        (lambda m, x: x.clamp(0, 6), "activation"),
        (lambda m, x: x.exp(), "activation"),
        (lambda m, x: x.cumsum(1), "elementwise"),
        (lambda m, x: x.argmax(1), "elementwise"),
        (lambda m, x: x.softmax(1), "softmax"),
        (lambda m, x: torch.cat([x, x], 1), "copy"),
        (lambda m, x: torch.stack([x, x]), "copy"),
        (lambda m, x: F.pad(x, (1, 2), value=1.0), "copy"),
        (lambda m, x: x.repeat(2, 2), "copy"),
        (lambda m, x: x.flip(0), "copy"),
        (lambda m, x: x.t().contiguous(), "copy"),
        (lambda m, x: x[torch.tensor([1, 0])], "copy"),
        (lambda m, x: x.double(), "copy"),
        (lambda m, x: x.gather(1, torch.zeros(2, 3, dtype=torch.int64)), "copy"),
        (lambda m, x: F.interpolate(x[None], scale_factor=2), "copy"),
    ],
)
def test_the_last_op_has_its_kind(forward: Any, kind: str) -> None:
    assert trace(Function(forward), torch.ones(2, 3)).kinds[-1] == kind


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x.view(-1)[2:].unsqueeze(0).expand(3, -1).t().detach() + 1,
        lambda m, x: torch.zeros_like(x).to(x.dtype) + x,
        lambda m, x: x + m.table.softmax(0) * m.table.sum(),
        lambda m, x: x + float(x.shape[0]),
    ],
)
def test_views_factories_and_constants_have_no_rows(forward: Any) -> None:
    workload = trace(Function(forward, table=weight(3)), torch.ones(2, 3))
    assert workload.layers == ("add",)


def test_tokens_that_choose_an_expert_read_one_of_several_matrices() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        ends = torch.tensor([2, 2, 6], dtype=torch.int32, device=x.device)
        return torch.ops.aten._grouped_mm(x, m.w, ends)

    model = Function(forward, w=weight(3, 8, 16))
    workload = trace(model.bfloat16(), torch.ones(6, 8, dtype=torch.bfloat16))
    assert total(workload, "macs") == 6 * 8 * 16
    assert total(workload, "params") == 3 * 8 * 16


def test_learned_queries_count_as_stored_with_the_layer_that_reads_them() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.q(m.queries) @ x

    parts = {"q": nn.Linear(4, 4), "queries": weight(2, 4)}
    workload = trace(Function(forward, **parts), torch.ones(4, 3))
    assert total(workload, "params") == 4 * 4 + 4 + 2 * 4


def test_a_layer_on_learned_queries_runs_at_every_inference() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(m.q(m.queries), x, x)

    parts = {"q": nn.Linear(4, 4), "queries": weight(1, 2, 4)}
    workload = trace(Function(forward, **parts), torch.ones(1, 3, 4))
    assert workload.layers == ("q", "attention")


def test_a_fixed_filter_counts_as_stored() -> None:
    model = Function(lambda m, x: F.conv2d(x, m.blur))
    model.register_buffer("blur", torch.ones(1, 1, 3, 3))
    assert total(trace(model, torch.ones(1, 1, 4, 4)), "params") == 9


def test_what_comes_from_parameters_alone_still_counts_as_stored() -> None:
    model = Function(lambda m, x: x + m.table.softmax(0), table=weight(3))
    assert total(trace(model, torch.ones(2, 3)), "params") == 3


def test_a_lookup_table_is_counted_whole_and_once() -> None:
    _, workload = traced("language_model_with_tied_weights")
    assert workload.layers == ("embedding", "add", "head")
    sizes = sizes_of(workload, "embedding")
    assert (sizes["elements"], sizes["coeffs"]) == (2 * 6 * 16, 50 * 16)
    assert sizes_of(workload, "head")["w_once"] == 0
    # The places are looked up before inference; their table is still stored.
    assert sizes_of(workload, "add")["coeffs"] == 6 * 16


def test_a_broadcast_operand_is_read_once() -> None:
    model = Function(lambda m, x, y: x + y.expand(4, 6))
    workload = trace(model, (torch.ones(4, 6), torch.ones(1, 6)))
    assert sizes_of(workload, "add")["reads"] == 1 + 6 / 24


def test_names_of_functions_in_a_module() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.relu(m.c(F.relu(x)) + x)

    inner = Function(forward, c=nn.Conv2d(3, 3, 1))
    workload = trace(nn.Sequential(OrderedDict(block=inner)), torch.ones(1, 3, 4, 4))
    assert workload.layers == ("block.relu", "block.c", "block.add", "block.relu_1")


def test_names_of_a_module_called_twice() -> None:
    inner = Function(lambda m, x: F.relu(m.c(x)) + x, c=nn.Linear(3, 3))
    workload = trace(Function(lambda m, x: m.b(m.b(x)), b=inner), torch.ones(1, 3))
    assert workload.layers == ("b.c", "b.relu", "b.add", "b.c#2", "b.relu#2", "b.add#2")


def test_names_of_weights_that_a_parent_uses() -> None:
    workload = trace(nn.MultiheadAttention(8, 2), (torch.ones(5, 1, 8),) * 3)
    assert layers_of(workload, "linear") == ["in_proj", "out_proj"]


def test_functions_say_what_ran() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    functions = trace(model, torch.ones(1, 1, 4, 4)).structure.functions
    assert functions == ("conv2d", "relu", "max_pool2d")


def test_an_op_in_place_is_fused() -> None:
    model = Function(lambda m, x: (x + 1).mul_(2))
    assert sizes_of(trace(model, torch.ones(3)), "mul")["fused"] == 1


def test_a_normalisation_that_measures_is_not_fused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2))
    assert sizes_of(trace(model, torch.ones(1, 1, 4, 4)), "1")["fused"] == 0


def test_bits_are_open_unless_given() -> None:
    workload = trace(nn.Linear(4, 4), torch.ones(1, 4))
    assert bool(workload.column("w_bits").isnan())
    given = trace(nn.Linear(4, 4), torch.ones(1, 4), w_bits=2, a_bits=8)
    assert (given.column("w_bits").item(), given.column("a_bits").item()) == (2, 8)


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class OneInput(nn.Module):
    def forward(self, inputs: Any) -> Tensor:
        first, second = inputs.values() if isinstance(inputs, dict) else inputs
        return first + second  # type: ignore[no-any-return]


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


@pytest.mark.parametrize(
    "model, example",
    [
        (TwoInputs(), (torch.ones(3), torch.ones(3))),
        (TwoInputs(), [torch.ones(3), torch.ones(3)]),
        (TwoInputs(), {"x": torch.ones(3), "y": torch.ones(3)}),
        (OneInput(), (torch.ones(3), torch.ones(3))),
        (OneInput(), [torch.ones(3), torch.ones(3)]),
        (OneInput(), {"x": torch.ones(3), "y": torch.ones(3)}),
        (OneInput(), {"inputs": [torch.ones(3), torch.ones(3)]}),
        (OneInput(), Pair(torch.ones(3), torch.ones(3))),
    ],
)
def test_examples_of_several_tensors(model: nn.Module, example: Any) -> None:
    assert trace(model, example).layers == ("add",)


def test_an_input_shape_gets_a_batch_of_one() -> None:
    sizes = sizes_of(trace(nn.Conv2d(3, 4, 1), input_shape=(3, 8, 6)), "conv2d")
    assert [sizes[n] for n in ("batch", "cin", "ih", "iw")] == [1, 3, 8, 6]


def test_several_input_shapes() -> None:
    workload = trace(TwoInputs(), input_shape=((3, 4), (3, 1)))
    assert sizes_of(workload, "add")["elements"] == 12


def test_an_input_of_a_shape_has_the_type_of_the_model() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        assert x.dtype == torch.float64
        return m.l(x) if float(x.sum()) else x

    trace(Function(forward, l=nn.Linear(3, 3).double()), input_shape=(3,))


def test_input_example_is_another_name() -> None:
    assert trace(nn.ReLU(), input_example=torch.ones(3)).kinds == ("activation",)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, r"pass example=\.\.\. or input_shape=\.\.\."),
        ({"example": torch.ones(1), "input_shape": (3,)}, "takes one of"),
        ({"input_shape": (3, -1)}, r"\(3, -1\); expected whole numbers above 0"),
        ({"input_shape": (3.5,)}, "expected whole numbers"),
        ({"input_shape": "3x3"}, "expected whole numbers"),
        ({"example": torch.ones(1, 5)}, r"RuntimeError.*shapes: \(1, 5\)"),
        ({"example": "image.png"}, "no tensors"),
    ],
)
def test_a_wrong_example_is_one_clear_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        trace(nn.Linear(3, 3), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [nn.Linear, lambda x: x, None])
def test_a_model_must_be_a_module(model: Any) -> None:
    with pytest.raises(TraceError, match=r"needs an nn\.Module"):
        trace(model, torch.ones(1))


def test_a_model_that_computes_nothing_is_an_error() -> None:
    with pytest.raises(TraceError, match="Identity computed nothing"):
        trace(nn.Identity(), torch.ones(1))


def test_an_unknown_op_is_a_row_and_a_warning_never_dropped() -> None:
    model, args = MODELS["fourier_transform"]()
    with pytest.warns(HwcostWarning, match=r"layer 'fft_rfft': 'aten\._fft_r2c\.default'"):
        workload = trace(model, args)
    assert sizes_of(workload, "fft_rfft")["elements"] == 2 * 9


def test_a_model_on_the_meta_device_traces() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10**6, 10**6), nn.ReLU())
    assert total(trace(model, torch.ones(1, 10**6)), "macs") == 10**12


def test_a_model_on_the_meta_device_that_reads_numbers_is_an_error() -> None:
    with torch.device("meta"):
        model = Function(lambda m, x: m.l(x) if x.sum() > 0 else x, l=nn.Linear(3, 3))
    with pytest.raises(TraceError, match="meta"):
        trace(model, torch.ones(1, 3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it loads dynamo
def test_a_compiled_model_traces_like_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    image = torch.ones(1, 3, 8, 8)
    compiled: Any = torch.compile(model)
    assert trace(compiled, image).layers == trace(model, image).layers == ("0", "1.0")


def test_a_parametrization_with_a_layer_inside_is_computed_before() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(4, 4)

        def forward(self, w: Tensor) -> Any:
            return self.mix(w)

    model = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(model, "weight", Scaled())
    workload = trace(nn.Sequential(model), torch.ones(1, 4))
    assert workload.layers == ("0",)


COLD = """
import sys
from hwcost import trace, zoo
model, example = zoo.ds_cnn()
trace(model, example)
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""


@pytest.mark.slow
def test_the_first_trace_loads_no_compiler() -> None:
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", COLD],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    dynamo, sympy = run.stdout.split()
    assert (dynamo, sympy) == ("False", "False")
