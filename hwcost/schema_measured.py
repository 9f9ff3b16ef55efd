"""The schema of what was measured: golden points, operating points, calibration."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from hwcost.ops import KINDS
from hwcost.schema_base import Bits, Closed, Number, QuantityText, Text, known_kind


class CheckSpec(Closed):
    """A golden point: an op or a network whose cost is known from a paper or a bench."""

    op: dict[Text, dict[Text, Number]] | None = Field(
        None, description="kind -> sizes, such as conv: {cin: 32, ...}", min_length=1, max_length=1
    )
    zoo: Text | None = Field(
        None, description="instead of op: a network that comes with hwcost, such as resnet8"
    )
    metric: Text = Field(description="the metric that was measured")
    value: QuantityText = Field(description="the known value with its unit")
    tol: QuantityText = Field(description="allowed relative error, such as 15 %")
    source: Text = Field(description="where the value comes from")
    engine: Text | None = Field(
        None, description="the engine that ran it; the best one if left out"
    )
    point: Text | None = Field(
        None, description="the operating point that it ran at; the default one if left out"
    )


class PointValue(Closed):
    """A number at an operating point, with a source of its own."""

    value: QuantityText = Field(description="number and unit, such as 90 MHz")
    source: Text | None = Field(None, description="the param's own source if left out")
    note: Text | None = Field(None, description="what the number is")


AtPoint = Annotated[
    Annotated[QuantityText, Tag("[number]")] | Annotated[PointValue, Tag("[mapping]")],
    Discriminator(lambda given: "[mapping]" if isinstance(given, dict) else "[number]"),
]


#: Convolutions of this kind run at other speeds than the rest, so a calibration names them apart.
DEPTHWISE = "depthwise"


class ErrorSpec(Closed):
    """How far a metric is off: relative errors over the rows of the calibration, without sign."""

    median: QuantityText | None = Field(None, description="half of the rows are within, as 8 %")
    p90: QuantityText = Field(description="nine of ten rows are within, as 21 %")
    unseen_median: QuantityText | None = Field(
        None, description="the median on networks that were left out of the fit"
    )
    unseen_p90: QuantityText | None = Field(
        None, description="the p90 on networks that were left out of the fit; reports show it"
    )
    rows: Annotated[int, Field(strict=True, ge=1)] = Field(description="measured rows compared")
    of: Literal["layers", "nets"] = Field(
        "layers", description="whether a row is one op or a whole network"
    )
    points: list[Text] = Field(
        default=[], description="operating points of these rows, where they are not those of all"
    )


#: The tags are in brackets, so that messages leave them out.
OneOrSeveral = Annotated[
    Annotated[ErrorSpec, Tag("[one]")] | Annotated[list[ErrorSpec], Tag("[several]")],
    Discriminator(lambda given: "[several]" if isinstance(given, list) else "[one]"),
]


#: Between a kind of op and the engine that ran it.
ON = " on "


#: Kinds of op of which a calibration may say the kernels.
WITH_KERNELS = ("conv", "conv_transpose", DEPTHWISE)

_KERNEL = r"[1-9]\d*(x[1-9]\d*){1,2}"


def _measured_kind(name: str) -> str:
    kind, _, kernel = name.partition(ON)[0].partition(" ")
    if kernel and (kind not in WITH_KERNELS or not re.fullmatch(_KERNEL, kernel, re.ASCII)):
        raise ValueError(f"{name!r} is no kind of op; such as 'linear', 'conv 3x3', 'conv on npu'")
    return name if kind == DEPTHWISE else known_kind(kind) and name


MeasuredKind = Annotated[
    Text,
    AfterValidator(_measured_kind),
    Field(
        json_schema_extra={
            "anyOf": [
                {"enum": [*KINDS, DEPTHWISE]},
                {"pattern": rf"^({'|'.join(WITH_KERNELS)}) {_KERNEL}({ON}\S+)?$"},
                {"pattern": rf"^({'|'.join((*KINDS, DEPTHWISE))}){ON}\S+$"},
            ]
        }
    ),
]


class CalibrationSpec(Closed):
    """What a measured platform was fitted to or compared with, and how far it is off there."""

    data: Text = Field(description="the measurements: file, author, version")
    rows: Annotated[int, Field(strict=True, ge=1)] = Field(description="measured rows in all")
    date: Text = Field(description="day of the fit, such as 2026-11-21")
    software: Text | None = Field(
        None, description="kernels, compiler and versions that the figures hold for"
    )
    kinds: list[MeasuredKind] = Field(
        default=[],
        description="kinds of op among the rows, depthwise convolutions apart as depthwise; with"
        " the kernel, conv 3x3, where others are not meant; with the engine that ran them where"
        " there are several: conv on npu; reports name the others",
    )
    w_bits: list[Bits] = Field(default=[], description="bits of weights among the rows")
    a_bits: list[Bits] = Field(default=[], description="bits of activations among the rows")
    points: list[Text] = Field(
        default=[], description="operating points among the rows; the default one if left out"
    )
    errors: dict[Text, OneOrSeveral] = Field(
        default={}, description="metric -> its error, or a list: that of layers, that of nets"
    )
    note: Text | None = Field(None, description="what else one has to know of the rows")
