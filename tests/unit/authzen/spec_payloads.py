"""Payloads as the specification's examples and its certification scenario have them.

From openid.net/specs/authorization-api-1_0.html and the working group's interop payloads (todo).
"""

from __future__ import annotations

from typing import Any, Final

ALICE: Final = {"type": "user", "id": "alice@example.com"}
READ: Final = {"name": "can_read"}
TIME: Final = {"time": "2024-05-31T15:22-07:00"}


def document(name: str) -> dict[str, Any]:
    return {"type": "document", "id": name}


SINGLE: Final[dict[str, dict[str, Any]]] = {
    "request-example": {
        "subject": ALICE,
        "resource": {"type": "account", "id": "123"},
        "action": {"name": "can_read", "properties": {"method": "GET"}},
        "context": {"time": "1985-10-26T01:22-07:00"},
    },
    "subject with properties": {
        "subject": {
            **ALICE,
            "properties": {"ip_address": "172.217.22.14", "device_id": "8:65:ee:17:7e:0b"},
        },
        "resource": {
            "type": "book",
            "id": "123",
            "properties": {
                "library_record": {"title": "AuthZEN in Action", "isbn": "978-0593383322"}
            },
        },
        "action": {"name": "extend-loan", "properties": {"period": "2W"}},
    },
    "todo interop": {
        "subject": {
            "type": "user",
            "id": "CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs",
        },
        "action": {"name": "can_read_user"},
        "resource": {"type": "user", "id": "beth@the-smiths.com"},
    },
    "c-2-2-8 more properties": {
        "subject": {
            "type": "user",
            "id": "alice",
            "properties": {"department": "Sales", "role": "manager"},
        },
        "action": {"name": "read", "properties": {"method": "GET"}},
        "resource": {
            "type": "record",
            "id": "record-1",
            "properties": {"status": "active", "owner": "bob"},
        },
    },
    "c-2-2-9 unknown members": {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1"},
        "foo": "bar",
        "futureField": {"nested": True},
    },
}

BOXED: Final[dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]]] = {
    "no defaults": (
        {
            "evaluations": [
                {"subject": ALICE, "action": READ, "resource": document(name), "context": TIME}
                for name in ("boxcarring.md", "subject-search.md", "resource-search.md")
            ]
        },
        [
            ("alice@example.com", "can_read", name)
            for name in ("boxcarring.md", "subject-search.md", "resource-search.md")
        ],
    ),
    "subject and context by default": (
        {
            "subject": ALICE,
            "context": TIME,
            "evaluations": [
                {"action": READ, "resource": document("boxcarring.md")},
                {"action": READ, "resource": document("subject-search.md")},
            ],
        },
        [
            ("alice@example.com", "can_read", "boxcarring.md"),
            ("alice@example.com", "can_read", "subject-search.md"),
        ],
    ),
    "action by default, overridden": (
        {
            "subject": ALICE,
            "context": TIME,
            "action": READ,
            "evaluations": [
                {"resource": document("boxcarring.md")},
                {"action": {"name": "can_edit"}, "resource": document("resource-search.md")},
            ],
        },
        [
            ("alice@example.com", "can_read", "boxcarring.md"),
            ("alice@example.com", "can_edit", "resource-search.md"),
        ],
    ),
    "todo interop": (
        {
            "subject": {"type": "user", "id": "rick"},
            "action": {"name": "can_update_todo"},
            "evaluations": [
                {
                    "resource": {
                        "type": "todo",
                        "id": "7240d0db-8ff0-41ec-98b2-34a096273b92",
                        "properties": {"ownerID": "rick@the-citadel.com"},
                    }
                }
            ],
        },
        [("rick", "can_update_todo", "7240d0db-8ff0-41ec-98b2-34a096273b92")],
    ),
}

_SUBJECT: Final = {"type": "user", "id": "alice"}
_ACTION: Final = {"name": "read"}
_RECORD: Final = {"type": "record", "id": "record-1"}

MALFORMED: Final[dict[str, dict[str, Any]]] = {
    "no subject": {"action": _ACTION, "resource": _RECORD},
    "no action": {"subject": _SUBJECT, "resource": _RECORD},
    "no resource": {"subject": _SUBJECT, "action": _ACTION},
    "subject without type": {
        "subject": {"id": "alice"},
        "action": _ACTION,
        "resource": _RECORD,
    },
    "subject without id": {
        "subject": {"type": "user"},
        "action": _ACTION,
        "resource": _RECORD,
    },
    "action without name": {"subject": _SUBJECT, "action": {}, "resource": _RECORD},
    "resource without type": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": {"id": "record-1"},
    },
    "resource without id": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": {"type": "record"},
    },
    "subject is a text": {"subject": "alice", "action": _ACTION, "resource": _RECORD},
    "name is a number": {"subject": _SUBJECT, "action": {"name": 123}, "resource": _RECORD},
    "properties are a list": {
        "subject": {**_SUBJECT, "properties": []},
        "action": _ACTION,
        "resource": _RECORD,
    },
    "context is a text": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": _RECORD,
        "context": "now",
    },
    "arguments are a list": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": _RECORD,
        "context": {"args": []},
    },
    "run is a number": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": _RECORD,
        "context": {"run": 1},
    },
}
