"""Puts the streams of one process together: its own nodes' sessions, and the way to those of other processes."""

from __future__ import annotations

import socket

from controller.db.engine import Database
from controller.fleet.fleet import Fleet
from controller.fleet.signing.signer import Signer
from controller.fleet.streams.peers import PeerStreams
from controller.fleet.streams.router import Streams
from controller.settings import Settings


def make_streams(settings: Settings, database: Database, signer: Signer, fleet: Fleet) -> Streams:
    """The StreamRouter of this process; also lets other processes ask its gateway."""
    fleet.gateway.door.cluster_id = lambda: signer.cluster_id
    fleet.processes.find_address = lambda: peer_address(settings, fleet.gateway.port) if fleet.is_listening else ""
    streams = Streams(database, signer, fleet.gateway.find_streams)
    if not database.is_sqlite:  # on SQLite there is only this process
        streams.remote = PeerStreams(
            database,
            cluster_id=lambda: signer.cluster_id,
            certificate=lambda: fleet.server_certificate,
            read_ca_pem=fleet.read_ca_pem,
        )
    return streams


def peer_address(settings: Settings, port: int) -> str:
    """Where other processes of the controller reach this one's gateway."""
    return settings.internal_address or f"{socket.getfqdn()}:{port}"
