"""The examples of docs/examples that search: their data, and what their searches reach."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

pytest.importorskip("matplotlib", reason="the extra 'examples' is not installed")
pytest.importorskip("sklearn", reason="the extra 'examples' is not installed")

#: One seed, in this process.
ONE = ("--seeds", "1", "--workers", "1")

FOLDER = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the examples by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_digits(example: Any) -> None:
    data = example("data_digits").load_digits()
    assert data.train.x.shape[1:] == (1, 8, 8) and len(data.classes) == 10
    assert set(data.train.y.tolist()) == set(data.test.y.tolist()) == set(range(10))


def test_the_watch_keeps_three_people_for_the_test(example: Any) -> None:
    watch = example("data_watch")
    data = watch.load_watch()
    assert data.train.x.shape[1:] == (6, 100) and len(data.classes) == 7
    assert len(watch.TEST_SUBJECTS) == 3
    others = watch.load_watch(train_subjects=watch.TEST_SUBJECTS, stride=watch.WINDOW)
    assert len(others.train) == len(data.test)
    assert abs(data.train.x.mean()) < 1e-3 and abs(data.train.x.std() - 1) < 0.01


def test_fonts_of_the_test_are_not_trained_on(example: Any) -> None:
    glyphs = example("data_glyphs")
    assert not set(glyphs.FONTS) & set(glyphs.TEST_FONTS)
    assert len(glyphs.CLASSES) == len(set(glyphs.CLASSES)) == 35


def test_every_font_draws_every_glyph(example: Any) -> None:
    glyphs = example("data_glyphs")
    for font in ("DejaVuSans", "cmtt10"):
        drawn = torch.stack([glyphs.draw(glyph, font) for glyph in glyphs.CLASSES])
        ink = drawn.mean((1, 2))
        assert bool((ink > 0.02).all()) and bool((ink < 0.6).all())


def test_glyphs_repeat_with_the_seed(example: Any) -> None:
    glyphs = example("data_glyphs")
    splits = [glyphs.split(("DejaVuSans",), 1, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert splits[0].x.shape == (35, 1, 28, 28)
    assert torch.equal(splits[0].x, splits[1].x) and not torch.equal(splits[0].x, splits[2].x)


@pytest.mark.slow
def test_a_search_shrinks_the_net_for_digits_and_keeps_its_accuracy(example: Any) -> None:
    digits, running = example("search_digits"), example("running")
    rows = running.main(digits.TASK, digits.FAST, ["--strengths", "3", *ONE])
    before, after = rows
    assert before.accuracy > 97 and after.accuracy > 95
    assert after.cost("params") < before.cost("params") / 3
    assert after.cost("latency") < before.cost("latency") / 2


@pytest.mark.slow
@pytest.mark.parametrize("by", ["duccio", "constraint"])
def test_targets_are_met_by_the_exported_net(example: Any, by: str) -> None:
    digits, running = example("search_digits"), example("running")
    rows = running.main(digits.TASK, digits.FAST, ["--by", by, *ONE])
    before, after = rows
    for name, target in digits.TASK.targets.items():
        share = after.cost(name) / before.cost(name)
        assert share <= 1.02 * float(target.rstrip(" %")) / 100
    assert after.accuracy > 90


def tiny(example: Any) -> Any:
    """Return the task of quantize_glyphs with a small network and one font."""
    glyphs, quantizing = example("quantize_glyphs"), example("quantizing")
    samples, fonts = example("samples"), example("data_glyphs")
    split = fonts.split(("DejaVuSans",), 4, torch.Generator().manual_seed(0))
    return replace(
        glyphs.TASK,
        load=lambda: samples.Data("glyph", split, split, tuple(fonts.CLASSES)),
        net=lambda: nn.Sequential(
            nn.Conv2d(1, 8, 7, 4), nn.ReLU(), nn.Flatten(), nn.Linear(288, 35)
        ),
        cases=(glyphs.plain(8), glyphs.plain(2), glyphs.mixed(1.0)),
        plan=quantizing.Plan(1, 1, 1),
    )


def test_choices_are_final_before_the_last_epochs(example: Any) -> None:
    task, quantizing = tiny(example), example("quantizing")
    data, case = task.load(), task.cases[-1]
    search = quantizing.quantized(task.net(), case, task.plan, data, seed=0)
    search.train()
    soft, hard = (float(search.get_cost(hard=hard).detach()) for hard in (False, True))
    assert search.sampling.mode == "hard" and hard > 0
    assert not any(p.requires_grad for p in search.nas_parameters())
    assert soft < float(search.reference["counts:weight_bytes"])


def test_a_table_compares_with_the_first_case(example: Any) -> None:
    task, quantizing = tiny(example), example("quantizing")
    rows = quantizing.experiment(task, range(2), workers=1)
    assert [row.title for row in rows] == ["float", "w8a8", "w2a8", "MPS at 1"]
    assert rows[2].cost("weights") == rows[1].cost("weights") / 4
    for row in rows:
        assert len(row.results) == 2 and row.exported == row.accuracy
    console = Console(width=120)
    with console.capture() as shown:
        console.print(quantizing.table(rows, task))
    assert "25.0%" in shown.get()


def test_a_mapping_that_needs_no_search_is_held_from_the_start(example: Any) -> None:
    glyphs = example("map_glyphs")
    torch.manual_seed(0)
    for name in glyphs.BASELINES:
        search = glyphs.fixed(glyphs.cnn(), torch.zeros(1, 1, 28, 28), name)
        found = search.baselines()
        assert found["this search"].cost == pytest.approx(found[name].cost, rel=1e-9)


@pytest.mark.slow
def test_few_bits_keep_the_accuracy_of_the_net_for_glyphs(example: Any) -> None:
    glyphs, quantizing = example("quantize_glyphs"), example("quantizing")
    cases = (glyphs.plain(8), glyphs.plain(2), glyphs.mixed(0.4), glyphs.mixed(1.0))
    rows = quantizing.main(replace(glyphs.TASK, cases=cases), ["--seeds", "3"])
    before, w8a8, w2a8, mixed, small = rows
    assert w8a8.accuracy > before.accuracy - 0.3
    assert mixed.accuracy > w8a8.accuracy - 0.5
    assert mixed.cost("weights") < 0.53 * w8a8.cost("weights")
    assert mixed.accuracy > w2a8.accuracy
    assert mixed.cost("weights") < 1.05 * w2a8.cost("weights")
    assert small.cost("weights") < 0.9 * w2a8.cost("weights")
    assert all(row.exported == row.accuracy for row in rows)


@pytest.mark.slow
def test_two_engines_are_faster_than_one_at_its_accuracy(example: Any) -> None:
    glyphs, quantizing = example("map_glyphs"), example("quantizing")
    digital = glyphs.baseline("all on digital")
    cases = (digital, glyphs.searched(0.3))
    rows = quantizing.main(replace(glyphs.TASK, cases=cases), ["--seeds", "2"])
    _, alone, both = rows
    assert both.cost("latency") < 0.7 * alone.cost("latency")
    assert both.accuracy > alone.accuracy - 0.5
    assert all(row.exported == row.accuracy for row in rows)


@pytest.mark.slow
def test_the_best_metric_prunes_far_better_than_chance(example: Any) -> None:
    results = example("prune_glyphs").main(["--seeds", "3"])
    chance = results.pop("Random")
    best = max(result.recalibrated for result in results.values())
    assert best > chance.recalibrated + 5
    assert all(result.latency <= 0.5 * result.before * (1 + 1e-9) for result in results.values())
    assert all(result.tuned > result.recalibrated for result in results.values())
