"""The updater behind its socket: who may ask, what is said, and that bytes are counted and hashed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.update.server import UpdaterServer
from shared.protocol.release import SignedRelease
from shared.protocol.update import (
    LENGTH_BYTES,
    UpdateAnswer,
    UpdateRequest,
    UpdateState,
    decode_answer,
    decode_length,
    encode_message,
)
from tests.faults.update_bench import OLD, UpdateNode, make_bundle, make_node

NEW = "1.1.0-bbbbbbbbbbbb"
BUNDLE = make_bundle(NEW, "1.1.0")


@pytest.fixture
def node(tmp_path: Path) -> UpdateNode:
    return make_node(tmp_path / "node")


@asynccontextmanager
async def serving(node: UpdateNode, *, uids: frozenset[int] | None = None) -> AsyncIterator[Path]:
    """The server until it has nothing to do any more; the path of its socket."""
    path = node.paths.root / "updater.sock"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    server = UpdaterServer(node.updater(), allowed_uids=frozenset({os.geteuid()}) if uids is None else uids)
    task = asyncio.create_task(server.serve(listening, idle_seconds=0.05))
    try:
        yield path
        async with asyncio.timeout(20):
            await task
    finally:
        task.cancel()


async def read_answer(reader: asyncio.StreamReader) -> UpdateAnswer:
    return decode_answer(await reader.readexactly(decode_length(await reader.readexactly(LENGTH_BYTES))))


async def ask(path: Path, release: SignedRelease, bundle: bytes, *, attempt_id: str = "attempt-1") -> UpdateAnswer:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(encode_message(UpdateRequest(attempt_id=attempt_id, release=release)))
        answer = await read_answer(reader)
        if answer.wants_bundle:
            writer.write(bundle)
            answer = await read_answer(reader)
        return answer
    finally:
        writer.close()


async def test_updater_when_asked_for_a_good_release_takes_it(node: UpdateNode) -> None:
    async with serving(node) as path:
        answer = await ask(path, node.publisher.sign(node.publisher.manifest(NEW, BUNDLE)), BUNDLE)

    assert (answer.is_accepted, answer.error) == (True, None)
    assert node.running == NEW


async def test_updater_when_the_bytes_are_others_refuses_and_says_so(node: UpdateNode) -> None:
    changed = bytes([BUNDLE[0] ^ 1]) + BUNDLE[1:]
    async with serving(node) as path:
        answer = await ask(path, node.publisher.sign(node.publisher.manifest(NEW, BUNDLE)), changed)

    assert answer.error is not None and answer.error.code == "wrong_bundle"
    assert node.running == OLD
    outcome = node.updater().files.find_outcome()
    assert outcome is not None and outcome.state is UpdateState.REFUSED
    assert not node.updater().files.incoming.exists()


async def test_updater_when_the_signature_is_bad_refuses_before_the_bytes(node: UpdateNode, tmp_path: Path) -> None:
    stranger = make_node(tmp_path / "other").publisher
    async with serving(node) as path:
        answer = await ask(path, stranger.sign(stranger.manifest(NEW, BUNDLE)), b"")

    assert answer.error is not None and answer.error.code == "bad_signature"


async def test_updater_when_the_release_runs_already_says_that_it_is_there(node: UpdateNode) -> None:
    bundle = make_bundle(OLD, "1.0.0")
    async with serving(node) as path:
        answer = await ask(path, node.publisher.sign(node.publisher.manifest(OLD, bundle)), b"")

    assert answer.is_accepted
    outcome = node.updater().files.find_outcome()
    assert outcome is not None and (outcome.state, outcome.build) == (UpdateState.UPDATED, OLD)


async def test_updater_when_a_stranger_connects_hangs_up(node: UpdateNode) -> None:
    async with serving(node, uids=frozenset({os.geteuid() + 1})) as path:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(path, node.publisher.sign(node.publisher.manifest(NEW, BUNDLE)), BUNDLE)

    assert node.running == OLD


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff\xff", b"\x00\x00\x00\x04abcd", b"\x00\x00\x00\x10short"])
async def test_updater_when_asked_in_garbage_hangs_up_and_goes_on(node: UpdateNode, garbage: bytes) -> None:
    async with serving(node) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(garbage)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        answer = await ask(path, node.publisher.sign(node.publisher.manifest(NEW, BUNDLE)), BUNDLE)

    assert answer.is_accepted


async def test_updater_when_two_ask_at_once_takes_one_after_the_other(node: UpdateNode) -> None:
    release = node.publisher.sign(node.publisher.manifest(NEW, BUNDLE))
    async with serving(node) as path:
        answers = await asyncio.gather(
            ask(path, release, BUNDLE, attempt_id="one"), ask(path, release, BUNDLE, attempt_id="two")
        )

    assert [answer.is_accepted for answer in answers] == [True, True]
    assert node.running == NEW


async def test_updater_when_asked_again_for_an_attempt_that_went_back_does_nothing(node: UpdateNode) -> None:
    deaf = make_bundle(NEW, "1.1.0", extra={"agent/deaf.py": b""})
    release = node.publisher.sign(node.publisher.manifest(NEW, deaf))
    async with serving(node) as path:
        first = await ask(path, release, deaf)
    outcome = node.updater().files.find_outcome()
    (node.paths.root / "updater.sock").unlink()
    async with serving(node) as path:
        second = await ask(path, release, deaf)

    assert (first.is_accepted, second.is_accepted) == (True, True)
    assert outcome is not None and outcome.state is UpdateState.ROLLED_BACK
    assert node.updater().files.find_outcome() == outcome
