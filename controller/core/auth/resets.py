"""A forgotten password: a link by mail, good once and for half an hour.

Whoever asks learns nothing: a task of the same shape is written for any name, and only the task looks whether somebody
has it. The secret is made by the task at the moment of sending, so it is in the mail and nowhere else; at rest is its
SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.identities import Standing, reach_of, require_user_network
from controller.core.auth.models import PasswordReset, User
from controller.core.auth.passwords import Passwords
from controller.core.auth.policy import require_let_in
from controller.core.auth.secrets import RESET_PREFIX, hash_secret, new_secret
from controller.core.auth.service import Authenticator
from controller.core.auth.users import end_resets, read_former, replace_password
from controller.core.context import SYSTEM, Actor, Change, Role
from controller.core.mail.message import Mail
from controller.core.mail.sender import Mailer, MailRefusedError
from controller.core.operations import FleetContext, Operations
from controller.db.base import utc_now
from controller.jobs.tasks import TaskKind, TaskRun
from shared.errors import ConflictError, InvalidInputError, UnavailableError

RESET_TASK: Final = "mail.password-reset"
VALID_FOR: Final = timedelta(minutes=30)
MAILS_PER_HOUR: Final = 3
"""To one person, whoever asks and how often: nobody's mailbox is filled by strangers."""
ATTEMPTS_MAX: Final = 10
"""A quarter of an hour and more, which outlasts the greylisting of most servers."""

_TEXT: Final = """Somebody, hopefully you, wants to choose another password for {username} at {controller}.

Open this within 30 minutes; it works once:

{controller}/reset-password#{secret}

Without a browser: wcp360 auth confirm-password-reset --token -
(the token is what follows the # above)

If it was not you, do nothing: your password stays as it is.
"""


class PasswordResets:
    """Everything about such links.

    Args:
        operations: Runs the changes.
        passwords: Hashes and judges.
        authenticator: Knows what holds for addresses and passwords.
        mailer: Sends the link.
        controller_url: Where the link leads.
        clock: The time.
    """

    def __init__(
        self,
        operations: Operations,
        passwords: Passwords,
        authenticator: Authenticator,
        mailer: Mailer,
        *,
        controller_url: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._operations = operations
        self._passwords = passwords
        self._policies = authenticator.policies
        self._rules = authenticator.rules
        self._mailer = mailer
        self._controller_url = controller_url
        self._clock = clock

    @property
    def is_possible(self) -> bool:
        """Whether this controller sends mails."""
        return self._mailer.is_configured

    def kinds(self) -> tuple[TaskKind, ...]:
        """For the controller's tasks."""
        return (TaskKind(name=RESET_TASK, run=self.run, attempts_max=ATTEMPTS_MAX),)

    async def ask(self, name: str, address: str, request_id: str) -> None:
        """Somebody forgot the password of this user name or e-mail address; the same is done for any.

        Raises:
            UnavailableError: This controller sends no mails.
            ForbiddenError: Nobody may come from this address.
        """
        require_let_in(await self._policies.current(), address)
        self._require_mailer()
        wanted = name.strip().lower()
        key = f"{RESET_TASK} {hashlib.sha256(wanted.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
        nobody = Actor(kind="anonymous", id="-", name="somebody", role=Role.CLIENT, scopes=frozenset(), address=address)

        async def use_case(ctx: FleetContext) -> None:
            await ctx.later(RESET_TASK, {"name": wanted, "address": address[:64]}, dedup_key=key)

        await self._operations.change(nobody, request_id, use_case)

    async def request_reset(self, ctx: FleetContext, user: User) -> None:
        """Let a link be mailed to somebody, as an administrator.

        Raises:
            ForbiddenError
            UnavailableError: This controller sends no mails.
            ConflictError: The person is disabled, or has no e-mail address.
        """
        ctx.actor.require("users", "write")
        self._require_mailer()
        if user.disabled_at is not None or user.email is None:
            reason = "has no e-mail address" if user.email is None else "is disabled"
            raise ConflictError(f"{user.username} {reason}", hint="On the controller: wcpd reset-password NAME.")
        await ctx.later(RESET_TASK, {"user_id": user.id, "address": ctx.actor.address[:64]})
        record(ctx, Change("user.request_password_reset", f"user/{user.id}", user.username))

    async def run(self, run: TaskRun) -> str | None:
        """The task: mail a link to whom the name belongs, if to anybody. What it returns does not say to whom."""
        async with self._operations.database.read() as session:
            wanted = select(User.id).where(User.disabled_at.is_(None), User.email.is_not(None))
            if "user_id" in run.args:
                wanted = wanted.where(User.id == run.args["user_id"])
            else:
                # A name may look like somebody else's address: each of the two gets a link for their own.
                wanted = wanted.where(or_(User.username == run.args["name"], User.email == run.args["name"]))
            user_ids = list(await session.scalars(wanted))
        notes = [await self._mail(run, user_id) for user_id in user_ids]
        return "; ".join(notes) or "nobody to mail to"

    async def _mail(self, run: TaskRun, user_id: str) -> str:
        async def use_case(ctx: FleetContext) -> Mail | None:
            return await self._prepare(ctx, run, user_id)

        mail = (await self._operations.change(SYSTEM, f"task/{run.task_id}", use_case)).resource
        if mail is None:
            return "mailed enough to this person"
        try:
            await self._mailer.send(mail)
        except MailRefusedError as error:
            return error.message
        sent = update(PasswordReset).where(PasswordReset.task_id == run.task_id, PasswordReset.user_id == user_id)
        async with self._operations.database.write() as session:
            await session.execute(sent.values(sent_at=self._clock()), execution_options={"synchronize_session": False})
        return "mailed"

    async def _prepare(self, ctx: FleetContext, run: TaskRun, user_id: str) -> Mail | None:
        """The mail with a new secret, whose hash is stored; None: there is nothing to mail (any more)."""
        user = await ctx.session.get(User, user_id, populate_existing=True, with_for_update=True)
        if user is None or user.disabled_at is not None or user.email is None:
            return None
        mine = (PasswordReset.user_id == user_id, PasswordReset.task_id == run.task_id)
        row = (await ctx.session.scalars(select(PasswordReset).where(*mine))).one_or_none()
        if row is None:
            if await _count_recent(ctx.session, user_id, ctx.now) >= MAILS_PER_HOUR:
                return None
            row = PasswordReset(user_id=user_id, task_id=run.task_id)
            after = {"address": run.args.get("address", "")}
            record(ctx, Change("user.send_password_reset", f"user/{user.id}", user.username, after=after))
        elif row.sent_at is not None or row.ended_at is not None:
            return None
        await end_resets(ctx.session, user_id, ctx.now, but_for=row.id or "")
        old = delete(PasswordReset).where(
            PasswordReset.user_id == user_id, PasswordReset.created_at < ctx.now - timedelta(days=1)
        )
        await ctx.session.execute(old, execution_options={"synchronize_session": False})
        secret = new_secret(RESET_PREFIX)
        row.secret_hash, row.expires_at = hash_secret(secret), ctx.now + VALID_FOR
        ctx.session.add(row)
        await ctx.session.flush()
        text = _TEXT.format(username=user.username, controller=self._controller_url, secret=secret)
        return Mail(to=user.email, subject="Choose another password", text=text)

    async def confirm(self, token: str, password: str, address: str, request_id: str) -> None:
        """Give the owner of this link the new password, and end all their sessions. Nobody is signed in by it.

        Raises:
            InvalidInputError: The link was used, replaced, is too old or none (`reset_link_invalid`), or the password
                is too weak or was used before; the link is good for another try then.
            ForbiddenError: The controller or the user does not let this address in.
        """
        require_let_in(await self._policies.current(), address)
        rules = await self._rules.current()
        hashed_token = hash_secret(token)
        async with self._operations.database.read() as session:
            user = await _find_owner(session, hashed_token, self._clock())
            former = await read_former(session, user.id, rules.password_history) if user is not None else []
        if user is None:
            raise _dead_link()
        require_user_network(user.networks, address, user.username)
        words = [user.username, *(user.email or "").split("@")]
        await self._passwords.require_strong(password, rules, words=words, field="password")
        await self._passwords.require_new(password, [user.password_hash, *former], field="password")
        hashed = await self._passwords.hash(password)
        username, user_id = user.username, user.id

        async def use_case(ctx: FleetContext) -> None:
            live = update(PasswordReset).where(
                PasswordReset.secret_hash == hashed_token,
                PasswordReset.ended_at.is_(None),
                PasswordReset.expires_at > ctx.now,
            )
            used = await ctx.session.execute(
                live.values(ended_at=ctx.now), execution_options={"synchronize_session": False}
            )
            if not isinstance(used, CursorResult) or used.rowcount != 1:
                raise _dead_link()
            await replace_password(ctx.session, username, hashed, keep=rules.password_history)
            record(ctx, Change("user.reset_password_by_mail", f"user/{user_id}", username))

        owner = _as_owner(user, address)
        await self._operations.change(owner, request_id, use_case)

    def _require_mailer(self) -> None:
        if not self._mailer.is_configured:
            raise UnavailableError(
                "this controller sends no mails",
                code="mail_not_configured",
                hint="An operator runs `wcpd reset-password NAME` on the controller, or sets smtp_host.",
            )


def _as_owner(user: User, address: str) -> Actor:
    """Who follows the link: a tenant's people, too, change nobody but themselves by it."""
    reach = reach_of(user.id, Standing(user.role, user.reseller_id, user.client_id, None))
    return Actor(
        kind="user", id=user.id, name=user.username, role=Role(user.role), reach=reach, user_id=user.id, address=address
    )


async def _find_owner(session: AsyncSession, hashed_token: str, now: datetime) -> User | None:
    statement = (
        select(User)
        .join(PasswordReset, PasswordReset.user_id == User.id)
        .where(
            PasswordReset.secret_hash == hashed_token,
            PasswordReset.ended_at.is_(None),
            PasswordReset.expires_at > now,
            User.disabled_at.is_(None),
        )
    )
    return (await session.scalars(statement)).one_or_none()


async def _count_recent(session: AsyncSession, user_id: str, now: datetime) -> int:
    recent = select(func.count()).select_from(PasswordReset).where(
        PasswordReset.user_id == user_id, PasswordReset.created_at > now - timedelta(hours=1)
    )  # fmt: skip
    return (await session.execute(recent)).scalar_one()


def _dead_link() -> InvalidInputError:
    return InvalidInputError(
        "this link was used or replaced, or is too old",
        field="token",
        code="reset_link_invalid",
        hint="Ask for another one: wcp360 auth request-password-reset.",
    )
