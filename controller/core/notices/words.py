"""The words of notices; pure. What somebody typed stays on the line where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

TITLE_MAX: Final = 150
LINE_MAX: Final = 600
_NOT_YOU: Final = (
    "If this was not you: choose another password now (wcp360 auth change-password), end the other sessions "
    "(wcp360 sessions revoke-other), revoke tokens that you do not know, and tell your administrator."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One entry of the audit log."""

    action: str
    at: datetime
    actor: str
    """kind/ID."""
    actor_name: str
    address: str
    """Where the actor's request came from; empty: unknown."""
    target: str
    name: str
    """Of the target."""
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is told."""

    title: str
    what: str
    """Whole sentences."""
    items: tuple[str, ...] = ()
    """A list below it."""
    todo: str = ""
    """What the reader may do about it."""


def one_line(text: object, limit: int = LINE_MAX) -> str:
    """The text without what could end its line or move a terminal's cursor."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def render_time(at: datetime) -> str:
    """For people, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def render_text(words: Words, happening: Happening, *, is_own: bool) -> str:
    """What the inbox shows, and a mail about this alone says.

    Args:
        words: Of the template.
        happening: When and by whom.
        is_own: Whether the reader did it, or somebody in their name: only then it says from where. Where an
            administrator sits is no business of tenants.
    """
    items = [f"- {one_line(item)}" for item in words.items]
    lines = [
        one_line(words.what),
        *items,
        "",
        f"When: {render_time(happening.at)}",
        f"By: {one_line(happening.actor_name)}",
    ]
    if is_own and happening.address:
        lines.append(f"From: {one_line(happening.address)}")
    if words.todo:
        lines += ["", f"What to do: {one_line(words.todo)}"]
    return "\n".join(lines) + "\n"


def of_sign_in(it: Happening) -> Words | None:
    """Nothing is said about a sign-in as usual."""
    signals = it.after.get("signals")
    if not isinstance(signals, list) or not signals:
        return None
    known = {
        "new_network": "from a network that you did not use before",
        "new_device": "with a device that you did not use before",
        "impossible_pace": "from elsewhere sooner than anybody travels",
    }
    said = ", ".join(known.get(str(signal), str(signal)) for signal in signals)
    return Words(title=f"Unusual sign-in as {it.name}", what=f"Somebody signed in as {it.name}, {said}.", todo=_NOT_YOU)


def of_password(it: Happening) -> Words:
    how = {
        "user.change_password": "was changed",
        "user.reset_password": "was replaced by a one-time password, which an administrator knows",
        "user.reset_password_by_mail": "was changed by a link that was sent by mail",
    }[it.action]
    return Words(title=f"Password of {it.name} changed", what=f"The password of {it.name} {how}.", todo=_NOT_YOU)


def of_factor(it: Happening) -> Words:
    key = one_line(it.after.get("name") or it.before.get("name") or "", 64)
    what = {
        "user.enable_second_factor": "Sign-ins ask for a second factor from now on",
        "user.disable_second_factor": "The second factor was switched off",
        "user.reset_second_factor": "An administrator removed the second factor and all passkeys",
        "user.renew_recovery_codes": "There are other recovery codes; the old ones are worthless",
        "user.add_passkey": f'The passkey "{key}" was added',
        "user.delete_passkey": f'The passkey "{key}" was removed',
    }[it.action]
    return Words(title=f"Sign-in of {it.name} changed", what=f"{what} ({it.name}).", todo=_NOT_YOU)


def of_email(it: Happening) -> Words:
    old, new = it.before.get("email") or "none", it.after.get("email") or "none"
    return Words(
        title=f"E-mail address of {it.name} changed",
        what=f"Mails for {it.name} went to {old} and go to {new} now.",
        todo=_NOT_YOU,
    )


def of_networks(it: Happening) -> Words:
    def show(key: str) -> str:
        values = it.after.get(key)
        return ", ".join(str(value) for value in values) if isinstance(values, list) and values else "none"

    what = f"Where {it.name} may sign in from changed. Allowed: {show('allow')}; denied: {show('deny')}."
    return Words(title=f"Networks of {it.name} changed", what=what, todo="If you did not expect it, ask who did it.")


def of_role(it: Happening) -> Words | None:
    """Of the change of a person, only what they may do is told."""
    keys = ("role", "role_id")
    if all(it.before.get(key) == it.after.get(key) for key in keys):
        return None
    role = it.after.get("role")
    what = f"The role of {it.name} is {role} now."
    return Words(
        title=f"Role of {it.name} changed", what=what, todo="See: wcp360 auth show-me. If it is wrong, ask for it."
    )


def of_view(it: Happening) -> Words:
    reason, until = it.after.get("reason", ""), it.after.get("expires_at", "")
    return Words(
        title=f"An administrator views as {it.name}",
        what=f"{it.actor_name} began to see and use the panel as {it.name}. Reason: {reason}. It ends at {until}.",
        todo="What was done is in your audit log (wcp360 audit list). If you did not ask for help, ask why.",
    )


def of_token(it: Happening) -> Words:
    scopes = it.after.get("scopes")
    may = ", ".join(str(scope) for scope in scopes) if isinstance(scopes, list) else "?"
    until = it.after.get("expires_at") or "never"
    return Words(
        title=f"API token {it.name} made",
        what=f'The API token "{it.name}" was made. It may: {may}. It expires: {until}.',
        todo=f"If you did not make it, revoke it: wcp360 tokens revoke {it.target.partition('/')[2]}. {_NOT_YOU}",
    )


def of_limit(it: Happening) -> Words:
    limit, used = it.after.get("limit", "?"), it.after.get("used", "?")
    hard, soft = it.after.get("hard"), it.after.get("soft")
    state = {"account.over_limit": "over", "account.near_limit": "near"}.get(it.action, "within")
    bound = hard if state == "over" or soft is None else soft
    what = f"The account {it.name} uses {used} of {bound if bound is not None else 'any number'} ({limit})."
    if state == "within":
        return Words(title=f"{it.name} is within its limit again: {limit}", what=what)
    todo = f"Use less, or ask for a larger package. See: wcp360 accounts list-usage {it.target.partition('/')[2]}."
    return Words(title=f"{it.name} is {state} its limit: {limit}", what=what, todo=todo)


def of_throttle(it: Happening) -> Words:
    if it.action == "account.unthrottle":
        return Words(title=f"{it.name} runs at full speed again", what=f"The account {it.name} is throttled no more.")
    return Words(
        title=f"{it.name} is throttled",
        what=f"The account {it.name} was over a limit for too long and gets less of its server's time now.",
        todo="Use less, or ask for a larger package; the throttling then ends by itself.",
    )


def of_suspension(it: Happening) -> Words:
    if it.action == "account.unsuspend":
        return Words(title=f"{it.name} serves again", what=f"The suspension of the account {it.name} was lifted.")
    reason = it.after.get("suspension_reason") or "none was given"
    lifter, until = it.after.get("liftable_by"), it.after.get("suspended_until")
    ends = f" It ends by itself at {until}." if until else ""
    who = {
        "policy": "Come back within the limits; the suspension is then lifted by itself.",
        "client": "You may lift it yourself: wcp360 accounts unsuspend.",
        "reseller": "Whoever sold you the account can lift it; ask them.",
    }.get(str(lifter), "The administrators of the platform can lift it; ask who sold you the account.")
    return Words(
        title=f"{it.name} was suspended",
        what=f"The account {it.name} was suspended and serves nothing. Reason: {reason}.{ends}",
        todo=who,
    )


def of_deletion(it: Happening) -> Words:
    if it.action == "account.restore":
        return Words(title=f"{it.name} was restored", what=f"The account {it.name} was taken out of the trash.")
    if it.action == "account.certify_deletion":
        return Words(
            title=f"{it.name} is gone",
            what=f"The account {it.name} and everything in it was removed. This cannot be undone.",
            todo=f"The certificate of deletion is number {it.after.get('certificate_id', '?')}.",
        )
    end = it.after.get("purge_at") or "any moment"
    return Words(
        title=f"{it.name} will be deleted",
        what=f"The account {it.name} was deleted. It serves nothing, and at {end} everything in it goes for good.",
        todo=f"Until then it can be had back: wcp360 accounts restore {it.target.partition('/')[2]}.",
    )


def of_reseller(it: Happening) -> Words:
    if it.action == "reseller.unsuspend":
        return Words(title=f"{it.name} may sell again", what=f"The suspension of the reseller {it.name} was lifted.")
    reason = it.after.get("suspension_reason") or "none was given"
    return Words(
        title=f"{it.name} was suspended",
        what=f"The reseller {it.name} was suspended. Reason: {reason}.",
        todo="Ask the administrators of the platform.",
    )


def of_rollout(it: Happening) -> Words:
    reason = it.after.get("reason") or it.after.get("halt_reason") or "see the rollout"
    return Words(
        title=f"Rollout {it.name} stopped",
        what=f"The rollout {it.name} stopped by itself: {reason}.",
        todo=f"See: wcp360 rollouts show {it.target.partition('/')[2]}. Then resume or abort it.",
    )
