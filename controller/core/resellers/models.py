"""Tables of resellers, beside the reseller itself (controller.core.tenancy.models)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
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
