"""Bits, engines and parts of rows of a network that rounds its tensors itself."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost import CostModel, Workload
from hwcost.ops import SIZES
from hwcost.recorder_quantize import fake_quantize
from hwcost.tracing import Traced, run
from tests.models import Function, weight


def q(x: Tensor, bits: int = 8, label: str = "") -> Tensor:
    """Activations at some bits."""
    found: Tensor = fake_quantize(x, x.new_ones(1), [bits], [0], [2**bits - 1], 0, label, "")
    return found


def qw(
    x: Tensor, bits: Sequence[int] = (8,), axis: int = 0, engines: str = "", label: str = ""
) -> Tensor:
    """Weights at some bits, one number or one for each channel."""
    high = [2 ** (b - 1) - 1 for b in bits]
    low, scale = [-h for h in high], x.new_ones(len(bits))
    found: Tensor = fake_quantize(x, scale, list(bits), low, high, axis, label, engines)
    return found


def traced(
    forward: Callable[..., Any], shape: tuple[int, ...] = (1, 4, 6, 6), **parts: Any
) -> Traced:
    return run(Function(forward, **parts), torch.ones(shape))


def rows(found: Traced, *names: str) -> list[tuple[float, ...]]:
    """The columns of each row, NaN as -1."""
    columns = [found.workload.column(name).nan_to_num(-1).tolist() for name in names]
    return list(zip(*columns, strict=True))


BITS = ("w_bits", "a_bits", "o_bits")


def test_a_conv_has_the_bits_of_its_weight_input_and_result() -> None:
    found = traced(lambda m, x: q(F.conv2d(q(x, 8), qw(m.w, [4])), 2), w=weight(8, 4, 3, 3))
    assert rows(found, *BITS) == [(4, 8, 2)]


def test_a_float_model_leaves_bits_open() -> None:
    found = traced(lambda m, x: F.conv2d(x, m.w), w=weight(8, 4, 3, 3))
    assert rows(found, *BITS) == [(-1, -1, -1)]
    assert found.quantizers == [(-1, -1, -1)]
    assert found.workload.structure.unsplit == {}


def test_channels_at_other_bits_are_other_rows_of_the_same_op() -> None:
    found = traced(lambda m, x: F.conv2d(x, qw(m.w, [8, 2, 4, 2, 8, 2])), w=weight(6, 4, 3, 3))
    assert rows(found, "w_bits", "cin", "cout") == [(2, 4, 3), (4, 4, 1), (8, 4, 2)]
    assert found.workload.structure.ops.tolist() == [0, 0, 0]
    assert found.workload.layers == ("w",) * 3
    assert len(set(found.calls)) == 1


def test_bits_in_a_module_keep_its_name() -> None:
    class Rounded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, qw(self.weight, [2, 4]), qw(self.bias, [32, 32]))  # type: ignore[arg-type]

    found = run(nn.Sequential(Rounded(4, 2, 1)), torch.ones(1, 4, 6, 6)).workload
    assert found.layers == ("0", "0")
    assert found.column("bias").tolist() == [1, 1]


class Stored(nn.Conv2d):
    """A convolution that keeps its scales: a buffer of the weights', a parameter of its own."""

    def __init__(self, cin: int, cout: int, k: int) -> None:
        super().__init__(cin, cout, k)
        self.register_buffer("steps", torch.full((cout,), 0.1))
        self.clip = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        high = [1] + [127] * (self.out_channels - 1)
        bits, steps = [2] + [8] * (self.out_channels - 1), self.get_buffer("steps")
        w = fake_quantize(self.weight, steps, bits, [-h for h in high], high, 0, "", "")
        y: Tensor = fake_quantize(F.conv2d(x, w), self.clip.abs(), [4], [0], [15], 0, "", "")
        return y if float(y.detach().sum()) > -1 else -y  # branches on data: real tensors


@pytest.mark.parametrize("branches", [False, True])
def test_scales_are_not_stored_with_the_weights(branches: bool) -> None:
    class Straight(Stored):
        def forward(self, x: Tensor) -> Tensor:
            w = fake_quantize(self.weight, self.steps, [2, 8], [-1, -127], [1, 127], 0, "", "")
            y: Tensor = fake_quantize(F.conv2d(x, w), self.clip.abs(), [4], [0], [15], 0, "", "")
            return y

    found = run((Stored if branches else Straight)(4, 2, 1), torch.ones(1, 4, 6, 6))
    assert found.recording.how == ("real" if branches else "meta")
    table = found.workload
    assert table.column("w_once")[:2].tolist() == [1, 1]
    assert rows(found, "w_bits", "o_bits", "cout")[:2] == [(2, 4, 1), (8, 4, 1)]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_any_rank_split(rank: int) -> None:
    conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    parts = {"w": weight(3, 4, *[1] * rank)}
    found = traced(lambda m, x: conv(x, qw(m.w, [2, 2, 8])), (1, 4, *[5] * rank), **parts)
    assert rows(found, "w_bits", "cout") == [(2, 2), (8, 1)]


def test_a_part_of_a_depthwise_conv_has_its_own_input_channels() -> None:
    found = traced(lambda m, x: F.conv2d(x, qw(m.w, [8, 4, 8, 8]), groups=4), w=weight(4, 1, 3, 3))
    assert rows(found, "w_bits", "cin", "cout", "groups") == [(4, 1, 1, 1), (8, 3, 3, 3)]
    assert found.workload.structure.unsplit["cin"].tolist() == [4, 4]


def test_a_depthwise_conv_may_have_several_results_for_each_channel() -> None:
    found = traced(
        lambda m, x: F.conv2d(x, qw(m.w, [8] * 2 + [4] * 6), groups=4), w=weight(8, 1, 3, 3)
    )
    assert rows(found, "w_bits", "cin", "cout", "groups") == [(4, 3, 6, 3), (8, 1, 2, 1)]


def test_a_part_of_a_grouped_conv_reads_all_input_channels() -> None:
    found = traced(lambda m, x: F.conv2d(x, qw(m.w, [8, 4, 8, 8]), groups=2), w=weight(4, 2, 3, 3))
    assert rows(found, "w_bits", "cin", "cout", "groups") == [(4, 4, 1, 2), (8, 4, 3, 2)]


def test_one_depthwise_channel_is_priced_like_those_beside_it() -> None:
    found = traced(
        lambda m, x: F.conv2d(q(x), qw(m.w, [8, 4, 8, 8]), groups=4, padding=1),
        w=weight(4, 1, 3, 3),
    )
    model = CostModel("ne16_compute")
    # 4 tiles of 3x3; blocks of k channels and w bits as in the file.
    price = [4 * (31 + (6 + k) + (6 + w * k) + 2 + 9 + k + 13) for w, k in ((4, 1), (8, 3))]
    assert model.rows(found.workload).tolist() == price


def test_a_transposed_conv_has_its_channels_in_dimension_1() -> None:
    found = traced(
        lambda m, x: F.conv_transpose2d(x, qw(m.w, [4, 8, 8], axis=1)), w=weight(4, 3, 2, 2)
    )
    assert rows(found, "w_bits", "cin", "cout") == [(4, 4, 1), (8, 4, 2)]


def test_the_groups_of_a_transposed_conv_share_their_bits() -> None:
    found = traced(
        lambda m, x: F.conv_transpose2d(x, qw(m.w, [4, 8, 8], axis=1), groups=2),
        w=weight(4, 3, 2, 2),
    )
    assert rows(found, "w_bits", "cin", "cout") == [(4, 4, 2), (8, 4, 4)]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.linear(x, qw(m.w, [4, 8, 8])),
        lambda m, x: x @ qw(m.w, [4, 8, 8]).t(),
        lambda m, x: x @ qw(m.w, [4, 8, 8]).t().contiguous(),
        lambda m, x: torch.addmm(torch.zeros(3), x.reshape(5, 4), qw(m.w, [4, 8, 8]).t()),
        lambda m, x: qw(m.w, [4, 8, 8]) @ x.transpose(1, 2),
        lambda m, x: x @ qw(m.w.t(), [4, 8, 8], axis=1),
        lambda m, x: torch.einsum("btc,dc->btd", x, qw(m.w, [4, 8, 8])),
        lambda m, x: F.linear(x, qw(m.w, [4, 8, 8]).reshape(3, 2, 2).flatten(1)),
    ],
)
def test_a_linear_layer_on_tokens_splits(forward: Any) -> None:
    found = traced(forward, (1, 5, 4), w=weight(3, 4))
    due = [(4, 4, 1, 5), (8, 4, 2, 5)]
    assert rows(found, "w_bits", "cin", "cout", "positions")[-2:] == due


def test_projections_have_the_bits_of_their_slice() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        a, b = qw(m.w, [2, 2, 8, 8, 8, 4]).chunk(2)
        return F.linear(x, a) + F.linear(x, b)

    found = traced(forward, (1, 5, 4), w=weight(6, 4))
    assert rows(found, "w_bits", "cout")[:4] == [(2, 2), (8, 1), (4, 1), (8, 2)]


def test_channels_go_to_their_engines() -> None:
    engines = "digital,analog,analog"
    found = traced(lambda m, x: F.conv2d(x, qw(m.w, [8, 2, 2], 0, engines)), w=weight(3, 4, 1, 1))
    assert found.workload.structure.engines == ("analog", "digital")
    assert rows(found, "w_bits", "cout") == [(2, 2), (8, 1)]


def test_engines_alone_split_too() -> None:
    found = traced(lambda m, x: F.conv2d(x, qw(m.w, [8], 0, "b,a,b")), w=weight(3, 4, 1, 1))
    assert found.workload.structure.engines == ("a", "b")
    assert rows(found, "w_bits", "cout") == [(8, 1), (8, 2)]


def quantized_and_float(forward: Callable[..., Any], shape: Any, **parts: Any) -> list[Workload]:
    """The tables of a function of ``(m, x, round, round weights)``, rounded and not."""
    plain = traced(lambda m, x: forward(m, x, lambda t: t, lambda t: t), shape, **parts)
    return [traced(lambda m, x: forward(m, x, q, qw), shape, **parts).workload, plain.workload]


def _shared(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    return a(F.conv2d(a(F.conv2d(a(x), w(m.w), w(m.b))), w(m.w), w(m.b)))


def _block(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    y = a(F.relu(m.bn(F.conv2d(a(x), w(m.w), padding=1))))
    z = a(F.conv2d(y, w(m.w2), padding=1))
    y = a(F.relu(a(y + z)))
    return a(torch.cat([F.max_pool2d(y, 2), F.max_pool2d(a(y * 2), 2)], 1))


def _attention(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    x = a(x)
    heads = [a(F.linear(x, p, b)) for p, b in zip(w(m.w).chunk(3), w(m.b).chunk(3), strict=True)]
    return a(F.scaled_dot_product_attention(*[h.view(1, 5, 2, 2).transpose(1, 2) for h in heads]))


def _multihead(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    return a(m.mha(x, x, x, need_weights=True)[0])


def _tied(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    return F.linear(a(F.embedding(x.long().view(1, -1), w(m.w))), w(m.w), w(m.b))


def _views(m: Any, x: Tensor, a: Any, w: Any) -> Any:
    left, right = a(F.conv2d(a(x), w(m.w))).chunk(2, 1)
    out = F.relu(left) + F.relu(a(right))
    return out.sum()


@pytest.mark.parametrize(
    ("forward", "shape", "parts"),
    [
        (_shared, (1, 4, 6, 6), {"w": weight(4, 4, 1, 1), "b": weight(4)}),
        (
            _block,
            (1, 4, 6, 6),
            {"w": weight(4, 4, 3, 3), "w2": weight(4, 4, 3, 3), "bn": nn.BatchNorm2d(4)},
        ),
        (_attention, (1, 5, 4), {"w": weight(12, 4), "b": weight(12)}),
        (_multihead, (1, 5, 4), {"mha": nn.MultiheadAttention(4, 2, batch_first=True)}),
        (_tied, (1, 6), {"w": weight(10, 4), "b": weight(10)}),
        (_views, (1, 4, 6, 6), {"w": weight(4, 4, 1, 1)}),
    ],
)
def test_rounding_changes_nothing_but_bits(
    forward: Any, shape: tuple[int, ...], parts: dict[str, Any]
) -> None:
    rounded, plain = quantized_and_float(forward, shape, **parts)
    assert rounded.layers == plain.layers
    for name in set(SIZES) - set(BITS):
        torch.testing.assert_close(rounded.column(name), plain.column(name), equal_nan=True)
    one, other = rounded.structure.buffers, plain.structure.buffers
    assert one is not None and other is not None
    for field in ("producer", "elements", "first", "last", "share", "reader"):
        assert getattr(one, field).tolist() == getattr(other, field).tolist()


def test_the_weight_of_two_layers_is_stored_once() -> None:
    found = traced(_shared_at_2_and_4, w=weight(4, 4, 1, 1))
    assert rows(found, "w_bits", "w_once") == [(2, 1), (4, 0)]


def _shared_at_2_and_4(m: Any, x: Tensor) -> Any:
    return F.conv2d(q(F.conv2d(x, qw(m.w, [2]))), qw(m.w, [4]))


def test_an_accumulator_has_the_bits_that_it_is_rounded_to() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return F.conv2d(q(F.relu(m.bn(F.conv2d(q(x, 8), qw(m.w)))), 4), qw(m.w))

    found = traced(forward, w=weight(4, 4, 1, 1), bn=nn.BatchNorm2d(4))
    conv, norm, relu, last = rows(found, *BITS)
    assert (conv, norm, relu, last) == ((8, 8, 4), (-1, 4, 4), (-1, 4, 4), (8, 4, -1))


def test_views_pads_and_max_pools_keep_their_bits() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.max_pool2d(F.pad(q(x, 4), (1, 1)), 2)
        return F.linear(x.flatten(1)[:, :4], qw(m.w))

    found = traced(forward, w=weight(3, 4))
    assert rows(found, "a_bits")[-1] == (4,)
    assert found.workload.kinds == ("copy", "pool", "linear")
    assert rows(found, "o_bits")[:2] == [(4,), (4,)]


def test_an_add_reads_what_is_rounded_and_makes_what_is() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        x = q(x, 4)
        return q(x + q(F.conv2d(x, qw(m.w)), 4), 2)

    found = traced(forward, w=weight(4, 4, 1, 1))
    assert rows(found, "a_bits", "o_bits") == [(4, 4), (4, 2)]


def test_a_concat_has_bits_of_its_own() -> None:
    found = traced(lambda m, x: q(torch.cat([q(x, 8), q(x * 2, 4)], 1), 2))
    assert rows(found, "a_bits", "o_bits") == [(-1, 4), (8, 2)]


def test_a_concat_of_equal_bits_keeps_them() -> None:
    found = traced(
        lambda m, x: F.conv2d(torch.cat([q(x, 4), q(x * 2, 4)], 1), m.w), w=weight(4, 8, 1, 1)
    )
    assert rows(found, "a_bits")[-1] == (4,)


def test_what_two_read_that_are_rounded_apart_is_open() -> None:
    found = traced(lambda m, x: (q(y := x * 2, 4), q(F.relu(y), 2)))
    assert rows(found, "o_bits")[0] == (-1,)


def test_a_relu_keeps_bits_unless_it_is_rounded_anew() -> None:
    for bits, rounds in ((4, lambda t: t), (2, lambda t: q(t, 2))):
        found = traced(
            lambda m, x, r=rounds: F.conv2d(r(F.relu(q(x, 4))), m.w), w=weight(4, 4, 1, 1)
        )
        assert rows(found, "a_bits") == [(4,), (bits,)]
        assert rows(found, "o_bits")[0] == (bits,)


def test_a_table_that_is_looked_up_has_bits() -> None:
    found = traced(lambda m, x: q(F.embedding(x.long(), qw(m.w, [4])), 2), (1, 6), w=weight(9, 4))
    assert rows(found, "w_bits", "o_bits")[-1] == (4, 2)


def test_a_depthwise_transposed_conv_may_round_along_its_groups() -> None:
    found = traced(
        lambda m, x: F.conv_transpose2d(x, qw(m.w, [4, 8, 8, 8], axis=0), groups=4),
        w=weight(4, 1, 2, 2),
    )
    assert rows(found, "w_bits", "cin", "cout", "groups") == [(4, 1, 1, 1), (8, 3, 3, 3)]


def test_a_matmul_reads_its_first_operand() -> None:
    found = traced(lambda m, x: q(q(x, 4) @ q(x * 2, 8).transpose(-1, -2), 2))
    assert found.workload.kinds[-1] == "matmul"
    assert rows(found, *BITS)[-1] == (-1, 4, 2)


def test_labels_lead_back_to_the_search() -> None:
    found = traced(
        lambda m, x: q(F.relu(F.conv2d(q(x, 8, "in"), qw(m.w, label="w"))), 8, "out"),
        w=weight(4, 4, 1, 1),
    )
    calls = found.recording.calls
    labels = [tuple(calls[i].arg("label") for i in which if i >= 0) for which in found.quantizers]
    assert labels == [("w", "in", "out"), ("out", "out")]
    assert len(found.quantizers) == len(found.workload)


def test_the_price_of_a_split_layer_is_that_of_its_parts_on_mpic() -> None:
    found = traced(lambda m, x: F.conv2d(q(x, 4), qw(m.w, [8, 2, 4, 2])), w=weight(4, 4, 1, 1))
    # 36 pixels of 4 x cout MACs; MACs a cycle at a_bits 4 from the file.
    cycles = 36 * 4 * (2 / 3.9 + 1 / 3.5 + 1 / 2.1)
    total = CostModel("mpic").total(found.workload).item()
    assert total == pytest.approx(cycles / 250e6, rel=1e-12)


def test_the_price_of_a_split_layer_is_that_of_its_parts_on_ne16() -> None:
    found = traced(lambda m, x: F.conv2d(q(x), qw(m.w, [8, 2, 4, 2])), w=weight(4, 4, 3, 3))

    # 2x2 tiles of 3x3 outputs; 4x4 outputs need 4 of them; one block of 16 inputs.
    def block(bits: int, count: int) -> int:
        return 31 + 6 + (6 + bits * count) + 2 + 9 + count + 13

    due = 4 * (block(2, 2) + block(4, 1) + block(8, 1))
    assert CostModel("ne16_compute").total(found.workload).item() == due


def test_the_parts_of_a_layer_store_what_it_does() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return F.conv2d(x, qw(m.w, [8, 2, 4, 2]), qw(m.b, [32]))

    found = traced(forward, w=weight(4, 4, 3, 3), b=weight(4)).workload
    assert CostModel("counts", "params").total(found).item() == 4 * 4 * 9 + 4
    assert CostModel("mpic", "weight_bytes").total(found).item() == 4 * 9 * (8 + 2 + 4 + 2) / 8


def test_the_parts_of_a_layer_fill_its_buffer_together() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = q(F.conv2d(q(x, 8), qw(m.w, [8, 2, 4, 2])), 4)
        return q(F.conv2d(y, qw(m.w, [8, 2, 4, 2])), 2)

    found = traced(forward, w=weight(4, 4, 1, 1)).workload
    input_bytes, middle, last = 4 * 36, 4 * 36 / 2, 4 * 36 / 4
    assert CostModel("mpic", "peak_ram").total(found).item() == input_bytes + middle
    assert CostModel("mpic", "peak_ram").rows(found).tolist()[3:] == [middle + last] * 3
