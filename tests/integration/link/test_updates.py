"""The link's part of an update, between a controller that serves bundles and an updater behind its socket."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from agent.link import updates
from agent.link.settings import AgentSettings
from agent.link.updates import Updates
from agent.update.server import UpdaterServer
from shared.protocol.frames import OfferUpdate
from shared.protocol.update import UpdateReport, UpdateState
from tests.faults.update_bench import OLD, UpdateNode, make_bundle, make_node
from tests.integration.link.gateway import wait_until
from tests.integration.link.pki import TestAuthority

NEW = "1.1.0-bbbbbbbbbbbb"
PATH = f"/bundle/releases/{NEW}.tar.gz"
BUNDLE = make_bundle(NEW, "1.1.0")


class BundleServer:
    """HTTPS with one file; `served` may be changed while it runs."""

    def __init__(self, authority: TestAuthority) -> None:
        self._authority = authority
        self.served: bytes | None = BUNDLE
        self.asked: list[str] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[BundleServer]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                if owner.served is None or self.path != PATH:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(owner.served)))
                self.end_headers()
                self.wfile.write(owner.served)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = self._authority.server_context(wants_client=False).wrap_socket(server.socket, server_side=True)
        self.url = f"https://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def server(authority: TestAuthority) -> Iterator[BundleServer]:
    with BundleServer(authority).running() as running:
        yield running


@pytest.fixture
def node(tmp_path: Path) -> UpdateNode:
    made = make_node(tmp_path / "node")
    made.paths.agent_state_dir.mkdir(parents=True)
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of patience are seconds here."""
    monkeypatch.setattr(updates, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(updates, "FETCH_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(updates, "FETCH_ATTEMPTS", 3)


@asynccontextmanager
async def running_updater(node: UpdateNode) -> AsyncIterator[str]:
    path = node.paths.root / "updater.sock"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    server = UpdaterServer(node.updater(), allowed_uids=frozenset({os.geteuid()}))
    task = asyncio.create_task(server.serve(listening, idle_seconds=30.0))
    try:
        yield str(path)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running_updates(
    node: UpdateNode, server: BundleServer, authority: TestAuthority, updater_socket: str
) -> AsyncIterator[tuple[Updates, list[UpdateReport]]]:
    settings = AgentSettings(
        controller_url=server.url, gateway_url="wss://localhost:1", ca_file=str(authority.ca_file), node_id="n1"
    )
    taker = Updates(settings, node.paths, updater_socket=updater_socket)
    reports: list[UpdateReport] = []

    async def keep(report: UpdateReport) -> bool:
        reports.append(report)
        return True

    task = asyncio.create_task(taker.run(keep))
    try:
        yield taker, reports
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def offer(node: UpdateNode, attempt_id: str = "attempt-1") -> OfferUpdate:
    release = node.publisher.sign(node.publisher.manifest(NEW, BUNDLE))
    return OfferUpdate(attempt_id=attempt_id, release=release, path=PATH)


async def test_offer_when_taken_is_fetched_handed_over_and_reported_once(
    node: UpdateNode, server: BundleServer, authority: TestAuthority
) -> None:
    async with running_updater(node) as path:
        async with running_updates(node, server, authority, path) as (taker, reports):
            taker.offer(offer(node))
            taker.offer(offer(node))  # offered again while it is being taken
            await wait_until(lambda: bool(reports))
        async with running_updates(node, server, authority, path) as (_, later):
            # A new process of the agent reads the same outcome, and knows that it was said.
            await asyncio.sleep(0.1)

    assert [(report.state, report.attempt_id) for report in reports] == [(UpdateState.UPDATED, "attempt-1")]
    assert later == []
    assert server.asked == [PATH]
    assert node.running == NEW
    assert not (node.paths.update_dir / "bundle.tar.gz").exists()


async def test_outcome_when_it_was_written_while_nobody_listened_is_reported_by_the_next_process(
    node: UpdateNode, server: BundleServer, authority: TestAuthority
) -> None:
    node.updater().note_running("attempt-7", OLD)

    async with running_updates(node, server, authority, "/nowhere") as (_, reports):
        await wait_until(lambda: bool(reports))

    assert reports[0].attempt_id == "attempt-7"


@pytest.mark.parametrize("served", [None, b"another bundle"], ids=["missing", "another"])
async def test_offer_when_the_bundle_cannot_be_had_is_reported_after_some_attempts(
    node: UpdateNode, server: BundleServer, authority: TestAuthority, served: bytes | None
) -> None:
    server.served = served
    async with running_updater(node) as path, running_updates(node, server, authority, path) as (taker, reports):
        taker.offer(offer(node))
        await wait_until(lambda: bool(reports))

    (report,) = reports
    assert report.error is not None
    assert (report.state, report.error.code) == (UpdateState.REFUSED, "bundle_unavailable")
    assert len(server.asked) == 3
    assert node.running == OLD


async def test_offer_when_the_updater_is_not_there_is_reported(
    node: UpdateNode, server: BundleServer, authority: TestAuthority
) -> None:
    async with running_updates(node, server, authority, str(node.paths.root / "no.sock")) as (taker, reports):
        taker.offer(offer(node))
        await wait_until(lambda: bool(reports))

    assert reports[0].error is not None and reports[0].error.code == "updater_unavailable"


async def test_offer_when_the_updater_refuses_is_reported_with_its_reason_and_the_next_is_taken(
    node: UpdateNode, server: BundleServer, authority: TestAuthority, tmp_path: Path
) -> None:
    stranger = make_node(tmp_path / "other").publisher
    forged = msgspec.structs.replace(offer(node, "forged"), release=stranger.sign(stranger.manifest(NEW, BUNDLE)))
    async with running_updater(node) as path, running_updates(node, server, authority, path) as (taker, reports):
        taker.offer(forged)
        await wait_until(lambda: len(reports) == 1)
        taker.offer(offer(node, "real"))
        await wait_until(lambda: len(reports) == 2)

    assert [(report.attempt_id, report.state) for report in reports] == [
        ("forged", UpdateState.REFUSED), ("real", UpdateState.UPDATED),
    ]  # fmt: skip
    assert reports[0].error is not None and reports[0].error.code == "bad_signature"


async def test_offer_when_its_attempt_has_ended_already_is_only_reported_again(
    node: UpdateNode, server: BundleServer, authority: TestAuthority
) -> None:
    """The controller offered it once more in a new session, before it had heard how it ended."""
    node.updater().note_running("attempt-1", OLD)
    async with running_updates(node, server, authority, "/nowhere") as (taker, reports):
        await wait_until(lambda: len(reports) == 1)
        taker.offer(offer(node, "attempt-1"))
        await wait_until(lambda: len(reports) == 2)

    assert [report.attempt_id for report in reports] == ["attempt-1", "attempt-1"]
    assert server.asked == []
