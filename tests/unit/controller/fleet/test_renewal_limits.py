"""How often certificates are renewed from one address and with one certificate."""

from __future__ import annotations

import pytest

from controller.api.errors import RateLimitedError
from controller.api.handlers.enrolment import RenewalLimits


async def test_renewals_of_a_fleet_behind_one_address_pass() -> None:
    limits = RenewalLimits()

    for number in range(400):
        await limits.require("192.0.2.1", f"certificate {number}")


async def test_renewals_with_one_certificate_from_everywhere_are_slowed_down() -> None:
    limits = RenewalLimits()
    for number in range(5):
        await limits.require(f"192.0.2.{number}", "certificate")

    with pytest.raises(RateLimitedError):
        await limits.require("192.0.2.9", "certificate")
