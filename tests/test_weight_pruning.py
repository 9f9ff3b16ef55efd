"""Cells of weight pruning, and which weights their fillers take."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.search import PruneCell, PruneFiller, PruneMode
from hwcost.search.weight_pruning_fillers import (
    due,
    fill_multiples,
    fill_random,
    fill_smallest,
    multiple,
    smallest_multiple,
)

SHARES = st.one_of(st.floats(0, 1), st.integers(0, 100).map(lambda n: n / 100))
TYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
SIZES = st.integers(1, 60)
DELTAS = st.sampled_from([1e-6, 0.001, 0.01, 0.1, 1.0, 7.5])


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Some with equal ones, zeros, and whole multiples of a thousandth among them."""
    seed, size = draw(st.integers(0, 2**31)), draw(SIZES)
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    digits = draw(st.sampled_from([1, 3, 12]))
    return values.mul(10**digits).round().div(10**digits).to(draw(TYPES))


def all_kept(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def zeros(mask: Tensor) -> int:
    return int((~mask).sum())


def test_defaults_are_those_of_the_original() -> None:
    cell = PruneCell()
    assert (cell.threshold, cell.delta, cell.start) == (0.2, 0.001, 0.1)
    assert (cell.gamma, cell.stepsize) == (0.05, 0)


@pytest.mark.parametrize("mode", ["gradual", "GRADUAL", "Gradual", PruneMode.GRADUAL])
def test_modes_are_read_in_any_case(mode: str) -> None:
    assert PruneCell(mode).prune_mode is PruneMode.GRADUAL


def test_fillers_are_read_in_any_case() -> None:
    assert PruneCell(prune_filler="iternonstruct").prune_filler is PruneFiller.ITERNONSTRUCT


WRONG = {
    "delta 0": ({"delta": 0}, r"delta is 0.0; expected a number above 0"),
    "delta below 0": ({"delta": -0.1}, r"delta is -0.1; expected a number above 0"),
    "delta NaN": ({"delta": math.nan}, r"delta is nan; expected a number above 0"),
    "threshold above 1": ({"threshold": 1.5}, r"threshold is 1.5; expected a share, 0 to 1"),
    "threshold below 0": ({"threshold": -0.5}, r"threshold is -0.5; expected a share, 0 to 1"),
    "threshold NaN": ({"threshold": math.nan}, r"threshold is nan; expected a share, 0 to 1"),
    "threshold text": ({"threshold": "0.2"}, r"threshold is '0.2'; expected a number"),
    "no gamma": ({"prune_mode": "Gradual", "gamma": 0}, r"gamma is 0.0; expected a number above"),
    "start too high": (
        {"prune_mode": "Gradual", "threshold": 0.3, "start": 0.4},
        r"start is 0.4; expected 0 to the threshold, 0.3",
    ),
    "stepsize": ({"stepsize": -1}, r"stepsize is -1; expected a whole number; 0 is one epoch"),
    "stepsize in parts": ({"stepsize": 1.5}, r"stepsize is 1.5; expected a whole number"),
    "mode": ({"prune_mode": "Statik"}, r"prune_mode is 'Statik'; did you mean 'Static'\?"),
    "filler": ({"prune_filler": "Rand"}, r"prune_filler is 'Rand'; did you mean 'Random'\?"),
    "unit": ({"unit": "days"}, r"unit is 'days'.*'steps'|unit is 'days'; known: samples, steps"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_an_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        PruneCell(**values)  # type: ignore[arg-type]


def test_a_static_cell_does_not_look_at_start_and_gamma() -> None:
    assert PruneCell("Static", threshold=0.05, gamma=0).share_at(0) == 0.05


def test_shares_of_a_gradual_cell_add_up_as_written() -> None:
    cell = PruneCell("Gradual", threshold=0.32, stepsize=3)
    assert [cell.share_at(t) for t in range(0, 18, 3)] == [0.1, 0.15, 0.2, 0.25, 0.3, 0.32]
    assert cell.share_at(2) == 0.1


@given(SHARES, st.integers(0, 10_000))
def test_what_is_due_is_the_ceiling_up_to_rounding(share: float, size: int) -> None:
    count = due(share, size)
    exact = Fraction(share) * size
    assert count in {math.ceil(exact), math.ceil(exact - Fraction(1, 10**9))}
    assert size == 0 or count / size >= share > (count - 1) / size


@pytest.mark.parametrize(("share", "size", "count"), [(0.07, 100, 7), (0.15, 20, 3), (5 / 6, 6, 5)])
def test_what_is_due_has_no_rounding_error(share: float, size: int, count: int) -> None:
    assert due(share, size) == count


@given(SHARES, SIZES, st.integers(0, 2**31))
def test_random_has_exactly_as_many_zeros_as_due(share: float, size: int, seed: int) -> None:
    mask = fill_random(torch.ones(size, dtype=torch.bool), due(share, size), seed)
    assert zeros(mask) == due(share, size)


@given(SIZES, st.data())
def test_random_adds_none_where_there_are_enough(size: int, data: st.DataObject) -> None:
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    count = data.draw(st.integers(0, size))
    filled = fill_random(mask, count, seed=1)
    assert zeros(filled) == max(zeros(mask), count) and not (filled & ~mask).any()


def test_random_takes_every_place_alike() -> None:
    masks = torch.stack(
        [fill_random(torch.ones(8, dtype=torch.bool), 2, seed) for seed in range(2000)]
    )
    # 2000 draws of a chance of 1/4: six standard deviations are 0.06.
    assert (masks.double().mean(0) - 0.75).abs().max() < 0.06


@given(weights(), SHARES)
def test_magnitude_takes_exactly_the_smallest(weight: Tensor, share: float) -> None:
    count = due(share, len(weight))
    mask = fill_smallest(weight, all_kept(weight), count)
    size = weight.abs()
    assert zeros(mask) == count
    assert count in {0, len(weight)} or size[~mask].max() <= size[mask].min()


def test_of_equal_weights_the_first_go() -> None:
    weight = torch.tensor([2.0, -1.0, 1.0, 0.5, 1.0])
    mask = fill_smallest(weight, all_kept(weight), 3)
    assert mask.tolist() == [True, False, False, False, True]


def test_what_is_pruned_goes_before_weights_that_are_0() -> None:
    mask = torch.tensor([True, True, False])
    assert fill_smallest(torch.zeros(3), mask, 2).tolist() == [False, True, False]


@given(weights(), SHARES, DELTAS)
@settings(max_examples=200)
def test_multiples_takes_all_up_to_the_smallest_that_suffices(
    weight: Tensor, share: float, delta: float
) -> None:
    size, count = weight.abs(), due(share, len(weight))
    mask = fill_multiples(weight, all_kept(weight), count, delta)
    k = 0 if not count else smallest_multiple(size.sort().values[count - 1], delta)
    reached = size <= multiple(k, delta, size)
    assert torch.equal(mask, ~reached) and int(reached.sum()) >= count
    assert k == 0 or int((size <= multiple(k - 1, delta, size)).sum()) < count


@given(weights(), SHARES, st.sampled_from([0.1, 1.0, 7.5]))
def test_multiples_equals_a_loop_over_k(weight: Tensor, share: float, delta: float) -> None:
    k, size = 0, weight.abs()
    while float((size <= k * delta).double().mean()) < share:
        k += 1
    mask = fill_multiples(weight, all_kept(weight), due(share, len(weight)), delta)
    assert torch.equal(mask, ~(size <= k * delta))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_whole_multiple_as_it_is_stored_is_reached(dtype: torch.dtype) -> None:
    delta = 0.001
    for k in (1, 3, 7, 9, 57):
        value = torch.tensor(k * delta, dtype=torch.float64).to(dtype)
        found = smallest_multiple(value, delta)
        assert value <= multiple(found, delta, value) and value > multiple(found - 1, delta, value)
        assert found <= k


def test_a_multiple_past_all_whole_floats_is_found() -> None:
    value = torch.tensor(3.0, dtype=torch.float64)
    assert smallest_multiple(value, 1e-300) == math.ceil(Fraction(3) / Fraction(1e-300)) or (
        multiple(smallest_multiple(value, 1e-300), 1e-300, value) == 3
    )


def _by(filler: Callable[..., Tensor], weight: Tensor, mask: Tensor, count: int) -> Tensor:
    if filler is fill_random:
        return fill_random(mask, count, 3)
    return filler(weight, mask, count, *([0.01] if filler is fill_multiples else []))


@pytest.mark.parametrize("filler", [fill_random, fill_smallest, fill_multiples])
@given(weights(), st.lists(SHARES, min_size=2, max_size=5).map(sorted), st.integers(0, 99))
def test_what_is_0_stays_0(
    filler: Callable[..., Tensor], weight: Tensor, shares: list[float], seed: int
) -> None:
    mask = all_kept(weight)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    for share in shares:
        weight = weight + noise.to(weight)
        filled = _by(filler, weight, mask, due(share, len(weight)))
        assert not (filled & ~mask).any() and zeros(filled) >= due(share, len(weight))
        mask = filled


@pytest.mark.parametrize("filler", [fill_random, fill_smallest, fill_multiples])
def test_a_mask_has_the_shape_of_its_weight(filler: Callable[..., Tensor]) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert _by(filler, weight, all_kept(weight), 7).shape == weight.shape
