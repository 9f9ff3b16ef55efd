"""Peak activation memory: hand counts, who is alive when, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost import zoo
from hwcost.errors import WorkloadError
from hwcost.memory import alive_at, buffer_bytes, live, peak_live
from hwcost.tracing import trace
from hwcost.workload import Workload
from tests.models import Function
from tests.sizes import column


def peak(model: nn.Module, example: Tensor, in_bytes: float = 1.0) -> float:
    """Peak bytes when every number takes one."""
    workload = trace(model, example)
    return float(peak_live(workload.structure, column(workload, "out_elems"), in_bytes).bytes)


def profile(workload: Workload) -> list[float]:
    return live(workload.structure, column(workload, "out_elems"), 1.0).tolist()


@pytest.mark.parametrize(
    "name, count",
    [
        ("autoencoder", 640 + 128),
        # The input of the first block, still needed, and both ends of its second convolution.
        ("resnet8", 3 * 32 * 32 * 16),
        ("ds_cnn", 2 * 25 * 5 * 64),
        # The first 1x1 convolution: 8 channels in, 16 out.
        ("mobilenet_v1", 48 * 48 * (8 + 16)),
    ],
)
def test_peak_of_the_mlperf_networks_is_a_count_by_hand(name: str, count: int) -> None:
    assert peak(*zoo.ZOO[name]()) == count


def test_the_hand_counts_are_those_of_the_reference() -> None:
    counts = 640 + 128, 3 * 32 * 32 * 16, 2 * 25 * 5 * 64, 48 * 48 * (8 + 16)
    assert counts == (768, 49152, 16000, 55296)


def test_a_chain_holds_input_and_output_of_the_op_that_runs() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 6), nn.Linear(6, 1))
    assert profile(trace(model, torch.ones(1, 10))) == [10 + 4, 4 + 6, 6 + 1]


def test_a_shortcut_lives_until_it_is_added() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return x + m.get_submodule("b")(m.get_submodule("a")(x))  # type: ignore[no-any-return]

    model = Function(forward, a=nn.Linear(4, 7), b=nn.Linear(7, 4))
    assert profile(trace(model, torch.ones(1, 4))) == [4 + 7, 4 + 7 + 4, 4 + 4 + 4]


def test_an_activation_overwrites_what_nobody_else_reads() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1))
    assert profile(trace(model, torch.ones(1, 10))) == [10 + 4, 4, 4 + 1]


def test_an_activation_keeps_what_another_op_reads() -> None:
    workload = trace(Function(lambda m, x: F.silu(x * 2) + (x * 2).tanh()), torch.ones(1, 5))
    assert not any(workload.column("fused")[workload.rows_of("add")])
    both = trace(Function(lambda m, x: (lambda y: F.silu(y) + y)(x * 2)), torch.ones(1, 5))
    assert workload.column("fused")[workload.rows_of("silu")].item() == 1
    assert both.column("fused")[both.rows_of("silu")].item() == 0


def test_an_activation_does_not_overwrite_the_input_of_the_network() -> None:
    assert profile(trace(nn.ReLU(), torch.ones(1, 5))) == [5 + 5]


def test_an_op_in_place_writes_into_its_input() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        y += x
        return y

    assert profile(trace(Function(forward), torch.ones(1, 5))) == [5 + 5, 5 + 5]


def test_a_view_keeps_all_of_its_base() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        part = (x * 2)[:, :1]
        return (x + 1).sum() * part.sum()

    sizes = profile(trace(Function(forward), torch.ones(1, 5)))
    # x*2 | x+1 | its sum | sum of the part: all of x*2 is still there | product
    assert sizes == [5 + 5, 5 + 5 + 5, 5 + 5 + 1, 5 + 1 + 1, 1 + 1 + 1]


def test_an_output_lives_until_the_end() -> None:
    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        return y, (y + 1).sum()

    assert profile(trace(Function(forward), torch.ones(1, 5))) == [5 + 5, 5 + 5, 5 + 5 + 1]


def test_padding_for_a_convolution_takes_no_memory() -> None:
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 1, 3, 2))
    workload = trace(model, torch.ones(1, 1, 8, 8))
    assert profile(workload) == [8 * 8 + 4 * 4]
    assert workload.column("ih").item() == 8


def test_padding_that_another_op_reads_takes_memory() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(padded, m.get_parameter("w")) + padded.sum()

    model = Function(forward, w=nn.Parameter(torch.ones(1, 1, 3, 3)))
    assert trace(model, torch.ones(1, 1, 4, 4)).kinds[0] == "copy"


def test_parts_written_into_one_tensor_take_its_memory_once() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        out = x.new_zeros(1, 10)
        out[:, :5] = x
        out[:, 5:] = x
        return out

    assert profile(trace(Function(forward), torch.ones(1, 5))) == [5 + 10, 5 + 10]


def test_layers_of_a_recurrent_network_pass_on_both_directions() -> None:
    workload = trace(nn.LSTM(2, 3, 2, bidirectional=True), torch.ones(4, 1, 2))
    x, one = 4 * 2, 4 * 3
    # The states of the last step (4 layers and directions of 3) are results too, twice.
    last = 2 * 2 * 2 * 3 / 2
    layers = [x + one, x + 2 * one, 2 * one + one + last, 2 * one + 2 * one + 2 * last]
    assert profile(workload) == layers


def test_scratch_counts_while_its_op_runs() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 6))
    structure = trace(model, torch.ones(1, 10)).structure
    found = peak_live(structure, torch.tensor([4.0, 6.0]), 1.0, torch.tensor([0.0, 100.0]))
    assert (float(found.bytes), found.op) == (4 + 6 + 100, 1)


def test_the_input_has_the_bits_of_its_first_reader() -> None:
    structure = trace(nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 6)), torch.ones(1, 10)).structure
    out = torch.tensor([4.0, 6.0])
    assert buffer_bytes(structure, out, torch.tensor([0.5, 4.0])).tolist() == [5, 4, 6]


def test_rows_of_one_op_share_a_buffer_by_weight() -> None:
    structure = trace(nn.Linear(10, 4), torch.ones(1, 10)).structure
    two = type(structure)(
        layers=["a", "a"],
        kind_codes=structure.kind_codes.repeat(2),
        traced={name: values.repeat(2) for name, values in structure.traced.items()},
        ops=torch.tensor([0, 0]),
        engines=(None, None),
        buffers=structure.buffers,
    )
    out, weight = torch.tensor([4.0, 8.0]), torch.tensor([0.25, 0.75])
    in_bytes = torch.tensor([1.0, 2.0])
    assert buffer_bytes(two, out, in_bytes, weight).tolist() == [10 * 1.75, 0.25 * 4 + 0.75 * 8]


def test_the_gradient_flows_to_what_is_alive_at_the_peak() -> None:
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 6), nn.Linear(6, 1))
    structure = trace(model, torch.ones(1, 1)).structure
    out = torch.tensor([4.0, 6.0, 1.0], dtype=torch.float64, requires_grad=True)
    peak_live(structure, out, 1.0).bytes.backward()
    assert out.grad is not None
    assert out.grad.tolist() == [1, 1, 0]


def test_the_gradient_of_what_is_alive_is_a_difference() -> None:
    workload = trace(*zoo.resnet8())
    out = column(workload, "out_elems").requires_grad_()

    def alive(sizes: Tensor) -> Tensor:
        return live(workload.structure, sizes, 1.0)

    assert torch.autograd.gradcheck(alive, (out,))


def test_the_report_names_what_is_alive_at_the_peak() -> None:
    workload = trace(*zoo.resnet8())
    out = column(workload, "out_elems")
    op = peak_live(workload.structure, out, 1.0).op
    assert alive_at(workload.structure, op, out, 1.0) == [
        ("stem.conv", 16384.0),
        ("blocks.0.layers.0.conv", 16384.0),
        ("blocks.0.layers.1.conv", 16384.0),
    ]


def test_the_report_adds_up_to_the_peak() -> None:
    workload = trace(*zoo.mobilenet_v2())
    out = column(workload, "out_elems")
    found = peak_live(workload.structure, out, 1.0)
    held = alive_at(workload.structure, found.op, out, 1.0)
    assert sum(size for _, size in held) == float(found.bytes)


def test_a_table_without_a_schedule_has_no_peak() -> None:
    table = Workload.from_columns("linear", cin=4, cout=4)
    with pytest.raises(WorkloadError, match="no schedule"):
        peak_live(table.structure, torch.ones(1), 1.0)
