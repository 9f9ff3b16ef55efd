"""What a search says about wrong input: one clear line each."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, HwcostError, TraceError, UnknownName, UnsupportedOp, Workload
from hwcost.errors import CostError, SearchError
from hwcost.search import (
    DUCCIO,
    MPS,
    PIT,
    BaseRegularizer,
    Choice,
    LayerQuant,
    PITSuperNet,
    Search,
    SuperNet,
)

X = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1))


class Fork(nn.Module):
    """Two layers that read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([self.a(x), self.b(x)], 1)


def nan_bits() -> Search:
    search = MPS(net(), X)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.fill_(float("nan"))
    return search


def no_scalar(workload: Workload) -> Tensor:
    return workload.column("cin")


def no_tensor(workload: Workload) -> Any:
    return None


def with_nan(name: str) -> Search:
    search = PIT(net(), X)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.fill_(float("nan"))
    return search


def priced(cost: Any) -> Callable[[], Any]:
    return lambda: PIT(net(), X, cost=cost)


#: What is wrong -> what is done, the error, and what its message holds.
WRONG: dict[str, tuple[Callable[[], Any], type[HwcostError], str]] = {
    "nothing to search": (lambda: PIT(nn.ReLU(), X), SearchError, "ReLU has no layer"),
    "only outputs": (
        lambda: PIT(nn.Linear(6, 2), X, train_rf=False),
        SearchError,
        "Linear has no layer that PIT can search.*the network returns",
    ),
    "all is left out": (
        lambda: PIT(net(), X, exclude_types=[nn.Conv2d]),
        SearchError,
        "no layer.*left out: Conv2d",
    ),
    "no own layers": (
        lambda: PIT(net(), X, autoconvert_layers=False),
        SearchError,
        "autoconvert_layers=False",
    ),
    "an unknown name": (
        lambda: PIT(nn.Sequential(net()), X, exclude_names=["0.00"]),
        UnknownName,
        r"no layer '0\.00'; did you mean '0\.0'",
    ),
    "one name for a list": (
        lambda: PIT(net(), X, exclude_names="0"),
        SearchError,
        "expected a list",
    ),
    "no class": (lambda: PIT(net(), X, exclude_types=["Conv2d"]), SearchError, "'Conv2d'"),  # type: ignore[list-item]
    "no module class": (lambda: PIT(net(), X, exclude_types=[int]), SearchError, "int"),  # type: ignore[list-item]
    "a multiple of 0": (lambda: PIT(net(), X, channel_multiple=0), SearchError, "is 0"),
    "no price": (
        lambda: PIT(volumes(), torch.ones(1, 3, 4, 4, 4), cost="gap8_compute:latency"),
        UnsupportedOp,
        "'0'.*gap8_compute",
    ),
    "no price later": (
        lambda: setattr(
            PIT(volumes(), torch.ones(1, 3, 4, 4, 4)),
            "cost_specification",
            CostModel("gap8_compute", "latency"),
        ),
        UnsupportedOp,
        "'0'.*gap8_compute",
    ),
    "no metric": (priced("gap8_compute"), SearchError, "names no metric.*PLATFORM:METRIC"),
    "an unknown platform": (priced("gap9_compute:latency"), UnknownName, "did you mean"),
    "an unknown metric": (
        priced("gap8_compute:latncy"),
        UnknownName,
        "did you mean 'latency'",
    ),
    "no cost": (priced({}), SearchError, "no cost"),
    "a number for a cost": (priced(5), SearchError, "got int"),
    "a cost of many": (priced(no_scalar), CostError, r"'no_scalar'.*shape \(\d+,\)"),
    "a cost of none": (priced({"mine": no_tensor}), CostError, "'mine'.*NoneType"),
    "an unknown cost": (
        lambda: PIT(net(), X, cost={"lat": "counts:macs", "n": "counts:params"}).get_cost("lta"),
        UnknownName,
        "no cost 'lta'; did you mean 'lat'",
    ),
    "which of two costs": (
        lambda: PIT(net(), X, cost={"a": "counts:macs", "b": "counts:params"}).cost,
        SearchError,
        "'a', 'b'",
    ),
    "no example": (lambda: PIT(net()), TraceError, "example"),
    "two examples": (lambda: PIT(net(), X, input_shape=(3, 6, 6)), TraceError, "input_shape"),
    "an example that does not fit": (lambda: PIT(net(), X[:, :2]), TraceError, "layer '0'"),
    "a class": (lambda: PIT(nn.ReLU, X), SearchError, "the class 'ReLU'"),  # type: ignore[arg-type]
    "no model": (lambda: PIT("resnet18", X), SearchError, "got str"),  # type: ignore[arg-type]
    "a search": (lambda: PIT(PIT(net(), X), X), SearchError, "already searched"),
    "a searched model": (lambda: PIT(PIT(net(), X).model, X), SearchError, "already searched"),
    "a search inside": (
        lambda: PIT(nn.Sequential(PIT(net(), X)), X),
        SearchError,
        "already searched.*'0'",
    ),
    "no method": (lambda: Search(net(), X), SearchError, "method"),
    "NaN to export": (lambda: with_nan("export").export(), SearchError, "NaN"),
    "NaN to price": (lambda: with_nan("cost").cost, SearchError, "NaN"),
    "NaN to price hard": (lambda: with_nan("hard").get_cost(hard=True), SearchError, "NaN"),
    "NaN to summarise": (lambda: with_nan("summary").summary(), SearchError, "NaN"),
    "no choice": (lambda: SuperNet(net(), X), SearchError, "no Choice"),
    "no choice with masks": (lambda: PITSuperNet(net(), X), SearchError, "no Choice"),
    "branches that differ": (
        lambda: SuperNet(nn.Sequential(Choice([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)])), X),
        TraceError,
        r"branch 1 \(Conv2d\).*\(2, 5, 6, 6\).*\(2, 4, 6, 6\)",
    ),
    "no branches": (lambda: Choice([]), SearchError, "at least one"),
    "a function as a branch": (
        lambda: Choice([nn.ReLU(), torch.relu]),  # type: ignore[list-item]
        SearchError,
        "branch 1",
    ),
    "an unknown regularizer": (
        lambda: PITSuperNet(nn.Sequential(Choice([net()])), X, regularizer="flops"),
        SearchError,
        "'flops'.*'size' or 'macs'",
    ),
    "a temperature of 0": (
        lambda: setattr(PIT(net(), X), "temperature", 0.0),
        SearchError,
        "temperature is 0",
    ),
    "a negative strength": (
        lambda: BaseRegularizer("counts:params", -1.0),
        SearchError,
        "-1",
    ),
    "a NaN strength": (
        lambda: BaseRegularizer("counts:params", float("nan")),
        SearchError,
        "nan",
    ),
    "an unknown cost to lower": (
        lambda: BaseRegularizer("counts:parms", 1.0)(PIT(net(), X)),
        UnknownName,
        "did you mean 'counts:params'",
    ),
    "nothing to quantize": (lambda: MPS(nn.ReLU(), X), SearchError, "ReLU has no layer to quan"),
    "one bit": (lambda: MPS(net(), X, w_bits=(1, 8)), SearchError, "w_bits holds 1; .*0 or 2 to"),
    "17 bits": (lambda: MPS(net(), X, w_bits=17), SearchError, "w_bits holds 17"),
    "half a bit": (lambda: MPS(net(), X, w_bits=(2.5,)), SearchError, r"w_bits holds 2\.5"),  # type: ignore[arg-type]
    "no bits": (lambda: MPS(net(), X, w_bits=()), SearchError, "w_bits is .*at least one"),
    "only 0 bits": (
        lambda: MPS(net(), X, w_bits=0, granularity="channel"),
        SearchError,
        "w_bits.* above 0",
    ),
    "tensors of 0 bits": (lambda: MPS(net(), X, a_bits=(0, 8)), SearchError, "a_bits holds 0"),
    "0 bits by layer": (
        lambda: MPS(net(), X, w_bits=(0, 8)),
        SearchError,
        "granularity must be 'channel'",
    ),
    "an unknown granularity": (
        lambda: MPS(net(), X, granularity="chanel"),
        SearchError,
        "did you mean 'channel'",
    ),
    "bits of no layer": (
        lambda: MPS(nn.Sequential(net()), X, qinfo={"0.00": LayerQuant()}),
        UnknownName,
        r"qinfo: no layer '0\.00'; did you mean '0\.0'",
    ),
    "bits that are no LayerQuant": (
        lambda: MPS(net(), X, qinfo={"default": (2, 8)}),  # type: ignore[dict-item]
        SearchError,
        "'default'.*LayerQuant.*tuple",
    ),
    "an unknown quantizer": (
        lambda: MPS(net(), X, qinfo={"default": LayerQuant(activation="patc")}),
        SearchError,
        "activation is 'patc'; did you mean 'pact'",
    ),
    "an unknown rule": (
        lambda: MPS(net(), X, qinfo={"default": LayerQuant(weight="minmx")}),
        SearchError,
        "weight is 'minmx'; did you mean 'minmax'",
    ),
    "readers of one tensor that disagree": (
        lambda: MPS(Fork(), X, qinfo={"a": LayerQuant((8,), (2,)), "b": LayerQuant((8,), (4,))}),
        SearchError,
        "'a', 'b'.* no a_bits in common",
    ),
    "no percentile": (
        lambda: MPS(net(), X).calibrate([X], percentile=0),
        SearchError,
        "percentile",
    ),
    "data that are not finite": (
        lambda: MPS(net(), X).calibrate([X / 0]),
        SearchError,
        "not finite",
    ),
    "NaN bits to price": (lambda: nan_bits().cost, SearchError, "NaN"),
    "a NaN loss": (
        lambda: DUCCIO({"counts:params": 5.0}, task_loss=float("nan"))(PIT(net(), X), 0, 2),
        SearchError,
        "(?i)nan",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(what: str) -> None:
    do, error, message = WRONG[what]
    with pytest.raises(error, match=message) as caught:
        do()
    assert "\n" not in str(caught.value)


def test_a_nan_decision_is_named() -> None:
    search = PIT(net(), X)
    names = [name for name, _ in search.named_nas_parameters()]
    with torch.no_grad():
        dict(search.named_nas_parameters())[names[0]][0] = float("nan")
    with pytest.raises(SearchError) as caught:
        search.export()
    assert names[0] in str(caught.value) or "'0'" in str(caught.value)


def test_a_refused_cost_leaves_the_old_one() -> None:
    search = PIT(net(), X, cost="counts:macs")
    with pytest.raises(UnknownName):
        search.cost_specification = "counts:mcas"
    assert list(search.cost_specification) == ["counts:macs"]
    assert search.get_cost(relative=True) == 1


def test_a_refused_model_is_left_alone() -> None:
    model = net()
    before = [(path, type(module), dict(vars(module))) for path, module in model.named_modules()]
    with pytest.raises(UnknownName):
        PIT(model, X, exclude_names=["nowhere"])
    after = [(path, type(module), dict(vars(module))) for path, module in model.named_modules()]
    assert str(after) == str(before)
