"""Cross-site requests: what a foreign page makes a signed-in browser send must change nothing.

Source: Fetch Metadata (W3C, Sec-Fetch-Site), RFC 6454 (Origin); the cookie is SameSite=Lax besides.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from shared.errors import ForbiddenError

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def require_own_origin(
    scope: MutableMapping[str, Any], headers: Mapping[str, str], own_origin: str, *, is_signed_in: bool
) -> None:
    """Pass a request that changes nothing, and one that our own page sent.

    Args:
        scope: ASGI scope; a WebSocket always counts as unsafe, because browsers let any page open one.
        headers: Request headers.
        own_origin: The controller's public URL, for setups where a proxy rewrites Host.
        is_signed_in: True when the cookie is a session's; such a request must say where it comes from.

    Raises:
        ForbiddenError: Another site caused the request, or it does not say which one did.
    """
    if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
        return
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_foreign = (site is not None and site not in _OWN_SITES) or (
        origin is not None and not _is_own(origin, headers.get("host", ""), own_origin)
    )
    if is_foreign:
        raise ForbiddenError("this request came from another site", code="cross_site_request")
    if is_signed_in and site is None and origin is None:
        raise ForbiddenError(
            "a request with a session cookie must say its origin",
            code="cross_site_request",
            hint="Programs send the token as 'Authorization: Bearer ...' instead of the cookie.",
        )


def _is_own(origin: str, host: str, own_origin: str) -> bool:
    given = urlsplit(origin)
    expected = urlsplit(own_origin)
    if (given.scheme, given.netloc) == (expected.scheme, expected.netloc):
        return True
    return given.scheme == "https" and given.netloc == host
