"""Glyphs drawn from the fonts that matplotlib ships: 28x28 pixels, 35 classes, unseen fonts.

The classes are the ten digits and the capital letters without O, which many fonts draw like 0.
Each glyph is drawn once per font from its outline; samples turn, scale, shear and move the
drawing, change its contrast, and add noise. Some fonts are only in the test set, so that accuracy
tells how well a network reads fonts that it has not seen. The symbol fonts are left out.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from samples import Data, Split
from torch import Tensor
from torch.nn import functional as F

CLASSES = "0123456789ABCDEFGHIJKLMNPQRSTUVWXYZ"
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBolIta", "cmb10", "cmr10", "cmti10"),
)
TEST_FONTS = ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol", "cmss10", "cmtt10")
PIXELS = 28
DRAWN = 56  # pixels of the drawing that samples are taken from


def draw(glyph: str, font: str) -> Tensor:
    """Return a glyph, its longer side 5/7 of the picture, in [0, 1], shape (DRAWN, DRAWN).

    Raises:
        LookupError: the font has no outline for the glyph.
    """
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    outline = TextPath((0, 0), glyph, size=100, prop=FontProperties(fname=str(file)))
    if not len(outline.vertices):
        raise LookupError(f"font {font!r} has no glyph {glyph!r}")
    box = outline.get_extents()
    scale = 5 / 7 * DRAWN / max(box.width, box.height)
    middle = -(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2
    place = Affine2D().translate(*middle).scale(scale).translate(DRAWN / 2, DRAWN / 2)
    renderer = RendererAgg(DRAWN, DRAWN, 72)
    context = renderer.new_gc()
    context.set_linewidth(0)
    renderer.draw_path(context, outline, place, (0.0, 0.0, 0.0))
    return torch.from_numpy(np.asarray(renderer.buffer_rgba())[..., 3].copy()).float() / 255


def jitter(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return noisy samples of drawings, each under an affine map of its own.

    Args:
        pictures: shape (samples, DRAWN, DRAWN).

    Returns:
        Samples of shape (samples, 1, PIXELS, PIXELS), about zero mean and unit variance.
    """
    n = len(pictures)
    uniform = torch.rand(6, n, generator=generator) * 2 - 1
    angle, shear = uniform[0] * math.radians(12), uniform[1] * 0.25
    wide, high = (uniform[2] * 0.2).exp(), (uniform[3] * 0.2).exp()
    maps = torch.stack(
        [
            torch.stack([wide * angle.cos(), shear - angle.sin(), uniform[4] * 0.12], 1),
            torch.stack([angle.sin(), high * angle.cos(), uniform[5] * 0.12], 1),
        ],
        1,
    )
    grid = F.affine_grid(maps, [n, 1, PIXELS, PIXELS], align_corners=False)
    samples = F.grid_sample(F.avg_pool2d(pictures[:, None], 2), grid, align_corners=False)
    contrast = torch.rand(n, 1, 1, 1, generator=generator) * 0.6 + 0.4
    noise = torch.randn(samples.shape, generator=generator)
    return (samples * contrast + 0.3 * noise - 0.15) / 0.33


def split(fonts: Sequence[str], copies: int, generator: torch.Generator) -> Split:
    """Return ``copies`` samples of each glyph of each font."""
    pictures = torch.stack([draw(glyph, font) for font in fonts for glyph in CLASSES])
    labels = torch.arange(len(CLASSES)).repeat(len(fonts))
    x = jitter(pictures.repeat(copies, 1, 1), generator)
    return Split(x, labels.repeat(copies))


def load_glyphs(
    seed: int = 0, copies: int = 16, test_fonts: Sequence[str] = TEST_FONTS, test_copies: int = 12
) -> Data:
    """Return the glyphs; ``test_fonts`` are in the test set only."""
    generator = torch.Generator().manual_seed(seed)
    train_fonts = [font for font in FONTS if font not in test_fonts]
    train = split(train_fonts, copies, generator)
    return Data("glyphs", train, split(test_fonts, test_copies, generator), tuple(CLASSES))


if __name__ == "__main__":
    print(load_glyphs())
