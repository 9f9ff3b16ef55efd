"""Measured rows from CSV: what they may hold, and the line in every error."""

from pathlib import Path

import pytest
from torch import nn

from hwcost.errors import FitError
from hwcost.loading import loads
from hwcost.measurements import Measurements, read_measurements
from hwcost.reports_ops import OpTable
from hwcost.tracing import trace
from tests.fitcases import BOARD

HEAD = "net,layer,kind,cin,cout,latency"
A = "a,fc1,linear,8,4,0.5"
B = "a,fc2,linear,16,4,0.75"


def parsed(tmp_path: Path, *lines: str) -> Measurements:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_measurements(path, loads(BOARD))


def test_a_row_is_an_op_with_its_cost(tmp_path: Path) -> None:
    [reading] = parsed(tmp_path, HEAD, A).readings
    assert (reading.net, reading.layer, reading.kind) == ("a", "fc1", "linear")
    assert (reading.metric, reading.value, reading.at) == ("latency", 0.5, "rows.csv:2")
    assert reading.workload.column("cin").tolist() == [8]


def test_several_measured_columns_are_several_readings(tmp_path: Path) -> None:
    found = parsed(tmp_path, HEAD + ",cycles", A + ",100").readings
    assert {(r.metric, r.value) for r in found} == {("latency", 0.5), ("cycles", 100)}


def test_a_unit_in_brackets_becomes_si(tmp_path: Path) -> None:
    [reading] = parsed(tmp_path, HEAD + " [ms]", A).readings
    assert reading.value == 0.5e-3


def test_a_network_is_the_sum_of_its_rows(tmp_path: Path) -> None:
    lines = (HEAD, "a,fc1,linear,8,4,", B, "b,fc1,linear,9,4,0.1", "a,,,,,1.5")
    net = parsed(tmp_path, *lines).readings[-1]
    assert (net.kind, net.of, net.workload.column("cin").tolist()) == ("", "nets", [8, 16])


def test_a_network_of_the_zoo_is_traced(tmp_path: Path) -> None:
    [net] = parsed(tmp_path, "net,w_bits,latency", "autoencoder,4,1.5").readings
    assert len(net.workload) > 10 and set(net.workload.column("w_bits").tolist()) == {4}


def test_a_traced_network_is_rows_to_put_measured_values_to(tmp_path: Path) -> None:
    ops = trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), input_shape=(8,))
    head, *rows = OpTable("mine", ops).to_csv().splitlines()
    lines = [
        f"{head},latency",
        f"{rows[0]},0.5",
        f"{rows[1]},",
        "mine" + "," * rows[0].count(",") + ",0.6",
    ]
    layer, net = parsed(tmp_path, *lines).readings
    assert (layer.net, layer.kind, net.workload.kinds) == (
        "mine",
        "linear",
        ("linear", "activation"),
    )


def test_remarks_are_not_sizes(tmp_path: Path) -> None:
    found = parsed(tmp_path, HEAD + ",source,spread,conditions", A + ",bench,0.02,idle")
    assert found.sources == ("bench",)


def test_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    assert len(parsed(tmp_path, "\ufeff" + HEAD, "", A, ",,,,,", B).readings) == 2


def test_empty_columns_and_cells_of_a_spreadsheet_are_passed_over(tmp_path: Path) -> None:
    lines = (HEAD.replace("kind", "kind,") + ",,", A.replace("linear", "linear,") + ",,,")
    assert len(parsed(tmp_path, *lines).readings) == 1


def test_equal_measurements_of_one_op_may_differ_by_noise(tmp_path: Path) -> None:
    assert len(parsed(tmp_path, HEAD, A, "a,fc1,linear,8,4,0.55").readings) == 2


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "rows.csv: the file is empty"),
    "no rows": ((HEAD,), "rows.csv: no row has a measured value"),
    "an unknown column": (
        (HEAD + ",cinn", A + ",1"),
        "rows.csv:1: unknown column 'cinn'; did you mean 'cin'",
    ),
    "a unit in a name": (
        ("kind,cin,cout,latency_ms", "linear,8,4,1"),
        r"rows.csv:1: unknown column 'latency_ms'; a unit stands in brackets: 'latency \[ms\]'",
    ),
    "an unknown unit": (
        (HEAD + " [clocks]", A),
        "rows.csv:1: column 'latency': unknown unit 'clocks'",
    ),
    "a unit of something else": (
        (HEAD + " [mJ]", A),
        "rows.csv:1: column 'latency' is in J; expected s",
    ),
    "a unit of a size": (
        ("kind,cin [B],cout,latency", "linear,8,4,1"),
        "rows.csv:1: column 'cin' has unit 'B'; only measured values have one",
    ),
    "two units": (
        (HEAD + ",latency [ms]", A + ",500"),
        "rows.csv:1: column 'latency' is given twice",
    ),
    "a unit in a cell": (
        (HEAD, A, "a,fc2,linear,16,4,750 ms"),
        "rows.csv:3: 'latency' is '750 ms'; expected a number; a unit stands in the header",
    ),
    "not a number": (
        (HEAD, A, "a,fc2,linear,many,4,0.75"),
        "rows.csv:3: 'cin' is 'many'; expected a number$",
    ),
    "semicolons": (
        (HEAD.replace(",", ";"), A.replace(",", ";")),
        "rows.csv:1: columns are separated by semicolons; expected commas",
    ),
    "tabs": ((HEAD.replace(",", "\t"),), "rows.csv:1: columns are separated by tabs"),
    "a unit in round brackets": (
        ("kind,cin,cout,latency (ms)", "linear,8,4,1"),
        r"rows.csv:1: unknown column 'latency \(ms\)'; .* in brackets: 'latency \[ms\]'",
    ),
    "a column of nothing that is measured": (
        ("kind,cin,cout,effort", "linear,8,4,1"),
        "rows.csv:1: unknown column 'effort'; measured are cycles, latency",
    ),
    "a column by another name": (
        ("type,cin,cout,latency", "linear,8,4,1"),
        r"rows.csv:1: unknown column 'type'; did you mean 'kind'\?",
    ),
    "a table of predictions": (
        ("layer,kind,status,cin,cout,latency_s", "fc1,linear,modelled,8,4,1"),
        "rows.csv:1: column 'status' is one of a table of predictions; hwcost trace MODEL",
    ),
    "a cell below no title": (
        ("kind,,cin,cout,latency", "linear,x,8,4,1"),
        "rows.csv:2: 'x' stands in column 2, which has no name",
    ),
    "thousands": (
        (HEAD, A, 'a,fc2,linear,16,4,"1,234.5"'),
        "rows.csv:3: 'latency' is '1,234.5'; expected a number; thousands are not set apart",
    ),
    "thousands of Python": (
        (HEAD, A, "a,fc2,linear,1_024,4,1"),
        "rows.csv:3: 'cin' is '1_024'; expected a number; thousands are not set apart",
    ),
    "a decimal comma": (
        (HEAD, A, 'a,fc2,linear,16,4,"0,5"'),
        "rows.csv:3: 'latency' is '0,5'; expected a number; a fraction has a point",
    ),
    "a percent sign": (
        (HEAD, A, "a,fc2,linear,16,4,5 %"),
        "rows.csv:3: 'latency' is '5 %'; expected a number; a unit stands in the header",
    ),
    "a formula's error": (
        (HEAD, A, "a,fc2,linear,16,4,#DIV/0!"),
        "rows.csv:3: 'latency' is '#DIV/0!'; expected a number; leave a cell empty",
    ),
    "a fraction of a channel": (
        (HEAD, A, "a,fc2,linear,3.5,4,1"),
        "rows.csv:3: 'cin' is 3.5; expected a whole number",
    ),
    "no channels": ((HEAD, A, "a,fc2,linear,0,4,1"), "rows.csv:3: 'cin' is 0; expected 1 or more"),
    "groups that do not divide": (
        ("kind,cin,cout,groups,latency", "conv,8,4,3,1"),
        "rows.csv:2: 8 channels of 'cin' do not make 3 groups",
    ),
    "depthwise as a kind": (
        (HEAD, A, "a,dw,depthwise,8,8,1"),
        "rows.csv:3: no kind of op is named 'depthwise'; it is 'conv' with 'groups' equal to 'cin'",
    ),
    "another name of a kind": (
        (HEAD, A, "a,fc2,dense,8,8,1"),
        "rows.csv:3: no kind of op is named 'dense'; it is 'linear'",
    ),
    "NaN": (
        (HEAD, A, "a,fc2,linear,16,4,nan"),
        "rows.csv:3: 'latency' is 'nan'; leave a cell empty that has no value",
    ),
    "infinity": ((HEAD, "a,fc2,linear,inf,4,1"), "rows.csv:2: 'cin' is 'inf'"),
    "a negative cost": (
        (HEAD, "a,fc2,linear,16,4,-1"),
        "rows.csv:2: 'latency' is -1; expected more than 0",
    ),
    "a cost of 0": (
        (HEAD, "a,fc2,linear,16,4,0"),
        "rows.csv:2: 'latency' is 0; expected more than 0",
    ),
    "a negative size": (
        (HEAD, "a,fc2,linear,-16,4,1"),
        "rows.csv:2: 'cin' is -16; expected 0 or more",
    ),
    "too many bits": (
        (HEAD + ",w_bits", A + ",65"),
        "rows.csv:2: 'w_bits' is 65; expected 0 to 64",
    ),
    "a cell too few": ((HEAD, A, "a,fc2,linear,16,4"), "rows.csv:3: 5 cells; the header has 6"),
    "an unknown kind": (
        (HEAD, "a,fc2,lin,16,4,1"),
        "rows.csv:2: no kind of op is named 'lin'; did you mean 'linear'",
    ),
    "a size of another kind": (
        (HEAD + ",kh", A + ",3"),
        "rows.csv:2: 'linear' has no size 'kh'",
    ),
    "a layer without a kind": (
        (HEAD, A, "a,fc2,,16,4,1"),
        "rows.csv:3: layer 'fc2' has no 'kind'",
    ),
    "an op for nothing": (
        ("kind,cin,cout,latency", "linear,8,4,"),
        "rows.csv:2: the row has neither a measured value nor a 'net'",
    ),
    "a network without a name": (
        ("kind,cin,cout,latency", ",,,1"),
        "rows.csv:2: a row without 'kind' needs 'net' and a measured value",
    ),
    "a network without rows": (
        (HEAD, A, "resnet9,,,,,1"),
        "rows.csv:3: no row is an op of net 'resnet9', nor is it a network of the zoo;"
        " did you mean 'resnet8'",
    ),
    "a network with sizes": (
        (HEAD, A, "a,,,8,,1"),
        "rows.csv:3: 'cin' stands in the rows of the network's ops",
    ),
    "a network of the zoo with sizes": (
        (HEAD, A, "resnet8,,,8,,1"),
        "rows.csv:3: a whole network has no size 'cin'",
    ),
    "contradictory rows": (
        (HEAD, A, B, "a,fc1,linear,8,4,5"),
        "rows.csv:4: 'latency' is 5 for the op of rows.csv:2, where it is 0.5",
    ),
    "contradictory networks": (
        (HEAD, A, "a,,,,,1", "a,,,,,2"),
        "rows.csv:4: 'latency' is 2 for the op of rows.csv:3",
    ),
    "a constant column": (
        (HEAD, *(f"a,fc{i},linear,{i},4,0.5" for i in range(1, 5))),
        "rows.csv: column 'latency' is 0.5 in all of 4 rows: there is nothing to fit",
    ),
    "a quote that never ends": ((HEAD, A, '"a,fc2'), "rows.csv:3: unexpected end of data"),
    "an error below a long cell": (
        ("note,kind,cin,cout,latency", '"two\nlines",linear,8,4,1', "x,linear,8,4,-1"),
        "rows.csv:4: 'latency' is -1",
    ),
}


@pytest.mark.parametrize(("lines", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_error_with_its_line(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(FitError, match=message):
        parsed(tmp_path, *lines)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"none.csv: no such file or directory"):
        read_measurements(tmp_path / "none.csv", loads(BOARD))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FitError, match=r"rows.csv: not UTF-8 text"):
        read_measurements(tmp_path / "rows.csv", loads(BOARD))
