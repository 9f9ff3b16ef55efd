"""Kernels that lose taps: their geometry, and layers that compute the same with fewer of them."""

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates import DilationMask, OrderedMask
from hwcost.search.kernels import convert, rings, shrink, taps_1d, why_not
from hwcost.search.kernels_padded import PaddedConv1d, PaddedConv2d, adjusted, pads_of


def states_1d(size: int) -> list[Tensor]:
    """Return the taps of every state that the two masks of a kernel can reach."""
    rf, dilation = OrderedMask(size), DilationMask(size)
    found = {}
    for reach in range(size):
        rf.beta.data = (torch.arange(1, size) == reach).float()
        for stride in range(len(dilation.gamma) + 1):
            dilation.gamma.data = (torch.arange(len(dilation.gamma)) == stride).float()
            taps = taps_1d(rf.hard(), dilation.hard())
            found[tuple(taps.tolist())] = taps
    return list(found.values())


def masked(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, taps: Tensor) -> nn.Module:
    same = copy.deepcopy(conv)
    same.weight.data *= taps
    return same


def check(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, taps: Tensor, x: Tensor) -> nn.Module:
    small = copy.deepcopy(conv)
    convert(small, taps)
    due, found = masked(conv, taps)(x), small(x)
    assert found.shape == due.shape
    assert torch.allclose(found, due, rtol=1e-6, atol=1e-6)
    assert not bool(taps.all()) or type(small) is type(conv)
    return small


def convs_1d(size: int) -> Iterator[nn.Conv1d]:
    for padding in (0, "valid", "same", 1, size // 2, size + 2):
        for dilation in (1, 2):
            yield nn.Conv1d(2, 3, size, padding=padding, dilation=dilation).double()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("size", range(2, 18))
def test_every_smaller_kernel_computes_the_same(size: int) -> None:
    x = torch.randn(2, 2, 2 * size + 1).double()
    for conv in convs_1d(size):
        for taps in states_1d(size):
            check(conv, taps, x)


@pytest.mark.parametrize("size", range(2, 18))
def test_every_smaller_kernel_behind_causal_padding(size: int) -> None:
    for dilation in (1, 2):
        pad = nn.ConstantPad1d((dilation * (size - 1), 0), 0.5)
        conv = nn.Conv1d(2, 3, size, dilation=dilation).double()
        for taps in states_1d(size):
            check(conv, taps, pad(torch.randn(2, 2, 5).double()))


@pytest.mark.parametrize("size", [7, 8, 17])
@pytest.mark.parametrize("stride", [2, 3])
def test_a_stride_changes_nothing(size: int, stride: int) -> None:
    conv = nn.Conv1d(2, 3, size, padding=size // 2, stride=stride).double()
    for taps in states_1d(size):
        check(conv, taps, torch.randn(2, 2, 20).double())


def test_an_input_shorter_than_what_is_cropped() -> None:
    conv = nn.Conv1d(2, 3, 17, padding=8).double()
    for taps in states_1d(17):
        check(conv, taps, torch.randn(2, 2, 3).double())


def test_inputs_without_a_batch() -> None:
    conv = nn.Conv1d(2, 3, 5, padding=1).double()
    check(conv, torch.tensor([False, False, True, False, True]), torch.randn(2, 9).double())


def states_2d(kernel_size: tuple[int, ...]) -> Iterator[Tensor]:
    away = rings(kernel_size)
    mask = OrderedMask(int(away.max()) + 1)
    for reach in range(mask.size):
        mask.beta.data = (torch.arange(1, mask.size) == reach).float()
        yield mask.hard()[away]


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 5), (3, 1), (1, 7)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2, "same"])
@pytest.mark.parametrize("groups", [1, 4])
def test_smaller_kernels_around_the_centre(
    kernel: tuple[int, int], stride: int, padding: int | str, groups: int
) -> None:
    if padding == "same" and stride > 1:
        return
    for dilation in (1, 2):
        conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups).double()
        for taps in states_2d(kernel):
            check(conv, taps, torch.randn(1, 4, 15, 16).double())


def test_three_dimensions() -> None:
    conv = nn.Conv3d(2, 2, (3, 5, 3), padding=1).double()
    sizes = [check(conv, t, torch.randn(1, 2, 6, 7, 6).double()) for t in states_2d((3, 5, 3))]
    assert [conv.kernel_size for conv in sizes] == [(1, 1, 1), (3, 3, 3), (3, 5, 3)]


def test_padding_stays_a_padding_where_both_sides_are_equal() -> None:
    conv = nn.Conv2d(1, 1, 5, padding=2)
    convert(conv, rings((5, 5)) <= 1)
    assert type(conv) is nn.Conv2d
    assert (conv.kernel_size, conv.padding) == ((3, 3), (1, 1))


def test_unequal_sides_need_pads_of_their_own() -> None:
    conv = nn.Conv1d(1, 1, 5, padding=2)
    convert(conv, torch.tensor([False, False, True, False, True]))
    assert isinstance(conv, PaddedConv1d)
    assert (conv.kernel_size, conv.dilation, conv.pads) == ((2,), (2,), ((0, 2),))
    assert "pads=((0, 2),)" in repr(conv)


def test_a_converted_layer_shrinks_again() -> None:
    conv = nn.Conv1d(1, 1, 5, padding=2).double()
    small = check(
        conv, torch.tensor([False, False, True, False, True]), torch.randn(1, 1, 9).double()
    )
    assert isinstance(small, PaddedConv1d)
    check(small, torch.tensor([True, False]), torch.randn(1, 1, 9).double())


def test_equal_sides_make_it_plain_again() -> None:
    conv = nn.Conv1d(1, 1, 4, padding=2).double()
    check(conv, torch.tensor([False, True, True, True]), x := torch.randn(1, 1, 9).double())
    convert(conv, torch.tensor([False, True, True, True]))
    assert isinstance(conv, PaddedConv1d) and conv.pads == ((1, 2),)
    small = check(conv, torch.tensor([True, True, False]), x)
    assert type(small) is nn.Conv1d and small.padding == (1,) and not hasattr(small, "pads")


def test_a_single_tap_has_no_dilation() -> None:
    conv = nn.Conv1d(1, 1, 5, dilation=2)
    convert(conv, torch.tensor([False, False, False, False, True]))
    assert (conv.kernel_size, conv.dilation) == ((1,), (1,))


def test_the_weight_stays_the_same_parameter() -> None:
    conv = nn.Conv1d(1, 1, 3)
    weight = conv.weight
    convert(conv, torch.tensor([False, True, True]))
    assert conv.weight is weight and weight.shape == (1, 1, 2) and weight.is_contiguous()


def test_cropping_makes_no_copy() -> None:
    x = torch.randn(1, 2, 8)
    assert adjusted(x, ((-3, -1),)).data_ptr() == x[..., 3:].data_ptr()


def padded() -> PaddedConv2d:
    return PaddedConv2d(3, 4, (1, 2), stride=2, pads=((0, 1), (-1, 2)))


def test_padded_layers_are_built_like_plain_ones() -> None:
    conv, plain = padded(), nn.Conv2d(3, 4, (1, 2), stride=2)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(conv(x), plain(nn.functional.pad(x, (-1, 2, 0, 1))))


def test_padded_layers_pickle() -> None:
    conv = padded()
    again = pickle.loads(pickle.dumps(conv))
    x = torch.randn(2, 3, 6, 6)
    assert again.pads == conv.pads and torch.equal(again(x), conv(x))


@pytest.mark.slow
def test_padded_layers_are_exported_by_torch() -> None:
    conv, x = padded().eval(), torch.randn(2, 3, 6, 6)
    program = torch.export.export(conv, (x,))
    assert torch.allclose(program.module()(x), conv(x))


def test_padded_layers_refuse_a_second_padding() -> None:
    with pytest.raises(SearchError, match="takes pads="):
        PaddedConv1d(1, 1, 3, padding=1, pads=((0, 0),))


def test_padded_layers_need_a_pair_for_each_dimension() -> None:
    with pytest.raises(SearchError, match="a pair for each dimension"):
        PaddedConv2d(1, 1, 3, pads=((0, 0),))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("kernel", [2, 5])
def test_same_padding_is_that_of_torch(kernel: int, dilation: int) -> None:
    conv = nn.Conv1d(1, 1, kernel, padding="same", dilation=dilation)
    explicit = PaddedConv1d(1, 1, kernel, dilation=dilation, pads=pads_of(conv))
    explicit.load_state_dict(conv.state_dict())
    x = torch.randn(1, 1, 20)
    assert torch.equal(conv(x), explicit(x))


def test_rings_are_counted_from_the_centre() -> None:
    assert rings((3, 5)).tolist() == [[2, 1, 1, 1, 2], [2, 1, 0, 1, 2], [2, 1, 1, 1, 2]]


def test_rings_need_a_centre() -> None:
    with pytest.raises(SearchError, match="3x4 has no centre"):
        rings((3, 4))


@pytest.mark.parametrize("taps", [[1, 1, 0, 1], [0, 0, 0, 0]])
def test_other_than_a_regular_grid_is_an_error(taps: list[int]) -> None:
    with pytest.raises(SearchError, match=r"regular grid|no tap"):
        shrink(torch.tensor(taps).bool(), (1,))


def test_a_cross_is_no_grid() -> None:
    with pytest.raises(SearchError, match="regular grid"):
        shrink(torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]).bool(), (1, 1))


class Causal(nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (self.kernel_size[0] - 1, 0)))


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Linear(2, 2), "Linear is no convolution"),
        (nn.ConvTranspose1d(1, 1, 3), "ConvTranspose1d is no convolution"),
        (nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), "pads by 'circular'"),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 1, 3)), "computed from other"),
        (Causal(1, 1, 3), "Causal has a forward of its own"),
    ],
)
def test_what_cannot_shrink(conv: nn.Module, reason: str) -> None:
    assert reason in why_not(conv)
    with pytest.raises(SearchError, match="cannot shrink"):
        convert(conv, torch.tensor([False, True, True]))


def test_taps_of_another_kernel_are_refused() -> None:
    with pytest.raises(SearchError, match="taps of shape 3 for a kernel of 5"):
        convert(nn.Conv1d(1, 1, 5), torch.tensor([False, True, True]))
