"""`countersign policy keygen|build|sign|verify`: releases as files; no gateway is asked."""

from __future__ import annotations

import base64
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir, restore_bundle
from gateway.adapters.releases.release_keys import create_key, load_key
from gateway.cli.admin_api import ask, fail
from gateway.cli.config import read_config
from gateway.cli.exits import Exit, say_why
from gateway.cli.log_places import find_file
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.releases.archive import unpack
from gateway.core.releases.opa_files import SIGNATURES
from gateway.core.releases.opa_signature import check_bundle, scope_of, sign_bundle
from gateway.core.releases.publisher_keys import PublisherKey, read_key
from gateway.core.releases.release import (
    REVISION,
    ReadArchive,
    read_archive,
    read_signature,
    write_archive,
)

ROUTE: Final = "/v1/policy/releases"
TOKEN: Final = "COUNTERSIGN_TOKEN"  # noqa: S105 - the name of a variable
T = TypeVar("T")


class Algorithm(StrEnum):
    """Of a publisher's key."""

    ED25519 = "ed25519"
    ES256 = "es256"


Archive = Annotated[Path, typer.Argument(metavar="RELEASE", help="A file of `policy build`.")]
KeyFile = Annotated[Path, typer.Option("--key", help="Your private key, of `policy keygen`.")]
OutFile = Annotated[Path, typer.Option("-o", "--output-file", help="The file to write.")]


def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the key.")],
    algorithm: Annotated[Algorithm, typer.Option("--alg", help="Its kind.")] = Algorithm.ED25519,
) -> None:
    """Make a publisher's key: FILE is secret, FILE.pub is for OPA's `--verification-key`.

    Prints the key's id, and the entry for `policy.publishers`.
    """
    key = told(lambda: create_key(path, "EdDSA" if algorithm is Algorithm.ED25519 else "ES256"))
    print(f"kid: {key.kid}\nfor `policy.publishers`:\n  - id: YOUR-ID\n    key: {key.text}")


def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of policies.")],
    output_file: OutFile,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="A configuration; again for each environment. Else COUNTERSIGN_CONFIG.",
        ),
    ] = None,
) -> None:
    """Write a release: policies, and manifests, endpoints and roles of each configuration."""
    from gateway.config.release import assemble  # noqa: PLC0415 - see `gateway.cli.config.load`

    configs = [read_config(path) for path in config or [find_file(None)]]

    def work() -> str:
        release = assemble(dict(load_bundle_dir(directory).files), configs)
        output_file.write_bytes(write_archive(release))
        return release.revision

    print(told(work))


def sign(
    archive: Archive,
    key: KeyFile,
    environment: Annotated[str, typer.Option("--environment", help="For which deployment.")],
    output_file: OutFile,
) -> None:
    """Write a release with your signature in it, for a stock OPA that loads it."""

    def work() -> str:
        release = read_release(str(archive)).release
        token = sign_bundle(load_key(key), release.bundle(), scope=scope_of(environment))
        output_file.write_bytes(write_archive(release, token))
        return release.revision

    print(told(work))


def verify(
    archive: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A signed OPA bundle.")],
    verification_key: Annotated[
        Path, typer.Option("--verification-key", help="The signer's public key, PEM.")
    ],
    scope: Annotated[str, typer.Option("--scope", help="What it must be signed for.")] = "",
) -> None:
    """Check the signature in a bundle as OPA does; also one that `opa sign` made."""
    key = told(lambda: load_public(verification_key), Exit.USAGE)

    def work() -> str:
        files = unpack(archive.read_bytes())
        token = read_signature(files.get(SIGNATURES))
        if token is None:
            fail(Exit.VERIFICATION_FAILED, f"`{archive}` holds no `{SIGNATURES}`: nobody signed it")
        check_bundle(token, files, key, scope=scope)
        return f"ok: {len(files) - 1} files, signed by {key.kid}"

    print(told(work, Exit.VERIFICATION_FAILED))


def register(app: typer.Typer) -> None:
    """Add the commands to `countersign policy`."""
    for command in (keygen, build, sign, verify):
        app.command()(command)


def read_release(name: str) -> ReadArchive:
    """Return the release of a file, or of a revision that the gateway keeps."""
    if REVISION.fullmatch(name) and not Path(name).exists():
        return read_archive(fetch(name))
    return read_archive(Path(name).read_bytes())


def read_bundle(path: Path) -> Bundle:
    """Return the policies of a release's file, as an engine would get them.

    Raises `CountersignError`.
    """
    return restore_bundle(read_archive(path.read_bytes()).release.policy_files)


def fetch(revision: str, url: str | None = None, token_from: str = TOKEN) -> bytes:
    """Return the archive of a release that a gateway keeps."""
    found = ask("GET", f"{ROUTE}/{revision}", url=url, token_from=token_from)
    return base64.b64decode(found["archive"])


def load_public(path: Path) -> PublisherKey:
    """Return a public key of a PEM file."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"`{path}` is no public key in PEM; `countersign policy keygen` writes one as `….pub`"
        ) from None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return read_key(base64.b64encode(encoded).decode())


def told(work: Callable[[], T], code: Exit = Exit.ERROR) -> T:
    """Return what `work` does, or say why it cannot be done and exit."""
    try:
        return work()
    except (CountersignError, ValueError) as error:
        fail(code, str(error))
    except OSError as error:
        fail(Exit.USAGE, say_why(error))
