"""Both verifiers, called in this process: the gateway's own, and the one that stands alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from gateway.adapters.audit.audit_verify import verify
from tests.fault.processes import ROOT

SCRIPT: Final = ROOT / "verify" / "countersign_verify.py"


class Found(NamedTuple):
    """What a verifier says happened, and to which record."""

    kind: str
    seq: int


def ask_gateway(folder: Path, vkey: str, known: Sequence[str] = ()) -> list[Found]:
    """Verify with the gateway's own verifier; it takes one checkpoint known from elsewhere."""
    report = verify(folder, vkey=vkey, known=known[0] if known else None)
    return [Found(one.kind, one.seq) for one in report.findings]


@cache
def load_script() -> ModuleType:
    """Load the stand-alone verifier from its file; it is no part of a package."""
    spec = importlib.util.spec_from_file_location("countersign_verify_in_fault_suite", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ask_script(
    folder: Path, vkey: str, known: Sequence[str] = (), *, semantics: bool = True
) -> list[Found]:
    """Verify with the verifier that stands alone; `semantics`: the rules between records, too."""
    script = load_script()
    try:
        asked = script.Asked(folder, [script.read_key(vkey)], [])
        asked.known += [script.Known(script.read_note(note), "known") for note in known]
        asked.semantics = semantics
        report = script.Verifier(asked).run()
    except script.UnusableError:
        return [Found("unusable", -1)]
    return [Found(one.rule or one.kind, one.seq) for one in report.findings]
