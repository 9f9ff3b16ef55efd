"""Published measurements beside predictions: ``compare --measured``."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwcost import measured
from hwcost.__main__ import app
from hwcost.loading import available, load, loads
from hwcost.measured import FILE, Figure
from hwcost.reports import compare
from hwcost.reports_compare import Comparison
from hwcost.reports_format import plain
from hwcost.units import parse_quantity
from hwcost.zoo import ZOO, autoencoder

CHIP = """
hwcost: 1
name: chip
title: a chip
status: measured
params: {clock: {value: 100 MHz, source: bench}, power: {value: 10 mW, source: bench}}
engines:
  core: {ops: [{match: linear, cycles: macs}], default: {cycles: 0}}
metrics: {latency: {unit: ms, row: cycles/clock}, energy: {unit: J, row: power*busy}}
points: {fast: {clock: 100 MHz}, slow: {clock: 50 MHz}}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.fixture(autouse=True)
def invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chip's figures; the autoencoder's 264,192 MACs take 2.64192 ms at 100 MHz."""

    def one(platform: str, metric: str, value: str) -> Figure:
        quantity = parse_quantity(value)
        return Figure("autoencoder", platform, metric, quantity, "w8a8", "SDK 1, 2 V", "board:ad")

    found = (one("chip@fast", "latency", "2.5 ms"), one("chip@slow", "energy", "50 uJ"))
    monkeypatch.setattr(measured, "figures", lambda: found)
    monkeypatch.setattr("hwcost.reports_measured.figures", lambda: found)


@pytest.fixture
def made() -> Comparison:
    chip = loads(CHIP)
    return compare("autoencoder", [chip, chip.at("slow"), "mpic"], measured=True)


def cells(made: Comparison, title: str) -> list[str]:
    return [*next(c.cells for c in made.sheet().columns if c.title == title)]


def test_a_measurement_stands_beside_its_prediction(made: Comparison) -> None:
    assert cells(made, "latency measured") == ["2.5 ms", "", ""]
    assert cells(made, "latency off") == ["+5.7 %", "", ""]


def test_a_measurement_belongs_to_an_operating_point(made: Comparison) -> None:
    # 2.64192 ms twice over at 10 mW, and 50 uJ measured.
    assert cells(made, "energy measured") == ["", "50 uJ", ""]
    assert cells(made, "energy off") == ["", "+5.7 %", ""]


def test_the_conditions_and_the_origin_are_named(made: Comparison) -> None:
    [*_, note] = made.sheet().notes
    assert "chip@fast with SDK 1, 2 V; chip@slow with SDK 1, 2 V [board]" in note


def test_data_have_value_source_and_conditions(made: Comparison) -> None:
    frame = made.to_frame()
    assert frame["latency_measured_s"].tolist()[0] == 0.0025
    assert frame["latency_off"].tolist()[0] == pytest.approx(2.64192 / 2.5 - 1)
    assert frame["latency_measured_source"].tolist() == ["board:ad", "", ""]
    assert frame["latency_measured_at"].tolist()[0] == "SDK 1, 2 V"


def test_nothing_measured_is_shown_unless_asked_for() -> None:
    assert "measured" not in "".join(map(str, compare("autoencoder", loads(CHIP)).to_frame()))


def test_a_network_that_only_has_the_name_was_not_measured() -> None:
    other = compare({"autoencoder": autoencoder()}, loads(CHIP), measured=True)
    assert "latency_off" not in other.to_frame()


def test_a_network_of_the_zoo_may_have_another_name() -> None:
    other = compare({"mine": "autoencoder"}, loads(CHIP), "latency", measured=True)
    assert cells(other, "latency measured") == ["2.5 ms"]


def test_other_bits_were_not_measured() -> None:
    other = compare("autoencoder", loads(CHIP), "latency", precision="w4a8", measured=True)
    assert "latency_off" not in other.to_frame()


def test_changed_numbers_are_compared_all_the_same() -> None:
    chip = loads(CHIP).with_params(clock="105.6768 MHz")
    assert cells(compare("autoencoder", chip, "latency", measured=True), "latency off") == ["0 %"]


def test_where_nothing_is_known_the_note_says_what_is() -> None:
    other = compare("resnet8", "mpic", "latency", measured=True)
    assert (
        other.sheet()
        .notes[-1]
        .endswith("known: autoencoder on chip@fast, autoencoder on chip@slow.")
    )


def test_a_narrow_terminal_shows_the_measurement(made: Comparison) -> None:
    text = plain(made.sheet(), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "+5.7 %" in text


def test_the_command_line_asks_for_them(tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_text(CHIP)
    args = ["compare", "autoencoder", "-p", str(tmp_path / "chip.yaml"), "--measured", "--json"]
    [row] = json.loads(CliRunner().invoke(app, args).stdout)["rows"]
    assert row["latency_measured_s"] == 0.0025


# The shipped figures


def shipped() -> list[dict[str, str]]:
    path = Path(__file__).parent.parent / "platforms" / FILE
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_shipped_figures_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(measured.figures()) == len(shipped())


@pytest.mark.parametrize("name", sorted({row["platform"] for row in shipped()}))
def test_shipped_figures_name_a_platform_and_a_point(name: str) -> None:
    platform = load(name)
    assert platform.document.data["name"] in available()
    assert platform.points == () or "@" in name


@pytest.mark.parametrize(
    "row", shipped(), ids=lambda r: f"{r['net']}-{r['platform']}-{r['metric']}"
)
def test_a_shipped_figure_is_in_the_units_of_its_metric(row: dict[str, str]) -> None:
    metric = load(row["platform"]).metric(row["metric"])
    assert parse_quantity(row["value"]).dimension == metric.unit.dimension
    assert row["net"] in ZOO
    assert row["source"]
    assert row["conditions"]


def test_each_shipped_figure_is_there_once() -> None:
    count = Counter((row["net"], row["platform"], row["metric"]) for row in shipped())
    assert max(count.values()) == 1
