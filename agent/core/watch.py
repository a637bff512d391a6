"""How a running job hears that it should stop, and says how far it is."""

from __future__ import annotations

from collections.abc import Callable

from shared.errors import FleetError

Report = Callable[[int, int, str], None]


class CancelledByRequestError(FleetError):
    """Somebody asked the job to stop while it could still be taken back."""

    code = "cancelled"


class Watch:
    """One per running job. `report` gets done, total and a message."""

    def __init__(self, report: Report | None = None) -> None:
        self._report = report
        self._is_cancelled = False

    def cancel(self) -> None:
        """Stop at the next step."""
        self._is_cancelled = True

    def require_wanted(self) -> None:
        """Go on only while nobody asked to stop.

        Raises:
            CancelledByRequestError: Somebody did.
        """
        if self._is_cancelled:
            raise CancelledByRequestError("the job was cancelled")

    def tell(self, done: int, total: int, message: str) -> None:
        """Say how far it is."""
        if self._report is not None:
            self._report(done, total, message)
