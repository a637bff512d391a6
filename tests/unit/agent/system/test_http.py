from __future__ import annotations

import socket
import threading
from pathlib import Path

from agent.system.http import http_get


def serve_once(path: Path, answer: bytes) -> tuple[threading.Thread, list[bytes]]:
    """A server that answers one request with these bytes."""
    asked: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def answer_once() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            asked.append(connection.recv(65536))
            connection.sendall(answer)

    thread = threading.Thread(target=answer_once, daemon=True)
    thread.start()
    return thread, asked


def test_http_get_when_server_answers_returns_status_and_start(tmp_path: Path) -> None:
    body = b"x" * 5000
    head = f"HTTP/1.1 503 Busy\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    thread, asked = serve_once(tmp_path / "s", head + body)

    fact = http_get("shop.example", "/index", socket_path=tmp_path / "s")

    thread.join(timeout=10)
    assert fact is not None
    assert (fact.status, len(fact.body_start)) == (503, 1000)
    assert asked[0].startswith(b"GET /index HTTP/1.1\r\nHost: shop.example\r\n")


def test_http_get_when_nothing_listens_is_none(tmp_path: Path) -> None:
    assert http_get("shop.example", "/", socket_path=tmp_path / "none") is None


def test_http_get_when_the_answer_is_no_http_is_none(tmp_path: Path) -> None:
    thread, _ = serve_once(tmp_path / "s", b"nonsense\r\n\r\n")

    assert http_get("shop.example", "/", socket_path=tmp_path / "s") is None
    thread.join(timeout=10)
