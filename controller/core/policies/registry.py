"""Every policy there is: a field with its type, range, default and unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.errors import InvalidInputError, NotFoundError

SIGN_IN: Final = "sign-in"
PASSWORDS: Final = "passwords"
SESSIONS: Final = "sessions"
ACCOUNTS: Final = "accounts"
RETENTION: Final = "retention"
LOGGING: Final = "logging"
READERS: Final = "readers"
TOKENS: Final = "tokens"

_SECURITY: Final = frozenset({SIGN_IN, PASSWORDS, SESSIONS})
"""Groups that decide how hard it is to become somebody else."""
PolicyValue = int | bool | str | None


def _says(
    description: str,
    *,
    group: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    is_sensitive: bool = False,
) -> Meta:
    return Meta(
        description=f"{description} In {unit}." if unit else description,
        ge=low,
        le=high,
        extra={"group": group, "unit": unit, "is_sensitive": is_sensitive or group in _SECURITY},
    )


class PlatformPolicies(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for everybody. Each default is what this release considers right for most."""

    login_attempts_pair: Annotated[
        int,
        _says("Wrong passwords of one user from one address at once.", group=SIGN_IN, unit="attempts", low=3, high=100),
    ] = 5
    login_seconds_pair: Annotated[
        int, _says("Then one of one user from one address each.", group=SIGN_IN, unit="seconds", low=1, high=600)
    ] = 3
    login_attempts_address: Annotated[
        int,
        _says(
            "Wrong passwords of all users from one address at once.", group=SIGN_IN, unit="attempts", low=5, high=1000
        ),
    ] = 30
    login_seconds_address: Annotated[
        int, _says("Then one from one address each.", group=SIGN_IN, unit="seconds", low=1, high=600)
    ] = 1
    login_attempts_user: Annotated[
        int,
        _says(
            "Wrong passwords of one user at once, from all networks that they never signed in from.",
            group=SIGN_IN, unit="attempts", low=3, high=1000,
        ),
    ] = 10  # fmt: skip
    login_seconds_user: Annotated[
        int, _says("Then one of one user from such networks each.", group=SIGN_IN, unit="seconds", low=1, high=3600)
    ] = 6
    login_attempts_code: Annotated[
        int, _says("Wrong codes of a second factor at once.", group=SIGN_IN, unit="attempts", low=3, high=10)
    ] = 5
    login_seconds_code: Annotated[
        int, _says("Then one code each; a code is six digits.", group=SIGN_IN, unit="seconds", low=30, high=3600)
    ] = 60
    step_up_minutes: Annotated[
        int, _says("How long a proof is good for dangerous acts.", group=SIGN_IN, unit="minutes", low=1, high=1440)
    ] = 15
    password_length_min: Annotated[
        int, _says("Of a password that somebody chooses.", group=PASSWORDS, unit="characters", low=12, high=64)
    ] = 12
    password_history: Annotated[
        int, _says("So many former passwords are refused.", group=PASSWORDS, unit="passwords", low=0, high=24)
    ] = 5
    password_refuses_known: Annotated[
        bool, _says("Refuse passwords that are on lists of known ones, or easily made of such.", group=PASSWORDS)
    ] = True
    session_hours: Annotated[
        int,
        _says("A sign-in ends after this, however busy it is; counts for those that there are.", group=SESSIONS,
              unit="hours", low=1, high=720),
    ] = 12  # fmt: skip
    session_idle_minutes: Annotated[
        int,
        _says("A session that nobody used ends after this; null: only by its age.", group=SESSIONS, unit="minutes",
              low=5, high=43_200),
    ] | None = None  # fmt: skip
    sessions_max: Annotated[
        int,
        _says("Sessions of one person; one more ends their oldest.", group=SESSIONS, unit="sessions", low=1, high=1000),
    ] = 10
    tokens_max: Annotated[
        int,
        _says("API tokens of one person that neither ended nor were revoked.", group=TOKENS, unit="tokens", low=1,
              high=1000),
    ] = 100  # fmt: skip
    deletion_grace_days: Annotated[
        int,
        _says("How long a deleted account can be restored, when the deletion does not say.",
              group=ACCOUNTS, unit="days", low=1, high=365, is_sensitive=True),
    ] = 7  # fmt: skip
    deletion_grace_days_max: Annotated[
        int, _says("The longest that a deletion may say.", group=ACCOUNTS, unit="days", low=1, high=365)
    ] = 90
    job_retention_days: Annotated[
        int,
        _says("Jobs that ended well are forgotten after so long; what needs attention stays.", group=RETENTION,
              unit="days", low=1, high=3650),
    ] = 90  # fmt: skip
    task_retention_days: Annotated[
        int, _says("Finished tasks of the controller itself.", group=RETENTION, unit="days", low=1, high=365)
    ] = 7
    usage_retention_days: Annotated[
        int, _says("What accounts used day by day; billing reads it.", group=RETENTION, unit="days", low=62, high=3650)
    ] = 400
    sign_in_retention_days: Annotated[
        int,
        _says("The history of sign-ins; networks and devices are known by it.", group=RETENTION, unit="days", low=30,
              high=3650, is_sensitive=True),
    ] = 365  # fmt: skip
    api_usage_hours_retention_days: Annotated[
        int,
        _says("How the API was used, hour by hour, and from where.", group=RETENTION, unit="days", low=1, high=3650),
    ] = 90
    api_usage_retention_days: Annotated[
        int, _says("How the API was used, day by day.", group=RETENTION, unit="days", low=1, high=3650)
    ] = 400
    webhook_retention_days: Annotated[
        int, _says("Deliveries of webhooks that ended.", group=RETENTION, unit="days", low=1, high=365)
    ] = 30
    audit_retention_days: Annotated[
        int,
        _says("Entries of the audit log are moved into archives after so long; null: never.", group=RETENTION,
              unit="days", low=1, high=36_500, is_sensitive=True),
    ] | None = None  # fmt: skip
    api_log: Annotated[
        Literal["all", "changes", "failures", "none"],
        _says("Which requests are in the access log: all; all that may change something or failed; those that failed; "
              "none. The audit log and the figures of the API's use do not depend on it.", group=LOGGING,
              is_sensitive=True),
    ] = "all"  # fmt: skip
    readers_user_max: Annotated[
        int,
        _says("Of one person at once, in each process of the API: news, logs that are followed, exports.",
              group=READERS, unit="readers", low=1, high=1000),
    ] = 20  # fmt: skip
    readers_tenant_max: Annotated[
        int,
        _says("Of all people of one reseller or client at once, in each process of the API.",
              group=READERS, unit="readers", low=1, high=10_000),
    ] = 200  # fmt: skip
    readers_max: Annotated[
        int,
        _says("Of everybody at once, in each process of the API. People of the platform are counted and not refused.",
              group=READERS, unit="readers", low=1, high=50_000),
    ] = 4000  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyKind:
    """What there is to know about one policy, beside its value."""

    name: str
    group: str
    type: Literal["integer", "boolean", "text"]
    unit: str
    description: str
    default: PolicyValue
    minimum: int | None
    maximum: int | None
    choices: tuple[str, ...]
    is_nullable: bool
    is_sensitive: bool
    """Whether a change needs a proof of who one is."""

    @property
    def noun(self) -> str:
        """Whoever may write nouns of this kind may change it."""
        return "security" if self.is_sensitive else "policies"


def _list_kinds() -> dict[str, PolicyKind]:
    hints = get_type_hints(PlatformPolicies, include_extras=True)
    defaults = PlatformPolicies()
    return {name: _kind_of(name, hints[name], getattr(defaults, name)) for name in PlatformPolicies.__struct_fields__}


def _kind_of(name: str, hint: Any, default: PolicyValue) -> PolicyKind:
    is_nullable = get_origin(hint) is Union
    kind, meta = get_args(get_args(hint)[0] if is_nullable else hint)
    says: Mapping[str, Any] = meta.extra
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return PolicyKind(
        name=name,
        group=says["group"],
        type="text" if choices else "boolean" if kind is bool else "integer",
        unit=says["unit"],
        description=meta.description,
        default=default,
        minimum=meta.ge,
        maximum=meta.le,
        choices=choices,
        is_nullable=is_nullable,
        is_sensitive=says["is_sensitive"],
    )


KINDS: Final[Mapping[str, PolicyKind]] = MappingProxyType(_list_kinds())


def _update_fields() -> list[tuple[str, Any, Any]]:
    """Each policy as the body of a change may have it, or not."""
    hints = get_type_hints(PlatformPolicies, include_extras=True)
    return [(name, hint | UnsetType, UNSET) for name, hint in hints.items()]


if TYPE_CHECKING:

    class PlatformPoliciesUpdate(msgspec.Struct, frozen=True, kw_only=True):
        """What shall be different: any fields of PlatformPolicies."""

else:
    PlatformPoliciesUpdate = msgspec.defstruct(
        "PlatformPoliciesUpdate",
        _update_fields(),
        module=__name__,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": "What shall be different; what is left out stays as it is."},
    )


def get_kind(name: str) -> PolicyKind:
    """One policy.

    Raises:
        NotFoundError: There is none of this name.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise NotFoundError(f"there is no policy {name[:64]!r}", hint="GET /api/v1/policies, or: wcp360 policies list.")
    return kind


def require_consistent(policies: PlatformPolicies) -> None:
    """Pass when no policy makes nonsense of another one.

    Raises:
        InvalidInputError: `policy_conflict`: two do; `errors` names both.
    """
    for low, high, why in _NOT_MORE:
        below, above = getattr(policies, low), getattr(policies, high)
        if below is not None and above is not None and below * _SCALE.get(low, 1) > above * _SCALE.get(high, 1):
            raise InvalidInputError(
                f"{low} ({below}) is more than {high} ({above}) allows: {why}",
                field=low,
                code="policy_conflict",
                hint=f"Change {low} and {high} together, in one request.",
            )


_SCALE: Final = {"session_hours": 60}
"""Hours, compared with minutes."""
_NOT_MORE: Final = (
    ("login_attempts_pair", "login_attempts_address", "an address counts all its users"),
    ("login_attempts_pair", "login_attempts_user", "a user is counted from all addresses"),
    ("session_idle_minutes", "session_hours", "a session would end by its age before"),
    ("step_up_minutes", "session_hours", "a proof does not outlive the session"),
    ("deletion_grace_days", "deletion_grace_days_max", "the default would be refused if somebody said it"),
    ("api_usage_hours_retention_days", "api_usage_retention_days", "days are the sums of their hours"),
    ("readers_user_max", "readers_tenant_max", "a tenant counts all its people"),
    ("readers_tenant_max", "readers_max", "everybody counts all tenants"),
)
"""The first is at most the second, and why."""
