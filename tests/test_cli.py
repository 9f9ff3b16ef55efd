"""The command line: what it prints, where errors go, exit codes, start-up."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import hwcost
from hwcost.__main__ import app
from hwcost.cli_input import parse_input, parse_mapping
from hwcost.loading import available

ROOT = Path(__file__).parent.parent

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(100, 16), nn.Linear(16, 4)

    def forward(self, ids):
        return self.out(self.embed(ids))


class Two(Net):
    def forward(self, x, y):
        return self.conv(x) + self.conv(y)


def pair():
    return Net(), torch.zeros(1, 3, 8, 8)


def needs(width):
    return Net()


def fails():
    raise RuntimeError("first\\nsecond")


def number():
    return 3


net = Net()
"""

CHIP = """
hwcost: 1
name: chip
title: a chip
status: datasheet
params: {clock: {value: 100 MHz, source: sheet}}
engines:
  core:
    params: {rate: {value: 1 op/cycle, source: sheet}}
    ops: [{match: conv, cycles: macs/1e3/rate}]
metrics: {latency: {unit: s, row: cycles/clock}}
checks:
- {op: {linear_or_conv: {cin: 1}}, metric: latency, value: 1 ms, tol: 10 %, source: bench}
"""
CHECK = "{op: {conv: {cin: 10, cout: 10, kh: 1, kw: 1, oh: 10, ow: 10}}, metric: latency"


def hw(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(NETS)
    return str(tmp_path / "nets.py")


def chip_file(folder: Path, check: str) -> str:
    old = "{op: {linear_or_conv: {cin: 1}}, metric: latency, value: 1 ms, tol: 10 %, source: bench}"
    (folder / "chip.yaml").write_text(CHIP.replace(old, check))
    return str(folder / "chip.yaml")


def failure(result: Result) -> str:
    """The one line on stderr of a command that failed; nothing on stdout."""
    assert result.exit_code == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_version_is_that_of_the_package() -> None:
    assert hw("--version").stdout == f"hwcost {hwcost.__version__}\n"


def test_platforms_lists_each_shipped_one() -> None:
    lines = hw("platforms").stdout.splitlines()
    assert tuple(line.split()[0] for line in lines[2:]) == available()


def test_platforms_as_json_tell_metrics_and_units() -> None:
    found = {p["platform"]: p for p in json.loads(hw("platforms", "--json").stdout)}
    assert found["mpic"]["metrics"]["latency"] == "s"


@pytest.mark.parametrize("name", available())
def test_show_has_every_metric_param_and_engine(name: str) -> None:
    platform = hwcost.load(name)
    text = hw("show", name).stdout
    for word in (*platform.metrics, *platform.params, *platform.engines):
        assert word in text


def test_show_as_json_is_the_file() -> None:
    assert json.loads(hw("show", "mpic", "--json").stdout)["name"] == "mpic"


def test_schema_is_json() -> None:
    assert json.loads(hw("schema").stdout)["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize("name", available())
def test_every_shipped_platform_passes_its_checks(name: str) -> None:
    result = hw("check", name)
    assert result.exit_code == 0
    assert f"OK, platform {name!r}" in result.stdout


def test_a_check_within_tolerance_passes(tmp_path: Path) -> None:
    # 10*10*10*10/1e3 = 10 cycles at 100 MHz are 100 ns.
    result = hw("check", chip_file(tmp_path, f"{CHECK}, value: 105 ns, tol: 5 %, source: bench}}"))
    assert result.exit_code == 0
    assert "latency    105 ns     100 ns  -4.8 %        5 %  bench" in result.stdout


def test_a_check_outside_its_tolerance_fails(tmp_path: Path) -> None:
    result = hw("check", chip_file(tmp_path, f"{CHECK}, value: 200 ns, tol: 5 %, source: bench}}"))
    assert result.exit_code == 1
    assert "-50 %        5 %  OUTSIDE  bench" in result.stdout


def test_check_goes_on_after_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("hwcost: 1\nnam: x\n")
    result = hw("check", str(tmp_path / "wrong.yaml"), "mpic")
    assert result.exit_code == 1
    assert "wrong.yaml:2: unknown key 'nam'; did you mean 'name'" in result.stderr
    assert "mpic: OK" in result.stdout


def test_trace_counts_macs_and_params(nets: str) -> None:
    lines = hw("trace", f"{nets}:pair").stdout.splitlines()
    assert "MACs    7,776" in lines  # 8*6*6*3*3*3
    assert "params  224" in lines


@pytest.mark.parametrize("name", ["pair", "net", "Net"])
def test_a_factory_a_class_and_an_instance_are_models(nets: str, name: str) -> None:
    result = hw("trace", f"{nets}:{name}", "--input", "3x8x8", "--json")
    assert sum(row["macs"] for row in json.loads(result.stdout)["rows"]) == 7776


def test_a_module_on_the_path_is_found(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(nets).parent)
    assert hw("trace", "nets:pair").exit_code == 0


def test_token_ids_are_an_input(nets: str) -> None:
    assert "embedding" in hw("trace", f"{nets}:Tokens", "--input", "12:int64").stdout


def test_several_inputs_are_several_arguments(nets: str) -> None:
    result = hw("trace", f"{nets}:Two", "--input", "3x8x8", "--input", "3x8x8")
    assert "MACs    15,552" in result.stdout


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet9", "did you mean 'resnet8'"),
        ("{nets}:Nett", "did you mean 'Net'"),
        ("{nets}:fails", "raised RuntimeError: first second"),
        ("{nets}:needs", "a factory is called without arguments"),
        ("{nets}:number", "gives 'int'"),
        ("{nets}:Net", "give --input 3x32x32"),
        ("nowhere.py:net", "no file 'nowhere.py'"),
        ("no.such.module:net", "no module 'no.such.module'"),
        ("nets.py", "names no model; write nets.py:factory"),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_line(nets: str, model: str, message: str) -> None:
    assert message in failure(hw("trace", model.format(nets=nets)))


def test_a_file_that_does_not_load_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import torch\nx = 1 +\n")
    assert "does not load: SyntaxError" in failure(hw("trace", f"{tmp_path}/broken.py:x"))


def test_an_input_of_the_wrong_shape_is_one_clear_line(nets: str) -> None:
    assert "expected input" in failure(hw("trace", f"{nets}:Net", "--input", "5x8x8"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-p", "mpi"], "did you mean 'mpic'"),
        (["-p", "nowhere.yaml"], "no platform file 'nowhere.yaml'"),
        (["-p", "mpic", "-m", "latncy"], "did you mean 'latency'"),
        (["-p", "mpic", "--precision", "eight"], "expected bits such as 'w8a8'"),
        (["-p", "mpic", "--precision", "w3a8"], "w3a8, which mpic/core cannot compute"),
        (["-p", "diana", "--engine", "digtal"], "did you mean 'digital'"),
        (["-p", "diana", "--map", "con=digital"], "did you mean 'conv'"),
        (["-p", "diana", "--map", "conv"], "expected layer=engine"),
        (["-p", "mpic", "--input", "3,,8"], "expected a shape such as 3x32x32"),
        (["-p", "mpic", "--input", "3x8x8:float99"], "no dtype 'float99'"),
        (["-p", "mpic", "-o", "/nowhere/at/all.csv"], "cannot write '/nowhere/at/all.csv'"),
        (["-p", "mpic", "-o", "out.doc"], "names no format"),
    ],
)
def test_a_mistake_is_one_clear_line(nets: str, args: list[str], message: str) -> None:
    assert message in failure(hw("report", f"{nets}:pair", *args))


def test_an_unsupported_op_says_how_to_go_on() -> None:
    assert "--on-unsupported warn prices the rest" in failure(
        hw("report", "tcn", "-p", "ne16_compute")
    )


def test_an_unsupported_op_may_be_left_out() -> None:
    result = hw("report", "tcn", "-p", "ne16_compute", "--on-unsupported", "warn")
    assert result.exit_code == 0
    assert ">= " in result.stdout


@pytest.mark.parametrize(
    "args", [["report", "resnet8"], ["shw"], ["show"], ["show", "mpic", "--colour"], ["trace"]]
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    assert hw(*args).exit_code == 2


def test_debug_shows_the_traceback_wherever_it_stands(nets: str) -> None:
    result = hw("trace", f"{nets}:fails", "--debug")
    assert isinstance(result.exception, hwcost.TraceError)


def test_an_engine_for_all_layers(nets: str) -> None:
    result = hw("report", f"{nets}:pair", "-p", "diana", "--engine", "digital", "--json")
    assert json.loads(result.stdout)["rows"][0]["engine"] == "digital"


def test_a_mapping_places_a_layer(nets: str) -> None:
    result = hw("report", f"{nets}:pair", "-p", "diana", "--map", "conv=analog", "--json")
    assert json.loads(result.stdout)["precision"] == "w2a8"


def test_compare_prints_each_pair() -> None:
    result = hw("compare", "ds_cnn", "autoencoder", "-p", "mpic", "-p", "gap8_compute", "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [(r["model"], r["platform"]) for r in rows] == [
        ("ds_cnn", "mpic"),
        ("ds_cnn", "gap8_compute"),
        ("autoencoder", "mpic"),
        ("autoencoder", "gap8_compute"),
    ]


def test_compare_fails_where_nothing_has_a_price(nets: str) -> None:
    result = hw("compare", f"{nets}:pair", "-p", "mpic", "--precision", "w3a8")
    assert result.exit_code == 1
    assert "none of the platforms can price" in result.stderr
    assert "w3a8" in result.stdout


@pytest.mark.parametrize("format", ["text", "md", "csv", "latex", "html", "json"])
def test_table_prints_every_format(nets: str, format: str) -> None:
    result = hw("table", f"{nets}:pair", "-p", "mpic", "--format", format)
    assert result.exit_code == 0
    assert "conv" in result.stdout


def test_table_writes_the_format_of_the_suffix(nets: str, tmp_path: Path) -> None:
    out = tmp_path / "costs.csv"
    assert hw("table", f"{nets}:pair", "-p", "mpic", "-o", str(out)).stdout == ""
    assert out.read_text().startswith("platform,layer,kind,")


def test_explain_takes_the_dearest_layer_by_default() -> None:
    text = hw("explain", "gap8_compute", "autoencoder").stdout
    assert text.startswith("No layer was named; this one has the highest latency.")


def test_explain_of_an_unknown_layer_names_the_nearest() -> None:
    line = failure(hw("explain", "gap8_compute", "resnet8", "stem.con"))
    assert "did you mean 'stem.conv'" in line


def test_explain_prints_latex() -> None:
    assert r"\begin{align*}" in hw("explain", "gap8_compute", "resnet8", "--latex").stdout


def test_an_input_is_a_shape_and_maybe_a_dtype() -> None:
    assert parse_input("3x32x32") == ((3, 32, 32), "")
    assert parse_input("128:int64") == ((128,), "int64")


def test_layer_names_may_hold_an_equals_sign() -> None:
    assert parse_mapping(["a=b=digital"], None) == {"a=b": "digital"}


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hwcost", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        check=False,
    )


@pytest.mark.slow
def test_a_pipe_gets_plain_text() -> None:
    done = run("report", "autoencoder", "-p", "mpic", COLUMNS="40")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert any(len(line) > 80 for line in done.stdout.splitlines())


@pytest.mark.slow
def test_an_encoding_that_lacks_a_character_is_no_crash(tmp_path: Path) -> None:
    file = chip_file(tmp_path, f"{CHECK}, value: 100 ns, tol: 5 %, source: µ-bench}}")
    done = run("check", file, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "?-bench" in done.stdout


@pytest.mark.slow
def test_the_list_of_platforms_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from hwcost.__main__ import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'sympy', 'pandas', 'pydantic', 'rich.table'} & set(sys.modules)\n"
        "assert CliRunner().invoke(app, ['platforms']).exit_code == 0\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""


@pytest.mark.slow
def test_a_terminal_gets_a_table_of_its_width() -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "70", "TERM": "xterm-256color"}
    args = [sys.executable, "-m", "hwcost", "platforms"]
    with subprocess.Popen(args, stdout=theirs, stderr=theirs, cwd=ROOT, env=env) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            text += part
            if not part:
                break
    os.close(ours)
    assert process.returncode == 0
    assert max(map(len, text.decode().splitlines())) <= 70
