"""Who is asked for another certificate while the authority is being replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from controller.fleet.identity.renewal_wave import AGAIN_AFTER, RENEWALS_PER_SECOND, RenewalWave

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass
class Node:
    issuer: str = "ca"
    capability: int = 2
    renewal_asked_at: datetime | None = None
    asked: list[float] = field(default_factory=list)

    async def ask_to_renew(self, within_seconds: float) -> None:
        self.asked.append(within_seconds)


async def test_wave_asks_those_with_a_certificate_of_the_other_authority_that_understand_it() -> None:
    behind, done, too_old = Node(), Node(issuer="next"), Node(capability=1)

    await RenewalWave(lambda: [behind, done, too_old], clock=lambda: NOW).ask("next")

    assert [len(node.asked) for node in (behind, done, too_old)] == [1, 0, 0]


async def test_wave_asks_nobody_twice_in_a_row_and_again_after_a_while() -> None:
    node, now = Node(), NOW
    wave = RenewalWave(lambda: [node], clock=lambda: now)

    for _ in range(3):
        await wave.ask("next")
    once = len(node.asked)
    now = NOW + AGAIN_AFTER + timedelta(seconds=1)
    await wave.ask("next")

    assert (once, len(node.asked)) == (1, 2)


async def test_wave_gives_a_fleet_the_time_that_its_renewals_take() -> None:
    nodes = [Node() for _ in range(200)]

    await RenewalWave(lambda: nodes, clock=lambda: NOW).ask("next")

    assert {tuple(node.asked) for node in nodes} == {(200 / RENEWALS_PER_SECOND,)}
