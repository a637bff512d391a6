"""What a session keeps while its node says nothing: with ten thousand of them, most of a gateway's memory.

Much of it leans on what CPython and websockets do not document, so these tests look inside: when one of them fails,
every idle node costs more again (see controller/fleet/gateway/tls.py).
"""

from __future__ import annotations

from typing import get_args

import pytest

from controller.fleet.gateway.session import NodeSession
from controller.fleet.gateway.tls import TLS_BUFFER_BYTES
from shared.errors import AgentOfflineError
from shared.protocol.frames import ToController
from tests.integration.fleet.bench import FleetBench
from tests.integration.live import wait_until


async def test_sessions_share_one_small_read_buffer(bench: FleetBench) -> None:
    sessions = [await (await bench.enrol(name=name)).connect() for name in ("web1", "web2")]

    inner = [line._connection.transport._ssl_protocol for line in bench.fleet.gateway.sessions]  # type: ignore[attr-defined] # CPython's own affair
    buffers = [protocol.get_buffer(-1).obj for protocol in inner]

    assert len(buffers) == 2
    assert buffers[0] is buffers[1]
    assert len(buffers[0]) == TLS_BUFFER_BYTES
    for session in sessions:
        await session.close()


async def test_session_keeps_nothing_of_its_handshakes(bench: FleetBench) -> None:
    session = await (await bench.enrol()).connect()

    (line,) = bench.fleet.gateway.sessions
    connection = line._connection

    assert connection.request is not None  # without one websockets would take the next frame for a request
    assert not connection.request.headers
    assert connection.response is None
    assert not connection.transport.get_extra_info("peercert")
    assert connection.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await session.close()


async def test_session_has_no_streams_until_somebody_asks(bench: FleetBench) -> None:
    session = await (await bench.enrol()).connect()

    (line,) = bench.fleet.gateway.sessions

    assert line._streams is None
    assert line.streams is line.streams
    await session.close()


async def test_streams_asked_for_after_the_session_are_of_a_node_that_is_offline(bench: FleetBench) -> None:
    session = await (await bench.enrol()).connect()
    (line,) = bench.fleet.gateway.sessions
    _, grant = await bench.fleet.gateway.trust_bundle()
    await session.close()
    await wait_until(lambda: not bench.fleet.gateway.sessions)

    with pytest.raises(AgentOfflineError):
        await line.streams.open(grant)


def test_session_reacts_to_every_frame_of_an_agent() -> None:
    assert NodeSession._REACTIONS.keys() == set(get_args(ToController))
