"""What MPS adds to training, one thread, batch 32; run with ``make bench``.

Targets, on an idle core: a step of the search against the plain float network's, interleaved in
one run. Per layer with w=(2, 4, 8) and a=(2, 4, 8): resnet8 1.8, ResNet18 1.5; per channel with
w=(0, 2, 4, 8) and a=8: resnet8 1.4, ResNet18 1.3; ODiMO on resnet8 1.4. Memory saved for backward:
1.5. A cost with its gradient: 1 ms on resnet8 for every platform.
"""

import statistics
import time
from typing import Any

import pytest

from hwcost import available
from hwcost.errors import HwcostError
from hwcost.search import MPS, ODiMO
from tests.benchmarks.bench_search import _batch, _memory, _ratio, _step

LAYER: dict[str, Any] = {"w_bits": (2, 4, 8), "a_bits": (2, 4, 8)}
CHANNEL: dict[str, Any] = {"w_bits": (0, 2, 4, 8), "granularity": "channel"}
ROUNDS = {"resnet8": 12, "resnet18": 3}


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.parametrize("how", [LAYER, CHANNEL], ids=["layer", "channel"])
def test_step(name: str, how: dict[str, Any]) -> None:
    model, x = _batch(name)
    search = MPS(model, x[:1], **how)
    search.calibrate([x])
    ratio = _ratio(_step(model, x), _step(search, x), ROUNDS[name])
    print(f"\nMPS per {how.get('granularity', 'layer')}, {name}: step {ratio:.2f} of the plain one")


@pytest.mark.parametrize("how", [LAYER, CHANNEL], ids=["layer", "channel"])
def test_memory(how: dict[str, Any]) -> None:
    model, x = _batch("resnet8")
    search = MPS(model, x[:1], **how)
    search.calibrate([x])
    ratio = _memory(model, search, x)
    print(f"\nMPS per {how.get('granularity', 'layer')}, resnet8: memory {ratio:.2f}")


@pytest.mark.parametrize("platform", available())
@pytest.mark.parametrize("how", [LAYER, CHANNEL], ids=["layer", "channel"])
def test_cost(platform: str, how: dict[str, Any]) -> None:
    model, x = _batch("resnet8")
    search = MPS(model, x[:1], **how)
    metric = "bitops" if platform == "counts" else "latency"
    try:
        search.cost_specification = f"{platform}:{metric}"
        search.cost.backward()
    except HwcostError as error:
        print(f"\n{platform}: {error}")
        return
    times = []
    for _ in range(200):
        start = time.perf_counter()
        search.cost.backward()
        times.append(time.perf_counter() - start)
    best, median = 1e3 * min(times), 1e3 * statistics.median(times)
    print(f"\n{platform}, {how.get('granularity', 'layer')}: {best:.2f} ms, median {median:.2f} ms")


def test_step_of_odimo() -> None:
    model, x = _batch("resnet8")
    search = ODiMO(model, x[:1], platform="diana")
    search.calibrate([x])
    ratio = _ratio(_step(model, x), _step(search, x), ROUNDS["resnet8"])
    print(f"\nODiMO, resnet8: step {ratio:.2f} of the plain one")
