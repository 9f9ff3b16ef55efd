"""Linear rows: what counts as samples and what as positions."""

import pytest
import torch
from torch import Tensor, nn

from hwcost.errors import TraceError
from hwcost.reports import report
from hwcost.tracing import trace
from hwcost.workload import Workload


def linear_rows(model: nn.Module, example: Tensor) -> list[tuple[int, int]]:
    """(batch, positions) of each linear row."""
    table = trace(model, example)
    return [
        (int(table.column("batch")[row]), int(table.column("positions")[row]))
        for row, kind in enumerate(table.kinds)
        if kind == "linear"
    ]


def test_features_of_samples_have_one_position() -> None:
    assert linear_rows(nn.Linear(4, 3), torch.zeros(8, 4)) == [(8, 1)]


def test_tokens_of_samples_are_positions() -> None:
    assert linear_rows(nn.Linear(4, 3), torch.zeros(2, 5, 4)) == [(2, 5)]


@pytest.mark.parametrize("batch_first", [True, False])
def test_tokens_are_positions_whichever_dimension_comes_first(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    example = torch.zeros(1, 5, 8) if batch_first else torch.zeros(5, 1, 8)
    assert linear_rows(layer, example) == [(1, 5)] * 4


def test_the_projections_of_attention_see_tokens_as_positions() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return result

    assert linear_rows(Attend(), torch.zeros(2, 7, 8)) == [(2, 7), (2, 7)]


def test_a_sequence_first_lstm_passes_its_time_steps_on_as_positions() -> None:
    class Recur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.lstm(x)[0])
            return result

    assert linear_rows(Recur(), torch.zeros(9, 1, 4)) == [(1, 9)]


def test_a_model_of_tokens_is_traced_from_the_shape_alone() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(24, 3))
    table = trace(model, input_shape=(6,))
    assert table.kinds == ("embedding", "linear")


def test_a_wrong_shape_is_reported_for_the_numbers_first_tried() -> None:
    with pytest.raises(TraceError, match="mat1 and mat2"):
        trace(nn.Linear(4, 3), input_shape=(5,))


def test_the_table_knows_the_batch_that_it_stands_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    assert Workload.trace(model, torch.zeros(6, 3, 8, 8)).structure.samples == 6


def test_a_report_says_that_costs_are_those_of_the_batch() -> None:
    model, example = nn.Linear(4, 3), torch.zeros(6, 4)
    text = str(report(model, "gap8_compute", example=example))
    assert "6, the example's batch; costs are those of all" in text
