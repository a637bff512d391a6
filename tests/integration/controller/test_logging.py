"""Logs are JSON lines that belong together by ids and hold no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

from controller.logs import configure_logging
from tests.integration.conftest import ADMIN, PASSWORD


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    text = io.StringIO()
    configure_logging("info", "json", text)
    yield text
    configure_logging("warning", "json")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_access_log_has_route_status_and_id_but_no_secret(
    anonymous_client: httpx.AsyncClient, stream: io.StringIO
) -> None:
    login = await anonymous_client.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD})
    await anonymous_client.get("/api/v1/tokens?cursor=private-looking")

    first, second = [line for line in lines(stream) if line["logger"] == "controller.access"]
    assert (first["method"], first["route"], first["status"]) == ("POST", "/api/v1/auth/login", 200)
    assert first["request_id"] == login.headers["x-request-id"]
    assert second["actor"].startswith("user/")
    assert second["duration_ms"] >= 0
    ours = json.dumps([line for line in lines(stream) if line["logger"] != "httpx"])  # httpx is the test's own client
    for secret in (PASSWORD, login.json()["token"], "private-looking"):
        assert secret not in ours


@pytest.mark.parametrize(
    ("verbosity", "logged"),
    [
        ("all", ["GET 200", "POST 201", "GET 404"]),
        ("changes", ["POST 201", "GET 404"]),
        ("failures", ["GET 404"]),
        ("none", []),
    ],
)
async def test_access_log_has_as_much_as_the_policy_says(
    client: httpx.AsyncClient, stream: io.StringIO, verbosity: str, logged: list[str]
) -> None:
    changed = await client.patch("/api/v1/policies", json={"api_log": verbosity})
    stream.truncate(0)
    stream.seek(0)

    await client.get("/api/v1/auth/me")
    await client.post("/api/v1/packages", json={"name": "Small"})
    await client.get("/api/v1/accounts/nonsense")

    found = [line for line in lines(stream) if line["logger"] == "controller.access"]
    assert changed.status_code == 200
    assert [f"{line['method']} {line['status']}" for line in found if "policies" not in line["route"]] == logged


async def test_library_log_goes_the_same_way_with_the_ids_of_the_context(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(job_id="job-1", request_id="request-1"):
        logging.getLogger("some.library").warning("disk %s is full", "sda")

    (line,) = lines(stream)
    assert line["message"] == "disk sda is full"
    assert line["level"] == "warning"
    assert (line["job_id"], line["request_id"]) == ("job-1", "request-1")


async def test_log_of_an_odd_value_is_still_a_json_line(stream: io.StringIO) -> None:
    structlog.get_logger("test").info("odd", value={object}, raw=b"\xff")

    assert lines(stream)[0]["message"] == "odd"
