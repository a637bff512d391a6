"""What samples of nodes say of months: good ones, and whatever else a node may send."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from controller.core.usage.meters import MeterKey, parse_meters

NOW = datetime(2026, 11, 15, tzinfo=UTC)


def test_meters_of_a_sample_name_account_limit_month_and_source() -> None:
    gauges = {
        "accounts.ada.traffic_bytes.202611.7xf00": 5.0,
        "accounts.ada.traffic_bytes.202610.7xf00": 7.0,
        "accounts.ada.processor_seconds.202611.7xba4": 2.5,
        "accounts.ada.disk_bytes": 1.0,
    }

    assert parse_meters(gauges, NOW) == {
        "ada": {
            MeterKey("bandwidth_bytes", date(2026, 11, 1), "7xf00"): 5,
            MeterKey("bandwidth_bytes", date(2026, 10, 1), "7xf00"): 7,
            MeterKey("cpu_seconds", date(2026, 11, 1), "7xba4"): 2,
        }
    }


@pytest.mark.parametrize(
    "gauge",
    [
        "accounts.ada.traffic_bytes.202613.7xf00",
        "accounts.ada.traffic_bytes.202608.7xf00",
        "accounts.ada.traffic_bytes.202612.7xf00",
        "accounts.ada.traffic_bytes.2026-11.7xf00",
        "accounts.ada.traffic_bytes.202611.7xF00",
        "accounts.ada.traffic_bytes.202611.",
        f"accounts.ada.traffic_bytes.202611.7x{'a' * 21}",
        "accounts.ada.traffic_bytes.202611.7xf00.x",
        "accounts.ada.traffic_bytes.202611.f00",
        "accounts.ada.traffic_bytes.202611.0xf00",
        "accounts.ada.chairs.202611.7xf00",
        "nodes.ada.traffic_bytes.202611.7xf00",
    ],
)
def test_meters_when_a_gauge_makes_no_sense_leave_it_out(gauge: str) -> None:
    assert parse_meters({gauge: 5.0}, NOW) == {}


@pytest.mark.parametrize("value", [-1.0, 2.0**61])
def test_meters_when_a_value_cannot_be_leave_it_out(value: float) -> None:
    assert parse_meters({"accounts.ada.traffic_bytes.202611.7xf00": value}, NOW) == {}


def test_meters_when_a_clock_is_a_day_ahead_take_the_next_month() -> None:
    gauges = {"accounts.ada.traffic_bytes.202612.7xf00": 5.0}

    assert list(parse_meters(gauges, datetime(2026, 11, 30, 1, tzinfo=UTC))) == ["ada"]
