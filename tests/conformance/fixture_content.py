"""Resources, prompts and completions that the conformance harness asks for by name."""

from __future__ import annotations

import json
import re

from mcp import types
from mcp.shared.exceptions import MCPError

from tests.conformance.fixture_asking import TEXT, filled, form, need, user
from tests.conformance.fixture_tools import Request, embedded, picture, red_pixel

TEMPLATE = "test://template/{id}/data"
TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "Nothing has happened yet.",
}
RESOURCES = [
    types.Resource(uri="test://static-text", name="text", mime_type="text/plain"),
    types.Resource(uri="test://static-binary", name="pixel", mime_type="image/png"),
    types.Resource(uri="test://watched-resource", name="watched", mime_type="text/plain"),
]
TWO_ARGUMENTS = [
    types.PromptArgument(name="arg1", description="First", required=True),
    types.PromptArgument(name="arg2", description="Second", required=True),
]
PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="One text"),
    types.Prompt(
        name="test_prompt_with_arguments", description="Two arguments", arguments=TWO_ARGUMENTS
    ),
    types.Prompt(
        name="test_prompt_with_embedded_resource",
        description="A resource and a text",
        arguments=[types.PromptArgument(name="resourceUri", description="Which", required=True)],
    ),
    types.Prompt(name="test_prompt_with_image", description="An image and a text"),
    types.Prompt(name="test_input_required_result_prompt", description="Asks before it answers"),
]


async def on_list_resources(
    _: Request, __: types.PaginatedRequestParams | None
) -> types.ListResourcesResult:
    """Answer `resources/list`."""
    return types.ListResourcesResult(resources=RESOURCES)


async def on_list_templates(
    _: Request, __: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    """Answer `resources/templates/list`."""
    template = types.ResourceTemplate(
        uri_template=TEMPLATE, name="data", mime_type="application/json"
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def on_read_resource(
    _: Request, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    """Answer `resources/read`. What does not exist is an error with its URI (SEP-2164)."""
    uri = str(params.uri)
    if uri in TEXTS:
        return _read(types.TextResourceContents(uri=uri, mime_type="text/plain", text=TEXTS[uri]))
    if uri == "test://static-binary":
        return _read(types.BlobResourceContents(uri=uri, mime_type="image/png", blob=red_pixel()))
    if match := re.fullmatch(r"test://template/([^/]+)/data", uri):
        filled_in = {"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"}
        text = json.dumps(filled_in)
        return _read(types.TextResourceContents(uri=uri, mime_type="application/json", text=text))
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})


def _read(
    contents: types.TextResourceContents | types.BlobResourceContents,
) -> types.ReadResourceResult:
    return types.ReadResourceResult(contents=[contents])


async def on_subscribe(_: Request, __: types.SubscribeRequestParams) -> types.EmptyResult:
    """Answer `resources/subscribe`; nothing here ever changes."""
    return types.EmptyResult()


async def on_unsubscribe(_: Request, __: types.UnsubscribeRequestParams) -> types.EmptyResult:
    """Answer `resources/unsubscribe`."""
    return types.EmptyResult()


async def on_set_level(_: Request, __: types.SetLevelRequestParams) -> types.EmptyResult:
    """Answer `logging/setLevel`; every message here is at info."""
    return types.EmptyResult()


async def on_list_prompts(
    _: Request, __: types.PaginatedRequestParams | None
) -> types.ListPromptsResult:
    """Answer `prompts/list`."""
    return types.ListPromptsResult(prompts=PROMPTS)


async def on_get_prompt(
    _: Request, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    """Answer `prompts/get`."""
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _prompt("This is a simple prompt for testing.")
        case "test_prompt_with_arguments":
            both = f"arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            return _prompt(f"Prompt with arguments: {both}")
        case "test_prompt_with_embedded_resource":
            text = "Embedded resource content for testing."
            resource = embedded(str(given.get("resourceUri")), "text/plain", text)
            return _prompt(resource, "Please process the embedded resource above.")
        case "test_prompt_with_image":
            return _prompt(picture(), "Please analyze the image above.")
        case "test_input_required_result_prompt":
            if (answer := filled(params, "user_context")) is None:
                context = form(context=TEXT)
                return need(user_context=user("What context should the prompt use?", context))
            return _prompt(f"Use this context: {answer.get('context')}")
    raise MCPError(types.INVALID_PARAMS, f"unknown prompt: {params.name}")


def _prompt(*content: types.ContentBlock | str) -> types.GetPromptResult:
    blocks = [
        types.TextContent(type="text", text=block) if isinstance(block, str) else block
        for block in content
    ]
    messages = [types.PromptMessage(role="user", content=block) for block in blocks]
    return types.GetPromptResult(messages=messages)


async def on_complete(_: Request, params: types.CompleteRequestParams) -> types.CompleteResult:
    """Answer `completion/complete` from three cities."""
    typed = params.argument.value
    values = [city for city in ("paris", "parma", "porto") if city.startswith(typed)]
    completion = types.Completion(values=values, total=len(values), has_more=False)
    return types.CompleteResult(completion=completion)
