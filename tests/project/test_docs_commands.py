"""Every command that a page tells somebody to type exists, with the options that it is given.

The README's "A gateway of your own" is typed as it stands by test_readme.py.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
import typer.main

from gateway.cli import build

ROOT = Path(__file__).parents[2]
PAGES: Final = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"]
BLOCK: Final = re.compile(r"^```(?:sh|console)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE: Final = re.compile(r"`(countersign [^`]+)`")
ASSIGNMENT: Final = re.compile(r"[A-Z0-9_]+=")
TYPED: Final = re.compile(r"^## A gateway of your own\n.*?^## ", re.DOTALL | re.MULTILINE)
SHELL: Final = frozenset(["bash", "cp", "export", "openssl", "printf", "sha256sum", "tar", "tee"])
ELSEWHERE: Final = frozenset({"opa", "docker"})
"""Programs that a page may name and that are not ours to check."""

ROUTES: Final = re.compile(
    r"/(?:mcp(?:/\w+)?|access/v1/evaluations?|readyz|livez|oauth/token|openapi\.json"
    r"|v1/(?:runs(?:/[^/]+(?:/end)?)?|tools(?:/[^/]+/call)?|calls/.+|admin/tools|approvals.*))"
)
UsageError: Final[Any] = typer.BadParameter.__mro__[1]
COMMAND: Final[Any] = typer.main.get_command(build())


def pages() -> list[str]:
    docs = (ROOT / "docs").rglob("*.md")
    return [*PAGES, *sorted(str(page.relative_to(ROOT)) for page in docs)]


def read_commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each simple command in the shell blocks of a page."""
    for block in BLOCK.findall(TYPED.sub("", page)):
        text = block.replace("\\\n", " ")
        if "\n$ " in f"\n{text}":  # a dialogue: the prompt marks what is typed
            text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
        elif f"```\n{block}" in page:  # a figure or an answer
            continue
        for line in _whole_lines(text):
            yield from _split(line)


def _whole_lines(text: str) -> Iterator[str]:
    """Yield logical lines: quotes may span several."""
    waiting = ""
    for line in text.splitlines():
        waiting = f"{waiting}\n{line}" if waiting else line
        try:
            shlex.split(waiting, comments=True)
        except ValueError:
            continue
        yield waiting
        waiting = ""
    assert not waiting, f"a quote is not closed: {waiting}"


def _split(line: str) -> Iterator[list[str]]:
    """Split a line where the shell does; what stands in `$(…)` is part of its word."""
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for token in lexer:
        if set(token) <= set("|&;()<>"):
            yield words
            words = []
        elif words or not ASSIGNMENT.match(token):
            words.append(token)
    yield words


def check(words: list[str]) -> str | None:
    """Return what is wrong with a command, or None."""
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if program == "countersign":
        return find_usage_error(words[1:])
    if program == "make":
        verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if set(words[1:2]) <= set(verbs) else "no such target"
    if program == "curl":
        return _check_curl(words[1:])
    if program == "python":
        if words[1] == "-m" and importlib.util.find_spec(words[2]) is None:
            return "no such module"
        return None
    return None if program in SHELL | ELSEWHERE else "say how this is checked"


def _check_curl(words: list[str]) -> str | None:
    urls = [word for word in words if re.match(r"https?://|\$GATEWAY/", word)]
    for url in urls:
        path = re.sub(r"^(?:https?://[^/]+|\$GATEWAY)", "", url)
        if ROUTES.fullmatch(path) is None:
            return f"no such route: {path}"
    return None if urls else "no URL"


def find_usage_error(words: list[str], *, whole: bool = True) -> str | None:
    """Parse as the command line would; return its complaint. Not `whole`: a mention in a text."""
    command, context = COMMAND, None
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, words = words[0], words[1:]
        if name not in command.commands:
            return f"no command `{name}`"
        context = command.context_class(command, info_name=name, parent=context)
        command = command.commands[name]
    if hasattr(command, "commands"):
        return None if not whole or "--help" in words else "names a group, not a command"
    try:
        command.make_context(command.name, list(words), parent=context)
    except UsageError as error:
        if not whole and "Missing" in error.format_message():
            return None
        return str(error.format_message())
    return None


def read_mentions(page: str) -> Iterator[list[str]]:
    """Yield the commands in the running text; `list|approve` are two, `FILE` is a file."""
    for mention in INLINE.findall(page):
        words = [word for word in mention.split()[1:] if word != "…"]
        at = next((n for n, word in enumerate(words) if "|" in word), None)
        if at is None:
            yield words
        else:
            yield from ([*words[:at], name, *words[at + 1 :]] for name in words[at].split("|"))


@pytest.mark.req("GW-02")
@pytest.mark.parametrize("page", pages())
def test_every_command_of_a_page_exists_with_its_options(page: str) -> None:
    text = (ROOT / page).read_text()
    wrong = [(" ".join(words), fault) for words in read_commands(text) if (fault := check(words))]
    assert wrong == []


@pytest.mark.req("GW-02")
@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md"])
def test_every_command_that_a_text_mentions_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    wrong = [
        (" ".join(words), fault)
        for words in read_mentions(text)
        if (fault := find_usage_error(words, whole=False))
    ]
    assert wrong == []


@pytest.mark.req("GW-02")
@pytest.mark.parametrize("name", sorted(COMMAND.commands))
def test_every_command_is_on_some_page(name: str) -> None:
    told = "".join((ROOT / page).read_text() for page in pages())
    group = COMMAND.commands[name]
    for command in getattr(group, "commands", {"": group}):
        assert f"{name} {command}".strip() in told, f"countersign {name} {command}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("countersign tools list", None),
        ("countersign tools lits", "no command `lits`"),
        ("countersign tools approve billing --all --reviewed-by ann", None),
        ("countersign tools approve billing --everything --reviewed-by ann", "No such option"),
        ("countersign policy eval policies", "Missing"),
        ("countersign audit", "names a group"),
        ("A=1 countersign init x | tee y", None),
        ("make demo KEEP=1", None),
        ("make dmeo", "no such target"),
        ("curl -s $GATEWAY/v1/tools/shop__notes_add/call -d '{\n}'", None),
        ("curl https://gateway.example/v2/runs", "no such route"),
        ("python -m examples.acme.serverr", "no such module"),
        ("sudo reboot", "say how this is checked"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, complaint: str | None) -> None:
    found = [fault for words in read_commands(f"```sh\n{line}\n```") if (fault := check(words))]
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]


def test_a_mention_of_a_command_that_does_not_exist_is_found() -> None:
    text = "`countersign tools list|aprove`, `countersign audit`, `countersign policy test …`"
    found = [find_usage_error(words, whole=False) for words in read_mentions(text)]
    assert found == [None, "no command `aprove`", None, None]
