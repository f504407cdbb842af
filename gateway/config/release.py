"""What of a configuration is part of a release, and a configuration as a release says it is.

Secrets, their hashes and clients' keys stay where the gateway runs, and so do paths of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway.config.apps import OAuthSection
from gateway.config.models import ClientSection, HumanSection, ServerSection, StdioServerSection
from gateway.config.settings import Config
from gateway.core.approvals.approval import person
from gateway.core.errors import ConfigurationError
from gateway.core.releases.publisher_keys import read_key
from gateway.core.releases.publishing import Publisher, Rules
from gateway.core.releases.release import MANIFESTS, Release, build_release

_CREDENTIALS: Final = ("secret_hash", "jwks", "jwks_file")
_PUBLISHERS_MIN: Final = 2
_clients: Final[TypeAdapter[Any]] = TypeAdapter(ClientSection)
_servers: Final[TypeAdapter[Any]] = TypeAdapter(ServerSection)


def assemble(policy: Mapping[str, bytes], configs: Sequence[Config]) -> Release:
    """Return the release of policies and of the deployments that it is for.

    Raises `ConfigurationError` where two of them have one name, or other manifests of a server.
    """
    manifests: dict[str, bytes] = {}
    endpoints: dict[str, Any] = {}
    roles: dict[str, Any] = {}
    for config in configs:
        name = config.environment
        if name in endpoints:
            raise ConfigurationError(f"two configurations are of `{name}`; name each once")
        for server, content in read_manifests(config).items():
            if manifests.setdefault(server, content) != content:
                raise ConfigurationError(
                    f"the manifests of `{server}` differ between environments; a release has one"
                )
        endpoints[name], roles[name] = build_endpoints(config), build_roles(config)
    return build_release(policy, manifests=manifests, endpoints=endpoints, roles=roles)


def read_manifests(config: Config) -> dict[str, bytes]:
    """Return the manifest of each server. Raises `ConfigurationError`."""
    try:
        return {name: one.manifest.read_bytes() for name, one in config.servers.items()}
    except OSError as error:
        raise ConfigurationError(f"a manifest cannot be read: {error.strerror}") from None


def build_endpoints(config: Config) -> dict[str, Any]:
    """Return where each server is; of its environment only the names."""
    found = {}
    for name, one in config.servers.items():
        fields = one.model_dump(mode="json", exclude={"manifest", "env", "cwd"}, exclude_none=True)
        if isinstance(one, StdioServerSection):
            fields["env"] = sorted(one.env)
        found[name] = fields
    return found


def build_roles(config: Config) -> dict[str, Any]:
    """Return what people and clients may do, by id, and what people may let apps do."""
    return {
        "humans": {one.id: {"roles": one.roles, "groups": one.groups} for one in config.humans},
        "clients": {
            one.id: one.model_dump(mode="json", exclude={"id", *_CREDENTIALS}, exclude_none=True)
            for one in config.clients
        },
        "oauth": config.oauth.model_dump(mode="json"),
    }


def build_rules(config: Config, *, can_shadow: bool = False) -> Rules:
    """Return what this deployment asks of a release. Raises `ConfigurationError`."""
    publishers: dict[str, Publisher] = {}
    for number, one in enumerate(config.policy.publishers):
        place = f"policy.publishers[{number}]"
        try:
            key = read_key(one.key)
        except ValueError as error:
            raise ConfigurationError(f"{place}.key: {error}") from None
        if key.kid in publishers:
            raise ConfigurationError(f"{place}.key: another publisher has this key; one each")
        publishers[key.kid] = Publisher(one.id, key)
    return Rules(
        environment=config.environment,
        log=config.audit.origin,
        publishers=publishers,
        rollback=config.policy.rollback,
        can_shadow=can_shadow,
    )


def find_parts_fault(config: Config, release: Release) -> str | None:
    """Say what keeps a release from deciding here besides its policies, or return None."""
    try:
        overlay(config, release, Path("release"))
    except ConfigurationError as error:
        return str(error)
    return None


def overlay(config: Config, release: Release, folder: Path) -> Config:
    """Return the configuration as a release says it is; `folder` is where the release lies.

    Servers, people and clients are those of the release. Of the file are their credentials and the
    values of their environment. Raises `ConfigurationError` for what a release leaves open.
    """
    name = config.environment
    if name not in release.endpoints or name not in release.roles:
        raise ConfigurationError(
            f"the release says nothing about `{name}`; build it with the configuration of `{name}`"
        )
    try:
        return config.model_copy(
            update={
                "servers": {
                    server: _overlay_server(config, server, fields, folder)
                    for server, fields in release.endpoints[name].items()
                },
                "humans": _overlay_humans(config, release.roles[name]["humans"]),
                "clients": _overlay_clients(config, release.roles[name]["clients"]),
                "oauth": OAuthSection.model_validate(release.roles[name]["oauth"]),
            }
        )
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the release's endpoints or roles cannot be read ({type(error).__name__}); build it "
            "anew with this version"
        ) from None


def find_differences(config: Config, release: Release, policy: Mapping[str, bytes]) -> list[str]:
    """Return what differs between the files here and a release: paths, and ids of entries.

    Other environments of the release are their own business.
    """
    here = {
        **policy,
        **{f"{MANIFESTS}{name}.yaml": one for name, one in read_manifests(config).items()},
    }
    used = {f"{MANIFESTS}{name}.yaml" for name in release.endpoints.get(config.environment, {})}
    there = {**release.policy_files, **{p: c for p, c in release.files.items() if p in used}}
    differs = [path for path in here.keys() | there.keys() if here.get(path) != there.get(path)]
    differs += _compare("endpoints", build_endpoints(config), release.endpoints, config.environment)
    roles = release.roles.get(config.environment, {})
    for kind, entries in build_roles(config).items():
        differs += _compare(kind, entries, roles, kind)
    return sorted(differs)


def _compare(name: str, here: Any, whole: Mapping[str, Any], key: str) -> list[str]:  # noqa: ANN401 - JSON
    there = whole.get(key, {})
    plain = TypeAdapter(dict[str, Any]).dump_python(here, mode="json")
    ids = plain.keys() | there.keys()
    return [f"{name}.{one}" for one in ids if plain.get(one) != there.get(one)]


def _overlay_server(config: Config, name: str, fields: Mapping[str, Any], folder: Path) -> Any:  # noqa: ANN401 - a section
    local = config.servers.get(name)
    released = {**fields, "manifest": folder / MANIFESTS / f"{name}.yaml"}
    if "env" in released:
        values = local.env if isinstance(local, StdioServerSection) else {}
        missing = [key for key in released["env"] if key not in values]
        if missing:
            raise ConfigurationError(
                f"servers.{name}.env.{missing[0]}: the release names it; give its value here"
            )
        released["env"] = {key: values[key] for key in released["env"]}
    if isinstance(local, StdioServerSection) and local.cwd is not None:
        released["cwd"] = local.cwd
    return _servers.validate_python(released)


def _overlay_humans(config: Config, entries: Mapping[str, Any]) -> tuple[HumanSection, ...]:
    local = {one.id: one.secret_hash for one in config.humans}
    return tuple(
        HumanSection(id=name, secret_hash=local.get(name), **fields)
        for name, fields in entries.items()
    )


def _overlay_clients(config: Config, entries: Mapping[str, Any]) -> tuple[Any, ...]:
    found = []
    for name, fields in entries.items():
        own = next((one for one in config.clients if one.id == name), None)
        given = {key: getattr(own, key, None) for key in _CREDENTIALS}
        kept = {key: value for key, value in given.items() if value is not None}
        found.append(_clients.validate_python({**fields, "id": name, **kept}))
    return tuple(found)


def require_two(rules: Rules) -> None:
    """Raise `ConfigurationError` where no release could ever be published."""
    people = {person(one.id) for one in rules.publishers.values()}
    if len(people) < _PUBLISHERS_MIN:
        raise ConfigurationError(
            "policy.publishers: outside `dev`, policies come as a release that two publishers "
            "signed; make two keys with `countersign policy keygen`, name both publishers here, "
            "and publish the first release with `countersign policy publish --offline`; or set "
            "`policy.releases: off` to read the folder as it is",
            code="release_publishers",
        )
