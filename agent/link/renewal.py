"""When the node's certificate is renewed, and the timer that sees to it. What is said then: renewal_exchange.

Nothing here needs `cryptography`: it is imported when the first renewal is due (and then stays, 10 MB).
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agent.link.backoff import REVOKED_SECONDS, spread_interval_seconds, spread_window_seconds
from agent.link.certificate import Validity, parse_validity
from agent.link.dial import DialError
from agent.link.ending import EndKind, SessionEnd
from agent.link.settings import AgentSettings, NodePaths
from shared.errors import FleetError, InvalidInputError
from shared.protocol.enrolment import EnrolmentState
from shared.protocol.renewal import RENEW_AFTER_SHARE, RenewalReply

SPREAD_SHARE: Final = 0.1
"""Around half of the life, so that a fleet that was enrolled in one go does not renew in one go."""
LOOK_SECONDS: Final = 3600.0
"""How often it is tried once it is due. Also before: a clock that jumped or a machine that slept is noticed."""
_SOONEST_SECONDS: Final = 1.0

# The controller's stable codes for a node that it does not want. Source: docs/errors.md.
_REVOKED_CODES: Final = frozenset(("revoked", "certificate_unknown", "certificate_superseded", "wrong_machine"))
_TOO_LATE_CODE: Final = "certificate_expired"

Exchange = Callable[[AgentSettings, NodePaths], RenewalReply]
"""Gets the next certificate and puts it in its place; raises FleetError or OSError. Runs in a thread."""

_log = logging.getLogger(__name__)


def renewal_due_at(validity: Validity, chance: float) -> datetime:
    """When the half of the life is over, give or take a tenth of it. `chance` is uniform in [0, 1)."""
    share = RENEW_AFTER_SHARE + SPREAD_SHARE * (2 * chance - 1)
    return validity.not_before + share * (validity.not_after - validity.not_before)


def next_look_seconds(due_at: datetime, now: datetime, chance: float) -> float:
    """How long to wait before looking again: an hour with jitter, or until it is due if that is sooner."""
    hour_seconds = spread_interval_seconds(LOOK_SECONDS, chance)
    if due_at <= now:
        return hour_seconds
    return min(hour_seconds, max(_SOONEST_SECONDS, (due_at - now).total_seconds()))


def end_of_failed_renewal(expired: SessionEnd, error: Exception) -> SessionEnd:
    """What it means for the next attempt that an ended certificate could not be renewed."""
    code = str(error.context.get("code", "")) if isinstance(error, FleetError) else ""
    reason = error.message if isinstance(error, FleetError) else str(error)
    hint = f" ({error.hint})" if isinstance(error, FleetError) and error.hint else ""
    message = f"{expired.message}, and it could not be renewed: {reason}{hint}"
    if isinstance(error, PendingRenewalError):
        return SessionEnd(EndKind.EXPIRED, message, float(error.context["retry_after_seconds"]))
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return SessionEnd(EndKind.DISTRUST, message)
    if code in _REVOKED_CODES:
        return SessionEnd(EndKind.REVOKED, message)
    # Only an administrator can change that it is too late, so it is asked rarely; all else passes by itself.
    return SessionEnd(EndKind.EXPIRED, message, REVOKED_SECONDS if code == _TOO_LATE_CODE else None)


class PendingRenewalError(FleetError):
    """An administrator has to decide first: the certificate ended too long ago."""

    code = "renewal_pending"

    def __init__(self, reply: RenewalReply) -> None:
        words = f"it waits for approval; its six words are: {reply.fingerprint_words}"
        super().__init__(words, hint="wcp360 nodes approve", context={"retry_after_seconds": reply.retry_after_seconds})


class Renewer:
    """Keeps one node's certificate fresh. The present one stays in use until the next is on the disk."""

    def __init__(
        self,
        settings: AgentSettings,
        paths: NodePaths,
        *,
        exchange: Exchange | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._exchange = exchange or _exchange_for_real
        self._clock = clock
        self._chance = _chance()
        self._is_renewing = asyncio.Lock()

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            try:
                await self._renew_if(lambda validity: renewal_due_at(validity, self._chance))
            except (FleetError, OSError) as error:
                _log.warning("the node's certificate could not be renewed, trying again within the hour: %s", error)
            await asyncio.sleep(self._read_wait_seconds())

    async def renew_expired(self, expired: SessionEnd) -> None:
        """Renew a certificate that has ended; without one there is no session.

        Raises:
            DialError: It did not work; its end says when to try again.
        """
        try:
            await self._renew_if(lambda validity: validity.not_after)
        except (FleetError, OSError) as error:
            raise DialError(end_of_failed_renewal(expired, error)) from error

    async def renew_now(self, within_seconds: float) -> None:
        """Renew although it is not due, at a random moment within this time.

        Raises:
            FleetError, OSError: It did not work; the present certificate stays in use.
        """
        await asyncio.sleep(spread_window_seconds(within_seconds, _chance()))
        await self._renew_if(lambda validity: validity.not_before)

    async def _renew_if(self, due_at: Callable[[Validity], datetime]) -> None:
        async with self._is_renewing:
            # Looked at under the lock: the timer and an attempt to connect may both have found it due.
            if self._clock() < due_at(self._read_validity()):
                return
            reply = await asyncio.to_thread(self._exchange, self._settings, self._paths)
            if reply.state is EnrolmentState.PENDING:
                raise PendingRenewalError(reply)
            self._chance = _chance()
        _log.info("the node's certificate was renewed; it lasts until %s", self._read_validity().not_after)

    def _read_validity(self) -> Validity:
        return parse_validity(self._paths.node_pem.read_text(encoding="ascii", errors="replace"))

    def _read_wait_seconds(self) -> float:
        try:
            due_at = renewal_due_at(self._read_validity(), self._chance)
        except (OSError, InvalidInputError):
            return spread_interval_seconds(LOOK_SECONDS, _chance())
        return next_look_seconds(due_at, self._clock(), _chance())


def _exchange_for_real(settings: AgentSettings, paths: NodePaths) -> RenewalReply:
    from agent.link.renewal_exchange import renew_once  # noqa: PLC0415 - see the top

    return renew_once(settings, paths)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads a fleet in time, keeps no secret
