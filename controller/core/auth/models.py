"""Rows of people and of the secrets they hold."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.core.context import Role
from controller.db.base import Model, UtcDateTime, utc_now


class User(Model):
    """A person who signs in."""

    __tablename__ = "users"
    __table_args__ = (
        Index(
            "uq_users_email_live",
            "email",
            unique=True,
            sqlite_where=text("disabled_at IS NULL"),
            postgresql_where=text("disabled_at IS NULL"),
        ),
    )

    username: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    """argon2id in PHC format: the parameters travel with the hash."""
    role: Mapped[str] = mapped_column(String(16), default=Role.ADMIN.value)
    must_change_password: Mapped[bool] = mapped_column(Boolean, default=False)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reseller_id: Mapped[str | None] = mapped_column(ForeignKey("resellers.id", ondelete="RESTRICT"), index=True)
    """Of a reseller's people."""
    client_id: Mapped[str | None] = mapped_column(ForeignKey("clients.id", ondelete="RESTRICT"), index=True)
    """Of a client's people and team members."""
    role_id: Mapped[str | None] = mapped_column(ForeignKey("roles.id", ondelete="RESTRICT"), index=True)
    """Custom role that narrows what the role allows; None: all of it."""
    networks: Mapped[dict[str, list[str]] | None] = mapped_column(JSON(none_as_null=True))
    """`allow` and `deny`: where this person and their tokens may come from; None: the controller's own lists alone."""
    email: Mapped[str | None] = mapped_column(String(254))
    """In lower case. Of those who are not disabled, one has it."""


class Session(Model):
    """One sign-in of one user on one device."""

    __tablename__ = "sessions"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 in hex of the secret that only the browser or CLI has."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    address: Mapped[str] = mapped_column(String(64), default="")
    user_agent: Mapped[str] = mapped_column(String(200), default="")
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    """Exact to five minutes, as is `last_address`."""
    last_address: Mapped[str] = mapped_column(String(64), default="")
    verified_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    """When the person last proved who they are; dangerous acts ask for a recent proof."""
    has_second_factor: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the user has one. Kept here so that the statement of every request reads few tables."""
    needs_second_factor: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the package of an account asked for one when the session began."""
    is_by_link: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether a link let the person in: a password that somebody else has seen was not used, and binds nothing."""
    impersonator_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """The administrator who views as the user; None: the user's own."""
    impersonator_name: Mapped[str] = mapped_column(String(64), default="")


class ApiToken(Model):
    """A secret for programs, with its own scopes, that can be revoked alone."""

    __tablename__ = "api_tokens"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    allowed_networks: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """In CIDR notation; None: from everywhere."""
    use_count: Mapped[int] = mapped_column(BigInteger, default=0)
    last_address: Mapped[str] = mapped_column(String(64), default="")
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("api_tokens.id", ondelete="CASCADE"), index=True)
    """The token that made it, of the same user; this one is revoked with it. None: a person made it."""


class SecondFactor(Model):
    """The time-based codes of one user (RFC 6238)."""

    __tablename__ = "second_factors"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    """Encrypted by a key that is not in the database, so that a copy of the database makes no codes."""
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """None: begun, and not asked for until a first code proved that the person's device has the secret."""
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """Time step of the last code that was taken; neither it nor an older one is taken again."""


class RecoveryCode(Model):
    """A code for when the device is lost; good for one time."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignInAttempt(Model):
    """Somebody tried to sign in; `created_at` says when."""

    __tablename__ = "sign_in_attempts"
    __table_args__ = (
        Index("ix_sign_in_attempts_places", "user_id", "is_success", "network"),
        Index("ix_sign_in_attempts_names", "username", "id"),
        Index("ix_sign_in_attempts_created_at", "created_at"),
    )

    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    """None: nobody has this name. Such rows are written all the same, so that a name costs the same time as none."""
    username: Mapped[str] = mapped_column(String(64))
    is_success: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str] = mapped_column(String(32))
    address: Mapped[str] = mapped_column(String(64))
    network: Mapped[str] = mapped_column(String(64))
    """The address without its last part: /24 of IPv4, /48 of IPv6."""
    user_agent: Mapped[str] = mapped_column(String(200))
    signals: Mapped[list[str]] = mapped_column(JSON)
    """What was unusual about a success: new_network, new_device, impossible_pace."""
    is_unusual: Mapped[bool] = mapped_column(Boolean, default=False, index=True)


class PasswordHistory(Model):
    """A password that a user had before."""

    __tablename__ = "password_history"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    password_hash: Mapped[str] = mapped_column(String(255))


class SecurityPolicyRow(Model):
    """The one row of what an administrator decided about signing in; without it the defaults hold."""

    __tablename__ = "security_policies"

    second_factor_roles: Mapped[list[str]] = mapped_column(JSON)
    allowed_networks: Mapped[list[str]] = mapped_column(JSON)
    denied_networks: Mapped[list[str]] = mapped_column(JSON)


class PasswordReset(Model):
    """A link that was mailed to somebody who forgot their password; `created_at` counts the mails of an hour."""

    __tablename__ = "password_resets"
    __table_args__ = (Index("uq_password_resets_task_id_user_id", "task_id", "user_id", unique=True),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    task_id: Mapped[str] = mapped_column(String(36))
    """The task that mails it; a second try makes another secret in the same row."""
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Used, or replaced by a newer one, or the password was changed otherwise."""
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignInLink(Model):
    """A link that lets somebody in once; the row goes when it was used."""

    __tablename__ = "sign_in_links"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Passkey(Model):
    """A WebAuthn credential of one user: the public half of a key that never leaves their device."""

    __tablename__ = "passkeys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    credential_id: Mapped[str] = mapped_column(String(1400), unique=True)
    """In base64url; at most 1023 bytes (WebAuthn Level 3, section 4)."""
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    """In COSE."""
    sign_count: Mapped[int] = mapped_column(BigInteger)
    """Of the last signature; a device that does not count says 0 for ever."""
    is_backed_up: Mapped[bool] = mapped_column(Boolean)
    """Whether the device said that the key is in some cloud, and so on more devices."""
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PasskeyChallenge(Model):
    """What a device was asked to sign; good once."""

    __tablename__ = "passkey_challenges"

    challenge: Mapped[bytes] = mapped_column(LargeBinary)
    purpose: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    session_id: Mapped[str | None] = mapped_column(String(36))
    """Whose it is; None: of whoever signs in, whom nobody knows yet."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
