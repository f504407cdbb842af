"""AuthZEN Authorization API 1.0: questions read, decisions told (openid.net/specs).

Pure. What is not defined is ignored, as the specification asks (§10.1.1); what is defined must have
its type. INVARIANT: whatever cannot be answered is told as an error or as `decision: false`, never
as anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import orjson
from msgspec import Struct

from gateway.core import strict_json
from gateway.core.errors import RequestError
from gateway.core.limits import Limits

EVALUATION_PATH: Final = "/access/v1/evaluation"
EVALUATIONS_PATH: Final = "/access/v1/evaluations"
METADATA_PATH: Final = "/.well-known/authzen-configuration"

AGENT: Final = "agent"
TOOL: Final = "tool"
CALL: Final = "tools/call"
EVALUATIONS_MAX: Final = 32
"""Questions in one request. So many fit into one record."""
ID_MAX_CHARS: Final = 256

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
_SEMANTICS: Final = frozenset({"execute_all", "deny_on_first_deny", "permit_on_first_permit"})
_REQUIRED: Final = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}
_DEFAULTED: Final = (*_REQUIRED, "context")


class Asked(Struct, frozen=True, kw_only=True):
    """One question: may this subject do this to that? `arguments` are those of the tool's call."""

    subject_type: str
    subject: str
    action: str
    resource_type: str
    resource: str
    arguments: dict[str, Any] = {}
    claimed: dict[str, Any] = {}
    run: str = ""


class Questions(Struct, frozen=True):
    """What one request asks. `boxed`: whether the answer is a list, even if of one."""

    items: tuple[Asked, ...]
    boxed: bool = False
    semantic: Semantic = "execute_all"

    def ends_with(self, permitted: bool) -> bool:  # noqa: FBT001 - what was decided
        """Whether nothing after a question decided like this is asked any more."""
        if self.semantic == "execute_all":
            return False
        return permitted == (self.semantic == "permit_on_first_permit")


class Told(Struct, frozen=True, kw_only=True):
    """One decision as it is told. `held`: people would be asked."""

    permitted: bool
    code: str = ""
    text: str = ""
    held: bool = False
    obligations: tuple[dict[str, Any], ...] = ()
    reasons: tuple[dict[str, Any], ...] = ()
    """With policies' own words, for those who may read them."""


def read_questions(body: bytes, *, boxcar: bool, limits: Limits) -> Questions:
    """Read one question, or with `boxcar` up to `EVALUATIONS_MAX`. Raises `RequestError`."""
    value = strict_json.parse(body, max_depth=limits.json_max_depth)
    if not isinstance(value, dict):
        raise _unfit("send a JSON object")
    given = value.get("evaluations") if boxcar else None
    if given is not None and not isinstance(given, list):
        raise _unfit("`evaluations` must be a list")
    if not given:  # §7.1: as the other endpoint
        return Questions((_read(value, ""),))
    if len(given) > EVALUATIONS_MAX:
        raise _unfit(f"`evaluations` holds more than {EVALUATIONS_MAX}; send them in parts")
    defaults = {name: value[name] for name in _DEFAULTED if name in value}
    items = []
    for at, item in enumerate(given):
        if not isinstance(item, dict):
            raise _unfit(f"`evaluations[{at}]` must be an object")
        items.append(_read({**defaults, **item}, f"evaluations[{at}]."))
    return Questions(tuple(items), boxed=True, semantic=_read_semantic(value))


def _read(value: Mapping[str, Any], where: str) -> Asked:
    found: dict[str, str] = {}
    for name, members in _REQUIRED.items():
        entity = value.get(name)
        if not isinstance(entity, dict):
            raise _unfit(f"`{where}{name}` is missing or no object")
        for member in members:
            text = entity.get(member)
            if not isinstance(text, str) or not 0 < len(text) <= ID_MAX_CHARS:
                raise _unfit(
                    f"`{where}{name}.{member}` must be a text of 1 to {ID_MAX_CHARS} characters"
                )
            found[f"{name}.{member}"] = text
        if not isinstance(entity.get("properties", {}), dict):
            raise _unfit(f"`{where}{name}.properties` must be an object")
    context = value.get("context", {})
    if not isinstance(context, dict):
        raise _unfit(f"`{where}context` must be an object")
    arguments, claimed = context.get("args", {}), context.get("claimed", {})
    if not isinstance(arguments, dict) or not isinstance(claimed, dict):
        raise _unfit(f"`{where}context.args` and `{where}context.claimed` must be objects")
    run = context.get("run", "")
    if not isinstance(run, str) or len(run) > ID_MAX_CHARS:
        raise _unfit(f"`{where}context.run` must be the id of a run")
    return Asked(
        subject_type=found["subject.type"],
        subject=found["subject.id"],
        action=found["action.name"],
        resource_type=found["resource.type"],
        resource=found["resource.id"],
        arguments=arguments,
        claimed=claimed,
        run=run,
    )


def _read_semantic(value: Mapping[str, Any]) -> Semantic:
    options = value.get("options", {})
    if not isinstance(options, dict):
        raise _unfit("`options` must be an object")
    semantic = options.get("evaluations_semantic", "execute_all")
    if not isinstance(semantic, str) or semantic not in _SEMANTICS:
        raise _unfit(
            f"`options.evaluations_semantic` must be one of {', '.join(sorted(_SEMANTICS))}"
        )
    return cast("Semantic", semantic)


def build_reply(questions: Questions, told: Sequence[Told], op: str) -> bytes:
    """Tell what was decided. `op` is the operation under which the log has it."""
    decisions = [_decision(each, op) for each in told]
    if questions.boxed:
        return orjson.dumps({"evaluations": decisions})
    return orjson.dumps(decisions[0])


def _decision(told: Told, op: str) -> dict[str, Any]:
    context: dict[str, Any] = {"op": op}
    if not told.permitted:
        context |= {"code": told.code, "reason": told.text}
    if told.held:
        context["approval_required"] = True
    if told.obligations:
        context["obligations"] = [
            {"id": str(at), "type": spec["type"], "properties": _properties(spec)}
            for at, spec in enumerate(told.obligations, 1)
        ]
    if told.reasons:
        context["reasons"] = list(told.reasons)
    return {"decision": told.permitted, "context": context}


def _properties(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name != "type"}


def build_metadata(public_url: str) -> bytes:
    """The metadata of the policy decision point (§9). Only what there is, is named."""
    return orjson.dumps(
        {
            "policy_decision_point": public_url,
            "access_evaluation_endpoint": public_url + EVALUATION_PATH,
            "access_evaluations_endpoint": public_url + EVALUATIONS_PATH,
        }
    )


def is_json(content_type: str | None) -> bool:
    """Whether a `Content-Type` says JSON, as it must (§10.1)."""
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def _unfit(text: str) -> RequestError:
    return RequestError(text, code="request_invalid")
