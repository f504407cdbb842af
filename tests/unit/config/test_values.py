"""Values of the wrong kind: each is told in words of the file, none is taken for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest

from gateway.config.settings import Config, config_schema
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits

pytestmark = pytest.mark.req("GW-04")

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]
SAMPLES = {
    "boolean": ("true", "false"),
    "integer": ("1", "-1", "0", "100000000000000000000"),
    "number": ("0.5", "1.0"),
    "string": ("abc", '""', '"5"', '" "'),
    "array": ("[]", "[1]"),
    "object": ("{}", "{a: 1}"),
    "null": ("null",),
}


def leaves(
    properties: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield path and schema of every key that stands in sections alone."""
    for key, value in properties.items():
        if "$ref" in value:
            section = schema["$defs"][value["$ref"].rpartition("/")[2]]
            yield from leaves(section.get("properties", {}), schema, (*path, key))
        else:
            yield (*path, key), value


def write_out(path: tuple[str, ...], value: str) -> str:
    for key in reversed(path):
        value = f"{{{key}: {value}}}"
    return value


def test_a_value_of_a_kind_that_the_schema_does_not_name_is_refused(load: Load) -> None:
    schema = config_schema()
    found = dict(leaves(schema["properties"], schema))
    assert len(found) > 70
    for path, key in found.items():
        kinds = {key.get("type"), *(one.get("type") for one in key.get("anyOf", ()))}
        for kind, values in SAMPLES.items():
            if kind in kinds or (kind == "integer" and "number" in kinds):
                continue
            for value in values:
                if path[-1] in ("public_url", "issuer") and kind == "null":
                    continue  # nothing: the default, which other keys give
                if (kind, "boolean") == ("string", *kinds) or value == '"5"':
                    continue  # a text, as a variable has it
                with pytest.raises(ConfigurationError):
                    load(write_out(path, value))


def test_the_schema_names_every_limit_and_what_it_is_by_default(load: Load) -> None:
    schema = config_schema()
    validator = jsonschema_rs.Draft202012Validator(schema)
    limits = schema["properties"]["limits"]["properties"]
    assert len(limits) > 10
    for name, limit in limits.items():
        config = load(f"limits: {{{name}: {limit['default']}}}")
        assert config.call_limits() == Limits()
        for value in (limit["minimum"], limit["minimum"] - 1):
            is_fine = validator.is_valid({"limits": {name: value}})
            assert is_fine is (value == limit["minimum"])
            if not is_fine:
                with pytest.raises(ConfigurationError):
                    load(f"limits: {{{name}: {value}}}")
    assert not validator.is_valid({"limits": {"body_max_byte": 1}})
    longest = limits["record_max_bytes"]["maximum"]
    assert validator.is_valid({"limits": {"record_max_bytes": longest}})
    assert not validator.is_valid({"limits": {"record_max_bytes": longest + 1}})


def test_no_message_speaks_of_the_program(load: Load) -> None:
    """Not of its types, nor of how they are read."""
    schema = config_schema()
    inside = ("pathlib", "instance of", "Section", "Input", "unable to", "tuple", "dictionary")
    for path, _ in leaves(schema["properties"], schema):
        for value in (value for values in SAMPLES.values() for value in values):
            told = ""
            try:
                load(write_out(path, value))
            except ConfigurationError as error:
                told = str(error)
            assert not any(word in told for word in inside), (path, value, told)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy: {workers: true}", "policy.workers: should be a whole number"),
        ("policy: {deadline_ms: 50.0}", "policy.deadline_ms: should be a whole number"),
        ("policy: {halt: {denials_rise: true}}", "policy.halt.denials_rise: should be a number"),
        ("limits: {body_max_bytes: true}", "limits.body_max_bytes: should be a whole number"),
        ("limits: {json_max_depth: 9007199254740992}", "is beyond what any number here can be"),
        ("dev: 1.0", "dev: should be `true` or `false`; write one of the two"),
        ("dev: 1", "dev: should be `true` or `false`; write one of the two"),
        ("%YAML 1.1\n---\ntokens: {dpop_nonces: yes}", "dpop_nonces: a flag of this form is not"),
        ("policy: {halt: {denials_rise: 1e400}}", "a number of this form is not expected"),
        ("audit:", "audit: has no value; expected the tamper-evident log; or leave the key out"),
        ("clients:", "clients: has no value; expected launchers, agents and apps; or leave the"),
        ("audit: {dir: ''}", "audit.dir: names nothing; expected the folder of the log"),
        ("audit: {dir: 7}", "audit.dir: should be a path; expected the folder of the log"),
        ("audit: {dir: ~nobody-of-this-name/x}", "audit.dir: starts at the home of nobody here"),
        ("tokens: {keys: ['file:~nobody-of-this-name/x']}", "starts at the home of nobody here"),
        ('audit: {dir: "a\\0b"}', "audit.dir: a text with control characters is not expected"),
        ('listen: "127.0.0.1\\e:80"', "listen: a text with control characters is not expected"),
        ('listen: "a\\nb"', "countersign.yaml:1: listen: `a b` is no address; write `host:port`"),
        ("sign_in: {trusted_proxies: [10]}", "should be a text; write it in quotes; expected net"),
        ("public_url: []", "public_url: should be a text; expected the URL clients use"),
        ("public_url: 0", "public_url: should be a text; write it in quotes; expected"),
        ("tokens: {issuer: {}}", "tokens.issuer: should be a text; expected the issuer's URL"),
        ("clients: !!set {}", "clients: a set is not expected; remove the tag"),
        ("x: " + "[" * 3000, "countersign.yaml: is not YAML: it is nested too deep; mend it"),
        ("a: 1\nb: \x01", "countersign.yaml:2: is not YAML: there are control characters in it"),
        ('a: "\\U00110000"', "is not YAML: an escape in it names no character; mend it"),
    ],
)
def test_what_is_taken_for_nothing_else_is_told(
    mistakes: Mistakes, text: str, expected: str
) -> None:
    found = mistakes(text)
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    "text",
    [
        "environment: *hunter2",
        "a: &hunter2 1\nb: &hunter2 2\nc: !hunter2 d",
        "clients: !hunter2 []",
    ],
)
def test_what_yaml_takes_for_its_own_is_not_repeated(mistakes: Mistakes, text: str) -> None:
    """A password that begins with `*`, `&` or `!` and stands without quotes."""
    assert not any("hunter2" in line for line in mistakes(text))
