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
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/link-pages/link-page.css">
</head>
<body>
<main>
<h1>{title}</h1>
{form}
</main>
<script src="/link-pages/{script}"></script>
</body>
</html>
"""
_RESET_FORM: Final = """<form>
<p><label>New password <input type="password" autocomplete="new-password" minlength="12" maxlength="256" required>
</label></p>
<p><label>Once more <input type="password" autocomplete="new-password" minlength="12" maxlength="256" required>
</label></p>
<p><button>Change it</button></p>
</form>
<p id="say" role="status"></p>"""
_SIGN_IN_FORM: Final = """<p id="say" role="status">One moment.</p>
<form hidden>
<p><label>Code <input autocomplete="one-time-code" maxlength="40" required></label></p>
<p><button>Go on</button></p>
</form>
<p id="done" hidden><a href="/docs">What you can do from here</a></p>"""
_FILES: Final = {"link-page.css": "text/css", "reset-password.js": "text/javascript", "sign-in.js": "text/javascript"}
"""What the pages may load; nothing else of the folder."""


@get("/reset-password", opt={PUBLIC: True}, include_in_schema=False)
async def show_reset_page() -> Response[str]:
    """Choose another password, by a mailed link."""
    return _answer("Choose another password", _RESET_FORM, "reset-password.js")


@get("/sign-in", opt={PUBLIC: True}, include_in_schema=False)
async def show_sign_in_page() -> Response[str]:
    """Sign in, by a link of a billing system."""
    return _answer("Signing in", _SIGN_IN_FORM, "sign-in.js")


@get("/link-pages/{file_name:str}", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def read_page_file(file_name: FromPath[str]) -> Response[bytes]:
    """A script or the style of these pages."""
    media_type = _FILES.get(file_name)
    if media_type is None:
        raise NotFoundError("there is no such file")
    return Response((_STATIC / file_name).read_bytes(), media_type=media_type)


def _answer(title: str, form: str, script: Literal["reset-password.js", "sign-in.js"]) -> Response[str]:
    text = _PAGE.format(title=title, form=form, script=script)
    return Response(text, media_type="text/html", headers={"content-security-policy": _PAGE_POLICY})


ROUTES = (show_reset_page, show_sign_in_page, read_page_file)
