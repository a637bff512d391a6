"""The pace at which agents' connections come in."""

from __future__ import annotations

import asyncio
import socket

import pytest

from controller.fleet.gateway.listener import Pace, drain_seconds, has_hung_up, open_listener


def test_pace_lets_a_few_in_at_once_and_then_spreads_them() -> None:
    pace = Pace(per_second=100)

    waits = [pace.take(1000.0) for _ in range(125)]

    assert waits[:25] == [0.0] * 25
    assert waits[-1] == pytest.approx(1.0)


def test_pace_after_a_quiet_time_has_its_burst_again_and_no_more() -> None:
    pace = Pace(per_second=100)
    for _ in range(125):
        pace.take(1000.0)

    waits = [pace.take(2000.0) for _ in range(30)]

    assert waits[:25] == [0.0] * 25
    assert waits[-1] > 0.0


def test_drain_window_is_as_long_as_the_return_takes() -> None:
    assert drain_seconds(10_000, per_second=150, at_least=5.0) == pytest.approx(83.3, abs=0.1)
    assert drain_seconds(3, per_second=150, at_least=5.0) == 5.0


async def test_listener_takes_what_comes_and_says_where_it_is() -> None:
    served = asyncio.Queue[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.put_nowait((await reader.readline()).decode())
        writer.close()

    listener = await open_listener("127.0.0.1", 0, per_second=1000)
    server = await asyncio.start_server(serve, sock=listener)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        for number in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{number}\n".encode())
            await reader.read()  # who hangs up before they were let in is passed over
            writer.close()
        said = {await served.get() for _ in range(20)}
        server.close()
        await server.wait_closed()

    assert said == {f"{number}\n" for number in range(20)}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def test_listener_knows_who_hung_up_with_words_still_unread() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"client hello")
        assert not has_hung_up(here)
        there.close()
        assert has_hung_up(here)


async def test_listener_while_the_database_is_crowded_lets_them_in_one_by_one_and_shuts_nobody_out() -> None:
    asked = 0
    served = asyncio.Queue[bytes]()

    def is_crowded() -> bool:
        nonlocal asked
        asked += 1
        return True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.put_nowait(await reader.readline())
        writer.close()

    listener = await open_listener("127.0.0.1", 0, per_second=1000, is_crowded=is_crowded)
    server = await asyncio.start_server(serve, sock=listener)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x\n")
            await reader.read()
            writer.close()
        said = [await served.get() for _ in range(3)]
        server.close()
        await server.wait_closed()

    assert said == [b"x\n"] * 3
    assert asked > 3 * 2, "each waited for the crowd to go"
