"""A node that somebody works on repairs nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.link.outbox import Outbox
from agent.link.relay import Relay
from agent.link.spool import Spool
from shared.protocol.health import Quiet
from shared.protocol.local import RequestDrift
from tests.integration.link.executor import FakeExecutor

NOW = 1000.0


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


async def may_repair(relay: Relay, executor: FakeExecutor) -> bool:
    await relay.request_drift((), is_asked=False)
    frame = executor.of(RequestDrift)[-1]
    assert isinstance(frame, RequestDrift)
    return frame.may_repair


async def test_request_drift_while_it_is_quiet_forbids_repairs_until_its_end(spool: Spool) -> None:
    executor, now = FakeExecutor(), [NOW]
    relay = Relay(executor, spool, Outbox(), lambda: now[0])

    assert await may_repair(relay, executor)
    relay.be_quiet(Quiet(until=NOW + 60, reason="maintenance"))
    assert not await may_repair(relay, executor)
    now[0] = NOW + 61
    assert await may_repair(relay, executor)


async def test_request_drift_when_quiet_was_taken_back_may_repair(spool: Spool) -> None:
    executor = FakeExecutor()
    relay = Relay(executor, spool, Outbox(), lambda: NOW)
    relay.be_quiet(Quiet(until=NOW + 60))

    relay.be_quiet(Quiet(until=0.0))

    assert await may_repair(relay, executor)
