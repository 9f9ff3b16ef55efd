"""What the parts of a platform file's schema are made of: texts, numbers, closed mappings."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hwcost.errors import did_you_mean, suggestion
from hwcost.ops import KINDS


def known_kind(name: str) -> str:
    """Return the name of a kind of op, as a validator: a ``ValueError`` names the nearest."""
    if name not in KINDS:
        raise ValueError(f"no kind of op has this name{did_you_mean(name, KINDS)}")
    return name


Text = Annotated[str, Field(strict=True, min_length=1)]
Number = StrictInt | StrictFloat
FormulaText = Annotated[
    StrictStr | StrictInt | StrictFloat,
    Field(description="a formula over sizes, params, tables and let names"),
]
QuantityText = Annotated[
    StrictStr | StrictInt | StrictFloat,
    Field(description="a number with its unit, such as 260 MHz; a plain number has no dimension"),
]
KindName = Annotated[Text, AfterValidator(known_kind), Field(json_schema_extra={"enum": [*KINDS]})]
Bits = Annotated[int, Field(strict=True, ge=0, le=64)]


class Closed(BaseModel):
    """A mapping whose unknown keys are errors that name the nearest known key."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = suggestion(str(key), known)
                    message = f"unknown key {key!r}{hint}".replace("{", "{{").replace("}", "}}")
                    raise PydanticCustomError("unknown_key", message, {"key": key})
        return data
