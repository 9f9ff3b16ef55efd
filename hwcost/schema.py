"""The shape of a platform file: every key, its type and what it means.

``hwcost schema`` prints it as JSON schema, so that editors complete and check platform files.
Formulas are text here; platform.py gives them meaning.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from hwcost.schema_base import (
    Bits,
    Closed,
    FormulaText,
    KindName,
    Number,
    QuantityText,
    Text,
)
from hwcost.schema_measured import AtPoint, CalibrationSpec, CheckSpec


class ParamSpec(Closed):
    """A number of the hardware, with its unit and where it comes from."""

    value: QuantityText = Field(description="number and unit, such as 24.96 mW")
    source: Text = Field(
        description="where the number comes from: a name in sources, or a citation"
    )
    note: Text | None = Field(None, description="what the number is")
    fit: Annotated[bool, Field(strict=True)] = Field(
        False, description="whether `hwcost fit` may change the value; it needs bounds"
    )
    bounds: list[QuantityText] | None = Field(
        None,
        description="least and largest value that make physical sense",
        min_length=2,
        max_length=2,
    )
    uncertainty: QuantityText | None = Field(
        None, description="standard error of a fitted value, relative, such as 4 %"
    )


class TableSpec(Closed):
    """Numbers by integer axes, looked up in formulas as name[axis, axis]."""

    unit: Text = Field(description="unit of every value, such as op/cycle; 1 for none")
    axes: dict[Text, list[Number]] = Field(
        description="axis -> its values; a look-up has one expression for each, in this order",
        min_length=1,
    )
    values: list[Any] = Field(description="nested lists, one level for each axis")
    source: Text = Field(description="where the numbers come from")
    note: Text | None = Field(None, description="what the numbers are")


class MemorySpec(Closed):
    """A memory, readable in formulas as NAME.size (bytes)."""

    size: QuantityText = Field(description="capacity, such as 512 KiB")
    holds: list[Literal["activations", "weights"]] = Field(
        default=[],
        description="what has to fit: reports compare the size with peak_live and with the weights",
    )
    source: Text | None = Field(None, description="where the size comes from")
    note: Text | None = Field(None, description="what the memory is")


class PrecisionSpec(Closed):
    """Bits that an engine computes with; others are an error that names the layer."""

    w_bits: list[Bits] = Field(description="bits of weights", min_length=1)
    a_bits: list[Bits] = Field(description="bits of activations", min_length=1)


class DeploySpec(Closed):
    """Bits at which a float model is priced where the engine leaves a choice."""

    w_bits: Bits = Field(description="bits of weights")
    a_bits: Bits = Field(description="bits of activations")


class TileSpec(Closed):
    """How an op is cut into tiles that fit into a memory, one after another."""

    sizes: list[Text] = Field(
        description="the sizes that are cut, such as [cout, oh, ow]; others are whole in each tile",
        min_length=1,
    )
    memory: Text = Field(description="the memory that a tile must fit into")
    double_buffer: bool = Field(
        False, strict=True, description="whether two tiles must fit: one is moved, one computed"
    )
    overlap: bool | None = Field(
        None,
        strict=True,
        description="whether transfers run beside the computation; as double_buffer if left out",
    )
    bytes: FormulaText | None = Field(
        None,
        description="what one tile needs; its inputs, weights and outputs if left out",
    )
    step: dict[Text, Annotated[int, Field(strict=True, ge=1)]] = Field(
        default={},
        description="size -> a tile is a multiple of it, or the whole size; 1 if left out",
    )


class OpSpec(Closed):
    """What ops of some kinds cost: cycles, or free, or unsupported, or as another kind."""

    match: KindName | list[KindName] = Field(description="kind of op, or a list of kinds")
    where: Text | None = Field(
        None, description="condition on the sizes; the entry with the most conditions wins"
    )
    cycles: FormulaText | None = Field(
        None,
        description="clock cycles of one sample (matmul: one matrix); of all if it reads batch",
    )
    as_: dict[Text, FormulaText] | None = Field(
        None,
        alias="as",
        description="price it as another kind: match, and the sizes that this kind lacks",
    )
    tile: TileSpec | None = Field(
        None, description="the op is cut into tiles: cycles, load and store are those of one tile"
    )
    load: FormulaText | None = Field(
        None, description="cycles to bring a tile's inputs and weights in; reads tile_in_bytes, ..."
    )
    store: FormulaText | None = Field(
        None, description="cycles to bring a tile's outputs out; reads tile_out_bytes, ..."
    )
    once: FormulaText | None = Field(
        None, description="cycles of an op beside those of its tiles, such as a call"
    )
    free: Text | None = Field(None, description="the op costs nothing, and why")
    unsupported: Text | None = Field(None, description="the op cannot run here, and why")
    scratch: FormulaText | None = Field(
        None, description="bytes of working memory while the op runs, such as an im2col buffer"
    )
    reserved: dict[Text, FormulaText] = Field(
        default={},
        description="buffer -> bytes that the op uses of it; it is there for the whole network, as"
        " large as the op that uses most of it",
    )
    in_place: bool = Field(
        False,
        strict=True,
        description="the output overwrites the op's input where no later op reads that",
    )
    note: Text | None = Field(None, description="what the formula models")
    source: Text | None = Field(None, description="where the formula comes from")


class DefaultSpec(Closed):
    """The fallback for ops that no entry matches."""

    cycles: FormulaText = Field(description="clock cycles, as in an op entry")
    note: Text | None = Field(None, description="what the formula models")
    source: Text | None = Field(None, description="where the formula comes from")


class EngineSpec(Closed):
    """A part of the hardware that computes: a core, a cluster, an accelerator."""

    title: Text | None = Field(None, description="what the engine is")
    precision: PrecisionSpec | None = Field(
        None, description="bits that it computes with; any if left out"
    )
    params: dict[Text, ParamSpec] = Field(
        default={}, description="numbers of this engine; they hide the platform's of the same name"
    )
    ops: list[OpSpec] = Field(default=[], description="what each kind of op costs")
    default: DefaultSpec | None = Field(None, description="what ops cost that no entry matches")


class MetricSpec(Closed):
    """A cost: one formula for each row or op, and how rows, engines and ops combine."""

    unit: Text = Field(
        description="unit of the value, such as s, mJ, B or cycle; 1 for a pure number"
    )
    title: Text | None = Field(None, description="what the metric is")
    row: FormulaText | None = Field(
        None,
        description="formula of a row: reads cycles, busy (the row's latency), span (the op's),"
        " sizes and params",
    )
    op: FormulaText | None = Field(
        None, description="formula of an op over all engines: reads busy_ENGINE, span and params"
    )
    reduce: Literal["peak_live"] | None = Field(
        None, description="peak_live: the largest sum of activations alive at once, in bytes"
    )
    engines: Literal["sum", "max"] = Field(
        "sum",
        description="how the rows of one op on several engines combine; max runs them in parallel",
    )
    ops: Literal["sum", "max"] = Field("sum", description="how ops combine; max is a pipeline")
    note: Text | None = Field(None, description="what the metric leaves out")


class PlatformSpec(Closed):
    """A platform file."""

    hwcost: Literal[1] = Field(description="version of this schema")
    name: Text = Field(description="name of the platform, as used on the command line")
    title: Text = Field(description="what it is, in a line")
    status: Literal["published", "datasheet", "simulated", "measured", "template"] = Field(
        description="where the formulas come from; shown in every report"
    )
    note: Text | None = Field(None, description="what the descriptor does not model")
    sources: dict[Text, Text] = Field(
        default={}, description="name -> citation, used by source: keys"
    )
    params: dict[Text, ParamSpec] = Field(default={}, description="numbers of the hardware")
    let: dict[Text, FormulaText] = Field(default={}, description="sub-formulas shared by formulas")
    tables: dict[Text, TableSpec] = Field(default={}, description="look-up tables")
    memories: dict[Text, MemorySpec] = Field(default={}, description="memories and their sizes")
    engines: dict[Text, EngineSpec] = Field(default={}, description="engines and their op costs")
    metrics: dict[Text, MetricSpec] = Field(
        description="the costs that the platform knows", min_length=1
    )
    deploy: DeploySpec | None = Field(None, description="bits at which a float model is priced")
    limits: dict[Text, Text] = Field(
        default={},
        description="name -> condition over metrics and memories that a network must meet",
    )
    checks: list[CheckSpec] = Field(default=[], description="ops and nets with a known cost")
    points: dict[Text, dict[Text, AtPoint]] = Field(
        default={},
        description="operating points: name -> params that differ there; the first one is what"
        " params say, NAME@POINT selects another",
    )
    calibration: CalibrationSpec | None = Field(
        None, description="measured error; a file that extends this one does not inherit it"
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a platform file: a whole one, or one that extends another.

    A file with ``extends`` may leave any key out, and set any to null to delete it.
    """
    whole = PlatformSpec.model_json_schema(by_alias=True)
    definitions = whole.pop("$defs")
    part = _partial(whole)
    part["properties"]["extends"] = {
        "type": "string",
        "description": "platform that this file changes: a shipped name or a path beside the file",
    }
    part["required"] = ["extends"]
    parts = {f"{name}Part": _partial(spec) for name, spec in definitions.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hwcost platform",
        "if": {"required": ["extends"]},
        "then": part,
        "else": whole,
        "$defs": definitions | parts,
    }


def _partial(spec: dict[str, Any]) -> dict[str, Any]:
    """A mapping's schema with no key required and every key allowed to be null."""
    kept = {key: value for key, value in spec.items() if key not in ("required", "properties")}
    properties = {
        name: {"anyOf": [_of_parts(value), {"type": "null"}]}
        for name, value in spec["properties"].items()
    }
    return {**kept, "properties": properties}


def _of_parts(spec: Any) -> Any:
    """A key's schema in which mappings may be partial; lists replace and stay whole."""
    if isinstance(spec, dict) and "$ref" in spec:
        return {**spec, "$ref": spec["$ref"] + "Part"}
    if not isinstance(spec, dict) or spec.get("type") == "array":
        return spec
    unions = ("anyOf", "oneOf")
    inner = {
        key: [_of_parts(option) for option in value] if key in unions else _of_parts(value)
        for key, value in spec.items()
        if key in (*unions, "additionalProperties")
    }
    if isinstance(inner.get("additionalProperties"), dict):
        inner["additionalProperties"] = {"anyOf": [inner["additionalProperties"], {"type": "null"}]}
    return {**spec, **inner}
