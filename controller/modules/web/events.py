"""Events of sites (controller.core.events.catalogue)."""

from __future__ import annotations

from typing import Final

from controller.core.events.catalogue import EventType, changes_of
from controller.modules.web.php_settings import PhpSettingsView
from controller.modules.web.views import SiteView

EVENTS: Final[tuple[EventType, ...]] = (
    *changes_of(
        "site",
        SiteView,
        {
            "create": "A site was made.",
            "update": "A site changed.",
            "delete": "A site is to be removed.",
            "retry": "A parked site is tried again.",
            "discard": "What the node has of a parked site is wanted again.",
        },
        is_for_tenants=True,
    ),
    *changes_of(
        "site",
        PhpSettingsView,
        {"set_php_settings": "A site's owner chose PHP settings for it."},
        is_for_tenants=True,
    ),
)
