"""Puts the webhooks of a controller together: catalogue, outbox, sender, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controller.core.events.catalogue import CORE_EVENTS, Catalogue, EventType
from controller.core.operations import Operations
from controller.core.reactions import Reactions
from controller.core.webhooks.delivery import FORGET_SECONDS, SWEEP_SECONDS, WebhookDeliveries
from controller.core.webhooks.outbox import Outbox
from controller.core.webhooks.sender import HttpSender, SenderByOwner
from controller.core.webhooks.targets import Targets, TargetsByOwner
from controller.db.engine import Database
from controller.jobs.schedules import Schedule, Schedules
from controller.jobs.tasks import Tasks
from controller.settings import Settings


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What handlers ask for."""

    catalogue: Catalogue
    targets: TargetsByOwner
    deliveries: WebhookDeliveries

    @property
    def dependencies(self) -> dict[str, Any]:
        """By the name of the handlers' parameter."""
        return {"catalogue": self.catalogue, "targets": self.targets}


def make_webhooks(
    settings: Settings, database: Database, operations: Operations, module_events: Iterable[EventType]
) -> Webhooks:
    """Everything but what connects it."""
    targets = TargetsByOwner(Targets(settings.webhook_allowed_networks), Targets(settings.webhook_tenant_networks))
    senders = SenderByOwner(HttpSender(targets.platform), HttpSender(targets.tenants))
    deliveries = WebhookDeliveries(database, operations, senders)
    return Webhooks(Catalogue((*CORE_EVENTS, *module_events)), targets, deliveries)


def connect_webhooks(
    webhooks: Webhooks, operations: Operations, reactions: Reactions, tasks: Tasks, schedules: Schedules
) -> None:
    """From now on each change and each result is written into the outbox, and the outbox is sent."""
    reactions.add(Outbox(tasks, webhooks.catalogue))
    operations.attach_tasks(tasks, webhooks.deliveries.kinds())

    async def sweep() -> str | None:
        return await webhooks.deliveries.sweep(tasks)

    schedules.add(Schedule(name="webhooks.send", every_seconds=SWEEP_SECONDS, run=sweep))
    schedules.add(Schedule(name="webhooks.forget", every_seconds=FORGET_SECONDS, run=webhooks.deliveries.forget_old))
