"""Tools and a prompt that ask the client something before they can answer.

Under 2025-11-25 the server sends a request of its own while the call is open. Under 2026-07-28 it
answers `input_required`, and the client calls again with the responses (SEP-2322).
"""

from __future__ import annotations

import json
from typing import Any

from mcp import types
from mcp.shared.exceptions import MCPError

from tests.conformance.fixture_tools import Answer, Request, Toolbox, said

MAX_TOKENS = 100


def form(**properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a form that needs every field."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def choices(*values: str) -> list[dict[str, str]]:
    """Return titled options."""
    return [{"const": value, "title": value.title()} for value in values]


DEFAULTS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    },
}
PLAIN_OPTIONS = {"type": "string", "enum": ["option1", "option2", "option3"]}
ENUMS = {
    "type": "object",
    "properties": {
        "untitledSingle": PLAIN_OPTIONS,
        "titledSingle": {"type": "string", "oneOf": choices("value1", "value2", "value3")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["First", "Second", "Third"],
        },
        "untitledMulti": {"type": "array", "items": PLAIN_OPTIONS},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": choices("value1", "value2", "value3")},
        },
    },
}
TEXT = {"type": "string"}
PERSON = form(name=TEXT)


def add_pushing_tools(toolbox: Toolbox) -> None:
    """Tools of 2025-11-25: the question is a request from the server."""
    prompt: dict[str, Any] = {"properties": {"prompt": TEXT}, "required": ["prompt"]}
    message: dict[str, Any] = {"properties": {"message": TEXT}, "required": ["message"]}

    @toolbox.add("test_sampling", "Asks the client's model", **prompt)
    async def _sample(request: Request, params: types.CallToolRequestParams) -> Answer:
        reply = await request.session.create_message(
            [spoken((params.arguments or {})["prompt"])],
            max_tokens=MAX_TOKENS,
            related_request_id=request.request_id,
        )
        return said(f"LLM response: {reply.content.model_dump_json()}")

    @toolbox.add("test_elicitation", "Asks the user", **message)
    async def _ask(request: Request, params: types.CallToolRequestParams) -> Answer:
        user = form(username=TEXT, email=TEXT)
        return await elicited(request, (params.arguments or {})["message"], user)

    @toolbox.add("test_elicitation_sep1034_defaults", "Asks with a default for each type")
    async def _defaults(request: Request, _: types.CallToolRequestParams) -> Answer:
        return await elicited(request, "Look over these values", DEFAULTS)

    @toolbox.add("test_elicitation_sep1330_enums", "Asks with each kind of enumeration")
    async def _enums(request: Request, _: types.CallToolRequestParams) -> Answer:
        return await elicited(request, "Choose", ENUMS)


async def elicited(request: Request, message: str, schema: dict[str, Any]) -> Answer:
    """Ask the user over the open call and repeat the answer."""
    reply = await request.session.elicit(message, schema, request.request_id)
    content = json.dumps(reply.content or {})
    return said(f"Elicitation completed: action={reply.action}, content={content}")


def spoken(text: str) -> types.SamplingMessage:
    """Return `text` as a user's message."""
    return types.SamplingMessage(role="user", content=types.TextContent(type="text", text=text))


def user(message: str, schema: dict[str, Any]) -> types.ElicitRequest:
    """Return a question to the user."""
    params = types.ElicitRequestFormParams(message=message, requested_schema=schema)
    return types.ElicitRequest(params=params)


def model(text: str) -> types.CreateMessageRequest:
    """Return a question to the client's model."""
    params = types.CreateMessageRequestParams(messages=[spoken(text)], max_tokens=MAX_TOKENS)
    return types.CreateMessageRequest(params=params)


def need(state: str | None = None, **questions: types.InputRequest) -> types.InputRequiredResult:
    """Return what is still needed; `state` comes back sealed."""
    return types.InputRequiredResult(input_requests=questions, request_state=state)


def filled(params: types.InputResponseRequestParams, key: str) -> dict[str, Any] | None:
    """Return the form that the user sent under `key`, or None."""
    reply = (params.input_responses or {}).get(key)
    return reply.content if isinstance(reply, types.ElicitResult) else None


def add_round_tools(toolbox: Toolbox) -> None:
    """Tools of 2026-07-28 that need one more round."""

    @toolbox.add("test_input_required_result_elicitation", "Needs the user's name")
    async def _name(_: Request, params: types.CallToolRequestParams) -> Answer:
        if (answer := filled(params, "user_name")) is None:
            return need(user_name=user("What is your name?", PERSON))
        return said(f"Hello, {answer.get('name')}!")

    @toolbox.add("test_input_required_result_sampling", "Needs the client's model")
    async def _model(_: Request, params: types.CallToolRequestParams) -> Answer:
        reply = (params.input_responses or {}).get("capital_question")
        if not isinstance(reply, types.CreateMessageResult):
            return need(capital_question=model("What is the capital of France?"))
        return said(f"The model says: {reply.content.model_dump_json()}")

    @toolbox.add("test_input_required_result_list_roots", "Needs the client's roots")
    async def _roots(_: Request, params: types.CallToolRequestParams) -> Answer:
        reply = (params.input_responses or {}).get("client_roots")
        if not isinstance(reply, types.ListRootsResult):
            return need(client_roots=types.ListRootsRequest())
        return said("Roots: " + ", ".join(str(root.uri) for root in reply.roots))


def add_capability_tools(toolbox: Toolbox) -> None:
    """Tools of 2026-07-28 that look at what the client can do."""

    @toolbox.add("test_input_required_result_capabilities", "Asks only what the client can answer")
    async def _capable(request: Request, _: types.CallToolRequestParams) -> Answer:
        able = request.session.client_capabilities or types.ClientCapabilities()
        questions: dict[str, types.InputRequest] = {}
        if able.sampling is not None:
            questions["model"] = model("Say hello")
        if able.elicitation is not None:
            questions["user"] = user("What is your name?", PERSON)
        return need("asked", **questions)

    @toolbox.add("test_streaming_elicitation", "Reports progress, then needs the user's name")
    async def _streaming(request: Request, _: types.CallToolRequestParams) -> Answer:
        await request.session.report_progress(1, 2, "a question comes")
        return need(user_name=user("What is your name?", PERSON))

    @toolbox.add("test_missing_capability", "Works only for clients that can sample")
    async def _missing(request: Request, _: types.CallToolRequestParams) -> Answer:
        able = request.session.client_capabilities
        if able is None or able.sampling is None:
            raise MCPError(
                types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                "this tool needs the client capability sampling",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return said("the client can sample")


def add_state_tools(toolbox: Toolbox) -> None:
    """Tools of 2026-07-28 that give the client a state to bring back."""
    confirm = user("Please confirm", form(ok={"type": "boolean"}))

    async def _confirmed(_: Request, params: types.CallToolRequestParams) -> Answer:
        if params.request_state != "confirming":
            return need("confirming", confirm=confirm)
        return said("state-ok")

    for name in ("request_state", "tampered_state"):
        described = "Needs a confirmation and its own state back, unaltered"
        toolbox.add(f"test_input_required_result_{name}", described)(_confirmed)

    @toolbox.add("test_input_required_result_multiple_inputs", "Needs three answers at once")
    async def _several(_: Request, params: types.CallToolRequestParams) -> Answer:
        questions: dict[str, types.InputRequest] = {
            "user_name": user("What is your name?", PERSON),
            "greeting": model("Generate a greeting"),
            "client_roots": types.ListRootsRequest(),
        }
        if questions.keys() - (params.input_responses or {}).keys():
            return need("three", **questions)
        return said("three answers received")

    @toolbox.add("test_input_required_result_multi_round", "Needs a name, then a colour")
    async def _rounds(_: Request, params: types.CallToolRequestParams) -> Answer:
        known = json.loads(params.request_state or "{}")
        if "name" in known and (answer := filled(params, "step2")):
            return said(f"{known['name']} likes {answer.get('color')}")
        if answer := filled(params, "step1"):
            question = user("Step 2: What is your favorite color?", form(color=TEXT))
            return need(json.dumps({"name": answer.get("name")}), step2=question)
        return need("{}", step1=user("Step 1: What is your name?", PERSON))
