"""Time of rounding, forward and backward, in ns for each element; run with ``make bench``.

Targets, one thread, an idle core: activations with one choice 1.3 ns, with three 4 ns. ReLU and
what it costs here stand beside each.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hwcost.search.quantize import (
    WEIGHT_RULES,
    activation_grid,
    mixed_activation,
    mixed_weight,
    weight_grid,
)

torch.set_num_threads(1)

BITS = (2, 4, 8)
#: The first activations of ResNet8 and of ResNet18 at batch 32.
TENSORS = {"resnet8": (32, 16, 32, 32), "resnet18": (32, 64, 56, 56)}
WEIGHTS = {"64x64x3x3": (64, 64, 3, 3), "512x512x3x3": (512, 512, 3, 3), "64x1x3x3": (64, 1, 3, 3)}


def _round_trip(run: Callable[[], Tensor], grad: Tensor) -> Callable[[], None]:
    return lambda: torch.autograd.backward(run(), grad)


def _nanoseconds(elements: int, *runs: Callable[[], object]) -> list[float]:
    """Return the shortest time of each, run in turn."""
    best = [float("inf")] * len(runs)
    gc.disable()
    try:
        for _ in range(15):
            for number, run in enumerate(runs):
                start = time.perf_counter()
                run()
                best[number] = min(best[number], time.perf_counter() - start)
    finally:
        gc.enable()
    return [seconds / elements * 1e9 for seconds in best]


def _compare(
    benchmark: Any, name: str, x: Tensor, run: Callable[[], Tensor], extra: str = ""
) -> None:
    grad = torch.randn_like(x)
    both, relu = _round_trip(run, grad), _round_trip(x.relu, grad)
    forward, total, plain = _nanoseconds(x.numel(), run, both, relu)
    print(f"\n{name}: forward {forward:.2f}, with backward {total:.2f} ns; relu {plain:.2f}{extra}")
    benchmark.extra_info["ns_per_element"] = total
    benchmark.pedantic(both, rounds=3)


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("kind", ["pact", "signed pact", "lsq"])
def test_activations(benchmark: Any, tensor: str, choices: int, kind: str) -> None:
    x = torch.randn(TENSORS[tensor]).relu_().requires_grad_()
    grids = [activation_grid(bits, kind == "signed pact") for bits in BITS[-choices:]]
    scales = torch.tensor([2.0 / grid.high for grid in grids], requires_grad=True)
    shares = None if choices == 1 else torch.full((3,), 1 / 3, requires_grad=True)
    name = f"{kind}, {choices} choices, {tensor}"
    _compare(benchmark, name, x, lambda: mixed_activation(x, scales, shares, grids, kind == "lsq"))


@pytest.mark.parametrize("layer", WEIGHTS)
@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("clips", [False, True])
def test_weights(benchmark: Any, layer: str, choices: int, clips: bool) -> None:
    w = torch.randn(WEIGHTS[layer], requires_grad=True)
    grids, rule = [weight_grid(bits) for bits in BITS[-choices:]], WEIGHT_RULES["auto"]
    scales = rule(w, 0, grids)
    shares = None if choices == 1 else torch.rand(len(w), 3, requires_grad=True)
    (rules,) = _nanoseconds(w.numel(), lambda: rule(w, 0, grids))
    name = f"{layer}, {choices} choices{', clipped' if clips else ''}"
    _compare(
        benchmark,
        name,
        w,
        lambda: mixed_weight(w, scales, shares, grids, clips=clips),
        extra=f"; scales {rules:.2f}",
    )
