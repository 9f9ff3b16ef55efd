"""The section about the tiles of an op: how it is cut, what fits, what each one takes."""

from hwcost.explain_row import Row
from hwcost.explain_text import Section, decimal, formula_text, quantity_text
from hwcost.explain_tree import value_of
from hwcost.explain_view import View
from hwcost.formula import symbol
from hwcost.tile import TILE_NAMES, Tile


def tile_section(row: Row, view: View) -> Section:
    """Return how the op is cut, and what of the memory a tile takes."""
    tile = None if row.entry is None else row.entry.tile
    if tile is None or view.names is None:
        return Section("Tile", [])
    lines = [(f"t{size}", _cut(size, tile, view)) for size in tile.cut]
    shown = tile.shown
    for name in [n for n in shown if symbol(n) in view.tile]:
        value = view.values[symbol(name)]
        text = f"{formula_text(shown[name])} = {decimal(value)}"
        lines.append((name, f"{text}, {TILE_NAMES[name]}"))
    return Section("Tile", [*lines, (tile.memory, _filled(row, tile, view))])


def _cut(size: str, tile: Tile, view: View) -> str:
    """One line of the grid: ``16 of cout = 64, a multiple of 4``."""
    part = view.values[symbol(f"t{size}")]
    whole = tile.whole(size)
    of = f"{formula_text(whole)} = " if whole.free_symbols else ""
    step = f", a multiple of {tile.steps[size]}" if tile.steps.get(size, 1) > 1 else ""
    return f"{decimal(part)} of {of}{decimal(value_of(whole, view.values))}{step}"


def _filled(row: Row, tile: Tile, view: View) -> str:
    """What the memory has, and what one tile or two of it take."""
    need = float(value_of(tile.need, dict(view.values)))
    size = row.platform.memories[tile.memory].size
    free = float(size.value)
    copies = "two tiles take" if tile.copies > 1 else "a tile takes"
    taken = quantity_text(need, "B")
    return f"{copies} {taken} of {size.text}, {100 * need / free:.3g} %: {tile.text}"
