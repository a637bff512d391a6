"""Talking to systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.link.watchdog import GRACE_SECONDS, Pulse, ServiceNotifier, watchdog_interval_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pulse_when_step_comes_in_time_is_not_late() -> None:
    clock = Clock()
    pulse = Pulse(clock)

    pulse.expect_within(300.0)
    clock.now = 300.0 + GRACE_SECONDS

    assert not pulse.is_late


def test_pulse_when_step_does_not_come_is_late() -> None:
    clock = Clock()
    pulse = Pulse(clock)

    pulse.expect_within(300.0)
    clock.now = 301.0 + GRACE_SECONDS

    assert pulse.is_late


def test_notifier_sends_what_systemd_reads(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = ServiceNotifier(str(tmp_path / "notify"))

        notifier.ready()
        notifier.status("connected\nto all")
        notifier.alive()

        assert [receiver.recv(300) for _ in range(3)] == [b"READY=1", b"STATUS=connected to all", b"WATCHDOG=1"]


def test_notifier_when_systemd_is_gone_does_not_stop_the_agent(tmp_path: Path) -> None:
    ServiceNotifier(str(tmp_path / "nobody")).alive()
    ServiceNotifier(None).alive()


@pytest.mark.parametrize(
    ("value", "expected"), [("60000000", 30.0), (None, None), ("", None), ("0", None), ("soon", None)]
)
def test_watchdog_interval_is_half_of_what_systemd_waits(value: str | None, expected: float | None) -> None:
    assert watchdog_interval_seconds(value) == expected
