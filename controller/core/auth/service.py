"""Signing in and out, and proving again who one is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import append_entries, record
from controller.core.audit.refusals import Refusals
from controller.core.auth.attempts import Device, is_known_place, judge_signals, note_attempt, read_habits
from controller.core.auth.identities import Identities, Identity, require_user_network
from controller.core.auth.models import Session, User
from controller.core.auth.package_policy import read_package_policy
from controller.core.auth.passkeys import Asker, Challenge, PasskeyProof, PasskeyRefusedError, find_owner
from controller.core.auth.passwords import Passwords
from controller.core.auth.policy import PolicyBook, require_let_in
from controller.core.auth.sealing import KEY_BYTES, Sealer
from controller.core.auth.second_factor import SecondFactors
from controller.core.auth.secrets import new_password
from controller.core.auth.sessions import SessionTerms, SignIn, open_session, require_person, rotate_session
from controller.core.auth.sign_in_links import find_linked, use_up, wait_for_code
from controller.core.auth.users import find_user, is_tenant_open, read_former, replace_password
from controller.core.context import Actor, Change, OpContext
from controller.core.events.publisher import EventPublisher, Topic
from controller.core.policies.book import PlatformPolicyBook
from controller.db.base import utc_now
from controller.db.engine import Database
from shared.errors import FleetError, ForbiddenError, InvalidInputError, UnauthenticatedError


@dataclass(frozen=True, slots=True)
class Second:
    """What somebody shows beside the password."""

    code: str = ""
    passkey: PasskeyProof | None = None


@dataclass(frozen=True, slots=True)
class IssuedPassword:
    """A password that was made for somebody."""

    password: str = field(repr=False)
    """Exists nowhere else."""
    hashed: str = field(repr=False)


class Authenticator:
    """Everything about secrets that has to happen before anybody is known, so before there is an OpContext.

    Args:
        database: Where people and their secrets are.
        passwords: Hashes and verifies.
        rules: The platform's policies; None: read from the database by this object.
        clock: The time.
        factors: Second factors; None: with a key that this process forgets, so for none that last.
        publisher: Is told of unusual sign-ins.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        *,
        rules: PlatformPolicyBook | None = None,
        clock: Callable[[], datetime] = utc_now,
        factors: SecondFactors | None = None,
        publisher: EventPublisher | None = None,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._publisher = publisher
        self._refusals = Refusals(database, clock=clock)
        self.policies = PolicyBook(database)
        self.rules = rules or PlatformPolicyBook(database)
        self.identities = Identities(database, rules=self.rules, clock=clock)
        self.factors = factors or SecondFactors(Sealer(os.urandom(KEY_BYTES)))

    async def sign_in(self, username: str, password: str, device: Device, *, second: Second | None = None) -> SignIn:
        """Begin a session under a new secret, whatever the caller had before (no session fixation).

        Raises:
            UnauthenticatedError: No such user, a disabled one, or another password; the three look and cost the same.
                Also when the password is right and the second factor is missing (`second_factor_required`) or wrong
                (`wrong_code`, `wrong_passkey`), which only somebody learns who has the password.
            ForbiddenError: The controller or the user does not let this address in.
        """
        require_let_in(await self.policies.current(), device.address)
        async with self._database.read() as reader:
            user = await find_user(reader, username)
        is_right = await self._passwords.verify(user.password_hash if user else None, password)
        refusal: FleetError | None = None
        async with self._database.write() as writer:
            if user is not None and is_right:
                # Locked, so that sign-ins of one person count their sessions one after the other.
                user = await writer.get_one(User, user.id, with_for_update=True)
                refusal, reason = await self._judge(writer, user, device, second or Second())
            else:
                refusal, reason = _wrong_credentials(), "wrong_password" if user else "unknown_user"
            if refusal is not None or user is None:
                note_attempt(writer, username, user.id if user else None, device, reason=reason, signals=[])
            else:
                signals, sign_in = await self._open(writer, user, device)
        if refusal is not None or user is None:
            if reason != "code_asked":
                user_id = user.id if user is not None else None
                await self._refusals.note_sign_in(username, device.address, device.request_id, user_id=user_id)
            raise refusal or _wrong_credentials()
        self._tell(sign_in.identity, device, signals)
        return sign_in

    async def sign_in_with_passkey(self, proof: PasskeyProof, device: Device) -> SignIn:
        """Begin a session by a passkey alone; the device asked for a finger, a face or a PIN, so it is two factors.

        Raises:
            UnauthenticatedError: It proves nothing (`wrong_passkey`), or its owner is disabled.
            ForbiddenError: The controller or the user does not let this address in.
        """
        require_let_in(await self.policies.current(), device.address)
        user: User | None = None
        refusal: FleetError | None = None
        async with self._database.write() as writer:
            try:
                row = await self.factors.passkeys.verify(writer, proof, self._clock(), asker=None, user_id=None)
                user = await find_owner(writer, row)
                refusal, reason = await _judge_person(writer, user, device)
            except PasskeyRefusedError as error:
                refusal, reason = _wrong_passkey(), str(error.context["reason"])
            name = user.username if user else ""
            if refusal is not None or user is None:
                note_attempt(writer, name, user.id if user else None, device, reason=reason, signals=[])
            else:
                signals, sign_in = await self._open(writer, user, device)
        if refusal is not None or user is None:
            user_id = user.id if user is not None else None
            await self._refusals.note_sign_in(name, device.address, device.request_id, user_id=user_id)
            raise refusal or _wrong_passkey()
        self._tell(sign_in.identity, device, signals)
        return sign_in

    async def sign_in_by_link(self, token: str, device: Device, *, second: Second | None = None) -> SignIn:
        """Begin a session by a link that was made for the person; it is used up by that, and not by a wrong code.

        Raises:
            UnauthenticatedError: It lets nobody in (any more); or the second factor is missing or wrong.
            ForbiddenError: The controller or the user does not let this address in.
        """
        require_let_in(await self.policies.current(), device.address)
        refusal: FleetError | None = None
        async with self._database.write() as writer:
            user = await find_linked(writer, token, self._clock())
            if user is None:
                refusal, reason = _wrong_link(), "wrong_link"
            else:
                refusal, reason = await self._judge(writer, user, device, second or Second())
            name = user.username if user else ""
            if refusal is not None or user is None:
                note_attempt(writer, name, user.id if user else None, device, reason=reason, signals=[])
                if reason == "code_asked":
                    await wait_for_code(writer, token)
            else:
                await use_up(writer, token)
                signals, sign_in = await self._open(writer, user, device, is_by_link=True)
        if refusal is not None or user is None:
            if reason != "code_asked":
                user_id = user.id if user is not None else None
                await self._refusals.note_sign_in(name, device.address, device.request_id, user_id=user_id)
            raise refusal or _wrong_link()
        self._tell(sign_in.identity, device, signals)
        return sign_in

    async def begin_passkey_proof(self, identity: Identity | None) -> Challenge:
        """A challenge for somebody who signs in, or for a person who proves again who they are.

        Raises:
            ConflictError: The controller's URL has no name (`passkeys_unavailable`).
        """
        asker = asker_of(identity) if identity is not None and identity.is_person else None
        async with self._database.write() as writer:
            return await self.factors.passkeys.begin_proof(writer, asker, self._clock())

    def _tell(self, identity: Identity, device: Device, signals: list[str]) -> None:
        if signals and self._publisher is not None:
            data = {"id": identity.user_id, "name": identity.username, "address": device.address, "signals": signals}
            self._publisher.publish(Topic.SECURITY, "user.unusual_sign_in", data)

    async def _judge(
        self, writer: AsyncSession, user: User, device: Device, second: Second
    ) -> tuple[FleetError | None, str]:
        """What speaks against somebody who has the right password, and the word for it in the history."""
        refusal, reason = await _judge_person(writer, user, device)
        if refusal is not None:
            return refusal, reason
        if not (await self.factors.read_state(writer, user.id)).is_enabled:
            return None, ""
        if second.passkey is not None:
            return await self._judge_passkey(writer, user, second.passkey)
        if not second.code:
            hint = "Sign in again with `code`: six digits of your device, or a recovery code; or with `passkey`."
            return UnauthenticatedError(
                "a code or a passkey is needed", code="second_factor_required", hint=hint
            ), "code_asked"
        if not await self.factors.take(writer, user.id, second.code, self._clock()):
            hint = "Wait for the next code of your device; each is good for one time. Or use a recovery code."
            return UnauthenticatedError("this code is not right", code="wrong_code", hint=hint), "wrong_code"
        return None, ""

    async def _judge_passkey(
        self, writer: AsyncSession, user: User, proof: PasskeyProof
    ) -> tuple[FleetError | None, str]:
        try:
            await self.factors.passkeys.verify(writer, proof, self._clock(), asker=None, user_id=user.id)
        except PasskeyRefusedError as error:
            return _wrong_passkey(), str(error.context["reason"])
        return None, ""

    async def _open(
        self, writer: AsyncSession, user: User, device: Device, *, is_by_link: bool = False
    ) -> tuple[list[str], SignIn]:
        now, rules = self._clock(), await self.rules.current()
        idle = rules.session_idle_minutes
        signals = judge_signals(await read_habits(writer, user.id, now), device, now)
        note_attempt(writer, user.username, user.id, device, reason="", signals=signals)
        asked = await read_package_policy(writer, user.client_id)
        has_second_factor = (await self.factors.read_state(writer, user.id)).is_enabled
        terms = SessionTerms(
            now=now,
            expires_at=now + timedelta(hours=rules.session_hours),
            sessions_max=asked.limit_sessions(rules.sessions_max),
            has_second_factor=has_second_factor,
            needs_second_factor=asked.is_two_factor_required,
            is_by_link=is_by_link,
            unused_since=None if idle is None else now - timedelta(minutes=idle),
        )
        sign_in = await open_session(writer, user, device, terms)
        after: dict[str, object] = {"address": device.address[:64]}
        if signals:
            after["signals"] = signals
        await self._audit(writer, sign_in.identity, "user.sign_in", device.request_id, after=after)
        return signals, sign_in

    async def is_known_place(self, username: str, address: str) -> bool:
        """Whether the owner of this name signed in from this network before, so is not slowed by others' guesses."""
        async with self._database.read() as reader:
            return await is_known_place(reader, username, address, self._clock())

    async def sign_out(self, identity: Identity, request_id: str = "") -> None:
        """End one session; ending it twice is the same. An API token is left alone: it is revoked, not signed out."""
        if not identity.is_person:
            return
        async with self._database.write() as writer:
            await writer.execute(delete(Session).where(Session.id == identity.credential_id))
            await self._audit(writer, identity, "user.sign_out", request_id)

    async def find_identity(self, secret: str, address: str = "") -> Identity | None:
        """Who holds this secret of a session or token; None when it is unknown, ended, or its user disabled.

        Raises:
            ForbiddenError: It is valid, and may not be used from this address.
        """
        return await self.identities.find_identity(secret, address)

    async def require_proof(
        self, identity: Identity, *, password: str, code: str, passkey: PasskeyProof | None = None
    ) -> None:
        """Pass when the person of a session shows their password, a code of their second factor, or a passkey.

        Raises:
            ForbiddenError: An API token asks.
            InvalidInputError: Neither was given, or it is wrong.
        """
        require_person(identity, "prove who somebody is")
        if passkey is not None:
            await self._require_passkey(identity, passkey)
            return
        if code:
            async with self._database.write() as writer:
                is_right = await self.factors.take(writer, identity.user_id, code, self._clock())
            if not is_right:
                raise InvalidInputError("this code is not right, or was used", field="code")
            return
        if not password:
            raise InvalidInputError("the password or a code is needed", field="password")
        async with self._database.read() as reader:
            stored = (await reader.get_one(User, identity.user_id)).password_hash
        if not await self._passwords.verify(stored, password):
            raise InvalidInputError("this is not the password", field="password")

    async def _require_passkey(self, identity: Identity, proof: PasskeyProof) -> None:
        refusal: PasskeyRefusedError | None = None
        async with self._database.write() as writer:
            try:
                await self.factors.passkeys.verify(
                    writer, proof, self._clock(), asker=asker_of(identity), user_id=identity.user_id
                )
            except PasskeyRefusedError as error:
                refusal = error  # raised after the commit: the challenge is used up all the same
        if refusal is not None:
            raise refusal

    async def change_password(self, identity: Identity, current: str, new: str, request_id: str = "") -> None:
        """Replace one's own password and end all sessions of the user.

        Raises:
            ForbiddenError: An API token asks; only a person knows a password.
            InvalidInputError: The current password is wrong, or the new one is too short, too long, easily guessed or
                was used before.
        """
        require_person(identity, "change a password")
        rules = await self.rules.current()
        if new == current:
            raise InvalidInputError("the new password is the current one", field="new_password")
        await self._passwords.require_strong(new, rules, words=[identity.username], field="new_password")
        async with self._database.read() as reader:
            stored = (await reader.get_one(User, identity.user_id)).password_hash
            former = await read_former(reader, identity.user_id, rules.password_history)
        if not await self._passwords.verify(stored, current):
            raise InvalidInputError("this is not the current password", field="current_password")
        await self._passwords.require_new(new, former, field="new_password")
        hashed = await self._passwords.hash(new)
        async with self._database.write() as writer:
            await replace_password(writer, identity.username, hashed, keep=rules.password_history)
            await self._audit(writer, identity, "user.change_password", request_id)

    async def issue_password(self, actor: Actor) -> IssuedPassword:
        """A one-time password that the actor can give to somebody; hashing it is no work for whoever may not.

        Raises:
            ForbiddenError
        """
        actor.require("users", "write")
        password = new_password()
        return IssuedPassword(password=password, hashed=await self._passwords.hash(password))

    async def _audit(
        self,
        session: AsyncSession,
        identity: Identity,
        action: str,
        request_id: str,
        *,
        after: dict[str, object] | None = None,
    ) -> None:
        ctx = OpContext(actor=identity.actor, session=session, request_id=request_id, now=self._clock())
        target = f"user/{identity.user_id}"
        await append_entries(ctx, [Change(action=action, target=target, target_name=identity.username, after=after)])


async def step_up(ctx: OpContext, identity: Identity) -> SignIn:
    """Let the session of whoever just proved who they are do dangerous things for a while, under a new secret.

    Raises:
        ForbiddenError: An API token asks.
        NotFoundError: The session was ended meanwhile.
    """
    require_person(identity, "step up")
    record(ctx, Change("session.step_up", f"session/{identity.credential_id}", identity.username))
    return await rotate_session(ctx.session, identity, ctx.now)


def asker_of(identity: Identity) -> Asker:
    """Whose challenge it is: this session's and no other's."""
    return Asker(identity.user_id, identity.credential_id)


async def _judge_person(writer: AsyncSession, user: User, device: Device) -> tuple[FleetError | None, str]:
    """What speaks against somebody who has shown who they are, and the word for it in the history."""
    if user.disabled_at is not None or not await is_tenant_open(writer, user):
        return _wrong_credentials(), "disabled" if user.disabled_at is not None else "tenant_suspended"
    try:
        require_user_network(user.networks, device.address, user.username)
        (await read_package_policy(writer, user.client_id)).require_let_in(device.address, user.username)
    except ForbiddenError as error:
        return error, "network_refused"
    return None, ""


def _wrong_passkey() -> UnauthenticatedError:
    hint = "Begin again: each challenge is good once and for five minutes. Or use a password and a recovery code."
    return UnauthenticatedError("this passkey does not let anybody in", code="wrong_passkey", hint=hint)


def _wrong_link() -> UnauthenticatedError:
    hint = "A link is good once and for a minute: go back to where it came from and follow it again."
    return UnauthenticatedError("this link lets nobody in", code="wrong_link", hint=hint)


def _wrong_credentials() -> UnauthenticatedError:
    return UnauthenticatedError("user name or password is wrong", code="wrong_credentials")
