"""What ``hwcost measure`` times, and the file that it writes."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from hwcost.__main__ import app
from hwcost.costmodel import CostModel
from hwcost.errors import FitError, TraceError
from hwcost.fit import fit
from hwcost.loading import load
from hwcost.measure import Measured, measure
from hwcost.measure_calls import InTurn, ModuleCall, TorchCall
from hwcost.measure_grid import grid
from hwcost.measure_ops import Op, ops_of
from hwcost.measure_subject import subject_of
from hwcost.measure_time import Settings, timing_of
from hwcost.measurements import read_measurements
from hwcost.workload import Workload

QUICK = Settings(seconds=1e-4)
CPU = torch.device("cpu")


class Net(nn.Module):
    """Modules, functions, and two layers that are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.relu = nn.ReLU()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.pad(x))).mean((2, 3))
        y = self.fc1(x)
        y = y + torch.softmax(self.fc2(y), -1)
        y = y @ torch.sigmoid(y).T @ y
        return torch.as_tensor(self.fc3(y))


def example() -> Any:
    return Net(), torch.rand(1, 3, 9, 9)


def ops(model: nn.Module, *inputs: Tensor) -> list[Op]:
    with torch.no_grad(), subject_of("net", model, inputs, CPU) as subject:
        return ops_of(subject)


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure({"net": example()}, QUICK)


def rows_of(measured: Measured, folder: Path) -> list[dict[str, str]]:
    measured.write(folder / "rows.csv", date="2026-01-31")
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_op_table_can_run_alone() -> None:
    model, x = example()
    found = ops(model, x)
    assert [op.why for op in found] == [""] * len(found)
    assert {type(op.replay) for op in found} == {ModuleCall, TorchCall, InTurn}


def test_a_replay_computes_what_the_module_does() -> None:
    model, x = example()
    [conv] = [op for op in ops(model, x) if op.kind == "conv"]
    assert isinstance(conv.replay, InTurn)
    assert torch.equal(conv.replay.parts[-1]().detach(), model.conv(model.pad(x)))  # type: ignore[attr-defined]


def test_padding_that_has_no_row_runs_with_its_convolution() -> None:
    model, x = example()
    [conv] = [op for op in ops(model, x) if op.kind == "conv"]
    assert str(conv.replay) == "ZeroPad2d Conv2d"


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.add, "add.Tensor"),
        (torch.matmul, "matmul.default"),
        (nn.functional.scaled_dot_product_attention, "scaled_dot_product_attention.default"),
    ],
)
def test_functions_run_as_torch_calls(function: Any, name: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return torch.as_tensor(function(*(x,) * (3 if "scaled" in name else 2)))

    [op] = ops(Two(), torch.rand(2, 4, 4, 4))
    assert str(op.replay) == name
    op.replay()  # type: ignore[misc]


def test_layers_of_a_stacked_lstm_are_left_out_with_the_reason() -> None:
    found = ops(nn.Sequential(nn.LSTM(4, 4, 2)), torch.rand(3, 1, 4))
    assert [op.replay for op in found] == [None, None]
    assert all("several rows" in op.why for op in found)


def test_equal_ops_are_measured_once(measured: Measured, tmp_path: Path) -> None:
    rows = {row["layer"]: row for row in rows_of(measured, tmp_path)}
    assert rows["fc2"]["latency [us]"]
    assert rows["fc3"]["latency [us]"] == ""


def test_relu_and_sigmoid_of_equal_size_are_two_measurements() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.ReLU())
    keys = [op.key for op in ops(model, torch.rand(1, 8))]
    assert keys[0] == keys[2] != keys[1]


def test_layers_of_another_type_are_other_measurements_at_their_own_bits() -> None:
    class Mixed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self[1](self[0](x).bfloat16()))

    found = ops(Mixed(nn.Linear(4, 4), nn.Linear(4, 4).bfloat16()), torch.rand(1, 4))
    first, second = (op for op in found if op.kind == "linear")
    assert (first.bits, second.bits) == ((32, 32), (16, 16))
    assert first.key != second.key


class Failing(nn.Module):
    """Runs four times, which is once more than before it is measured."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        if self.runs > 4:
            raise RuntimeError("worn out")
        return x + 1


def test_a_network_that_fails_later_is_left_out_and_the_others_are_measured() -> None:
    models = {"worn": (Failing(), torch.rand(1, 4)), "sound": (nn.ReLU(), torch.rand(1, 4))}
    found = measure(models, QUICK, ops=False)
    assert found.left_out == ["worn: a later run raised RuntimeError: worn out"]
    assert [*found.timings] == [("net", "sound")]


def test_a_network_with_an_op_that_is_not_known_is_left_out() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(torch.fft.rfft(x).abs())

    found = measure({"net": (Spectrum(), torch.rand(1, 8))}, QUICK)
    assert not found.rows
    assert found.left_out == ["net: hwcost does not know the op 'fft_rfft'"]


def test_a_model_without_numbers_is_refused() -> None:
    model = nn.Linear(3, 3, device="meta")
    with pytest.raises(TraceError, match="net: it has shapes but no numbers"):
        measure({"net": (model, torch.rand(1, 3, device="meta"))}, QUICK)


def test_samples_of_a_batch_share_the_calls() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 4))
    two, eight = (
        float(CostModel("host", "latency").total(Workload.trace(layers, torch.rand(b, 3, 8, 8))))
        for b in (2, 8)
    )
    assert two < eight < 2 * two


def test_the_model_stays_as_it_was() -> None:
    model, x = example()
    model.train()
    measure({"net": (model, x)}, QUICK)
    assert model.training
    assert not model.conv._forward_hooks


def test_fit_reads_what_was_measured(measured: Measured, tmp_path: Path) -> None:
    measured.write(tmp_path / "rows.csv", date="2026-01-31")
    found = read_measurements(tmp_path / "rows.csv", load("host")).readings
    [net] = [reading for reading in found if reading.of == "nets"]
    assert len(net.workload) == len([row for row in measured.rows if row.op is not None])


def test_floats_are_32_bits(measured: Measured, tmp_path: Path) -> None:
    bits = {(row["w_bits"], row["a_bits"]) for row in rows_of(measured, tmp_path) if row["kind"]}
    assert bits == {("32", "32")}


def test_a_row_tells_spread_conditions_and_software(measured: Measured, tmp_path: Path) -> None:
    row = rows_of(measured, tmp_path)[0]
    assert float(row["spread"]) >= 0
    assert row["conditions"].startswith("cpu, 1 thread, batch 1, wall time")
    assert torch.__version__ in row["software"]


def test_a_batch_repeats_the_example() -> None:
    found = measure({"net": example()}, Settings(seconds=1e-4, batch=3), nets=False)
    [conv] = [row.op for row in found.rows if row.op and row.op.kind == "conv"]
    assert conv.sizes["batch"] == 3


def test_an_interrupt_keeps_what_was_measured() -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    found = measure({"net": example()}, QUICK, progress=stop)
    assert found.interrupted
    assert len(found.timings) == 1


def test_timings_are_median_and_interquartile_range() -> None:
    found = timing_of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.median, found.spread) == (3.0, 2 / 3)


@pytest.mark.slow
def test_the_single_ops_of_the_grid_all_run() -> None:
    found = measure({}, QUICK, singles=grid())
    assert not found.left_out
    assert {row.op.kind for row in found.rows if row.op} >= {"conv", "linear", "rnn", "pool"}


@pytest.mark.slow
def test_a_host_is_fitted_to_what_was_measured(tmp_path: Path) -> None:
    from hwcost.zoo import ZOO

    models = {name: ZOO[name]() for name in ("tcn", "resnet8", "autoencoder")}
    measure(models, Settings(seconds=0.02), singles=grid()).write(tmp_path / "rows.csv", "2026-1-1")
    fitted = fit("host", tmp_path / "rows.csv")
    assert fitted.write(tmp_path / "here.yaml", date="2026-01-31").status == "measured"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(device="tpu"), "device is 'tpu'; expected cpu, cuda"),
        (Settings(device="cuda:99"), "no device 'cuda:99'; torch sees"),
        (Settings(threads=0), "must be finite and more than 0"),
        (Settings(seconds=float("inf")), "must be finite and more than 0"),
        (Settings(threads=10**6), "1000000 threads; this machine computes"),
        (Settings(threads=2, cpu_time=True), "CPU time is that of one thread"),
    ],
)
def test_wrong_settings_are_errors(settings: Settings, message: str) -> None:
    with pytest.raises(FitError, match=message):
        measure({}, settings)


def test_an_example_that_cannot_be_repeated_is_an_error() -> None:
    with pytest.raises(TraceError, match="for a batch of 2 its first size must be 1"):
        measure({"net": (nn.Linear(3, 3), torch.rand(5, 3))}, Settings(batch=2))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["measure", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet9", "-o", "rows.csv"], "no model 'resnet9'; did you mean 'resnet8'?"),
        (["tcn", "-o", "none/rows.csv"], "cannot write 'none/rows.csv': there is no such folder"),
        (["tcn", "-o", "rows.csv", "--date", "1.3."], "date is '1.3.'; expected a day such as"),
        (["tcn", "-o", "rows.csv", "--ops-only", "--nets-only"], "leave nothing to measure"),
    ],
)
def test_the_command_refuses_what_is_wrong(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "rows.csv").exists()


def test_the_command_writes_rows(tmp_path: Path) -> None:
    result = run("autoencoder", "-o", f"{tmp_path}/rows.csv", "--seconds", "0.001", "--no-grid")
    assert result.exit_code == 0
    assert "9 ops and 1 network written" in result.stdout
