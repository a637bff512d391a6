"""The page that the link of a mail opens: two fields and a script of this server; the panels will have their own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litestar import Response, get

from controller.api.guards import PUBLIC

_SCRIPT: Final = Path(__file__).parent.parent / "static" / "reset-password" / "page.js"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Choose another password</title>
</head>
<body>
<h1>Choose another password</h1>
<form>
<p><label>New password <input type="password" autocomplete="new-password" minlength="12" maxlength="256" required>
</label></p>
<p><label>Once more <input type="password" autocomplete="new-password" minlength="12" maxlength="256" required>
</label></p>
<p><button>Change it</button></p>
</form>
<p id="say" role="status"></p>
<script src="/reset-password/page.js"></script>
</body>
</html>
"""


@get("/reset-password", opt={PUBLIC: True}, include_in_schema=False)
async def show_reset_page() -> Response[str]:
    """The page. It is the same for everybody: the token never comes here."""
    return Response(_PAGE, media_type="text/html", headers={"content-security-policy": PAGE_POLICY})


@get("/reset-password/page.js", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def read_reset_script() -> Response[bytes]:
    """Its script."""
    return Response(_SCRIPT.read_bytes(), media_type="text/javascript")


ROUTES = (show_reset_page, read_reset_script)
