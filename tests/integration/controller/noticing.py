"""A controller that mails notices to a real server, with the clock in the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.auth.models import User
from controller.core.context import SYSTEM, Actor, Change
from controller.core.mail.sender import Mailer
from controller.core.notices.collector import MailTerms, NoticeCollector
from controller.core.notices.delivery import NoticeDeliveries
from controller.core.notices.models import Notice, NoticeMail
from controller.core.operations import FleetContext
from controller.db.base import utc_now
from controller.fleet.models import Node, NodeState
from controller.jobs.tasks import TaskRun
from controller.mail_setup import make_mailer
from tests.integration.controller.people import World
from tests.integration.smtp_server import Inbox

URL = "https://controller.test:8360"


@dataclass
class Post:
    """What tells people, as bootstrap builds it but for the clock."""

    world: World
    inbox: Inbox
    mailer: Mailer
    per_hour_max: int = 20
    late_by: timedelta = field(default_factory=timedelta)

    @property
    def controller(self) -> Controller:
        return self.world.controller

    @property
    def clock(self) -> Callable[[], datetime]:
        return lambda: utc_now() + self.late_by

    @property
    def terms(self) -> MailTerms:
        return MailTerms(is_configured=True, give_up_after=timedelta(hours=72), per_hour_max=self.per_hour_max)

    @property
    def collector(self) -> NoticeCollector:
        return NoticeCollector(self.controller.operations, self.controller.tasks, self.terms, clock=self.clock)

    @property
    def deliveries(self) -> NoticeDeliveries:
        return NoticeDeliveries(
            self.controller.database,
            self.mailer,
            self.terms,
            controller_url=URL,
            keep=timedelta(days=180),
            clock=self.clock,
        )

    async def deliver(self, **later: float) -> None:
        """Read the log, let so much time pass, and send what is due."""
        await self.collector.run()
        self.late_by += timedelta(**later)
        await self.deliveries.run(TaskRun(task_id="test", args={}, attempts=1))

    def to(self, address: str) -> list[Any]:
        """The mails that this address got, oldest first."""
        pairs = zip(self.inbox.mails, self.inbox.recipients, strict=True)
        return [mail for mail, recipients in pairs if address in recipients]

    def told(self) -> list[str]:
        """Who got mails, once for each, in order."""
        return sorted(address for recipients in self.inbox.recipients for address in recipients)

    async def tell(self, action: str, target: str, name: str, *, actor: Actor = SYSTEM, **states: Any) -> None:
        """Something that the audit log says, as its use case would."""

        async def use_case(ctx: FleetContext) -> None:
            record(ctx, Change(action, target, name, **states))

        await self.controller.operations.change(actor, "test", use_case)

    async def add_account(self, name: str = "shop", *, whose: str = "ours") -> str:
        """An account of a client; nothing runs it."""
        body = {"name": f"Package of {name}"}
        package = await self.world.ask("root", "POST", "/packages", body, expect=201)
        async with self.controller.database.write() as session:
            node = (await session.scalars(select(Node).limit(1))).first()
            if node is None:
                node = Node(name="node1", state=NodeState.ACTIVE, machine_id_hash="0" * 64, sealing_public_key=b"")
                session.add(node)
                await session.flush()
            count = len((await session.scalars(select(Account.id))).all())
            row = Account(
                name=name,
                client_id=self.world.ids[f"{whose} client"],
                package_id=package["id"],
                node_id=node.id,
                uid=20_000 + count,
            )
            session.add(row)
        return row.id

    async def rows(self, model: Any, *conditions: Any) -> list[Any]:
        async with self.controller.database.read() as session:
            return list(await session.scalars(select(model).where(*conditions).order_by(model.id)))

    async def notices_of(self, username: str) -> list[Notice]:
        return await self.rows(Notice, Notice.user_id == self.world.ids[username])

    async def mails_to(self, address: str) -> list[NoticeMail]:
        return await self.rows(NoticeMail, NoticeMail.address == address)


def address_of(username: str) -> str:
    return f"{username}@example.com"


async def open_post(world: World, inbox: Inbox) -> Post:
    """Everybody has an address, and what happened so far was told."""
    async with world.controller.database.write() as session:
        for user in await session.scalars(select(User)):
            await session.execute(
                update(User).where(User.id == user.id).values(email=address_of(user.username)),
                execution_options={"synchronize_session": False},
            )
    post = Post(world, inbox, make_mailer(world.controller.settings))
    await post.collector.run()
    return post
