"""Passwords by argon2id, off the loop: `core.accounts.PasswordHasher`.

Parameters as OWASP's password storage cheat sheet has them: 19 MiB, two passes, one lane.
"""

from __future__ import annotations

import asyncio
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.core.errors import CountersignError
from gateway.core.people.accounts import Verified, normal_form

AT_ONCE: Final = 2
WAITING_MAX: Final = 32


class Argon2Passwords:
    """Hashes in threads, few at once: each takes 19 MiB, and a flood of them must not take all."""

    def __init__(
        self, *, time_cost: int = 2, memory_kib: int = 19_456, parallelism: int = 1
    ) -> None:
        self._argon2: Final = argon2.PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism
        )
        self._turn: Final = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        # Of a password that nobody has: comparing with it takes what comparing with any takes.
        self._nobody: Final = self._argon2.hash("no such person")

    async def hash(self, password: str) -> str:
        """Return the hash of a new password."""
        await self._enter()
        try:
            return await asyncio.to_thread(self._argon2.hash, normal_form(password))
        finally:
            self._turn.release()

    async def verify(self, stored: str | None, password: str) -> Verified:
        """Compare a password with a hash. Without a hash it is wrong, and takes as long."""
        await self._enter()
        try:
            return await asyncio.to_thread(self._verify, stored, normal_form(password))
        finally:
            self._turn.release()

    async def _enter(self) -> None:
        if self._waiting >= WAITING_MAX:
            raise CountersignError(
                "too many people sign in at once; try again in a moment",
                code="sign_in_busy",
                retryable=True,
            )
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1

    def _verify(self, stored: str | None, password: str) -> Verified:
        try:
            self._argon2.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return Verified(right=False)
        if stored is None:
            return Verified(right=False)
        stale = self._argon2.check_needs_rehash(stored)
        return Verified(right=True, rehashed=self._argon2.hash(password) if stale else None)
