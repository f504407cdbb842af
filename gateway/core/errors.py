"""Exceptions: raised only when the job could not be done. Expected answers are values.

::

    CountersignError(code, retryable)
    ├── RequestError         what came in cannot be read
    ├── CredentialError      who sent it cannot be believed
    ├── PolicyError          no decision could be reached
    ├── AuditError           no durable record could be made
    ├── ApprovalError        a hold could not be stored or moved
    ├── UpstreamError        the tool did not answer as it must (`delivery`)
    └── ConfigurationError   the gateway cannot start as configured

INVARIANT: whoever catches one of these on the call path denies and records.
"""

from __future__ import annotations

from typing import Final, Literal

Delivery = Literal["not_sent", "unknown", "sent"]
"""Whether a request reached its tool: certainly not, perhaps, or certainly."""


class CountersignError(Exception):
    """Base of all.

    `code` is stable and machine readable; `retryable` says whether the same request may
    succeed later without any change. The message is for operators, never for agents.
    """

    default_code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code: Final = code or self.default_code
        self.retryable: Final = retryable


class RequestError(CountersignError):
    """The bytes of a request cannot be read. Answer: send a well-formed request."""

    default_code = "body_invalid"


class CredentialError(CountersignError):
    """A credential is missing, false, expired or meant for someone else. Answer: get a new one."""

    default_code = "token_invalid"


class PolicyError(CountersignError):
    """No decision: engine dead, deadline passed, answer malformed. Always answered with deny."""

    default_code = "policy_unavailable"


class AuditError(CountersignError):
    """No durable record. Nothing may be sent. Answer when retryable: wait, then send again."""

    default_code = "audit_unavailable"


class ApprovalError(CountersignError):
    """A held call could not be stored or moved; `code` tells apart conflict, missing, forbidden."""

    default_code = "approval_unavailable"


class UpstreamError(CountersignError):
    """The tool gave no usable answer; `delivery` tells honestly whether it got the request."""

    default_code = "upstream_unavailable"

    def __init__(
        self,
        message: str,
        *,
        delivery: Delivery,
        code: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.delivery: Final = delivery


class ConfigurationError(CountersignError):
    """The gateway cannot run as configured. Every line of the message is one mistake."""

    default_code = "configuration_invalid"
