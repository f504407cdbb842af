"""AWS Signature Version 4 against the examples that Amazon's S3 documentation works out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.adapters.witness.s3_anchor import Credentials, sign

pytestmark = pytest.mark.req("AUD-08")

CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "names", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {"range": "bytes=0-9"},
            b"",
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {
                "date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
            },
            b"Welcome to Amazon S3.",
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
    ],
)
def test_the_documentations_examples_are_signed_alike(
    *, method: str, path: str, headers: dict[str, str], content: bytes, names: str, signature: str
) -> None:
    signed = sign(
        method,
        f"https://{HOST}{path}",
        {"host": HOST, **headers},
        content,
        credentials=CREDENTIALS,
        region="us-east-1",
        now=NOW,
    )
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )
    assert signed["x-amz-date"] == "20130524T000000Z"


def test_a_sessions_token_is_sent_and_signed() -> None:
    signed = sign(
        "GET",
        f"https://{HOST}/",
        {"host": HOST},
        b"",
        credentials=Credentials("a", "b", "session"),
        region="us-east-1",
        now=NOW,
    )
    assert signed["x-amz-security-token"] == "session"
    assert ";x-amz-security-token," in signed["authorization"]
