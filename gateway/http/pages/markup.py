"""HTML that cannot be injected into: what is not marked as HTML is escaped, always."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final

from starlette.responses import Response

STYLE_PATH: Final = "/signin/style.css"
SCRIPT_PATH: Final = "/signin/passkey.js"
ASSET_MAX_AGE_S: Final = 300


class Html(str):
    """Text that is HTML already. INVARIANT: only `fill` and literals in this package make one."""

    __slots__ = ()


def fill(template: str, /, **values: object) -> Html:
    """Put values into a template (`{name}`), each escaped unless it is `Html`."""
    safe = {
        name: value if isinstance(value, Html) else html.escape(str(value), quote=True)
        for name, value in values.items()
    }
    return Html(template.format(**safe))


def join(parts: Iterable[Html]) -> Html:
    """Put pieces of HTML one after the other."""
    return Html("\n".join(parts))


def page(
    title: str,
    body: Html,
    *,
    status: int = 200,
    script: bool = False,
    go_on_to: str | None = None,
    form_targets: Sequence[str] = (),
) -> Response:
    """Return a whole page. `title` is also its heading.

    `script`: loads the passkey script. `go_on_to`: the browser goes there by itself, as from a page
    of our own, so that strict cookies come along. `form_targets`: origins that a form's answer may
    redirect to beside ours.
    """
    head = Html("")
    if script:
        head = fill('<script src="{src}" defer></script>', src=SCRIPT_PATH)
    if go_on_to is not None:
        head = fill('<meta http-equiv="refresh" content="0; url={to}">', to=go_on_to)
    text = fill(_PAGE, title=title, head=head, body=body, style=STYLE_PATH)
    return Response(
        text, status, headers=_headers(form_targets), media_type="text/html; charset=utf-8"
    )


def notice(text: str, *, bad: bool = False) -> Html:
    """Return a message that screen readers say at once; nothing for no text."""
    if not text:
        return Html("")
    kind, role = ("bad", "alert") if bad else ("good", "status")
    return fill(
        '<p class="notice {kind}" role="{role}">{text}</p>', kind=kind, role=role, text=text
    )


def hidden(**values: str) -> Html:
    """Return hidden fields of a form."""
    return join(
        fill('<input type="hidden" name="{name}" value="{value}">', name=name, value=value)
        for name, value in values.items()
    )


def asset(name: str, media_type: str) -> Response:
    """Return a file of this package."""
    headers = {
        "Cache-Control": f"public, max-age={ASSET_MAX_AGE_S}",
        "X-Content-Type-Options": "nosniff",
    }
    content = files(__package__).joinpath(name).read_bytes()
    return Response(content, headers=headers, media_type=media_type)


def _headers(form_targets: Sequence[str]) -> dict[str, str]:
    forms = " ".join(("'self'", *form_targets))
    policy = (
        "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; "
        f"form-action {forms}"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # browsers send `Origin: null` from pages with less
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Countersign</title>
<link rel="stylesheet" href="{style}">
{head}
</head>
<body>
<header><span class="brand">Countersign</span></header>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
