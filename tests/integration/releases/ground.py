"""A log, a store of releases and a keeper on real files, that can be killed at any step."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.adapters.system import SystemIds
from gateway.config.release import assemble
from gateway.config.settings import Config, load_config
from gateway.core.approvals.declined import Declined
from gateway.core.entry import Entry, Receipt
from gateway.core.policy.asked import Asked, read_asked
from gateway.core.policy.decision import Decision, Deny, Permit, Reason
from gateway.core.releases.opa_signature import scope_of, sign_bundle
from gateway.core.releases.publisher_keys import PrivateKey, public_of
from gateway.core.releases.release import Release, write_archive
from gateway.core.releases.statement import Statement, sign
from gateway.http.releases_desk import Done, ReleaseDesk, Word
from gateway.wiring.audit import open_log
from gateway.wiring.releases import ReleaseKeeper, Shadow
from tests.unit.releases.made import PAUL, PIA

KEYS: Final[Mapping[str, PrivateKey]] = {"pia": PIA, "paul": PAUL}
START_NS: Final = 1_700_000_000_000_000_000
T = TypeVar("T")


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns

    def wait(self, seconds: int) -> None:
        self.ns += seconds * 1_000_000_000


class Beside:
    """Stands for a release's engine: denies the tools that its policy names."""

    def __init__(self, bundle: Bundle) -> None:
        self.revision = bundle.revision
        self._source = dict(bundle.files)["policies/house.rego"].decode()

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        return [self._decide(asked) for asked in questions]

    def _decide(self, asked: Asked) -> Decision:
        if f'"{asked.tool_id}"' in self._source:
            return Deny((Reason("no", policy="house"),), self.revision)
        return Permit((), (), self.revision)


class Killed(BaseException):
    """The process is no more."""


async def _nothing() -> None:
    return


class Ground:
    """A deployment's folder. `kill_at`: the step at which the process dies; 0 for never."""

    def __init__(self, folder: Path, **policy: Any) -> None:  # noqa: ANN401 - keys of the section
        self.folder = folder
        self.policies = folder / "policies"
        self.policies.mkdir(parents=True)
        authority = {"policies": {"house": ["*"]}}
        (self.policies / "authority.json").write_text(json.dumps(authority))
        self.write("a")
        publishers = [{"id": name, "key": public_of(key).text} for name, key in KEYS.items()]
        settings = {
            "environment": "prod",
            "policy": {"path": "policies", "publishers": publishers} | policy,
            "humans": [{"id": name, "roles": ["policy_publisher"]} for name in KEYS],
        }
        (folder / "countersign.yaml").write_text(json.dumps(settings))
        self.clock, self.ids = Clock(), SystemIds()
        self.kill_at, self.step = 0, 0
        self.decides: str | None = None
        self.gateway: ReleaseKeeper | None = None
        self._audit: FileAuditLog | None = None
        self._running: Bundle | None = None
        self.impact: Mapping[str, Any] | None = None
        self.over: dict[str, Any] = {}
        self.on_try_out: Callable[[], Awaitable[None]] = _nothing

    def write(self, code: str) -> None:
        """Let the folder's one policy deny with this code."""
        (self.policies / "house.rego").write_text(
            'package policies.house\n\npermit contains {"code": "reads"} if '
            'input.resource.effect == "read"\n\n'
            f'deny contains {{"code": "{code}"}} if input.resource.id == "x.{code}"\n'
        )

    def config(self) -> Config:
        return load_config(self.folder / "countersign.yaml", os.environ)

    def release(self, code: str) -> Release:
        """Return the release of a folder that denies with this code."""
        self.write(code)
        return self.assemble()

    def assemble(self) -> Release:
        """Return the release of the folder as it is."""
        return assemble(dict(load_bundle_dir(self.policies).files), [self.config()])

    async def start(self, shadow: Shadow | None = None, *, boot: bool = True) -> ReleaseKeeper:
        """Start a process: open the log, and put to use what decides."""
        config = self.config()
        self._audit = audit = open_log(config, self.clock)
        await audit.start()
        keeper = ReleaseKeeper(config, clock=self.clock, ids=self.ids, shadow=shadow, beside=Beside)
        self.gateway = keeper
        if not boot:
            keeper.open_offline(audit)
            return keeper
        _, bundle, stated = await keeper.open(audit)
        await self.activate(bundle, stated)
        keeper.started(self.activate)
        return keeper

    async def call(self, code: str, count: int, *agents: str) -> None:
        """Let agents call the tool `x.<code>` so often each, under what decides."""
        assert self.gateway is not None
        assert self._running is not None
        before = self.gateway.guard.compared.after.calls
        engine = Beside(self._running)
        for agent in agents or ("ann", "bob"):
            document = orjson.dumps(
                {"phase": "call", "subject": {"id": agent}, "resource": {"id": f"x.{code}"}}
            )
            [decision] = await engine.decide([read_asked(document)])
            assert not isinstance(decision, str)
            for _ in range(count):
                self.gateway.guard.observe(f"x.{code}", "call", document, decision)
        if self.gateway.is_watching:
            await self._until_compared(before + count * len(agents or ("ann", "bob")))

    async def _until_compared(self, calls: int) -> None:
        assert self.gateway is not None
        guard = self.gateway.guard
        async with asyncio.timeout(10):
            while guard.compared.after.calls < calls:  # noqa: ASYNC110 - counted by a task
                await asyncio.sleep(0.002)

    async def die(self) -> None:
        """End the process, whatever it was at: nothing but the files is left."""
        audit, self._audit = self._audit, None
        self.kill_at = self.step = 0
        if self.gateway is not None:
            await self.gateway.close()
        if audit is not None:
            await audit.close()

    async def activate(self, bundle: Bundle, stated: Mapping[str, Any]) -> None:
        """Stand for the policy in use: the engine, and the record of its activation."""
        self._next()
        self.decides, self._running = bundle.revision, bundle
        fields = {"rev": bundle.revision, "packages": sorted(bundle.packages), **stated}
        await self.record(Entry(type="policy.activate", op=self.ids.new(), fields=fields))

    async def record(self, entry: Entry) -> Receipt:
        assert self._audit is not None
        self._next()
        receipt = await self._audit.record(entry)
        self._next()
        return receipt

    def desk(self) -> ReleaseDesk:
        """Return the desk, each of whose steps can be the last."""
        assert self.gateway is not None
        deps = self.gateway.build_desk(lambda _person, _at: True).deps

        async def try_out(_release: Release) -> None:
            await self.on_try_out()
            self._next()

        async def measure(_release: Release) -> Mapping[str, Any] | None:
            return self.impact

        stood_for = {"record": self.record, "try_out": try_out, "measure": measure}
        return ReleaseDesk(replace(deps, **stood_for | self.over))

    async def say(
        self,
        by: str,
        release: Release,
        act: str = "publish",
        **over: Any,  # noqa: ANN401 - members of a statement
    ) -> Done | Declined:
        """Let a publisher say their word for the place that the row is at."""
        assert self.gateway is not None
        history = self.gateway.history
        target = history.target
        said: dict[str, Any] = {
            "act": act,
            "env": "prod",
            "log": self.config().audit.origin,
            "number": history.number + 1,
            "prev": "" if target is None else target.revision,
            "rev": release.revision,
        }
        key, seen = KEYS[by], over.pop("seen", "")
        token = sign(key, Statement(**said | over))
        signature = sign_bundle(key, release.bundle(), scope=scope_of("prod"))
        return await self.desk().publish(by, Word(token, signature, write_archive(release), seen))

    async def withdraw(self, by: str, release: Release, **over: Any) -> Done | Declined:  # noqa: ANN401
        """Let a publisher take a proposal back."""
        assert self.gateway is not None
        history = self.gateway.history
        target = history.target
        said: dict[str, Any] = {
            "act": "withdraw",
            "env": "prod",
            "log": self.config().audit.origin,
            "number": history.number + 1,
            "prev": "" if target is None else target.revision,
            "rev": release.revision,
        }
        return await self.desk().withdraw(by, sign(KEYS[by], Statement(**said | over)))

    async def publish(self, release: Release, act: str = "publish", **over: Any) -> Done:  # noqa: ANN401
        """Let both publishers say it."""
        await self.say("pia", release, act, **over)
        done = await self.say("paul", release, act, **over)
        assert isinstance(done, Done), done
        return done

    def records(self, kind: str) -> list[dict[str, Any]]:
        from gateway.adapters.audit.audit_reader import read_records  # noqa: PLC0415

        return [one for one in read_records(self.config().audit.dir) if one["type"] == kind]

    def _next(self) -> None:
        self.step += 1
        if self.step == self.kill_at:
            raise Killed


async def begin(folder: Path, **policy: Any) -> tuple[Ground, Release]:  # noqa: ANN401
    """Return a deployment whose first release decides."""
    ground = Ground(folder, **policy)
    first = ground.release("first")
    await ground.start(boot=False)
    await ground.publish(first)
    await ground.die()
    await ground.start()
    return ground, first


Story = Callable[[Ground], Awaitable[object]]
