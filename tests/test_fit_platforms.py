"""Every platform's own params come back from rows that its formulas made, with noise."""

import csv
import math
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from hwcost.costmodel import CostModel
from hwcost.fit import fit, params_of
from hwcost.fit_model import Predictor
from hwcost.fit_params import FitParam, with_values
from hwcost.loading import available, load
from hwcost.measurements import Reading
from hwcost.platform import Platform
from hwcost.workload import Workload
from tests.subjects import Subject, subjects

METRICS = ("latency", "energy")
NOISE, WANTED = 0.05, 0.008
#: Ops that tell a param best, and how often each of them is measured at most.
OPS, MOST = 20, 8


def _with_params() -> list[str]:
    found = []
    for name in available():
        platform = load(name)
        params = [platform.params, *(e.params for e in platform.engines.values())]
        if any(p.fit for group in params for p in group.values()):
            found.append(name)
    return found


NAMES = _with_params()


def candidates(platform: Platform) -> Iterator[Reading]:
    """Random ops that the platform prices, at each operating point and by each metric."""
    for subject in subjects():
        if (subject.platform, subject.metric) != (platform.document.data["name"], "latency"):
            continue
        metrics = [metric for metric in METRICS if metric in platform.metrics]
        for point, metric in product(platform.points or ("",), metrics):
            here = platform.at(point) if point else platform
            table = _not_dilated(subject)
            costs = CostModel(here, metric, place_by="latency").rows(table)
            for row in costs.nonzero().flatten().tolist():
                op = table.slice(row, row + 1)
                yield Reading("x:1", "n", "", subject.kind, point, metric, 1.0, op)


def _not_dilated(subject: Subject) -> Workload:
    """The subject's ops, convolutions without dilation, as most are."""
    if subject.kind != "conv":
        return subject.table
    frame = subject.table.to_frame()
    return Workload.from_frame(frame.assign(dh=1, dw=1))


def bench(platform: Platform) -> list[tuple[Reading, float]]:
    """Rows that tell each param within a percent, as far as any do, and their true costs."""
    readings = list(candidates(platform))
    params = params_of(platform, readings)
    own = torch.tensor([p.start for p in params], dtype=torch.float64)
    true, slopes = Predictor(platform, readings, params).with_slopes(own)
    shares = (slopes * own / true[:, None]).abs()
    rows = []
    for share in shares.T:
        best = share.argsort(descending=True)[:OPS]
        needed = (NOISE / (WANTED * float(share[best].mean().clamp(min=1e-3)))) ** 2
        rows += best.tolist() * min(math.ceil(needed / OPS), MOST)
    return [(readings[row], float(true[row])) for row in rows]


def written(path: Path, rows: list[tuple[Reading, float]], seed: int) -> Path:
    """The rows as CSV, their costs with noise."""
    draw = random.Random(seed)
    metrics = sorted({reading.metric for reading, _ in rows})
    columns = ["kind", "layer", "engine", "point", *metrics]
    sizes = sorted({s for r, _ in rows for s in r.workload.structure.traced})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *sizes])
        writer.writeheader()
        for i, (reading, cost) in enumerate(rows):
            op = reading.workload
            values = {s: float(op.column(s)) for s in sizes}
            row = {"kind": reading.kind, "layer": f"l{i}", "point": reading.point}
            row |= {"engine": op.structure.engines[0] or ""}
            row |= {s: f"{v!r}" for s, v in values.items() if v == v}
            writer.writerow(row | {reading.metric: cost * math.exp(draw.gauss(0, NOISE))})
    return path


def elsewhere(platform: Platform, params: tuple[FitParam, ...]) -> Platform:
    """The platform with other values to start from."""
    return with_values(platform, {p.loc: f"{p.spread(0.3) / p.scale} {p.unit}" for p in params})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_params_come_back_from_rows_with_noise(name: str, tmp_path: Path) -> None:
    """Within 3 %, or within three standard errors where no op tells a param that well."""
    platform = load(name)
    rows = bench(platform)
    params = params_of(platform, [reading for reading, _ in rows])
    found = fit(elsewhere(platform, params), written(tmp_path / "rows.csv", rows, seed=0))
    true = {p.name: p.start for p in params}
    known = [one for one in found.params if not one.note]
    off = {f.param.name: abs(f.value / true[f.param.name] - 1) for f in known}
    allowed = {f.param.name: max(0.03, 3 * (f.error or 0)) for f in known}
    assert {name: share for name, share in off.items() if share > allowed[name]} == {}
    assert {f.note for f in found.params} <= {"", "too little depends on it"}
