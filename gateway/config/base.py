"""What every part of `countersign.yaml` is made of: names, paths, and leave to call tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from gateway.core.catalog import Effect

BASE: Final = "base"
"""Key of the validation context: the folder from which relative paths start."""

_DIGITS_MAX: Final = 18
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_TRUE: Final = ("true", "yes", "on", "1", "t", "y")
_FALSE: Final = ("false", "no", "off", "0", "f", "n")
_WHOLE_MAX: Final = 2**53 - 1


def _resolve(path: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get(BASE, Path())
    try:
        return base / path.expanduser()
    except RuntimeError:
        raise PydanticCustomError("path_home", "starts at the home of nobody here") from None


def _refuse_nothing(value: object) -> object:
    """Refuse an empty path: it would be the folder of the file itself."""
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("path_empty", "names nothing")
    return value


def _resolve_uri(uri: str, info: ValidationInfo) -> str:
    scheme, _, path = uri.partition(":")
    return f"{scheme}:{_resolve(Path(path), info)}" if scheme in ("file", "dir") and path else uri


def _read_whole(value: object) -> object:
    """Return the number that a text says: environment variables are texts."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX:
        value = int(value)
    if isinstance(value, int) and abs(value) > _WHOLE_MAX:
        raise PydanticCustomError("whole_too_large", "is beyond what any number here can be")
    return value


def _read_number(value: object) -> object:
    """Return the number that a text says, a whole one where it has no point."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number_type", "should be a number")
    return value


def _read_flag(value: object) -> object:
    """Return what a text says: environment variables are texts."""
    if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
        return value.lower() in _TRUE
    return value


LocalPath = Annotated[Path, BeforeValidator(_refuse_nothing), AfterValidator(_resolve)]
KeyUri = Annotated[str, AfterValidator(_resolve_uri)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
SecretHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
SecretFrom = Annotated[
    str,
    StringConstraints(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"),
    AfterValidator(_resolve_uri),
]
Number = StrictInt | StrictFloat
Bound = Annotated[Number, BeforeValidator(_read_number)]
"""A number: no `true`, but a text such as `0.5`, as a variable has it."""

Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(_read_number)]
"""A part of a whole."""

Count = Annotated[StrictInt, Field(ge=0), BeforeValidator(_read_whole)]
"""A whole number from 0, where no field says more."""

Whole = Annotated[StrictInt, BeforeValidator(_read_whole)]
"""A whole number, from 0: no `true`, no `1.0`, but a text of digits, as a variable has it."""

Flag = Annotated[StrictBool, BeforeValidator(_read_flag)]
"""Yes or no: no number, but a text such as `true`, `yes` or `1`, as a variable has it."""

HASH: Final = "`sha256:` and the hex SHA-256 of a generated secret"


def section(description: str) -> Any:  # noqa: ANN401 - stands for any section
    """Return a field for a section that may be left out: its own defaults then hold."""
    return Field(default_factory=dict, validate_default=True, description=description)


class Section(BaseModel):
    """What holds for all: frozen, unknown keys are errors, defaults are resolved like values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


class RangeSection(Section):
    """How many there may be, bounds included."""

    min: Count | None = Field(None, description="at least so many, from 0")
    max: Count | None = Field(None, description="at most so many, from 0")


class ConstraintSection(Section):
    """Bounds on one argument; all that are given must hold, and the argument must be there."""

    max: Bound | None = Field(None, description="a number: at most this")
    min: Bound | None = Field(None, description="a number: at least this")
    one_of: tuple[StrictStr | StrictBool | Number, ...] | None = Field(
        None, description="a list of the values allowed"
    )
    prefix: StrictStr | None = Field(None, description="a text that the value starts with")
    suffix: StrictStr | None = Field(None, description="a text that the value ends with")
    domain: tuple[StrictStr, ...] | None = Field(
        None, description="host names that an address or URL leads to; `*.name` for those below it"
    )
    length: RangeSection | None = Field(None, description="`min` and `max` characters of a text")
    count: RangeSection | None = Field(
        None, description="`min` and `max` items of a list, or members of an object"
    )


class WindowSection(Section):
    """When calls may happen, in UTC."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        (), description="days on which it opens, mon to sun; by default all"
    )
    start: StrictStr = Field("00:00", description="`HH:MM` in UTC at which it opens")
    end: StrictStr = Field(
        "24:00", description="`HH:MM` in UTC at which it closes; before `start`: on the next day"
    )
    not_before: Count | None = Field(None, description="its first second, since the epoch")
    not_after: Count | None = Field(None, description="its last second, since the epoch")


class GrantSection(Section):
    """Leave to call tools of one server."""

    server: Name = Field(description="the id of a server in `servers`")
    tool: str = Field("*", min_length=1, description="a tool's name, or `*` for all")
    effects: tuple[Effect, ...] = Field((), description="what the tools may do; empty for anything")
    constraints: dict[str, ConstraintSection] = Field(
        {}, description="JSON Pointer into the arguments → bounds"
    )
    max_calls: Count | None = Field(None, description="calls of each tool in one run")
    window: WindowSection | None = Field(None, description="when calls may happen; always if not")
