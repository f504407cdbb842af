"""Which bundle decides: what is kept, tried, used and on record, or nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.policy.policy_bundle import load_bundle_dir
from gateway.adapters.system import SystemIds
from gateway.config.settings import load_config
from gateway.core.errors import AuditError
from gateway.wiring.policy import PolicyInUse

pytestmark = pytest.mark.req("POL-07")


def write(folder: Path, code: str) -> None:
    (folder / "house.rego").write_text(
        f'package policies.house\n\ndeny contains {{"code": "{code}"}} if input.phase == "call"\n'
    )


async def test_a_bundle_that_cannot_be_put_on_record_does_not_decide(tmp_path: Path) -> None:
    (policies := tmp_path / "policies").mkdir()
    write(policies, "old")
    settings = {"dev": True, "policy": {"path": "policies"}}
    (tmp_path / "countersign.yaml").write_text(json.dumps(settings))
    in_use = PolicyInUse(load_config(tmp_path / "countersign.yaml", {}), ids=SystemIds())
    log = MemoryAuditLog()
    await in_use.start(log)
    try:
        old = in_use.engine.revision
        write(policies, "new")
        new = load_bundle_dir(policies)
        log.overload()
        with pytest.raises(AuditError):
            await in_use.activate(new, {"mode": "required"})
        assert in_use.engine.revision == old
        log.overload(overloaded_now=False)
        await in_use.activate(new)
        assert in_use.engine.revision == new.revision
    finally:
        await in_use.close()
    on_record = [one for one in log.records if one["type"] == "policy.activate"]
    assert [one["rev"] for one in on_record] == [old, new.revision]
    assert "mode" not in on_record[-1]


async def test_more_packages_than_a_record_has_room_for_decide_and_are_counted(
    tmp_path: Path,
) -> None:
    (policies := tmp_path / "policies").mkdir()
    names = [f"{'x' * 56}_{number:03}" for number in range(280)]
    for name in names:
        (policies / f"{name}.rego").write_text(
            f'package policies.{name}\n\ndeny contains {{"code": "no"}} if input.phase == "call"\n'
        )
    (tmp_path / "countersign.yaml").write_text('{"dev": true, "policy": {"path": "policies"}}')
    in_use = PolicyInUse(load_config(tmp_path / "countersign.yaml", {}), ids=SystemIds())
    log = MemoryAuditLog()
    await in_use.start(log)
    await in_use.close()
    told = log.records[-1]
    assert (told["type"], told["count"]) == ("policy.activate", 280)
    assert told["packages"] == names[: len(told["packages"])]
    assert len(told["packages"]) > 100
