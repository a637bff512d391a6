"""Tables of resellers, beside the reseller itself (controller.core.tenancy.models)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class SuspendedAccount(Model):
    """An account that was suspended because its reseller was, so that exactly these come back."""

    __tablename__ = "reseller_suspended_accounts"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), unique=True, index=True)
    reseller_id: Mapped[str] = mapped_column(ForeignKey("resellers.id", ondelete="CASCADE"), index=True)
    since: Mapped[datetime]
    """When the reseller was suspended: which suspension it was."""
    suspended_at: Mapped[datetime]
    """When the account was. Somebody who lifted that and suspended it again meant something else."""


class ResellerBranding(Model):
    """What the clients of one reseller see instead of ours; empty and null: ours."""

    __tablename__ = "reseller_branding"

    reseller_id: Mapped[str] = mapped_column(ForeignKey("resellers.id", ondelete="CASCADE"), unique=True, index=True)
    name: Mapped[str] = mapped_column(String(120), default="")
    background_colour: Mapped[str | None] = mapped_column(String(7))
    text_colour: Mapped[str | None] = mapped_column(String(7))
    accent_colour: Mapped[str | None] = mapped_column(String(7))
    support_email: Mapped[str] = mapped_column(String(254), default="")
    support_url: Mapped[str] = mapped_column(String(300), default="")
    host: Mapped[str | None] = mapped_column(String(253), unique=True)
    """Name under which the panel is reached; the same face for whoever comes there."""
    logo: Mapped[bytes | None] = mapped_column(LargeBinary)
    logo_type: Mapped[str] = mapped_column(String(20), default="")
