"""Which deployment a folder of policies belongs to: the one given, or the one beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from connectors.manifest import load_manifest
from gateway.adapters.authoring.policy_deployment import Deployment
from gateway.cli.config import DEFAULT_FILE, load
from gateway.cli.policy_folder import failed
from gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    from gateway.config.settings import Config


def read_deployment(directory: Path, config: Path | None, notes: list[str]) -> Deployment | None:
    """Return what the configuration names; None where there is none to ask.

    One that is given must be readable, or the command ends.
    """
    try:
        found = find_config(directory, config, notes)
    except ConfigurationError as error:
        raise failed(error) from None
    if found is None:
        return None
    try:
        return _read(*found)
    except ConfigurationError as error:
        if config is not None:
            raise failed(error) from None
        notes.append(_unread(found[1]))
        return None


def find_config(
    directory: Path, config: Path | None, notes: list[str]
) -> tuple[Config, Path] | None:
    """Return the configuration given, or the one beside the folder; None where there is none.

    One that is found must name this folder as its `policy.path`: policies of others say nothing
    about it. Raises `ConfigurationError` where one that is given cannot be read.
    """
    if config is not None:
        return load(config), config
    for path in (directory.resolve().parent / DEFAULT_FILE, Path.cwd() / DEFAULT_FILE):
        if not path.is_file():
            continue
        try:
            found = load(path)
            if found.policy.path.resolve() == directory.resolve():
                return found, path
        except ConfigurationError:
            notes.append(_unread(path))
            return None
    return None


def _unread(path: Path) -> str:
    return f"{path} cannot be read, so not asked what it names: `countersign config check`"


def _read(config: Config, path: Path) -> Deployment:
    manifests = [load_manifest(server.manifest) for server in config.servers.values()]
    return Deployment(
        file=path.name,
        servers=frozenset(config.servers),
        tools=tuple(
            (f"{manifest.id}.{tool.name}", manifest.id, tool.effect)
            for manifest in manifests
            for tool in manifest.tools
        ),
        people=tuple(frozenset((*human.roles, *human.groups)) for human in config.humans),
        agents=frozenset(each.id for each in config.clients),
        sums=frozenset(
            f"{manifest.id}.{tool.name}#{pointer}"
            for manifest in manifests
            for tool in manifest.tools
            for pointer in tool.sums
        ),
        labels=frozenset(
            label for manifest in manifests for tool in manifest.tools for label in tool.labels
        ),
    )
