"""What the conformance suite runs on: every formula of every platform, and ops it prices."""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hwcost.costmodel import CostModel
from hwcost.loading import available, load
from hwcost.offers import DEFAULT, MODELLED
from hwcost.ops import KINDS
from hwcost.workload import Workload

#: Every shipped platform, and one that cuts ops into tiles.
PLATFORMS = (*available(), str(Path(__file__).parent / "data" / "tiled.yaml"))

#: Enough rows to hit full and partly filled tiles of every size.
ROWS = 400


@dataclass(frozen=True)
class Subject:
    """One metric of one engine (or of a platform without engines) on one kind of op."""

    platform: str
    metric: str
    engine: str | None
    kind: str

    def __str__(self) -> str:
        platform = Path(self.platform).stem
        return "-".join(filter(None, (platform, self.engine, self.metric, self.kind)))

    @property
    def model(self) -> CostModel:
        return _model(self.platform, self.metric)

    @property
    def table(self) -> Workload:
        """Random ops of the kind that the engine has a formula for."""
        return _priced(self)


@cache
def _model(platform: str, metric: str) -> CostModel:
    return CostModel(platform, metric, on_unsupported="warn")


def subjects() -> list[Subject]:
    """Every metric with a formula of rows x engine x kind that prices some op."""
    found = []
    for name in PLATFORMS:
        platform = load(name)
        for metric in platform.metrics.values():
            if metric.row is None or metric.needs_ops:
                continue
            by_engine = _model(name, metric.name).by_engine
            engines: list[str | None] = [*platform.engines] if by_engine else [None]
            for engine in engines:
                for kind in KINDS:
                    subject = Subject(name, metric.name, engine, kind)
                    if kind != "unknown" and subject not in found and len(_priced(subject)):
                        found.append(subject)
    return found


def random_ops(kind: str, rows: int = ROWS, seed: int = 0) -> list[dict[str, float]]:
    """Ops of a kind with whole sizes: dense, grouped, depthwise, of usual and odd kernels."""
    draw = random.Random(f"{kind} {seed}")
    return [_random_op(kind, draw) for _ in range(rows)]


def _random_op(kind: str, draw: random.Random) -> dict[str, float]:
    sizes: dict[str, float] = {
        name: draw.choice([1, 2, 3, 5, 8, 16, 31, 64]) for name in KINDS[kind].sizes
    }
    sizes |= {"w_bits": draw.choice([2, 4, 8]), "a_bits": draw.choice([2, 4, 8, 8])}
    if "batch" in sizes:
        sizes["batch"] = draw.choice([1, 1, 1, 2, 4])
    if "bias" in sizes:
        sizes["bias"] = draw.choice([0, 1])
    for name in ("cin", "cout"):
        if name in sizes:
            sizes[name] = draw.choice([1, 2, 3, 4, 7, 10, 16, 17, 32, 33, 64, 100, 128, 513, 700])
    if "proj" in sizes:
        sizes["proj"], sizes["hidden"] = 0, sizes["cout"]
    if "kd" in sizes:
        _random_conv(sizes, draw)
    return sizes


def _random_conv(sizes: dict[str, float], draw: random.Random) -> None:
    sizes["kh"], sizes["kw"] = draw.choice(
        [(1, 1), (1, 1), (3, 3), (3, 3), (5, 5), (1, 9), (10, 4)]
    )
    sizes["groups"] = 1
    sizes |= dict.fromkeys(("kd", "od", "id", "sd", "dd"), 1)
    shape = draw.choice(["dense", "dense", "depthwise", "grouped"])
    if shape == "depthwise":
        sizes["cin"] = sizes["cout"] = sizes["groups"] = draw.choice([2, 3, 8, 16, 17, 32, 48, 100])
    if shape == "grouped":
        sizes["groups"] = draw.choice([2, 4])
        sizes["cin"] = sizes["groups"] * draw.choice([4, 8, 24])
        sizes["cout"] = sizes["groups"] * draw.choice([4, 6, 16])


def as_table(kind: str, ops: list[dict[str, float]], engine: str | None) -> Workload:
    """The ops as a table, placed on an engine."""
    names = ops[0] if ops else {}
    columns = {name: [op[name] for op in ops] for name in names}
    labels = {"layer": [f"op {i}" for i in range(len(ops))], "kind": [kind] * len(ops)}
    return Workload.from_frame({**labels, "engine": [engine] * len(ops), **columns})


@cache
def _priced(subject: Subject) -> Workload:
    """The random ops that the engine prices; its own bits where it has no choice."""
    ops = random_ops(subject.kind)
    platform = load(subject.platform)
    # Without an engine, bits that the pickiest one knows: another kind may run on that one only.
    names = [subject.engine] if subject.engine else [*platform.engines]
    known_bits = [platform.engines[name].precision for name in names]
    precision = min(known_bits, key=lambda bits: len(bits.get("w_bits", range(99))), default={})
    for op in ops:
        for bits, known in precision.items():
            op[bits] = op[bits] if op[bits] in known else known[-1]
    plan = subject.model.plan(as_table(subject.kind, ops, subject.engine))
    priced = ((plan.status == MODELLED) | (plan.status == DEFAULT)).tolist()
    kept = [op for op, good in zip(ops, priced, strict=True) if good]
    return as_table(subject.kind, kept, subject.engine)


def sizes_read(subject: Subject) -> list[str]:
    """Sizes that some formula of the subject reads."""
    plan = subject.model.plan(subject.table)
    names: set[str] = set()
    for group in plan.groups:
        names |= {s.name for s in subject.model.formulas.expr(group).free_symbols}
    return [name for name in KINDS[subject.kind].sizes if name in names]
