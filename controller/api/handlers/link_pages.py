"""The pages that links open, of a mail or of a billing system: a form and a script; the panels will have their own.

The token stands behind the `#` of the address, so each page is the same for everybody and the token never comes here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from litestar import Response, get
from litestar.params import FromPath

from controller.api.guards import PUBLIC
from shared.errors import NotFoundError

_STATIC: Final = Path(__file__).parent.parent / "static"
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_FILES: Final = {
    "icon.svg": "image/svg+xml",
    "link-page.css": "text/css",
    "link-page.js": "text/javascript",
    "reset-password.js": "text/javascript",
    "sign-in.js": "text/javascript",
}
"""What the pages may load; nothing else of the folder."""


@get("/reset-password", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def show_reset_page() -> Response[bytes]:
    """Choose another password, by a mailed link; without one, ask for the mail."""
    return _answer("reset-password.html")


@get("/sign-in", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def show_sign_in_page() -> Response[bytes]:
    """Sign in, by a link of a billing system."""
    return _answer("sign-in.html")


@get("/link-pages/{file_name:str}", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def read_page_file(file_name: FromPath[str]) -> Response[bytes]:
    """A script, the style or the icon of these pages."""
    media_type = _FILES.get(file_name)
    if media_type is None:
        raise NotFoundError("there is no such file")
    return Response((_STATIC / file_name).read_bytes(), media_type=media_type)


def _answer(page: Literal["reset-password.html", "sign-in.html"]) -> Response[bytes]:
    headers = {"content-security-policy": _PAGE_POLICY}
    return Response((_STATIC / page).read_bytes(), media_type="text/html", headers=headers)


ROUTES = (show_reset_page, show_sign_in_page, read_page_file)
