"""Figures of predicted against measured: all there, of the right points, up to date."""

from collections import Counter

import pytest
import torch

from docs import plots
from docs.accuracy import DENSE, NETWORK, POINTWISE, compared, error_pairs, pairs
from hwcost.loading import available, load

each_compared = pytest.mark.parametrize("name", compared())


def test_each_platform_with_rows_has_a_figure() -> None:
    assert sorted(path.stem for path in plots.FIGURES.iterdir()) == compared()


@each_compared
def test_a_figure_is_small(name: str) -> None:
    assert (plots.FIGURES / f"{name}.svg").stat().st_size < 60_000


@pytest.mark.slow
@each_compared
def test_a_figure_shows_the_present_predictions(name: str) -> None:
    pytest.importorskip("matplotlib")
    shown = (plots.FIGURES / f"{name}.svg").read_text()
    assert shown == plots.svg(pairs(name)), "python -m docs.generate brings it up to date"


@pytest.mark.parametrize("name", [n for n in available() if load(n).status == "measured"])
def test_a_measured_platform_says_what_it_leaves_out(name: str) -> None:
    assert len(load(name).note) > 40


def test_cycles_are_shown_as_time() -> None:
    # 414172 cycles at 500 MHz.
    found = pairs("ethos_u55_128")
    assert found.metrics == ("latency",)
    assert float(found.measured[0]) == pytest.approx(414172 / 500e6)


def test_rows_are_told_apart_by_what_they_are() -> None:
    found = pairs("stm32h743_cmsisnn")
    count = Counter(found.labels)
    assert (count[DENSE], count[POINTWISE], count["depthwise convolution"]) == (1, 7, 7)
    assert set(pairs("ndp9120").labels) == {NETWORK}


def test_a_figure_states_the_errors_of_its_points() -> None:
    found = pairs("stm32h743_cmsisnn")
    off = (found.predicted / found.measured - 1).abs()
    ((error, text),) = error_pairs(found)
    assert error.median == pytest.approx(float(torch.median(off)))
    assert text.startswith(f"{100 * error.median:.2g} % / ")


def test_no_error_is_stated_where_the_platform_states_none() -> None:
    texts = [text for _, text in error_pairs(pairs("ndp9120"))]
    assert texts == ["no error can be stated", "no error can be stated"]
