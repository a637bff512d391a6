"""Bodies that nobody needs, sent to a real server: refused before they cost memory, and the next caller is served."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Final

import httpx
import psutil
import pytest

from tests.integration.live import LiveController

MIB: Final = 2**20
HUGE: Final = 100 * MIB
CHUNK: Final = b"x" * MIB


def resident_bytes() -> int:
    rss: int = psutil.Process().memory_info().rss
    return rss


async def send_head(live: LiveController, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request by hand: a client library would wait for what we do not want to wait for."""
    address = httpx.URL(live.api_url)
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=live.tls)
    lines = [
        "POST /api/v1/clients HTTP/1.1",
        f"Host: {address.host}",
        f"Authorization: Bearer {live.admin_token}",
        "Content-Type: application/json",
        head,
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await writer.drain()
    return reader, writer


async def read_problem(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        length = int(head.partition("content-length: ")[2].split()[0])
        return status, json.loads(await reader.readexactly(length))


async def test_body_of_100_mb_when_announced_is_refused_before_any_of_it_arrives(
    live_controller: LiveController,
) -> None:
    reader, writer = await send_head(live_controller, f"Content-Length: {HUGE}")
    try:
        status, problem = await read_problem(reader)  # not a byte of the body was sent
    finally:
        writer.close()

    assert (status, problem["code"]) == (413, "payload_too_large")
    assert "2 MiB" in str(problem["hint"])


async def test_body_of_100_mb_without_a_length_is_cut_off_early_and_not_kept(live_controller: LiveController) -> None:
    before = resident_bytes()
    reader, writer = await send_head(live_controller, "Transfer-Encoding: chunked")
    sent = 0
    answer = asyncio.create_task(read_problem(reader))
    try:
        while sent < HUGE and not answer.done():
            writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            sent += len(CHUNK)
            try:
                async with asyncio.timeout(5):
                    await writer.drain()
            except (TimeoutError, ConnectionError, ssl.SSLError):
                break  # it does not read on
        status, problem = await answer
    finally:
        writer.transport.abort()

    assert (status, problem["code"]) == (413, "payload_too_large")
    assert sent < HUGE // 2
    assert resident_bytes() - before < 40 * MIB
    async with live_controller.client() as http:
        assert (await http.get("/api/v1/auth/me")).status_code == 200


async def test_body_of_100_mb_by_an_ordinary_client_is_refused(live_controller: LiveController) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(HUGE // MIB):
            yield CHUNK

    async with live_controller.client() as http:
        try:
            answer = await http.post("/api/v1/clients", content=chunks(), headers={"content-type": "application/json"})
        except httpx.TransportError:
            answer = None  # the server hung up while we were sending, which httpx does not forgive
        assert answer is None or answer.status_code == 413
        assert (await http.get("/api/v1/clients")).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("POST", "/tokens", "scopes"),
        ("PATCH", "/security", "denied_networks"),
        ("POST", "/accounts/bulk-package", "account_ids"),
    ],
)
async def test_array_of_a_million_items_is_refused_and_names_the_field(
    live_controller: LiveController, method: str, path: str, field: str
) -> None:
    required = {"/tokens": b'"name":"x",', "/accounts/bulk-package": b'"package_id":"x",'}.get(path, b"")
    body = b'{%b"%b":[%b1]}' % (required, field.encode(), b"1," * 999_999)
    texts = body.replace(b"1,", b'"",').replace(b"1]", b'""]')

    async with live_controller.client() as http:
        headers = {"content-type": "application/json"}
        numbers = await http.request(method, f"/api/v1{path}", content=body, headers=headers)
        long = await http.request(method, f"/api/v1{path}", content=texts, headers=headers)

    assert numbers.status_code == 400
    assert numbers.json()["errors"][0]["field"].startswith(field)
    assert (long.status_code, long.json()["code"]) == (413, "payload_too_large")
