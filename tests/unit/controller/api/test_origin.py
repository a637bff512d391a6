"""Which requests another site may have caused."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.origin import require_own_origin
from shared.errors import ForbiddenError

OWN = "https://panel.example.com:8360"
HOST = {"host": "10.0.0.1:8360"}


def scope(method: str = "POST", kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": method}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_origin_of_a_request_that_changes_nothing_does_not_matter(method: str) -> None:
    require_own_origin(scope(method), {"origin": "https://evil.example"} | HOST, OWN, is_signed_in=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": OWN},
        {"origin": "https://10.0.0.1:8360"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": OWN},
    ],
)
def test_origin_of_our_own_page_passes(headers: dict[str, str]) -> None:
    require_own_origin(scope(), headers | HOST, OWN, is_signed_in=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://panel.example.com"},
        {"origin": "http://10.0.0.1:8360"},
        {"origin": "https://10.0.0.1:8360@evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "origin": OWN},
    ],
)
@pytest.mark.parametrize("is_signed_in", [True, False])
def test_origin_of_another_site_is_refused(headers: dict[str, str], is_signed_in: bool) -> None:
    with pytest.raises(ForbiddenError):
        require_own_origin(scope(), headers | HOST, OWN, is_signed_in=is_signed_in)


def test_origin_when_missing_is_refused_with_a_session_only() -> None:
    require_own_origin(scope(), HOST, OWN, is_signed_in=False)

    with pytest.raises(ForbiddenError):
        require_own_origin(scope(), HOST, OWN, is_signed_in=True)


def test_origin_of_a_websocket_always_matters() -> None:
    with pytest.raises(ForbiddenError):
        require_own_origin(scope("GET", "websocket"), {"origin": "https://evil.example"}, OWN, is_signed_in=False)
