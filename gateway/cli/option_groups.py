"""Options that several commands take, declared once: a class whose fields are options.

    @spread(Asked, "since", "until")
    def diff(before: str, *, asked: Asked) -> None: ...

is a command with `--since` and `--until`; without names, with an option for each field.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from msgspec import Struct
from msgspec.structs import FieldInfo, fields


class OptionGroup(Struct, frozen=True, kw_only=True):
    """A field is an option: its annotation says which, its default is the option's."""


def spread(group: type[OptionGroup], *only: str) -> Callable[[Callable[..., None]], Any]:
    """Return what gives a command these options of a group, in place of its parameter of that type.

    Fields that are not named keep their defaults. The parameter is one by keyword.
    """
    known = {field.name: field for field in fields(group)}
    hints = get_type_hints(group, include_extras=True)
    options = [_as_parameter(known[name], hints[name]) for name in only or known]

    def take(command: Callable[..., None]) -> Callable[..., None]:
        plain = inspect.signature(command, eval_str=True)
        taken = next(each for each in plain.parameters.values() if each.annotation is group)

        @functools.wraps(command)
        def spreading(*args: object, **given: object) -> None:
            own = {option.name: given.pop(option.name) for option in options}
            command(*args, **given, **{taken.name: group(**own)})

        parameters = list(plain.parameters.values())
        at = parameters.index(taken)
        parameters[at : at + 1] = options
        spreading.__signature__ = plain.replace(parameters=parameters)  # type: ignore[attr-defined]
        return spreading

    return take


def _as_parameter(field: FieldInfo, hint: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=field.default, annotation=hint)
