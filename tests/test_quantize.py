import copy
import pickle
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwcost.errors import SearchError
from hwcost.recorder_quantize import fake_quantize
from hwcost.search import quantize_pieces
from hwcost.search.quantize import (
    BIAS,
    QUANTIZERS,
    WEIGHT_RULES,
    Calibration,
    Grid,
    ScaleBank,
    activation_grid,
    least_scales,
    mixed_activation,
    mixed_weight,
    quantize_bias,
    weight_grid,
)
from hwcost.search.quantize_weights import BEST_STEPS

BITS = (2, 4, 8)
WEIGHTS = [weight_grid(bits) for bits in BITS]
SIGNED = [activation_grid(bits, True) for bits in BITS]
UNSIGNED = [activation_grid(bits, False) for bits in BITS]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[100, 2**18])
def _small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_pieces, "PIECE", request.param)


def one_clip(grids: list[Grid], clip: float = 1.5) -> Tensor:
    return torch.tensor([clip / grid.high for grid in grids])


def weight_scales(
    w: Tensor, grids: list[Grid], rule: str = "auto", axis: int = 0, least: Tensor | None = None
) -> Tensor:
    return WEIGHT_RULES[rule](w, axis, grids, least)


def grad_of(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def stored(x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """What an exported model stores."""
    out: Tensor = fake_quantize(x, scale, [grid.bits], [grid.low], [grid.high], 0, "", "")
    return out


def gradients(
    x: Tensor,
    scales: Tensor,
    shares: Tensor,
    grids: list[Grid],
    grad: Tensor,
    learns_inside: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The formulas of PACT and LSQ in float64, one choice after another."""
    x, grad, scales, shares = x.double(), grad.double(), scales.double(), shares.double()
    of_x, of_scales, of_shares = torch.zeros_like(x), [], []
    for scale, share, grid in zip(scales, shares, grids, strict=True):
        codes = x / scale
        inside = (codes >= grid.low * (1 + 1e-6)) & (codes <= grid.high * (1 + 1e-6))
        rounded = codes.round().clamp(grid.low, grid.high)
        of_x += grad * share * inside
        error = (rounded - codes) * learns_inside
        of_scales.append(share * (grad * torch.where(inside, error, rounded)).sum())
        of_shares.append((grad * rounded).sum() * scale)
    return of_x, torch.stack(of_scales), torch.stack(of_shares)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    size = float(expected.abs().max())
    return torch.allclose(found.double(), expected.double(), rtol=0, atol=tolerance * (size + 0.1))


def test_grids() -> None:
    assert weight_grid(2) == Grid(2, -1, 1)
    assert weight_grid(8) == Grid(8, -127, 127)
    assert activation_grid(8, False) == Grid(8, 0, 255)
    assert activation_grid(4, True) == Grid(4, -8, 7)
    assert Grid(32, -2147483648, 2147483647) == BIAS


@pytest.mark.parametrize("bits", [1, 0, -1])
def test_too_few_bits(bits: int) -> None:
    with pytest.raises(ValueError, match=f"weights need 2 bits or more, not {bits}"):
        weight_grid(bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("grid", [*UNSIGNED, *SIGNED], ids=str)
@pytest.mark.usefixtures("_small_pieces")
def test_one_choice_is_what_the_exported_model_stores(grid: Grid, dtype: torch.dtype) -> None:
    scale = one_clip([grid])
    halves = torch.arange(-600, 600) * scale.to(dtype) / 2
    x = torch.cat([torch.randn(1000), halves, torch.tensor([1e30, -1e30])]).to(dtype)
    for inside in (False, True):
        out = mixed_activation(x.clone().requires_grad_(), scale, None, [grid], inside)
        assert torch.equal(out, stored(x, scale, grid))
        assert torch.equal(mixed_activation(x, scale, None, [grid], inside), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("choice", range(3))
def test_one_hot_shares_are_what_the_exported_model_stores(choice: int, dtype: torch.dtype) -> None:
    x, shares = torch.randn(1000).to(dtype), torch.eye(3)[choice]
    scales = torch.rand(3) + 0.01
    expected = stored(x, scales[choice, None], SIGNED[choice])
    assert torch.equal(mixed_activation(x, scales, shares, SIGNED), expected)


@pytest.mark.usefixtures("_small_pieces")
def test_a_mixture_adds_its_choices_by_share() -> None:
    x, scales, shares = torch.randn(7, 300), one_clip(UNSIGNED), torch.tensor([0.2, 0.3, 0.5])
    parts = [stored(x, scales[[c]], UNSIGNED[c]).double() * shares[c].double() for c in range(3)]
    assert close(mixed_activation(x, scales, shares, UNSIGNED), sum(parts, torch.zeros(())), 1e-7)


@pytest.mark.parametrize("clip", ["one", "each its own"])
@pytest.mark.parametrize(
    "grids", [UNSIGNED, SIGNED, UNSIGNED[2:], SIGNED[:1], SIGNED[:1] * 2], ids=str
)
@pytest.mark.parametrize("learns_inside", [False, True])
@pytest.mark.usefixtures("_small_pieces")
def test_gradients(grids: list[Grid], learns_inside: bool, clip: str) -> None:
    x = torch.randn(10, 77, requires_grad=True)
    scales = one_clip(grids) * (1 if clip == "one" else torch.rand(len(grids)) + 0.5)
    shares = torch.rand(len(grids))
    grad = torch.randn(10, 77)
    expected = gradients(x.detach(), scales, shares, grids, grad, learns_inside)
    scales.requires_grad_(), shares.requires_grad_()
    mixed_activation(x, scales, shares, grids, learns_inside).backward(grad)
    found = grad_of(x), grad_of(scales), grad_of(shares)
    assert all(map(close, found, expected))


@pytest.mark.parametrize("grid", [*UNSIGNED, *SIGNED], ids=str)
@pytest.mark.parametrize("learns_inside", [False, True])
@pytest.mark.usefixtures("_small_pieces")
def test_gradients_of_one_choice(grid: Grid, learns_inside: bool) -> None:
    x, grad = torch.randn(10, 77, requires_grad=True), torch.randn(10, 77)
    scale = one_clip([grid])
    of_x, of_scale, _ = gradients(x.detach(), scale, torch.ones(1), [grid], grad, learns_inside)
    mixed_activation(x, scale.requires_grad_(), None, [grid], learns_inside).backward(grad)
    # An error kept in a byte is off by 1/480 of a step at most, at random over 770 elements.
    assert close(grad_of(x), of_x)
    assert scale.grad is not None
    assert abs(float(scale.grad) - float(of_scale)) < (0.1 if learns_inside else 1e-3)


@pytest.mark.parametrize("shares", [None, torch.ones(1)], ids=["one choice", "mixture"])
def test_ends_of_the_range_are_inside(shares: Tensor | None) -> None:
    grid, scale = SIGNED[1], torch.tensor([0.25], requires_grad=True)
    codes = torch.tensor([grid.low - 0.01, grid.low, grid.high, grid.high + 0.01])
    x = (codes * 0.25).requires_grad_()
    mixed_activation(x, scale, shares, [grid]).sum().backward()
    assert torch.equal(grad_of(x), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert torch.equal(grad_of(scale), torch.tensor([float(grid.low + grid.high)]))


@pytest.mark.parametrize("shares", [None, torch.tensor([1.0])], ids=["one choice", "mixture"])
@pytest.mark.parametrize("grid", [UNSIGNED[2], SIGNED[2]], ids=["unsigned", "signed"])
def test_where_nothing_is_clipped_pact_leaves_its_clip_alone(
    grid: Grid, shares: Tensor | None
) -> None:
    scale, x = torch.tensor([1.0], requires_grad=True), torch.rand(5000) * 100
    mixed_activation(x, scale, shares, [grid]).backward(torch.randn(5000))
    assert float(grad_of(scale)) == 0


def test_gradient_of_a_clip_is_the_slope_of_the_clipped_sum() -> None:
    """Unlike the values inside, which PACT holds for unrounded, clipped ones have a slope."""
    x, grid = torch.rand(100) + 3, SIGNED[2]
    clip = torch.tensor(2.0, requires_grad=True)
    mixed_activation(x, (clip / grid.high)[None], None, [grid]).sum().backward()
    assert clip.grad is not None
    assert float(clip.grad) == pytest.approx(100)


def kept_bytes(run: Callable[[], Tensor], *but: Tensor) -> int:
    """Bytes kept for backward, but for those of the tensors given."""
    found: dict[int, int] = {}
    ignored = {tensor.untyped_storage().data_ptr() for tensor in but}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ignored:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("learns_inside", [False, True])
def test_one_choice_keeps_a_byte_for_each_element(learns_inside: bool) -> None:
    x, scale = torch.randn(1000, requires_grad=True), torch.tensor([0.1], requires_grad=True)
    run = lambda: mixed_activation(x, scale, None, UNSIGNED[:1], learns_inside)  # noqa: E731
    assert kept_bytes(run) == 1000 + 4


def test_a_mixture_keeps_no_more_than_its_input() -> None:
    x, scales = torch.randn(1000, requires_grad=True), one_clip(UNSIGNED)
    run = lambda: mixed_activation(x, scales, torch.ones(3), UNSIGNED)  # noqa: E731
    assert kept_bytes(run, x) == 2 * 3 * 4


def test_weights_keep_no_more_than_themselves() -> None:
    w, scales = torch.randn(5, 10_000, requires_grad=True), torch.rand(5, 3)
    run = lambda: mixed_weight(w, scales, torch.rand(5, 3), WEIGHTS)  # noqa: E731
    assert kept_bytes(run, w) == 2 * 15 * 4


@pytest.mark.parametrize("learns_inside", [False, True])
def test_in_place_is_the_same(learns_inside: bool) -> None:
    values, grad = torch.randn(4, 50), torch.randn(4, 50)
    found = []
    for inplace in (False, True):
        x = values.clone().requires_grad_()
        scale = torch.tensor([0.01], requires_grad=True)
        made = x * 1
        out = mixed_activation(made, scale, None, UNSIGNED[2:], learns_inside, inplace)
        assert (out.data_ptr() == made.data_ptr()) == inplace
        out.backward(grad)
        found.append((out.detach(), grad_of(x), grad_of(scale)))
    assert all(map(torch.equal, *found))


def test_in_place_of_what_does_not_fill_its_memory() -> None:
    x = torch.randn(6, 8)
    expected = stored(x[:, ::2], torch.tensor([0.1]), SIGNED[2])
    mixed_activation(x[:, ::2], torch.tensor([0.1]), None, SIGNED[2:], inplace=True)
    assert torch.equal(x[:, ::2], expected)


def test_several_choices_in_place_are_an_error() -> None:
    with pytest.raises(ValueError, match="several choices cannot be mixed in place"):
        mixed_activation(torch.ones(2), torch.ones(3), torch.ones(3), SIGNED, inplace=True)


def test_sizes_that_differ_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"3 grids need as many scales and shares, not \[2\] and 3"
    ):
        mixed_activation(torch.ones(2), torch.ones(2), torch.ones(3), SIGNED)
    with pytest.raises(ValueError, match=r"expected scales of shape \(4, 3\), not \(5, 3\)"):
        mixed_weight(torch.ones(4, 2), torch.ones(5, 3), torch.ones(3), WEIGHTS)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 2),
    "every other": lambda x: x[..., ::2],
    "expanded": lambda x: x[:1].expand(5, *x.shape[1:]),
    "offset": lambda x: x[1:],
    "empty": lambda x: x[:0],
    "scalar": lambda x: x[0, 0, 0, 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("choices", [1, 3])
def test_layouts(layout: str, choices: int) -> None:
    leaf = torch.randn(4, 6, 3, 8, requires_grad=True)
    x, grids = LAYOUTS[layout](leaf), UNSIGNED[-choices:]
    scales, shares = one_clip(grids).requires_grad_(), None if choices == 1 else torch.rand(3)
    out = mixed_activation(x, scales, shares, grids)
    plain = x.detach().contiguous().requires_grad_()
    same_scales = scales.detach().clone().requires_grad_()
    same = mixed_activation(plain, same_scales, shares, grids)
    grad = torch.randn(x.shape)
    (of_x,) = torch.autograd.grad(out, [x], grad, retain_graph=True)
    out.backward(grad), same.backward(grad)
    assert torch.equal(out, same)
    assert torch.equal(of_x, grad_of(plain))
    assert close(grad_of(scales), grad_of(same_scales))


def test_channels_last_stays() -> None:
    x = torch.randn(4, 6, 3, 8).contiguous(memory_format=torch.channels_last)
    for shares, grids in ((None, UNSIGNED[2:]), (torch.rand(3), UNSIGNED)):
        out = mixed_activation(x, one_clip(grids), shares, grids)
        assert out.stride() == x.stride()


@pytest.mark.parametrize("choices", [1, 3])
def test_a_gradient_of_another_layout(choices: int) -> None:
    x, grids = torch.randn(4, 6, 3, 8, requires_grad=True), UNSIGNED[-choices:]
    out = mixed_activation(x, one_clip(grids), None if choices == 1 else torch.ones(3), grids)
    (grad,) = torch.autograd.grad(out.sum(), [x])
    expected = ((x >= 0) & (x <= 1.5)).float() * choices
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choices", [1, 3])
def test_gradients_of_half_precision(dtype: torch.dtype, choices: int) -> None:
    x, grids = torch.randn(500).to(dtype).requires_grad_(), SIGNED[-choices:]
    scales, shares = one_clip(grids), torch.rand(choices) if choices > 1 else torch.ones(1)
    grad = torch.randn(500).to(dtype)
    expected = gradients(x.detach(), scales.to(dtype), shares, grids, grad)
    scales.requires_grad_()
    given = shares.requires_grad_() if choices > 1 else None
    mixed_activation(x, scales, given, grids).backward(grad)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert close(grad_of(x), expected[0], 0.01)
    assert close(grad_of(scales), expected[1], 0.01)
    assert choices == 1 or close(grad_of(shares), expected[2], 0.01)


def test_under_autocast() -> None:
    x, weight = torch.randn(8, 16), torch.randn(16, 16, requires_grad=True)
    scales = one_clip(UNSIGNED).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = mixed_activation(x @ weight, scales, torch.ones(3) / 3, UNSIGNED)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert weight.grad is not None and scales.grad is not None


SHAPES = [((4, 5), 0), ((4, 3, 3), 0), ((3, 4, 2, 2), 1), ((2, 3, 2, 2, 4), -1), ((4,), 0)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("learns_inside", [False, True])
@pytest.mark.parametrize("layout", ["plain", "strided"])
@pytest.mark.usefixtures("_small_pieces")
def test_weights_are_rounded_channel_by_channel(
    shape: tuple[int, ...], axis: int, learns_inside: bool, layout: str
) -> None:
    w = torch.randn(*shape, 2)[..., 0] if layout == "strided" else torch.randn(shape)
    grad, channels = torch.randn(shape), shape[axis]
    scales, shares = torch.rand(channels, 3) + 0.1, torch.rand(channels, 3)
    leaves = w.requires_grad_(), scales.requires_grad_(), shares.requires_grad_()
    out = mixed_weight(w, scales, shares, WEIGHTS, axis, learns_inside)
    found = torch.autograd.grad(out, leaves, grad)
    for channel in range(channels):
        x = w.detach().select(axis, channel)
        step, share = scales.detach()[channel], shares.detach()[channel]
        assert close(out.select(axis, channel), mixed_activation(x, step, share, WEIGHTS), 1e-6)
        expected = gradients(x, step, share, WEIGHTS, grad.select(axis, channel), learns_inside)
        assert close(found[0].select(axis, channel), expected[0])
        assert close(found[1][channel], expected[1])
        assert close(found[2][channel], expected[2])


@pytest.mark.parametrize("axis", [0, 1])
def test_one_hot_weights_are_what_the_exported_model_stores(axis: int) -> None:
    w, choice = torch.randn(6, 6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    scales = weight_scales(w, WEIGHTS, axis=axis)
    grids, chosen = [WEIGHTS[c] for c in choice], scales[torch.arange(6), choice]
    codes = zip(*((g.bits, g.low, g.high) for g in grids), strict=True)
    bits, low, high = map(list, codes)
    expected = fake_quantize(w, chosen, bits, low, high, axis, "", "")
    assert torch.equal(mixed_weight(w, scales, torch.eye(3)[choice], WEIGHTS, axis), expected)


def test_layerwise_shares_add_up_over_channels() -> None:
    w, scales = torch.randn(4, 50), torch.rand(4, 3)
    shares = torch.rand(3, requires_grad=True)
    each = shares.detach().expand(4, 3).clone().requires_grad_()
    for leaf in (shares, each):
        mixed_weight(w, scales, leaf, WEIGHTS).square().sum().backward()
    assert close(grad_of(shares), grad_of(each).sum(0))


@pytest.mark.parametrize("shares", [None, torch.tensor([0.25])], ids=["one choice", "mixture"])
def test_weights_that_nothing_clips_have_the_whole_gradient(shares: Tensor | None) -> None:
    w, grad = torch.randn(4, 50, requires_grad=True), torch.randn(4, 50)
    scales = weight_scales(w, WEIGHTS[2:], "minmax")
    mixed_weight(w, scales, shares, WEIGHTS[2:], clips=False).backward(grad)
    assert torch.equal(grad_of(w), grad * (1.0 if shares is None else 0.25))


def test_a_bias_is_rounded_in_double_precision() -> None:
    scale = torch.rand(1000) * 1e-6
    bias = torch.randn(1000) * 10
    codes = (bias.double() / scale.double()).round().clamp(BIAS.low, BIAS.high)
    assert torch.equal(quantize_bias(bias, scale), (codes * scale.double()).float())


def test_a_bias_that_does_not_fit_is_clipped() -> None:
    found = quantize_bias(torch.tensor([1.0, -1.0]), torch.tensor([2.0**-40] * 2))
    assert torch.equal(found, torch.tensor([2.0**-9, -(2.0**-9)]))


def test_a_bias_has_the_whole_gradient_and_its_scale_none() -> None:
    bias, scale = torch.randn(5, requires_grad=True), torch.rand(5, requires_grad=True)
    grad = torch.randn(5)
    quantize_bias(bias, scale).backward(grad)
    assert torch.equal(grad_of(bias), grad)
    assert scale.grad is None


@pytest.mark.parametrize("bits", BEST_STEPS)
@pytest.mark.parametrize("which", [0, 1], ids=["normal", "laplace"])
def test_best_steps_have_the_least_squared_error(bits: int, which: int) -> None:
    x = torch.linspace(0, 30, 200_001, dtype=torch.float64)
    density = (-x.square() / 2).exp() if which == 0 else (-x * 2**0.5).exp()
    high, best = weight_grid(bits).high, BEST_STEPS[bits][which]

    def error(step: float) -> float:
        return float(((x - (x / step).round().clamp(max=high) * step) ** 2 * density).sum())

    errors = [error(best * factor) for factor in (0.97, 0.99, 1, 1.01, 1.03)]
    assert errors[0] > errors[1] > errors[2] < errors[3] < errors[4]


@pytest.mark.parametrize("distribution", ["normal", "laplace"])
@pytest.mark.parametrize("size", [27, 144, 576, 4608])
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_rule_auto_is_never_much_worse_than_another(
    bits: int, size: int, distribution: str
) -> None:
    w = torch.randn(64, size)
    if distribution == "laplace":
        w = torch.distributions.Laplace(0.0, 1.0).sample((64, size))
    errors = {}
    for rule in ("auto", "minmax", "gauss"):
        scales = weight_scales(w, [weight_grid(bits)], rule)
        rounded = mixed_weight(w, scales, None, [weight_grid(bits)])
        errors[rule] = float((rounded - w).square().mean())
    assert errors["auto"] < 1.25 * min(errors.values())


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_zeros_have_a_scale(rule: str) -> None:
    w = torch.randn(3, 4)
    w[1] = 0
    scales = weight_scales(w, WEIGHTS, rule)
    assert torch.equal(scales[1], scales.amax(0))
    assert torch.equal(weight_scales(w * 0, WEIGHTS, rule), torch.ones(3, 3))


@pytest.mark.parametrize("rule", WEIGHT_RULES)
def test_scales_grow_with_the_weights(rule: str) -> None:
    w = torch.randn(3, 4, 5)
    once, twice = (weight_scales(w * k, WEIGHTS, rule, axis=1) for k in (1, 2))
    assert torch.equal(once * 2, twice)
    assert once.shape == (4, 3)


def test_rules_that_never_clip_do_not() -> None:
    w = torch.randn(30, 200)
    for rule, grids in (("minmax", WEIGHTS), ("auto", WEIGHTS[2:])):
        assert not WEIGHT_RULES[rule].clips(grids)
        highs = torch.tensor([grid.high for grid in grids])
        ends = weight_scales(w, grids, rule) * highs
        assert bool((w.abs().amax(1)[:, None] <= ends * (1 + 1e-6)).all())
    assert WEIGHT_RULES["auto"].clips(WEIGHTS)


def test_a_bias_fits_the_least_scales() -> None:
    w, bias, scale = torch.randn(4, 9), torch.randn(4), torch.tensor(0.01)
    w[2] *= 1e-15
    grids = WEIGHTS[2:]
    scales = weight_scales(w, grids, least=least_scales(bias, scale))[:, 0]
    assert close(quantize_bias(bias, scale * scales), bias, 1e-3)
    assert abs(float(quantize_bias(bias, scale * weight_scales(w, grids)[:, 0])[2])) < 1e-6


def bank() -> ScaleBank:
    made = ScaleBank()
    made.add("a.b", "pact", UNSIGNED, 6.0)
    made.add("c", "lsq", SIGNED, 3.0)
    made.add("d", "pact", SIGNED[:1])
    return made


def test_scales_of_points() -> None:
    pact, lsq, last = bank().scales()
    assert torch.allclose(pact, torch.tensor([2.0, 6 / 15, 6 / 255]))
    assert torch.allclose(lsq, torch.tensor([3.0, 3 / 7, 3 / 127]))
    assert torch.allclose(last, torch.ones(1))
    assert len(bank().log2) == 1 + 3 + 1


def test_gradients_of_points() -> None:
    made = bank()
    made.set_size("a.b", 100)
    made.set_size("c", 25)
    torch.cat(made.scales()).sum().backward()
    slope = torch.log(torch.tensor(2.0))
    pact = 6 * (1 / 3 + 1 / 15 + 1 / 255) * slope / (100 * 255) ** 0.5
    lsq = torch.tensor([3, 3 / 7, 3 / 127]) * slope / (25 * torch.tensor([1.0, 7, 127])).sqrt()
    assert made.log2.grad is not None
    assert torch.allclose(made.log2.grad, torch.cat([pact[None], lsq, slope[None]]))


def test_a_range_is_set() -> None:
    made = bank()
    made.set_range("c", 1.5)
    assert torch.allclose(made.scales()[1], torch.tensor([1.5, 1.5 / 7, 1.5 / 127]))
    made.set_range("a.b", 0.0)
    assert float(made.scales()[0].detach()[0]) > 0


def test_other_grids_keep_the_range() -> None:
    made = bank()
    made.scales()
    made.regrid("a.b", SIGNED)
    made.regrid("c", UNSIGNED)
    pact, lsq, _ = made.scales()
    assert torch.allclose(pact, torch.tensor([6.0, 6 / 7, 6 / 127]))
    assert torch.allclose(lsq, torch.tensor([1.0, 3 / 15, 3 / 255]))
    with pytest.raises(SearchError, match="point 'c' has 3 grids, not 1"):
        made.regrid("c", SIGNED[:1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies_of_a_bank(copied: Callable[[ScaleBank], ScaleBank]) -> None:
    made = bank()
    made.scales()
    other = copied(made)
    assert all(map(torch.equal, other.scales(), made.scales()))
    other.set_range("c", 9.0)
    assert not torch.equal(other.scales()[1], made.scales()[1])


def test_the_state_of_a_bank() -> None:
    made, other = bank(), bank()
    made.set_range("c", 9.0)
    made.set_size("c", 9)
    other.load_state_dict(made.state_dict())
    assert all(map(torch.equal, other.scales(), made.scales()))
    assert torch.equal(other.grad_scale, made.grad_scale)


def test_errors_of_a_bank() -> None:
    made = bank()
    with pytest.raises(SearchError, match="there is a point 'c' already"):
        made.add("c", "pact", UNSIGNED)
    with pytest.raises(SearchError, match="no quantizer 'pakt'; known: pact, lsq"):
        made.add("e", "pakt", UNSIGNED)
    with pytest.raises(SearchError, match="range of 'c' must be finite and 0 or more, not nan"):
        made.set_range("c", float("nan"))
    assert ScaleBank().scales() == []


@settings(max_examples=5, deadline=None)
@given(
    lr=st.floats(1e-4, 100),
    seed=st.integers(0, 1000),
    size=st.floats(-12, 12),
    optimizer=st.sampled_from([torch.optim.SGD, torch.optim.Adam]),
)
def test_scales_stay_positive_and_finite(
    lr: float, seed: int, size: float, optimizer: type[torch.optim.Optimizer]
) -> None:
    made, generator = bank(), torch.Generator().manual_seed(seed)
    steps = optimizer([made.log2], lr=lr)  # type: ignore[call-arg]
    for _ in range(1000):
        made.log2.grad = torch.randn(5, generator=generator) * 10**size
        steps.step()
        made.project()
    flat = torch.cat(made.scales())
    assert bool(((flat > 0) & flat.isfinite()).all())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_learned_range_fits_its_data(quantizer: str) -> None:
    x, made = torch.randn(2000).relu(), ScaleBank()
    made.add("x", quantizer, UNSIGNED[1:2], 50.0)
    inside = made.learns_inside("x")
    steps = torch.optim.Adam([made.log2], lr=0.05)
    errors = []
    for _ in range(60):
        rounded = mixed_activation(x, made.scales()[0], None, UNSIGNED[1:2], inside)
        loss = (rounded - x).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        errors.append(float(loss.detach()))
    # PACT's clip has no reason to shrink: that is its regulariser's task.
    assert errors[-1] < errors[0] / 10 if inside else errors[-1] == errors[0]


def test_calibration_against_all_the_data() -> None:
    seen, calibration = [], Calibration()
    for size in (0.01, 3.0, 1.0, 0.0, 700.0, 2.0):
        seen.append(torch.randn(4, 500) * size)
        calibration.observe("x", seen[-1])
    data = torch.cat(seen)
    assert calibration.range("x") == float(data.abs().max())
    assert calibration.low("x") == float(data.min())
    for percentile in (50.0, 90.0, 99.0, 99.9):
        bounds = [
            float(torch.quantile(data.abs(), percentile / 100, interpolation=side))
            for side in ("lower", "higher")
        ]
        bin_width = calibration.range("x") / 1024
        found = calibration.range("x", percentile)
        assert bounds[0] - bin_width <= found <= bounds[1] + bin_width


def test_percentiles_grow() -> None:
    calibration = Calibration()
    calibration.observe("x", torch.randn(1000))
    ranges = [calibration.range("x", percentile) for percentile in range(1, 101)]
    assert all(low <= high for low, high in pairwise(ranges))


@pytest.mark.parametrize("values", [[0.0], [1e-40], [3e38], [1.0], [-2.0, 2.0]])
def test_calibration_of_odd_values(values: list[float]) -> None:
    calibration, x = Calibration(), torch.tensor(values)
    calibration.observe("x", x[:0])
    for _ in range(2):
        calibration.observe("x", x)
    assert calibration.range("x") == float(x.abs().max())
    assert 0 <= calibration.range("x", 99.0) <= float(x.abs().max())


def test_errors_of_calibration() -> None:
    calibration = Calibration()
    with pytest.raises(SearchError, match="no data were seen for 'x'"):
        calibration.range("x")
    with pytest.raises(SearchError, match="'x' has values that are not finite"):
        calibration.observe("x", torch.tensor([1.0, float("nan")]))
    with pytest.raises(SearchError, match="above 0 and at most 100, not 0"):
        calibration.range("x", 0)
