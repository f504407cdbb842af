"""What is odd in a folder of policies, but loads: told to authors, never in the gateway's way."""

from __future__ import annotations

from pathlib import Path

from gateway.adapters.authoring.policy_lookups import find_looked_up_limits
from gateway.adapters.policy.gate.policy_names import find_oddities
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.adapters.policy.policy_bundle import read_sources
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source


def find_warnings(folder: Path) -> list[Mistake]:
    """Return unused variables and imports, and names that hide another, tests included.

    And limits that are looked up by a word that an agent may choose.
    Files that cannot be parsed are left to the gate.
    """
    found = read_parsed(folder, tests=True)
    definitions = Definitions(found)
    odd = [each for source in found for each in find_oddities(source, definitions)]
    return odd + [each for source in found for each in find_looked_up_limits(source)]


def read_parsed(folder: Path, *, tests: bool = False) -> list[Source]:
    """Return the modules of a folder that can be parsed."""
    return [
        Source(path, text, module)
        for path, text in read_sources(folder, [], tests=tests).items()
        if not isinstance(module := parse_module(path, text), Fault)
    ]
