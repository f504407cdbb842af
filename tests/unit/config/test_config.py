from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.config.models import AgentSection, HttpServerSection, StdioServerSection
from gateway.config.settings import Config, config_schema, load_config
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from gateway.core.tokens.token import Constraint, Grant, Range, Window

pytestmark = pytest.mark.req("GW-04")

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]
HASH = "sha256:" + "0" * 64
OTHER = "sha256:" + "1" * 64
FULL = f"""\
environment: production
listen: 127.0.0.1:9000
public_url: https://gateway.acme.test/
state: {{url: "sqlite:///data/state.db"}}
audit: {{dir: log, segment_max_bytes: 1_000_000}}
policy: {{deadline_ms: 20, workers: 1}}
tokens: {{ttl_s: 120, run_max_s: 3600}}
clients:
  - kind: launcher
    id: workflow
    owner: lars
    secret_hash: {HASH}
    may_launch: [bot]
    humans: [olga]
    grants:
      - server: shop
        tool: refund
        constraints: {{/amount: {{max: 500, min: 0.5}}, /to: {{one_of: [a, 1, true], prefix: a}}}}
        max_calls: 3
  - {{kind: agent, id: bot, owner: ann, roles: [support], secret_hash: {OTHER},
     grants: [{{server: shop, effects: [read]}}]}}
  - {{kind: agent, id: silent}}
humans:
  - {{id: olga, roles: [approver, admin], groups: [finance], secret_hash: sha256:{"2" * 64}}}
servers:
  shop: {{transport: http, url: "https://shop.acme.test/mcp", manifest: shop.yaml,
         auth: {{value_from: "env:SHOP"}}}}
  git: {{transport: stdio, command: [mcp-server-git], manifest: shop.yaml, env: {{A: b}},
        cwd: work, prefix: false, shared: true}}
limits: {{body_max_bytes: 1000}}
log: {{format: console, level: debug}}
"""


def test_a_full_configuration_is_read(load: Load, tmp_path: Path) -> None:
    config = load(FULL)
    assert config.address == ("127.0.0.1", 9000)
    assert config.public_url == config.tokens.issuer == "https://gateway.acme.test"
    assert config.state.url == f"sqlite:///{tmp_path}/data/state.db"
    assert config.audit.dir == tmp_path / "log"
    assert config.audit.segment_max_bytes == 1_000_000
    shop, git = config.servers["shop"], config.servers["git"]
    assert isinstance(shop, HttpServerSection)
    assert shop.manifest == tmp_path / "shop.yaml"
    assert shop.auth is not None
    assert (shop.auth.header, shop.auth.value_from) == ("Authorization", "env:SHOP")
    assert isinstance(git, StdioServerSection)
    assert (git.command, git.env) == (("mcp-server-git",), {"A": "b"})
    assert (git.prefix, git.shared, git.cwd) == (False, True, tmp_path / "work")


def test_an_empty_file_is_a_safe_configuration(load: Load, tmp_path: Path) -> None:
    config = load("")
    assert config.address == ("127.0.0.1", 8080)
    assert config.public_url == "http://127.0.0.1:8080"
    assert (config.dev, config.clients, dict(config.servers)) == (False, (), {})
    assert config.tokens.ttl_s == 300
    assert config.policy.path == tmp_path / "policies"
    assert config.tokens.key == tmp_path / "keys" / "tokens.pem"
    assert config.state.url == f"sqlite:///{tmp_path}/state.db"


def test_the_parts_of_the_gateway_get_what_they_need(load: Load) -> None:
    config = load(FULL)
    assert config.call_limits() == Limits(
        body_max_bytes=1000, policy_deadline_ms=20, access_token_max_s=120
    )
    site = config.site()
    assert (site.issuer, site.public_url) == (config.tokens.issuer, config.public_url)
    assert (site.environment, site.ttl_s, site.run_max_s) == ("production", 120, 3600)
    registry = config.client_registry()
    launcher, bot = registry.launcher("workflow"), registry.agent("bot")
    assert launcher is not None
    constraints = {
        "/amount": Constraint(max=500, min=0.5),
        "/to": Constraint(one_of=("a", 1, True), prefix="a"),
    }
    assert launcher.grants == (Grant("shop", "refund", (), constraints, 3),)
    assert (launcher.may_launch, launcher.humans, launcher.owner) == (("bot",), ("olga",), "lars")
    assert bot is not None
    assert (bot.roles, bot.secret_hash) == (("support",), OTHER)
    silent = registry.agent("silent")
    assert silent is not None
    assert silent.secret_hash == ""


@pytest.mark.req("TOK-03")
def test_every_bound_of_a_grant_is_read(load: Load) -> None:
    text = FULL.replace(
        "max_calls: 3",
        "max_calls: 3\n        window: {days: [mon, sun], start: 22:00, end: 06:30, not_after: 9}",
    ).replace(
        "/to: {one_of: [a, 1, true], prefix: a}",
        "/to: {domain: [a.b, '*.a.b'], suffix: b, length: {max: 9}}, /l: {count: {min: 1}}, /x: {}",
    )
    launcher = load(text).client_registry().launcher("workflow")
    assert launcher is not None
    bounds = {
        "/amount": Constraint(max=500, min=0.5),
        "/to": Constraint(domain=("a.b", "*.a.b"), suffix="b", length=Range(max=9)),
        "/l": Constraint(count=Range(min=1)),
        "/x": Constraint(),
    }
    window = Window(("mon", "sun"), "22:00", "06:30", not_after=9)
    assert launcher.grants == (Grant("shop", "refund", (), bounds, 3, window),)


@pytest.mark.req("TOK-03")
@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ("constraints: {/a: {domain: [A.b]}}", "at `/a`: `A.b` is no domain"),
        ("constraints: {/a: {domain: a.b}}", "should be a list; expected host names"),
        ("constraints: {/a: {length: {min: -1}}}", "greater than or equal to 0; expected at least"),
        ("constraints: {/a: {count: {min: 2, max: 1}}}", "at `/a`: `count` has a `min` above"),
        ("constraints: {/a: {lenght: {}}}", "unknown key `lenght`; did you mean `length`?"),
        ("window: {start: 9:00}", "`9:00` is no time to start"),
        ("window: {end: 24:30}", "`24:30` is no time to end"),
        ("window: {days: [monday]}", "is not of the right form; expected days"),
        ("window: {start: 08:00, end: 08:00}", "never open"),
    ],
)
def test_a_bound_without_a_clear_meaning_is_told(mistakes: Mistakes, bound: str, told: str) -> None:
    (found,) = mistakes(
        FULL.replace(
            "constraints: {/amount: {max: 500, min: 0.5}, /to: {one_of: [a, 1, true], prefix: a}}",
            bound,
        )
    )
    assert told in found


def test_five_mistakes_are_told_at_once_with_line_path_and_hint(mistakes: Mistakes) -> None:
    text = """\
environment: production
lissten: 127.0.0.1:80
tokens:
  ttl_s: 500
  ttl_s: 100
policy: {path: nowhere}
servers:
  shop: {transport: http, url: "https://shop.test", manifest: shop.yml}
clients:
  - {kind: agent, id: bot, secret_hash: hunter2}
"""
    expected = """\
countersign.yaml:2: lissten: unknown key `lissten`; did you mean `listen`?
countersign.yaml:4: tokens.ttl_s: should be less than or equal to 300; expected seconds a token \
lives, 10 to 300
countersign.yaml:5: tokens.ttl_s: `ttl_s` is given twice; keep one; the first is on line 4
countersign.yaml:6: policy.path: `nowhere` is no folder; `countersign init` writes a first set of \
policies
countersign.yaml:8: servers.shop.manifest: `shop.yml` is no file; write the manifest, or mend the \
path
countersign.yaml:10: clients[0].secret_hash: is not of the right form; expected `sha256:` and the \
hex SHA-256 of a generated secret
"""
    assert mistakes(text) == expected.splitlines()


def test_no_mistake_tells_a_secret(mistakes: Mistakes) -> None:
    found = mistakes(f"clients: [{{kind: agent, id: bot, secret_hash: hunter2, {HASH}: x}}]\n")
    assert not any("hunter2" in line for line in found)


SHOP = "servers: {shop: {transport: http, url: 'https://shop.test', manifest: shop.yaml}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokens: {isuer: x}", "tokens.isuer: unknown key `isuer`; did you mean `issuer`?"),
        ("clients: [{kind: agent, id: a, grnts: []}]", "did you mean `grants`?"),
        ("clients: [{kind: launcher, id: a, zzz: 1}]", "known are grants, humans, id, jwks"),
        (
            SHOP.replace("manifest", "manifst"),
            "servers.shop.manifst: unknown key `manifst`; did you mean `manifest`?",
        ),
        (
            "clients: [{kind: agent, id: a, grants: [{server: s, constraints: {/a: {maxx: 1}}}]}]",
            "clients[0].grants[0].constraints./a.maxx: unknown key `maxx`; did you mean `max`?",
        ),
        ("limits: {body_max_byte: 1}", "limits.body_max_byte: unknown limit `body_max_byte`; did"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(
    mistakes: Mistakes, text: str, expected: str
) -> None:
    assert any(expected in line for line in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clients: [{kind: launcher, id: a}]", "clients[0].secret_hash: `secret_hash` is missing"),
        ("clients: [{id: a}]", "clients[0]: nothing says what this is; add `kind`"),
        ("clients: [{kind: robot, id: a}]", "clients[0]"),
        (
            "servers: {Shop: {transport: stdio, command: [x], manifest: shop.yaml}}",
            "servers.Shop: `Shop` cannot be a name",
        ),
        ("servers: {s: {transport: stdio, manifest: shop.yaml}}", "servers.s.command: `command`"),
        ("clients: [{kind: agent, id: a, agent: {x: 1}}]", "clients[0].agent: unknown key `agent`"),
        ("servers: {s: {transport: stdio, command: [], manifest: shop.yaml}}", "at least 1 item"),
        ("servers: []", "servers: "),
        ("audit: 3", "audit: "),
        ("dev: perhaps", "dev: "),
        ("environment: Prod!", "environment: is not of the right form"),
        ("policy: {engine: opa}", "policy.engine: is not of the right form; expected `regorus`"),
        ("listen: 80", "listen: "),
        ("listen: localhost", "listen: `localhost` is no address; write `host:port`"),
        ("listen: 127.0.0.1:70000", "listen: "),
        ("listen: ':80'", "listen: "),
        ("listen: '::1:80'", "listen: `::1:80` is no address; write `host:port`, or `[host]:port`"),
        ("listen: '[127.0.0.1]:80'", "listen: "),
        ("listen: 'local host:80'", "listen: "),
        ("listen: 'http://127.0.0.1:80'", "listen: "),
        ("listen: 127.0.0.1:x", "listen: "),
        ("public_url: gateway", "public_url: is no URL of a host"),
        ("public_url: https://g.test/path", "public_url: "),
        ("public_url: https://u:p@g.test", "public_url: "),
        ("public_url: https://g.test:99999", "public_url: "),
        ("public_url: [x]", "public_url: "),
        ("state: {url: 'postgresql://db'}", "state.url: only SQLite is supported"),
        ("state: [x]", "state: "),
        ("tokens: [x]", "tokens: "),
        ("tokens: {issuer: issuer}", "tokens.issuer: is no URL"),
        ("tokens: {key: keys/audit.pem}", "tokens.key: shares its file with `audit.key`"),
        ("limits: {policy_deadline_ms: 1}", "limits.policy_deadline_ms: is set elsewhere"),
        ("limits: {body_max_bytes: -1}", "limits.body_max_bytes: "),
        (f"humans: [{{id: a, roles: [aprover], secret_hash: {HASH}}}]", "humans[0].roles[0]: "),
        (
            SHOP + f"clients: [{{kind: launcher, id: l, secret_hash: {HASH}, may_launch: [bto]}},"
            " {kind: agent, id: bot}]",
            "clients[0].may_launch[0]: there is no agent `bto`; did you mean `bot`?",
        ),
        (
            SHOP + "clients: [{kind: agent, id: a, grants: [{server: shp, effects: [read]}]}]",
            "clients[0].grants[0].server: there is no server `shp`; did you mean `shop`?",
        ),
        (
            "clients: [{kind: agent, id: a, grants: [{server: shop, effects: [read]}]}]",
            "there is no server `shop`; there are none yet",
        ),
        (
            SHOP + "clients: [{kind: agent, id: a, grants: [{server: shop, effects: [read],"
            " constraints: {amount: {max: 1}}}]}]",
            "clients[0].grants[0]: `amount` is no JSON Pointer",
        ),
        (
            SHOP + "clients: [{kind: agent, id: a, grants: [{server: shop, effects: [read]},"
            " {server: shop, effects: [read]}]}]",
            "clients[0].grants: two grants speak for `shop.*`",
        ),
        (
            "clients: [{kind: agent, id: a}, {kind: agent, id: a}]",
            "clients[1].id: `a` is taken; give every client and human its own id",
        ),
        (
            "clients: [{kind: agent, id: ann}]\nhumans: [{id: Ann, roles: [approver]}]",
            "humans[0].id: `Ann` is taken; give every client and human its own id; capitals make",
        ),
        (
            (
                f"clients: [{{kind: agent, id: a, secret_hash: {HASH}}}]\n"
                f"humans: [{{id: b, secret_hash: {HASH}}}]"
            ),
            "humans[0].secret_hash: another has the same secret",
        ),
        (
            SHOP + "clients: [{kind: agent, id: a, grants: [{server: shop, effects: [read],"
            " constraints: {/a: {max: yes}}}]}]",
            "clients[0].grants[0].constraints./a.max: ",
        ),
    ],
)
def test_what_makes_no_sense_is_told(mistakes: Mistakes, text: str, expected: str) -> None:
    found = mistakes(text)
    assert len(found) == 1, found
    assert expected in found[0]


INSECURE = {
    "a cleartext public URL": (
        "public_url: http://gateway.acme.test",
        "tokens would cross the network in the clear",
    ),
    "state that forgets": ("state: {url: 'sqlite://'}", "would be forgotten at a restart"),
    "a cleartext upstream": (
        SHOP.replace("https", "http"),
        "arguments and credentials would cross the network in the clear",
    ),
    "a baseline that writes": (
        SHOP + "clients: [{kind: agent, id: a, grants: [{server: shop, effects: [update]}]}]",
        "an agent's own secret gives more than reading",
    ),
    "a baseline of anything": (
        SHOP + "clients: [{kind: agent, id: a, grants: [{server: shop}]}]",
        "an agent's own secret gives more than reading",
    ),
}


@pytest.mark.parametrize("name", INSECURE)
def test_an_insecure_choice_needs_dev(mistakes: Mistakes, load: Load, name: str) -> None:
    text, expected = INSECURE[name]
    (found,) = mistakes(text)
    assert expected in found
    assert "dev: true" in found
    assert load(f"dev: true\n{text}").dev


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "'[::]:8080'", "192.0.2.1:80", "gateway:80"])
def test_dev_forces_loopback(mistakes: Mistakes, listen: str) -> None:
    text = f"dev: true\nlisten: {listen}\npublic_url: https://gateway.acme.test"
    assert "listen: `dev: true` is for this machine only" in mistakes(text)[0]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "'[::1]:8080'", "localhost:80", "127.9.9.9:1"])
def test_dev_allows_any_loopback(load: Load, listen: str) -> None:
    assert load(f"dev: true\nlisten: {listen}").dev


def test_others_reach_the_gateway_only_behind_tls(mistakes: Mistakes, load: Load) -> None:
    (found,) = mistakes("listen: 0.0.0.0:8080")
    assert "listen: others could reach the gateway without TLS" in found
    config = load("listen: 0.0.0.0:8080\npublic_url: https://gateway.acme.test")
    assert config.address == ("0.0.0.0", 8080)  # noqa: S104 - behind a proxy


def test_mistakes_of_one_client_do_not_hide_those_of_another(mistakes: Mistakes) -> None:
    text = """\
clients:
  - {kind: agent, idd: x}
  - {kind: nothing}
  - {kind: agent, id: bot}
  - {kind: agent, id: bot}
"""
    found = mistakes(text)
    assert any(
        line.startswith("countersign.yaml:5: clients[3].id: `bot` is taken") for line in found
    )
    assert len(found) == 4


def test_a_client_that_is_wrong_may_still_be_named(mistakes: Mistakes) -> None:
    text = f"""\
clients:
  - {{kind: agent, id: bot, colour: red}}
  - {{kind: launcher, id: l, secret_hash: {HASH}, may_launch: [bot]}}
"""
    (found,) = mistakes(text)
    assert "colour" in found


def test_a_key_of_the_name_of_a_kind_leads_nobody_astray(mistakes: Mistakes) -> None:
    text = "servers: {s: {transport: http, http: {url: x}, manifest: shop.yaml}}"
    places = {line.split(": ")[1] for line in mistakes(text)}
    assert places == {"servers.s.url", "servers.s.http"}


def test_a_broken_key_is_told_once(mistakes: Mistakes) -> None:
    assert len(mistakes("policy: {path: 7}")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "countersign.yaml:1: is not YAML"),
        ("a: 1\nb: : 2", "countersign.yaml:2: is not YAML"),
        ("\x01", "is not YAML"),
        ("- a", "countersign.yaml:1: the file is no mapping"),
        ("a: &x 1\nlisten: *x", "aliases and deep nesting are not read"),
        ("limits: " + "[" * 30 + "]" * 30, "aliases and deep nesting are not read"),
        ("environment: 2024-01-01", "environment: a timestamp is not expected; write it in quotes"),
        ("policy: {deadline_ms: .inf}", "policy.deadline_ms: a number of this form"),
        ("environment: !!binary aGk=", "environment: a binary is not expected"),
        ("? [a]\n: 1", "unknown key `?`"),
    ],
)
def test_what_is_no_plain_yaml_is_told(mistakes: Mistakes, text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in line for line in found), found


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="countersign init"):
        load_config(tmp_path / "none.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"environment: \xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_config(tmp_path / "latin.yaml", {})


def test_variables_override_the_file_and_secret_files_both(load: Load, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{OTHER}\n")
    text = f"listen: 127.0.0.1:1\nclients: [{{kind: agent, id: a, secret_hash: {HASH}}}]\n"
    config = load(
        text,
        LISTEN="127.0.0.1:2",
        POLICY__WORKERS="3",
        DEV="true",
        CLIENTS__0__SECRET_HASH=HASH,
        CLIENTS__0__SECRET_HASH_FILE=str(secret),
        CLIENTS__0__ROLES='["a", "b"]',
        LOG__LEVEL="debug",
    )
    assert config.address == ("127.0.0.1", 2)
    assert (config.policy.workers, config.dev, config.log.level) == (3, True, "debug")
    (client,) = config.clients
    assert isinstance(client, AgentSection)
    assert (client.secret_hash, client.roles) == (OTHER, ("a", "b"))


def test_every_whole_number_of_a_section_can_come_from_a_variable(load: Load) -> None:
    schema = config_schema()
    found = dict(_whole_numbers(schema, schema["properties"], ()))
    assert len(found) > 25
    assert found["AUDIT", "RESERVE_MIB"] == 64
    for path, default in found.items():
        config: Any = load("", **{"__".join(path): str(default)})
        for part in path:
            config = getattr(config, part.lower())
        assert (type(config), config) == (int, default), path


def _whole_numbers(
    schema: dict[str, Any], properties: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield path and default of every whole number that stands in sections alone."""
    for key, value in properties.items():
        here = (*path, key.upper())
        if value.get("type") == "integer":
            yield here, value["default"]
        elif "$ref" in value:
            section = schema["$defs"][value["$ref"].rpartition("/")[2]]
            yield from _whole_numbers(schema, section.get("properties", {}), here)


def test_a_variable_reaches_a_server_with_a_dash(load: Load) -> None:
    text = SHOP.replace("shop:", "web-shop:")
    config = load(text, SERVERS__WEB_SHOP__URL="https://other.test/mcp")
    server = config.servers["web-shop"]
    assert isinstance(server, HttpServerSection)
    assert server.url == "https://other.test/mcp"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LISSTEN", "x", "COUNTERSIGN__LISSTEN: lissten: unknown key `lissten`"),
        ("LOG__LEVEL", "loud", "COUNTERSIGN__LOG__LEVEL: log.level: "),
        ("LOG____LEVEL", "x", "COUNTERSIGN__LOG____LEVEL: the name has an empty part"),
        ("", "x", "COUNTERSIGN__: the name has an empty part"),
        ("LISTEN_FILE", "/nowhere", "COUNTERSIGN__LISTEN_FILE: the file it names cannot be read"),
        ("CLIENTS__3__ID", "x", "COUNTERSIGN__CLIENTS__3__ID: clients[3].id: there is nothing"),
        ("DEV__X", "x", "dev.x: there is nothing to override"),
        ("CLIENTS", "[{", "clients: "),
    ],
)
def test_a_variable_that_is_wrong_is_told_by_its_name(
    mistakes: Mistakes, name: str, value: str, expected: str
) -> None:
    found = mistakes("dev: false\nclients: []", **{name: value})
    assert any(expected in line for line in found), found


def test_other_variables_are_not_read(load: Load, write: Callable[[str], Path]) -> None:
    config = load_config(write(""), {"COUNTERSIGN_URL": "x", "countersign__listen": "x"})
    assert config == load("")


def test_every_key_is_described_for_people_and_programs() -> None:
    schema = config_schema()
    assert set(schema["properties"]) >= {"listen", "clients", "humans", "servers", "limits"}
    for name, section in schema["$defs"].items():
        assert section["additionalProperties"] is False, name
        for key, value in section["properties"].items():
            assert "description" in value or "const" in value, (name, key)


def test_an_upstream_that_is_no_url_is_told(mistakes: Mistakes) -> None:
    (found,) = mistakes(SHOP.replace("https://shop.test", "https://user:pass@shop.test"))
    assert "servers.shop.url: is no URL without user and fragment" in found
    assert "pass" not in found


def test_the_packaged_rego_is_found() -> None:
    assert (find_rego_root() / "countersign" / "main.rego").is_file()
    assert (find_rego_root() / "policies" / "authority.json").is_file()
