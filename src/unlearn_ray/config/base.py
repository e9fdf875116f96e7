"""What every section of a run's configuration is, and the types that several of them use."""

import difflib
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def several(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, (str, int, float)) else value


def not_empty(values: tuple) -> tuple:
    if not values or any(value == "" for value in values):
        raise ValueError("give at least one, none of them empty")
    return values


def moment(value: object) -> object:
    """A day or a time as YAML or JSON gives it, with a zone; a day lasts until its end."""
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == len("2026-12-24") else datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, 23, 59, 59)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


Text = Annotated[str, Field(min_length=1)]
Globs = Annotated[tuple[str, ...], BeforeValidator(several), AfterValidator(not_empty)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Alpha = Annotated[float, Field(ge=0)]
Epochs = Annotated[float, Field(gt=0)]


def refuse_unread(origin: str, unread: set[str], whole: str) -> None:
    """Raises ValueError for keys that nothing reads beside `origin`; whole: an override that replaces all of them."""
    if unread:
        keys = ", ".join(sorted(unread))
        raise ValueError(f"{origin} leaves no use for {keys}; give the one or the other ({whole} replaces all of them)")


class Section(BaseModel):
    """A part of the configuration: frozen, read strictly, unknown keys refused with the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.0)[0]
                raise PydanticCustomError("unknown_key", "unknown key, the nearest known one is {near}",
                                          {"key": str(key), "near": near})  # fmt: skip
        return data
