"""Workload: tables from columns, grids and frames, and what is wrong with one."""

import pandas as pd
import pytest
import torch

from hwcost.errors import UnknownName, WorkloadError
from hwcost.workload import Workload


def test_left_out_sizes_have_their_usual_values() -> None:
    table = Workload.from_columns("conv", cin=3, cout=8, kw=3, oh=1, ow=5)
    usual = {"kh": 1, "groups": 1, "sw": 1, "batch": 1, "weight": 1, "bias": 0}
    assert {name: table.column(name).item() for name in usual} == usual


def test_a_size_without_a_usual_value_stays_open() -> None:
    assert Workload.from_columns("conv", cin=3).column("oh").isnan().all()


def test_one_number_serves_all_rows() -> None:
    table = Workload.from_columns("linear", cin=[1, 2, 3], cout=7)
    assert table.column("cout").tolist() == [7, 7, 7]


def test_values_of_attention_have_the_size_of_keys_unless_given() -> None:
    table = Workload.from_columns("attention", heads=2, lq=4, lk=4, dhead=16)
    assert table.column("dv").item() == 16


def test_a_grid_has_every_combination_the_last_size_fastest() -> None:
    grid = Workload.grid("linear", cin=[1, 2], cout=[3, 4, 5])
    assert grid.column("cin").tolist() == [1, 1, 1, 2, 2, 2]
    assert grid.column("cout").tolist() == [3, 4, 5, 3, 4, 5]


def frame(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"layer": ["a", "b"], "kind": ["conv", "linear"], "cin": [1, 2]} | columns)


def test_a_frame_round_trips() -> None:
    table = Workload.from_frame(frame(cout=[3, 4], kw=[3, None]))
    again = Workload.from_frame(table.to_frame())
    assert again.layers == table.layers
    assert again.kinds == table.kinds
    for name in ("cin", "cout", "kw", "kh", "weight"):
        assert torch.equal(again.column(name).nan_to_num(-1), table.column(name).nan_to_num(-1))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"cout": [3, -4]}, r"row 1, layer 'b': cout is -4; expected 0 or more"),
        ({"cout": [float("inf"), 4]}, r"row 0, layer 'a': cout is inf"),
        ({"cout": ["three", 4]}, r"'cout' holds something that is not a number"),
        ({"w_bits": [8, 65]}, r"row 1, layer 'b': w_bits is 65; expected 0 to 64"),
    ],
)
def test_a_wrong_value_names_its_row(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        Workload.from_frame(frame(**columns))


def test_an_unknown_column_suggests_a_name() -> None:
    with pytest.raises(UnknownName, match=r"no size is named 'c_in'; did you mean 'cin'"):
        Workload.from_frame(frame(c_in=[1, 2]))


def test_an_unknown_kind_suggests_a_name() -> None:
    with pytest.raises(UnknownName, match=r"'convolution'"):
        Workload.from_columns("convolution", cin=1)


def test_a_table_without_layers_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="no column 'layer'"):
        Workload.from_frame({"kind": ["conv"]})


def test_a_size_of_another_kind_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="'linear' has no size 'kh'"):
        Workload.from_columns("linear", cin=1, kh=3)


def test_columns_of_unequal_length_are_an_error() -> None:
    with pytest.raises(WorkloadError, match=r"'cin' has shape \(2,\); expected \(3,\)"):
        Workload.from_columns("linear", cin=[1, 2], cout=[1, 2, 3])


def test_changed_columns_keep_their_gradient() -> None:
    cout = torch.ones(1, requires_grad=True)
    table = Workload.from_columns("linear", cin=1, cout=1).with_columns(cout=cout)
    table.column("cout").sum().backward()
    assert cout.grad is not None
    assert table.column("cout").dtype == torch.float64


def test_bits_are_changed_by_with_precision_only() -> None:
    table = Workload.from_columns("linear", cin=1, cout=1)
    assert table.with_precision(w_bits=4).column("w_bits").item() == 4
    with pytest.raises(WorkloadError, match="use with_precision"):
        table.with_columns(w_bits=4.0)


def test_concat_keeps_rows_and_gradients() -> None:
    cout = torch.ones(1, requires_grad=True)
    first = Workload.from_columns("linear", cin=1, cout=1).with_columns(cout=cout)
    both = Workload.concat([first, Workload.from_columns("linear", cin=5, cout=6)])
    assert both.column("cout").tolist() == [1, 6]
    assert both.column("cout").requires_grad
    assert both.structure.ops.tolist() == [0, 1]


def test_a_slice_is_a_table_of_its_own() -> None:
    part = Workload.grid("linear", cin=[1, 2, 3], cout=4).slice(1, 3)
    assert part.column("cin").tolist() == [2, 3]
    assert list(part.layers) == ["linear 1", "linear 2"]


def test_an_unknown_layer_suggests_a_name() -> None:
    table = Workload.from_frame(frame())
    with pytest.raises(UnknownName, match="no layer 'aa'; did you mean 'a'"):
        table.rows_of("aa")


def test_columns_of_a_new_table_keep_their_gradient() -> None:
    cout = torch.ones(2, requires_grad=True)
    table = Workload.from_columns("linear", cin=1, cout=cout)
    table.column("cout").sum().backward()
    assert cout.grad is not None
