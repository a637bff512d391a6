"""Labels of accounts, and the note that administrators keep about one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete

from controller.core.accounts import store
from controller.core.accounts.models import Account, AccountLabel
from controller.core.accounts.views import AccountNote
from controller.core.audit.chain import record
from controller.core.context import Actor, Change, OpContext, Role
from controller.core.operations import FleetContext
from shared.errors import ForbiddenError, InvalidInputError

MAX_LABELS: Final = 32
MAX_VALUE_LENGTH: Final = 200
MAX_NOTE_LENGTH: Final = 2000
_KEY: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?")
_NOTE_BREAKS: Final = "\n\t"


def require_label_key(raw: str, *, field: str = "labels") -> str:
    """The key if it is one.

    Raises:
        InvalidInputError: It is none.
    """
    if not _KEY.fullmatch(raw):
        raise InvalidInputError(
            f"{raw[:63]!r} is not a label: up to 63 lower-case letters, digits and inner . _ / -", field=field
        )
    return raw


def require_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels in the order of their keys, if each is a key with one line of text.

    Raises:
        InvalidInputError: There are more than MAX_LABELS, or one is not as it must be; `field` names it.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"an account has at most {MAX_LABELS} labels", field="labels")
    for key, value in labels.items():
        require_label_key(key)
        if len(value) > MAX_VALUE_LENGTH or not value.isprintable():
            raise InvalidInputError(
                f"a label's value has at most {MAX_VALUE_LENGTH} printable characters", field=f"labels.{key}"
            )
    return dict(sorted(labels.items()))


async def set_labels(ctx: FleetContext, account: Account, labels: Mapping[str, str]) -> None:
    """Give the account exactly these labels: the one place that writes them.

    Raises:
        InvalidInputError: They break the rules.
    """
    account.labels = require_labels(labels)
    account.updated_at = ctx.now
    await ctx.session.flush()
    await ctx.session.execute(delete(AccountLabel).where(AccountLabel.account_id == account.id))
    for key, value in account.labels.items():
        ctx.session.add(AccountLabel(account_id=account.id, key=key, value=value, created_at=ctx.now))
    await ctx.session.flush()


def may_see_notes(actor: Actor) -> bool:
    """Notes are what administrators tell each other."""
    return actor.role in (Role.ROOT, Role.ADMIN)


async def show_note(ctx: OpContext, account_id: str) -> AccountNote:
    """The note about the account; empty when there is none.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    _require_administrator(ctx.actor)
    return AccountNote(text=(await store.get_account(ctx.session, account_id)).note)


async def set_note(ctx: FleetContext, account_id: str, params: AccountNote) -> AccountNote:
    """Write the note anew. The audit log says that it was written, and not what: tenants read their part of the log.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("accounts", "write")
    _require_administrator(ctx.actor)
    account = await store.lock_account(ctx.session, account_id)
    text = params.text.replace("\r\n", "\n").strip()
    if len(text) > MAX_NOTE_LENGTH or not all(char.isprintable() or char in _NOTE_BREAKS for char in text):
        raise InvalidInputError(f"a note has at most {MAX_NOTE_LENGTH} characters that can be shown", field="text")
    if text == account.note:
        return AccountNote(text=text)
    before, account.note, account.updated_at = account.note, text, ctx.now
    await ctx.session.flush()
    change = Change(
        "account.set_note",
        f"account/{account.id}",
        account.name,
        before={"note_length": len(before)},
        after={"note_length": len(text)},
    )
    record(ctx, change)
    return AccountNote(text=text)


def _require_administrator(actor: Actor) -> None:
    if not may_see_notes(actor):
        raise ForbiddenError("notes about accounts are for administrators", context={"permission": "accounts:note"})
