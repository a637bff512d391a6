"""Events of SSH keys (controller.core.events.catalogue)."""

from __future__ import annotations

from typing import Final

from controller.core.events.catalogue import EventType, changes_of
from controller.modules.ssh.views import SshKeyView

EVENTS: Final[tuple[EventType, ...]] = changes_of(
    "ssh_key",
    SshKeyView,
    {
        "create": "A key opens an account.",
        "update": "A key has another name or end.",
        "delete": "A key opens its account no more.",
        "expire": "The time of a key is over, and its node forgets it.",
    },
    is_for_tenants=True,
)
