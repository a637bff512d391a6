"""What the link keeps of the executor's counts of homes."""

from __future__ import annotations

from typing import Any, cast

from agent.link.port import ExecutorPort
from agent.link.usage import UsageWatch
from shared.protocol.local import HomeUse, UsageFound


def found(*names: str, is_complete: bool = True) -> UsageFound:
    homes = tuple(HomeUse(account=name, disk_bytes=4096, inodes=2) for name in names)
    return UsageFound(homes=homes, is_complete=is_complete)


def watch() -> UsageWatch:
    return UsageWatch(cast("ExecutorPort", cast("Any", None)))


def test_gauges_when_homes_were_counted_name_each_account() -> None:
    usage = watch()

    usage.take(found("ada"))

    assert usage.gauges() == {"accounts.ada.disk_bytes": 4096.0, "accounts.ada.inodes": 2.0}


def test_gauges_when_a_round_was_too_short_keep_what_the_one_before_found() -> None:
    usage = watch()
    usage.take(found("ada", is_complete=False))
    usage.take(found("bob", is_complete=False))

    assert set(usage.gauges()) == {
        f"accounts.{name}.{word}" for name in ("ada", "bob") for word in ("disk_bytes", "inodes")
    }


def test_gauges_when_a_whole_round_no_longer_finds_an_account_forget_it() -> None:
    usage = watch()
    usage.take(found("ada", "bob"))

    usage.take(found("bob"))

    assert set(usage.gauges()) == {"accounts.bob.disk_bytes", "accounts.bob.inodes"}
