"""Measured rows as the CSV file that ``hwcost fit`` reads."""

import csv
from collections.abc import Hashable, Iterator
from pathlib import Path

import torch

from hwcost.measure import Measured
from hwcost.measure_session import Row
from hwcost.measure_time import device_name
from hwcost.ops import SIZES
from hwcost.writing import writing

_BEFORE, _AFTER = ("net", "layer", "kind"), ("latency [us]", "spread", "note")
_SAME = ("source", "software", "conditions", "date")


def write(measured: Measured, path: Path, date: str) -> None:
    """Write the rows of networks, and of single ops that were measured.

    Raises:
        FitError: the file cannot be written.
    """
    sizes = [
        name for name in SIZES if any(row.op and name in row.op.sizes for row in measured.rows)
    ]
    titles = [*_BEFORE, *sizes, "w_bits", "a_bits", *_AFTER, *_SAME]
    same = _same(measured) | {"date": date}
    with writing(path), path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, titles, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells | same for cells in _cells(measured))


def _same(measured: Measured) -> dict[str, str]:
    """What all rows have in common."""
    settings = measured.settings
    threads = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
    clock = "CPU time" if settings.cpu_time else "wall time"
    about = [settings.device, threads, f"batch {settings.batch}", clock, measured.memory]
    return {
        "source": f"hwcost measure on {device_name(settings.device)}",
        "software": f"PyTorch {torch.__version__}, eager, inference mode",
        "conditions": ", ".join(about),
    }


def _cells(measured: Measured) -> Iterator[dict[str, str]]:
    """The rows; an op that is measured once for several has its time in the first of them."""
    told: set[Hashable] = set()
    for row in measured.rows:
        timing = None if row.key in told else measured.timings.get(row.key)
        if timing is None and (not row.net or row.op is None):
            continue
        told.add(row.key)
        cells = _named(row)
        if timing is not None:
            cells |= {
                "latency [us]": f"{timing.median * 1e6:.5g}",
                "spread": f"{timing.spread:.3f}",
            }
        yield cells


def _named(row: Row) -> dict[str, str]:
    if row.op is None:
        return {"net": row.net}
    sizes = {name: f"{value:.12g}" for name, value in row.op.sizes.items()}
    bits = dict(zip(("w_bits", "a_bits"), map(str, row.op.bits), strict=True))
    names = {"net": row.net, "layer": row.op.layer, "kind": row.op.kind, "note": row.op.function}
    return names | sizes | bits
