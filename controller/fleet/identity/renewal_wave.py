"""While the authority is being replaced: connected nodes are asked to come back with a certificate of the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from shared.protocol.renewal import MACHINE_CAPABILITY

AGAIN_AFTER: Final = timedelta(minutes=10)
"""A node that was asked and still shows the old certificate is asked again; its renewal may have failed."""
RENEWALS_PER_SECOND: Final = 20.0
"""Each costs two TLS handshakes, a signature and a new session."""


class Renewable(Protocol):
    """What is needed of a session (controller.fleet.gateway.session)."""

    @property
    def issuer(self) -> str: ...

    @property
    def capability(self) -> int: ...

    renewal_asked_at: datetime | None

    async def ask_to_renew(self, within_seconds: float) -> None: ...


class RenewalWave:
    """Asks the sessions of one process."""

    def __init__(self, list_sessions: Callable[[], Sequence[Renewable]], *, clock: Callable[[], datetime]) -> None:
        self._list_sessions = list_sessions
        self._clock = clock

    async def ask(self, issuer: str) -> None:
        """Ask everybody whose certificate is of another authority, unless that was done a moment ago."""
        now = self._clock()
        asked = [
            session
            for session in self._list_sessions()
            if session.issuer != issuer
            and session.capability >= MACHINE_CAPABILITY
            and (session.renewal_asked_at is None or now - session.renewal_asked_at > AGAIN_AFTER)
        ]
        for session in asked:
            session.renewal_asked_at = now
        within_seconds = len(asked) / RENEWALS_PER_SECOND
        await asyncio.gather(*(session.ask_to_renew(within_seconds) for session in asked))
