"""Every route of the API: a new file of handlers is one line here."""

from __future__ import annotations

from typing import Final

from controller.api.handlers import (
    account_life,
    accounts,
    attention,
    audit,
    authority,
    billing,
    bulk_accounts,
    bulk_packages,
    clients,
    controller_maintenance,
    domains,
    drift,
    enrolment,
    jobs,
    logs,
    maintenance,
    modules,
    nodes,
    package_rollouts,
    package_versions,
    packages,
    parked,
    passkeys,
    password_reset,
    releases,
    reset_page,
    rollouts,
    schedules,
    settings,
    tasks,
    usage,
    webhooks,
)
from controller.modules.ssh import api as ssh_api
from controller.modules.web import api as web_api

API_ROUTES: Final = (
    *password_reset.ROUTES,
    *passkeys.ROUTES,
    *packages.ROUTES,
    *package_versions.ROUTES,
    *package_rollouts.ROUTES,
    *bulk_packages.ROUTES,
    *usage.ROUTES,
    *clients.ROUTES,
    *accounts.ROUTES,
    *account_life.ROUTES,
    *bulk_accounts.ROUTES,
    *domains.ROUTES,
    *web_api.ROUTES,
    *ssh_api.ROUTES,
    *nodes.ROUTES,
    *enrolment.ROUTES,
    *jobs.ROUTES,
    *logs.ROUTES,
    *drift.ROUTES,
    *modules.ROUTES,
    *maintenance.ROUTES,
    *controller_maintenance.ROUTES,
    *parked.ROUTES,
    *attention.ROUTES,
    *audit.ROUTES,
    *authority.ROUTES,
    *schedules.ROUTES,
    *settings.ROUTES,
    *tasks.ROUTES,
    *releases.ROUTES,
    *rollouts.ROUTES,
    *webhooks.ROUTES,
    *billing.ROUTES,
)
"""Below /api/v1."""
ROOT_ROUTES: Final = (*enrolment.ROOT_ROUTES, *releases.ROOT_ROUTES, *reset_page.ROUTES)
"""At the root."""
