"""Passkeys by WebAuthn (`core.accounts.PasskeyChecker`), pinned to one RP id and one origin."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from gateway.core.errors import CredentialError
from gateway.core.people.accounts import Passkey

NAME: Final = "Countersign"
TIMEOUT_MS: Final = 120_000
_ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]


class WebauthnPasskeys:
    """Asks for passkeys and believes them. `origin` is `https://host[:port]`, `rp_id` its host."""

    def __init__(self, *, origin: str, rp_id: str) -> None:
        self._origin: Final = origin
        self._rp_id: Final = rp_id

    def ask_new(self, person_id: str, challenge: str, known: list[str]) -> str:
        """Return the options for `navigator.credentials.create()`, as JSON."""
        options = generate_registration_options(
            rp_id=self._rp_id,
            rp_name=NAME,
            user_id=_handle(person_id),
            user_name=person_id,
            challenge=challenge.encode(),
            timeout=TIMEOUT_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known
            ],
            supported_pub_key_algs=_ALGORITHMS,
        )
        return options_to_json(options)

    def check_new(self, response: dict[str, Any], challenge: str) -> tuple[str, bytes, int]:
        """Return credential id, public key and counter of a new passkey."""
        try:
            made = verify_registration_response(
                credential=response,
                expected_challenge=challenge.encode(),
                expected_rp_id=self._rp_id,
                expected_origin=self._origin,
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
        # Others' parsers of CBOR, COSE and certificates raise whatever they like on hostile bytes.
        except Exception as error:  # noqa: BLE001 - all of it is a refusal
            raise _refused(error) from None
        key_id = bytes_to_base64url(made.credential_id)
        return key_id, made.credential_public_key, made.sign_count

    def ask(self, challenge: str) -> str:
        """Return the options for `navigator.credentials.get()`: any passkey of this gateway."""
        options = generate_authentication_options(
            rp_id=self._rp_id,
            challenge=challenge.encode(),
            timeout=TIMEOUT_MS,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json(options)

    def check(self, response: dict[str, Any], challenge: str, passkey: Passkey) -> int:
        """Return the new counter. A counter that does not go up is a copied authenticator."""
        try:
            _require_person(response["response"].get("userHandle"), passkey.person)
            found = verify_authentication_response(
                credential=response,
                expected_challenge=challenge.encode(),
                expected_rp_id=self._rp_id,
                expected_origin=self._origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        except CredentialError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `check_new`
            raise _refused(error) from None
        return found.new_sign_count


def _handle(person_id: str) -> bytes:
    """Return what authenticators know a person by. It is kept on them, and is no name."""
    return hashlib.sha256(b"cs/user-handle/v1\0" + person_id.encode()).digest()


def _require_person(said: str | None, person_id: str) -> None:
    if said and not hmac.compare_digest(base64url_to_bytes(said), _handle(person_id)):
        raise CredentialError("it is another person's", code="passkey_invalid")


def _refused(error: Exception) -> CredentialError:
    # Its text could quote what was sent; its type is enough for whoever mends this.
    return CredentialError(
        f"the passkey was not accepted ({type(error).__name__}); try again",
        code="passkey_invalid",
    )
