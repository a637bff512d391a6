"""Passkeys (W3C WebAuthn Level 3), checked by py_webauthn: challenges, registration and signatures.

A challenge is good once, for one purpose and, of somebody signed in, for one session. It is used up by a DELETE of one
row, so of two that come with one signature at once only one gets in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
import webauthn
from msgspec import Meta
from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, options_to_json_dict
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from controller.core.auth.models import Passkey, PasskeyChallenge, User
from controller.core.fields import require_text
from controller.db.base import new_id
from shared.errors import ConflictError, InvalidInputError

RP_NAME: Final = "WCP360"
VALID_FOR: Final = timedelta(minutes=5)
PASSKEYS_MAX: Final = 20
"""Of one person."""
REGISTER, SIGN_IN, PROVE = "register", "sign_in", "prove"
_MALFORMED: Final = (WebAuthnException, ValueError, TypeError, LookupError)
"""What py_webauthn lets out for answers that no browser makes: bad base64, CBOR, JSON or keys."""

Credential = Annotated[
    dict[str, Any],
    Meta(max_length=20, description="What the browser's navigator.credentials answered, as its toJSON() renders it."),
]


class PasskeyProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A challenge, signed by a passkey."""

    challenge_id: Annotated[str, Meta(max_length=40)]
    credential: Credential


class PasskeyRefusedError(InvalidInputError):
    """A signature that proves nothing. A class of its own: whoever lets people in notes it and goes on."""

    code = "passkey_refused"

    def __init__(self, reason: str) -> None:
        super().__init__(
            "this passkey proves nothing here",
            field="passkey",
            hint="Begin again: each challenge is good once, for five minutes and for one session.",
            context={"reason": reason},
        )


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Whom devices know us as; a page at another address gets no signature that counts here."""

    id: str
    origin: str

    @classmethod
    def of(cls, controller_url: str) -> RelyingParty:
        """Of the controller's public URL, as browsers write origins: without the port that https has anyway."""
        parts = urlsplit(controller_url)
        host = (parts.hostname or "").lower()
        port = f":{parts.port}" if parts.port not in (None, 443) else ""
        return cls(id=host, origin=f"https://{host}{port}")

    @property
    def is_name(self) -> bool:
        """Whether browsers take it: an address such as 192.0.2.1 is no relying party (WebAuthn section 5.1.2)."""
        return not (self.id.replace(".", "").isdigit() or ":" in self.id or not self.id)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the browser is to be given."""

    id: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose challenge it is."""

    user_id: str
    session_id: str


class Passkeys:
    """The rows of passkeys, in transactions of whoever calls."""

    def __init__(self, party: RelyingParty) -> None:
        self._party = party

    async def begin_registration(self, session: AsyncSession, asker: Asker, username: str, now: datetime) -> Challenge:
        """Ask a device for a new key; it will be discoverable, so that nobody has to type a name later.

        Raises:
            ConflictError: The controller's URL has no name, or the person has enough of them.
        """
        self._require_name()
        own = await list_passkeys_of(session, asker.user_id)
        if len(own) >= PASSKEYS_MAX:
            raise ConflictError(f"one person has at most {PASSKEYS_MAX} passkeys", hint="Delete one first.")
        options = webauthn.generate_registration_options(
            rp_id=self._party.id,
            rp_name=RP_NAME,
            user_name=username,
            user_id=asker.user_id.encode(),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(row.credential_id)) for row in own
            ],
        )
        challenge_id = await _store(session, options.challenge, REGISTER, asker, now)
        return Challenge(challenge_id, options_to_json_dict(options))

    async def finish_registration(
        self, session: AsyncSession, asker: Asker, proof: PasskeyProof, name: str, now: datetime
    ) -> Passkey:
        """Keep the device's new key.

        Raises:
            InvalidInputError: The name is malformed.
            PasskeyRefusedError: The challenge is not this session's, was used or is old, or its answer does not fit.
            ConflictError: Somebody has this key.
        """
        shown = require_text("name", name, low=1, high=64)
        challenge = await _take(session, proof.challenge_id, REGISTER, asker, now)
        try:
            made = webauthn.verify_registration_response(
                credential=proof.credential,
                expected_challenge=challenge,
                expected_rp_id=self._party.id,
                expected_origin=self._party.origin,
                require_user_verification=True,
            )
        except _MALFORMED as error:
            raise PasskeyRefusedError("wrong_passkey") from error
        credential_id = bytes_to_base64url(made.credential_id)
        if (await session.scalars(select(Passkey.id).where(Passkey.credential_id == credential_id))).first():
            raise ConflictError("this passkey is registered already")
        row = Passkey(
            user_id=asker.user_id,
            name=shown,
            credential_id=credential_id,
            public_key=made.credential_public_key,
            sign_count=made.sign_count,
            is_backed_up=made.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        )
        session.add(row)
        await session.flush()
        return row

    async def begin_proof(self, session: AsyncSession, asker: Asker | None, now: datetime) -> Challenge:
        """Ask for a signature; no key is named, so the answer tells a stranger nothing about anybody.

        Raises:
            ConflictError: The controller's URL has no name.
        """
        self._require_name()
        options = webauthn.generate_authentication_options(
            rp_id=self._party.id, user_verification=UserVerificationRequirement.REQUIRED
        )
        challenge_id = await _store(session, options.challenge, PROVE if asker else SIGN_IN, asker, now)
        return Challenge(challenge_id, options_to_json_dict(options))

    async def verify(
        self, session: AsyncSession, proof: PasskeyProof, now: datetime, *, asker: Asker | None, user_id: str | None
    ) -> Passkey:
        """The passkey that signed. The challenge is used up, whatever comes of it, if the caller commits.

        Args:
            session: The caller's transaction.
            proof: What the browser sent.
            now: The time.
            asker: Who is signed in; None: somebody signs in.
            user_id: Whose passkey it must be; None: of whomever it names, so that nothing else says who it is.

        Raises:
            PasskeyRefusedError: It proves nothing; `context["reason"]` says what the history calls it.
        """
        challenge = await _take(session, proof.challenge_id, PROVE if asker else SIGN_IN, asker, now)
        raw_id = proof.credential.get("id")
        wanted = select(Passkey).where(Passkey.credential_id == str(raw_id)[:1400]).with_for_update()
        row = (await session.scalars(wanted.execution_options(populate_existing=True))).one_or_none()
        if row is None or (user_id is not None and row.user_id != user_id):
            raise PasskeyRefusedError("wrong_passkey")
        try:
            signed = webauthn.verify_authentication_response(
                credential=proof.credential,
                expected_challenge=challenge,
                expected_rp_id=self._party.id,
                expected_origin=self._party.origin,
                credential_public_key=row.public_key,
                # The counter is judged below: the library's refusal does not say which of its checks it was.
                credential_current_sign_count=0,
                require_user_verification=True,
            )
            handle = webauthn.helpers.parse_authentication_credential_json(proof.credential).response.user_handle
        except _MALFORMED as error:
            raise PasskeyRefusedError("wrong_passkey") from error
        if (handle is None and user_id is None) or (handle is not None and handle != row.user_id.encode()):
            raise PasskeyRefusedError("wrong_passkey")
        if max(signed.new_sign_count, row.sign_count) > 0 and signed.new_sign_count <= row.sign_count:
            raise PasskeyRefusedError("passkey_copied")  # Source: WebAuthn section 7.2 step 22
        row.sign_count, row.last_used_at = signed.new_sign_count, now
        await session.flush()
        return row

    def _require_name(self) -> None:
        if not self._party.is_name:
            raise ConflictError(
                "passkeys need a controller with a name; browsers make none for an address",
                code="passkeys_unavailable",
                hint="Set public_names or controller_url to a host name.",
            )


async def list_passkeys_of(session: AsyncSession, user_id: str) -> list[Passkey]:
    """All of one person."""
    return list(await session.scalars(select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.id)))


async def find_owner(session: AsyncSession, row: Passkey) -> User:
    """Whose it is, locked: sign-ins of one person count their sessions one after the other."""
    return await session.get_one(User, row.user_id, with_for_update=True, populate_existing=True)


async def _store(session: AsyncSession, challenge: bytes, purpose: str, asker: Asker | None, now: datetime) -> str:
    await session.execute(
        delete(PasskeyChallenge).where(PasskeyChallenge.expires_at <= now),
        execution_options={"synchronize_session": False},
    )
    row = PasskeyChallenge(
        id=new_id(),
        challenge=challenge,
        purpose=purpose,
        user_id=asker.user_id if asker else None,
        session_id=asker.session_id if asker else None,
        expires_at=now + VALID_FOR,
    )
    session.add(row)
    await session.flush()
    return row.id


async def _take(session: AsyncSession, challenge_id: str, purpose: str, asker: Asker | None, now: datetime) -> bytes:
    """Use a challenge up.

    Raises:
        PasskeyRefusedError: There is none of this id and purpose for this session (any more).
    """
    mine = (
        PasskeyChallenge.id == challenge_id,
        PasskeyChallenge.purpose == purpose,
        PasskeyChallenge.expires_at > now,
        PasskeyChallenge.session_id.is_(None) if asker is None else PasskeyChallenge.session_id == asker.session_id,
        PasskeyChallenge.user_id.is_(None) if asker is None else PasskeyChallenge.user_id == asker.user_id,
    )
    challenge = (await session.scalars(select(PasskeyChallenge.challenge).where(*mine))).one_or_none()
    used = await session.execute(
        delete(PasskeyChallenge).where(*mine), execution_options={"synchronize_session": False}
    )
    if challenge is None or not isinstance(used, CursorResult) or used.rowcount != 1:
        raise PasskeyRefusedError("wrong_passkey")
    return challenge
