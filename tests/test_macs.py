"""Multiply-accumulates equal what counting by hand gives, exactly."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hwcost import zoo
from hwcost.tracing import trace
from tests.models import MODELS
from tests.sizes import total


def conv(cin: int, cout: int, kernel: int, side: int, groups: int = 1) -> int:
    """MACs of a square convolution whose output has ``side`` x ``side`` pixels."""
    return cin * cout * kernel**2 * side**2 // groups


def resnet18() -> int:
    macs = conv(3, 64, 7, 112) + 512 * 1000
    cin = 64
    for cout, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        macs += conv(cin, cout, 3, side) + 3 * conv(cout, cout, 3, side)
        macs += conv(cin, cout, 1, side) if cin != cout else 0
        cin = cout
    return macs


def mobilenet_v2() -> int:
    macs, cin, side = conv(3, 32, 3, 112), 32, 112
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    for factor, cout, repeats, first in [*blocks, (6, 160, 3, 2), (6, 320, 1, 1)]:
        for stride in (first,) + (1,) * (repeats - 1):
            wide = factor * cin
            macs += conv(cin, wide, 1, side) if factor > 1 else 0
            side //= stride
            macs += conv(wide, wide, 3, side, groups=wide) + conv(wide, cout, 1, side)
            cin = cout
    return macs + conv(320, 1280, 1, 7) + 1280 * 1000


def tcn() -> int:
    convolutions = 3 * 100 * (6 * 32 + 7 * 32 * 32)
    return convolutions + 100 * 6 * 32 + 32 * 12


@pytest.mark.parametrize("name, macs", [("resnet18", resnet18), ("mobilenet_v2", mobilenet_v2)])
def test_macs_of_image_networks(name: str, macs: Callable[[], int]) -> None:
    assert total(trace(*zoo.ZOO[name]()), "macs") == macs()


def test_macs_of_resnet18_are_those_of_the_literature() -> None:
    assert resnet18() == 1_814_073_344


def test_macs_of_mobilenet_v2_are_those_of_the_literature() -> None:
    assert mobilenet_v2() == 300_774_272


def test_macs_of_a_temporal_network() -> None:
    assert total(trace(*zoo.tcn()), "macs") == tcn()


def encoder(tokens: int, width: int, hidden: int) -> int:
    """MACs of a transformer layer: four projections, scores and values, two linear layers."""
    projections = 4 * tokens * width * width
    return projections + 2 * tokens * tokens * width + 2 * tokens * width * hidden


def decoder(tokens: int, memory: int, width: int, hidden: int) -> int:
    """An encoder layer, and attention to ``memory`` tokens."""
    projections = 2 * (tokens + memory) * width * width
    return encoder(tokens, width, hidden) + projections + 2 * tokens * memory * width


LSTM_LAYERS = sum(4 * 8 * (cin + 4) + 8 * 4 for cin in (6, 6, 8, 8))
GRU_LAYERS = sum(3 * 8 * (cin + 8) for cin in (6, 6, 16, 16))
CELLS = 4 * 8 * (6 + 8) + 3 * 8 * (8 + 8) + 4 * (8 + 4)

#: Name in tests/models.py -> its MACs.
BY_HAND: dict[str, int] = {
    "residual_with_one_convolution_twice": 2 * conv(4, 4, 3, 8),
    "vision_transformer": 2 * (conv(3, 32, 4, 4) + 2 * encoder(17, 32, 64) + 32 * 10),
    "whole_transformer": 2 * 2 * (encoder(5, 16, 32) + decoder(6, 5, 16, 32)),
    "transformer_with_masks": 2 * (encoder(5, 16, 32) + decoder(6, 5, 16, 32)),
    # Queries 16, keys 8, values 12 wide; one more key is learned.
    "attention_of_other_widths": 2
    * (5 * 16 * 16 + 6 * 8 * 16 + 6 * 12 * 16 + 2 * 5 * 7 * 16 + 5 * 16 * 16),
    "attention_with_a_zero_key": 2 * (4 * 5 * 16 * 16 + 2 * 5 * 6 * 16),
    "attention_without_a_batch": 4 * 5 * 16 * 16 + 2 * 5 * 5 * 16,
    "attention_without_weights": 2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16),
    "grouped_query_attention_with_rotary_positions": 2 * (7 * 32 * (32 + 16 + 16 + 32))
    + 2 * 2 * 7 * 7 * 32,
    "attention_with_a_relative_position_table": 2 * 3 * 2 * 5 * 5 * 8,
    "attention_by_hand": 2 * (3 * 5 * 8 * 8 + 2 * 5 * 5 * 8),
    "convnext_block": conv(8, 8, 7, 14, groups=8) + 2 * 14 * 14 * 8 * 32,
    "squeeze_and_excite": 2 * 8 * 2,
    "shuffles_and_resizes": conv(3, 12, 3, 6),
    "sampling_at_computed_places": conv(3, 4, 1, 8) + conv(3, 2, 1, 8),
    "fourier_transform": 2 * 16 * 4,
    "scatter_of_computed_rows": 6 * 8 * 8,
    "bag_of_words": 3 * 8 * 2,
    "language_model_with_tied_weights": 2 * 6 * 16 * 50,
    "normalisations": conv(3, 8, 3, 6),
    "parametrized_weights": conv(3, 8, 3, 6) + 8 * 6 * (6 * 4 + 4 * 4),
    "lstm": 2 * 5 * LSTM_LAYERS,
    "gru": 2 * 5 * GRU_LAYERS,
    "rnn_without_a_batch": 5 * 8 * (6 + 8),
    "packed_sequences": (3 + 5 + 2) * 4 * 8 * (6 + 8),
    "cells_in_a_loop": 2 * 5 * CELLS,
    "unet": conv(3, 8, 3, 16) + conv(8, 16, 3, 8) + conv(16, 8, 2, 8) + conv(16, 2, 1, 16),
    "einsum_of_two_activations": 2 * 3 * 4 * 6 * 5,
    "einsum_with_a_weight": 2 * 4 * 8 * 3 * 5,
    "one_matrix_for_each_expert": 2 * 3 * 4 * 5,
    "weight_on_the_left": 2 * 5 * 4 * 7,
    "bilinear": 2 * 3 * 4 * 5,
    # 3-D: 4x4x4 outputs; 2-D on 16x4; 1-D on 64; transposed: one kernel for each input.
    "convolutions_of_every_rank": 4**3 * 27 * 2 * 4
    + 64 * 3 * 4 * 4
    + 64 * 4 * 4 * 6
    + 64 * 3 * 6 * 2,
    "poolings": 0,
    "activations": 2 * 4 * 4,
    "branch_on_data": 4 * 4,
    "length_from_data": 8 * 4 * 4,
    "branch_of_a_compiler": 4 * 4,
    "factory_without_a_device": 3 * 4 * 4,
    # Forward, and the gradient of the input.
    "gradient_in_forward": 2 * 4 * 4,
    "vectorised": 5 * 4 * 3,
    "scripted": 3 * 4 * 4 + 3 * 4 * 2,
    "jit_traced": conv(3, 4, 3, 6),
    "nested_tensors": (3 + 2) * 4 * 4,
    "an_exception_caught": 2 * 4 * 4 + 2 * 4 * 2,
    "cache_of_keys": 4 * 4 + 2 * 4 * 4,
}


@pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")
@pytest.mark.parametrize("name", BY_HAND)
def test_macs_equal_a_count_by_hand(name: str) -> None:
    model, args = MODELS[name]()
    assert total(trace(model, args), "macs") == BY_HAND[name]


def test_a_convolution_used_twice_counts_twice_and_is_stored_once() -> None:
    model, args = MODELS["residual_with_one_convolution_twice"]()
    workload = trace(model, args)
    assert total(workload, "macs") == 2 * conv(4, 4, 3, 8)
    assert total(workload, "params") == 4 * 4 * 9 + 4


@pytest.mark.parametrize("length", [1, 7])
def test_macs_of_a_long_short_term_memory_follow_its_steps(length: int) -> None:
    workload = trace(nn.LSTM(3, 5), torch.ones(length, 2, 3))
    assert total(workload, "macs") == length * 2 * 4 * 5 * (3 + 5)


def test_macs_of_attention_do_not_depend_on_whether_its_weights_are_returned() -> None:
    model, args = MODELS["attention_without_weights"]()
    returned = trace(model.get_submodule("a"), (args[0],) * 3)
    assert total(returned, "macs") == total(trace(model, args), "macs")


def test_macs_of_a_grouped_dilated_strided_convolution() -> None:
    model = nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=4)
    # Height (16 + 2 - 3) // 2 + 1 = 8, width 16 - 2 * 4 = 8.
    assert total(trace(model, torch.ones(3, 8, 16, 16)), "macs") == 3 * 8 * 8 * 15 * 8 * 12 // 4
