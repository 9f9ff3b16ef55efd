"""The examples of docs/examples that search: their data, and what their searches reach."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="the extra 'examples' is not installed")
pytest.importorskip("sklearn", reason="the extra 'examples' is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "examples"))

from data_digits import load_digits
from data_glyphs import CLASSES, FONTS, TEST_FONTS, draw, load_glyphs
from data_watch import SUBJECTS, TEST_SUBJECTS, load_watch
from samples import Data
