"""Operating points: other numbers of one platform, by ``NAME@POINT``."""

import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwcost.__main__ import app
from hwcost.cli_list import as_table
from hwcost.costmodel import CostModel
from hwcost.errors import DescriptorError, UnknownName
from hwcost.loading import load, loads
from hwcost.platform import Platform
from hwcost.reports import compare, report
from hwcost.workload import Workload
from tests.chipcases import HEAD, changed

CHIP = (
    HEAD
    + """\
params:
  clock: {value: 200 MHz, source: bench, note: full speed}
  power: {value: 100 mW, source: bench}
  wide: {value: 4, source: bench}
engines:
  core:
    params: {own: {value: 1 op/cycle, source: bench}}
    ops:
      - {match: conv, where: cin > wide, cycles: macs}
      - {match: conv, where: cin < 4, cycles: 2*macs}
      - {match: conv, cycles: 3*macs}
metrics:
  latency: {unit: s, row: cycles/clock}
  energy: {unit: J, row: power*busy}
points:
  1.2V: {clock: 200 MHz, power: 100 mW}
  1.0V: {clock: {value: 100 MHz, source: sheet, note: half speed}, power: 20 mW}
"""
)
OP = Workload.from_columns("conv", cin=10, cout=10, kh=1, kw=1, oh=10, ow=10)


def chip(*changes: tuple[str, str]) -> Platform:
    return loads(changed(CHIP, *changes), "chip.yaml")


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "my.yaml").write_text(CHIP)
    return str(tmp_path / "my.yaml")


def energy(platform: Platform | str) -> float:
    return float(CostModel(platform, "energy").total(OP))


def test_the_first_point_is_the_default(file: str) -> None:
    assert (load(file).point, load(file).points) == ("1.2V", ("1.2V", "1.0V"))


def test_a_platform_without_points_has_none() -> None:
    assert (load("mpic").point, load("mpic").points) == ("", ())


def test_a_point_changes_its_params(file: str) -> None:
    # 10,000 MACs: 50 us at 100 mW, and 100 us at 20 mW.
    assert energy(file) == pytest.approx(5e-6)
    assert energy(f"{file}@1.0V") == pytest.approx(2e-6)


def test_only_other_points_show_in_the_name(file: str) -> None:
    assert [load(f"{file}@{p}").name for p in ("1.2V", "1.0V")] == ["chip", "chip@1.0V"]


def test_a_point_may_give_a_source_and_a_note() -> None:
    clock = chip().at("1.0V").params["clock"]
    assert (clock.source, clock.note) == ("sheet", "half speed")


def test_a_bare_value_has_the_source_of_the_param() -> None:
    assert chip().at("1.0V").params["power"].source == "a bench, 2024"


def test_the_note_on_another_value_is_dropped() -> None:
    platform = chip(("{value: 100 MHz, source: sheet, note: half speed}", "100 MHz"))
    assert platform.at("1.0V").params["clock"].note == ""


def test_one_point_leads_to_another() -> None:
    assert energy(chip().at("1.0V").at("1.2V")) == energy(chip())


@pytest.mark.parametrize("point", ["1.2V", "1.0V"])
def test_a_pickle_keeps_the_point(point: str) -> None:
    platform = chip().at(point)
    back = pickle.loads(pickle.dumps(platform))
    assert (back.name, back.point, energy(back)) == (platform.name, point, energy(platform))


def test_each_point_is_loaded_once(file: str) -> None:
    assert load(f"{file}@1.0V") is load(f"{file}@1.0V")


def test_a_changed_file_changes_its_points(file: str) -> None:
    before = energy(f"{file}@1.0V")
    Path(file).write_text(CHIP.replace("20 mW", "200 mW"))
    assert energy(f"{file}@1.0V") == pytest.approx(10 * before)


def test_an_at_sign_in_a_files_name_is_no_point(file: str) -> None:
    odd = Path(file).parent / "my@1.0V.yaml"
    odd.write_text(CHIP)
    assert load(odd).point == "1.2V"
    assert load(f"{odd}@1.0V").point == "1.0V"


def test_an_at_sign_in_a_folders_name_is_no_point(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"no platform file '.*/a@b/chip'"):
        load(tmp_path / "a@b" / "chip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}@1.1V", "platform 'chip' has no operating point '1.1V'; did you mean '1.2V'"),
        ("{file}@", "has no operating point"),
        ("mpic@1.1V", "platform 'mpic' has no operating point '1.1V'; it has none"),
        ("mpi@1.1V", "no platform 'mpi'; did you mean 'mpic'"),
    ],
)
def test_an_unknown_point_is_an_error(file: str, name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        load(name.format(file=file))


def test_a_changed_number_holds_at_every_point() -> None:
    changed = chip().with_params(clock="50 MHz")
    assert [changed.at(p).params["clock"].quantity.text for p in changed.points] == ["50 MHz"] * 2
    assert changed.at("1.0V").params["power"].quantity.text == "20 mW"


def test_a_number_can_be_changed_at_a_point() -> None:
    changed = chip().at("1.0V").with_params(clock="50 MHz")
    assert (changed.name, changed.params["clock"].quantity.text) == ("chip@1.0V", "50 MHz")


def extended(folder: Path, points: str) -> Platform:
    (folder / "chip.yaml").write_text(CHIP)
    (folder / "two.yaml").write_text(f"hwcost: 1\nextends: chip.yaml\nname: two\npoints: {points}")
    return load(folder / "two.yaml")


def test_points_of_an_extended_file_merge(tmp_path: Path) -> None:
    two = extended(tmp_path, "{1.0V: {power: 30 mW}, 0.8V: {clock: 10 MHz}}")
    assert two.points == ("1.2V", "1.0V", "0.8V")
    assert two.at("1.0V").params["power"].quantity.text == "30 mW"
    assert two.at("1.0V").params["clock"].quantity.text == "100 MHz"


def test_null_deletes_a_point_of_an_extended_file(tmp_path: Path) -> None:
    assert extended(tmp_path, "{1.0V: null}").points == ("1.2V",)


#: (text of the file, what stands in its place, what the message names).
MISTAKES = [
    ("power: 20 mW}", "powr: 20 mW}", "chip.yaml:22: 'powr' is not a param of the platform; did"),
    ("power: 20 mW}", "own: 20 mW}", "'own' is not a param of the platform, only of engine 'core'"),
    ("power: 20 mW}", "power: 20 MHz}", "chip.yaml:22: 'power' is in cycle/s; in params in J/s"),
    ("power: 20 mW}", "power: 20 mX}", "unknown unit 'mX'"),
    ("power: 20 mW}", "power: -20 mW}", "a physical quantity is not negative"),
    ("value: 100 MHz", "valu: 100 MHz", "chip.yaml:22: unknown key 'valu'; did you mean 'value'"),
    ("1.0V: {", '"1.0 V": {', "'1.0 V' cannot name an operating point"),
    ("1.2V: {clock: 200 MHz", "1.2V: {clock: 90 MHz", "chip.yaml:21: 'clock' is 90 MHz at the"),
    ("power: 20 mW}", "wide: 1}", "two entries match 'conv' equally"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_wrong_point_is_an_error_at_load(old: str, new: str, message: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        chip((old, new))
    assert message in str(caught.value)


def test_points_without_end_are_refused() -> None:
    many = "".join(f"  p{i}: {{}}\n" for i in range(31))
    with pytest.raises(DescriptorError, match="33 operating points; at most 30"):
        loads(CHIP + many, "chip.yaml")


def test_points_compare_like_platforms(file: str) -> None:
    made = compare({"op": OP}, [file, f"{file}@1.0V"], "energy")
    assert made.columns()["platform"] == ["chip", "chip@1.0V"]


def test_a_report_names_the_point(file: str) -> None:
    made = report(OP, f"{file}@1.0V")
    assert made.to_dict()["point"] == "1.0V"
    assert " on chip@1.0V: " in made.sheet().title


def shown(name: str) -> list[str]:
    return CliRunner().invoke(app, ["show", name]).stdout.splitlines()


def test_show_lists_the_points(file: str) -> None:
    assert "  1.2V  clock 200 MHz, power 100 mW; the numbers above" in shown(file)
    assert "  1.0V  clock 100 MHz, power 20 mW" in shown(file)


def test_show_has_the_numbers_of_the_point(file: str) -> None:
    assert "  clock  100 MHz, half speed [sheet]" in shown(f"{file}@1.0V")


def test_the_list_of_platforms_has_points_and_status() -> None:
    usual = {"metrics": {"latency": "s"}, "engines": ["core"], "title": "a chip"}
    found = [{"platform": "chip", "points": ["1.2V", "1.0V"], "status": "measured", **usual}]
    assert as_table(found, None).splitlines()[2].split()[3:6] == ["1.2V,", "1.0V", "measured"]
    assert "measured" in as_table(found, 60)
