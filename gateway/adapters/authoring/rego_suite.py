"""A folder of policies with its tests, and engines that hold both as a gateway would."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import regorus
from msgspec import Struct

from gateway.adapters.policy.gate.policy_authority import expand_authority
from gateway.adapters.policy.gate.policy_gate import read_scopes
from gateway.adapters.policy.policy_ast import Fault, Module, parse_module
from gateway.adapters.policy.policy_bundle import (
    MAIN_PATH,
    find_rego_root,
    invalid,
    load_library,
    read_folder,
)
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.regorus.regorus_worker import build_engine


class Suite(Struct, frozen=True):
    """Modules by file, tests among them. `data` has what bundles have: `applies_to`, too."""

    sources: Mapping[str, str]
    modules: Mapping[str, Module]
    data: Mapping[str, Any]

    def source(self, file: str) -> Source:
        """Return one module with its text."""
        return Source(file, self.sources[file], self.modules[file])

    def build_engine(
        self, sources: Iterable[tuple[str, str]], data: Mapping[str, Any] | None = None
    ) -> regorus.Engine:
        """Return an engine with these modules, the entry point and the library."""
        texts = list(sources)
        given = {module.package for module in self.modules.values()}
        if ("countersign",) not in given:
            texts.append((MAIN_PATH, (find_rego_root() / MAIN_PATH).read_text(encoding="utf-8")))
        texts += [
            (path, text)
            for path, text in load_library(find_rego_root()).items()
            if tuple(path.removesuffix(".rego").split("/")) not in given
        ]
        engine = build_engine(texts, json.dumps(self.data if data is None else data))
        engine.set_gather_prints(True)
        return engine


def load_suite(path: Path) -> Suite:
    """Read a folder. Raises `ConfigurationError` (`policy_invalid`), one mistake per line."""
    faults: list[Mistake] = []
    sources, data = read_folder(path, faults, tests=True)
    modules: dict[str, Module] = {}
    for name, text in sources.items():
        module = parse_module(name, text)
        if isinstance(module, Fault):
            faults.append(Mistake(name, module.line, module.column, "syntax", module.text))
        else:
            modules[name] = module
    suite = Suite(sources, modules, _as_bundled(sources, modules, data, faults))
    if faults:
        raise invalid(faults)
    return suite


def _as_bundled(
    sources: Mapping[str, str],
    modules: Mapping[str, Module],
    data: Mapping[str, Any],
    faults: list[Mistake],
) -> dict[str, Any]:
    """Return the data as a bundle has it, so that decisions in tests are the gateway's."""
    policies = [
        Source(file, sources[file], module)
        for file, module in modules.items()
        if module.package[0] == "policies"
    ]
    scopes = read_scopes(policies, faults)
    try:
        found = expand_authority(data)
    except msgspec.ValidationError:
        found = dict(data)  # `policy check` says what is wrong with it
    if scopes:
        found["applies_to"] = {name: scope.as_data() for name, scope in scopes.items()}
    return found
