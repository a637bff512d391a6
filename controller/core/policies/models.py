"""The table of what an administrator decided."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class PlatformPolicyRow(Model):
    """One policy that is not as it is by default; `updated_at` says since when."""

    __tablename__ = "platform_policies"

    name: Mapped[str] = mapped_column(String(64), unique=True)
    """A field of PlatformPolicies; one that this release does not have is left alone."""
    value: Mapped[Any] = mapped_column(JSON)
    changed_by: Mapped[str] = mapped_column(String(200))
    """Name of whoever decided it last."""
