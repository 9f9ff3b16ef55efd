"""The zoo's networks are those of their sources."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from hwcost import zoo
from hwcost.tracing import trace
from hwcost.workload import Workload
from tests.sizes import per_row, total

LAYERS = Path(__file__).parent / "data" / "mlperf_layers.csv"

#: MLPerf's name -> ours.
MLPERF = {"ad": "autoencoder", "ic": "resnet8", "kws": "ds_cnn", "vww": "mobilenet_v1"}
COMPUTES = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def reference(model: str) -> list[dict[str, str]]:
    with LAYERS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    return [row for row in rows if row["op"] in COMPUTES]


def heavy(workload: Workload) -> list[int]:
    return [row for row, kind in enumerate(workload.kinds) if kind in ("conv", "linear")]


@pytest.mark.parametrize("name", MLPERF)
def test_macs_of_every_layer_are_those_of_mlperf(name: str) -> None:
    workload = trace(*zoo.ZOO[MLPERF[name]]())
    macs = per_row(workload, "macs")
    expected = [float(row["macs"]) for row in reference(name)]
    # IC's shortcut stands after the two convolutions that it goes around, as here.
    assert [macs[row] for row in heavy(workload)] == expected


@pytest.mark.parametrize("name", MLPERF)
def test_weights_of_every_layer_are_those_of_mlperf(name: str) -> None:
    workload = trace(*zoo.ZOO[MLPERF[name]]())
    weights = per_row(workload, "w_elems")
    expected = [float(row["weights"]) for row in reference(name)]
    assert [weights[row] for row in heavy(workload)] == expected


@pytest.mark.parametrize("name", ["ic", "kws", "vww"])
def test_shapes_of_every_convolution_are_those_of_mlperf(name: str) -> None:
    workload = trace(*zoo.ZOO[MLPERF[name]]())
    columns = [workload.column(c) for c in ("ih", "iw", "cin", "oh", "ow", "cout")]
    convs = [row for row in heavy(workload) if workload.kinds[row] == "conv"]
    ours = [[int(column[row]) for column in columns] for row in convs]
    layers = [row for row in reference(name) if row["op"] != "FULLY_CONNECTED"]
    shapes = [f"{row['in_shape']}x{row['out_shape']}".split("x") for row in layers]
    assert ours == [[int(s[i]) for i in (1, 2, 3, 5, 6, 7)] for s in shapes]


@pytest.mark.parametrize("name", zoo.ZOO)
def test_params_are_those_of_the_module(name: str) -> None:
    model, example = zoo.ZOO[name]()
    assert total(trace(model, example), "params") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_op_is_known(name: str) -> None:
    workload = trace(*zoo.ZOO[name]())
    assert "unknown" not in workload.kinds
    assert len(set(workload.layers)) == len(workload)


@pytest.mark.parametrize("name", ["autoencoder", "resnet8", "ds_cnn", "mobilenet_v1", "tcn"])
def test_a_loss_reaches_every_parameter(name: str) -> None:
    model, example = zoo.ZOO[name]()
    batch = torch.randn(4, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    logits = model(batch)
    nn.functional.cross_entropy(logits, torch.arange(4) % logits.shape[1]).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_the_zoo_is_named_after_its_functions() -> None:
    assert all(make.__name__ == name for name, make in zoo.ZOO.items())
