"""Export to ONNX: onnxruntime gives the fake-quantized model's codes."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.integer import to_integer
from hwcost.search.onnx_export import to_onnx
from tests import quantnets as nets
from tests.quantcases import NETS, made

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

#: Nets whose export is tested every time; each takes most of a second.
QUICK = ("linear", "shared layer")


def run(path: Path, x: Tensor) -> Tensor:
    """Return what onnxruntime makes of a file, with default options."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(out)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    net, x = made("residual")
    to_onnx(net, (x[:2],), path)
    return net, x, path, onnx.load(path)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETS]
)
def test_onnxruntime_gives_the_codes_of_the_float_model(name: str, tmp_path: Path) -> None:
    net, x = made(name)
    to_onnx(net, (x[:2],), tmp_path / "net.onnx")
    with torch.no_grad():
        expected = net(x)
    steps = ((run(tmp_path / "net.onnx", x) - expected) / net.q_out.scale).round()
    assert steps.shape == expected.shape
    assert steps.abs().max() <= 1 and (steps != 0).float().mean() <= 1e-3


def test_the_number_of_samples_is_free(residual: Any) -> None:
    _, x, path, proto = residual
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert torch.equal(run(path, x[:1]), run(path, x)[:1])


def test_an_example_of_one_sample_leaves_their_number_free(tmp_path: Path) -> None:
    net, x = made("linear")
    to_onnx(net, (x[:1],), tmp_path / "net.onnx")
    assert run(tmp_path / "net.onnx", x).shape == (16, 7)


def test_weights_are_int8_and_biases_int32_in_the_file(residual: Any) -> None:
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in residual[3].graph.initializer}
    whole = {n: str(t.dtype) for n, t in tensors.items() if "codes" in n}
    assert sorted(whole.values()) == ["int32", "int32", "int8", "int8", "int8"]
    assert all(t.dtype.kind != "f" or t.ndim < 2 for t in tensors.values())


def test_the_file_says_bits_and_scales(residual: Any) -> None:
    net, _, _, proto = residual
    (entry,) = [p for p in proto.metadata_props if p.key == "hwcost.quantizers"]
    said = json.loads(entry.value)
    assert said["two.weight"]["bits"] == [2, 4, 8, 2, 4, 8]
    assert said["two.weight"]["scale"] == pytest.approx(net.two.w_scale.tolist())
    assert said["q_two"] == {"bits": [4], "low": [-8], "high": [7], "axis": 0} | {
        "scale": net.q_two.scale.tolist()
    }


def test_fewer_than_8_bits_are_clipped(residual: Any) -> None:
    kinds = [node.op_type for node in residual[3].graph.node]
    # relu6, and the branch of 4 bits
    assert kinds.count("Clip") == 2


def test_the_terminal_stays_clean(tmp_path: Path, capfd: Any) -> None:
    net, x = made("linear")
    before = logging.root.manager.disable
    to_onnx(net, (x[:2],), tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "") and logging.root.manager.disable == before


def test_the_model_is_as_before(tmp_path: Path) -> None:
    net, x = made("linear")
    net.train()
    inside = dict(net.named_modules())["layer.inner"]
    to_onnx(net, (x[:2],), tmp_path / "net.onnx")
    assert net.training and inside.training


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SearchError, match=r"'onnxscript'; pip install hwcost\[onnx\]"):
        to_onnx(nn.Linear(2, 2), (torch.ones(1, 2),), tmp_path / "net.onnx")


def test_what_torch_cannot_export_is_said(tmp_path: Path) -> None:
    net = nets.Function(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(SearchError, match="ONNX export: torch cannot export the model"):
        to_onnx(net, (torch.ones(2, *net.shape),), tmp_path / "net.onnx")


class Digits(nets.Net):
    """A small net for 8x8 pictures: convolutions, a residual, a gate's table, mixed bits."""

    shape = (1, 8, 8)

    def build(self) -> None:
        self.one = nets.Layer(nn.Conv2d(1, 16, 3, padding=1), self.q_in)
        self.q_one = nets.Act()
        self.deep = nets.Layer(nn.Conv2d(16, 16, 3, padding=1, groups=16), self.q_one)
        self.q_deep = nets.Act(8, True)
        self.two = nets.Layer(nn.Conv2d(16, 16, 1), self.q_deep, (4, 8))
        self.q_two, self.q_sum = nets.Act(8, True), nets.Act()
        self.three = nets.Layer(nn.Conv2d(16, 32, 3, stride=2), self.q_sum, (8, 4))
        self.q_three, self.q_mean = nets.Act(6), nets.Act()
        self.head = nets.Layer(nn.Linear(32, 10), self.q_mean)

    def body(self, x: Tensor) -> Tensor:
        x = self.q_one(F.relu(self.one(x)))
        deep = self.q_deep(self.deep(x))
        deep = self.q_deep(deep * torch.sigmoid(deep))
        x = self.q_sum(F.relu(x + self.q_two(self.two(deep))))
        x = self.q_three(F.relu(self.three(x)))
        return self.head(self.q_mean(x.mean((2, 3))))


@pytest.fixture(scope="module")
def trained() -> tuple[Digits, Tensor, Tensor]:
    """A net trained for a second, and the test's pictures and labels."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the extra 'examples'")
    bunch = datasets.load_digits()
    x = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1
    y = torch.from_numpy(bunch.target).long()
    torch.manual_seed(0)
    net = Digits()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    nets.observe(net, x[:256])
    for step in range(250):
        part = torch.randint(0, 1200, (64,))
        if step % 25 == 0:
            nets.observe(net, x[:256])
        optimizer.zero_grad()
        F.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()
    nets.observe(net, x[:1200])
    return net.eval(), x[1200:], y[1200:]


@pytest.mark.slow
def test_a_trained_net_is_the_same_in_all_three_forms(trained: Any, tmp_path: Path) -> None:
    net, x, y = trained
    to_onnx(net, (x[:2],), tmp_path / "net.onnx")
    with torch.no_grad():
        out = net(x)
    assert (out.argmax(1) == y).float().mean() > 0.85
    for other in (to_integer(net, (x[:2],))(x), run(tmp_path / "net.onnx", x)):
        steps = ((other - out) / net.q_out.scale).round()
        assert (steps == 0).float().mean() >= 0.999 and steps.abs().max() <= 1
        best, second = out.topk(2).values.unbind(1)
        clear = best - second > 1.5 * net.q_out.scale
        assert torch.equal(other.argmax(1)[clear], out.argmax(1)[clear])
