"""Debian's Chromium, and a page of it that notes whatever it should not do."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.async_playwright import Axe
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

EXECUTABLE: Final = shutil.which("chromium")
WAIT_SECONDS: Final = 15.0
_TELL_VIOLATIONS: Final = (
    "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective + e.blockedURI))"
)
_ORDINARY: Final = "Failed to load resource: "
"""Chromium's line for every refusal that a test provokes, and for a line that a test cuts."""


@dataclass
class Visit:
    """One person's page."""

    page: Page
    origin: str
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Of the console: script errors, and what the content security policy kept away."""

    @property
    def is_at_home(self) -> bool:
        """Whether everything came from the origin."""
        return all(url.startswith(self.origin + "/") for url in self.requested)

    async def open(self, path: str) -> None:
        await self.page.goto(self.origin + path)

    async def wait_for_title(self, title: str) -> None:
        await self.page.get_by_role("heading", name=title, exact=True).wait_for()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def focused(self) -> str:
        """Id of what has the focus, or its name."""
        return str(await self.page.evaluate("document.activeElement.id || document.activeElement.tagName"))

    async def is_too_wide(self) -> bool:
        return bool(await self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    async def find_barriers(self) -> str:
        """What axe finds against the page as it stands; empty: nothing, also none of its best practices."""
        results = await Axe().run(self.page)
        return str(results.generate_report()) if results.violations_count else ""


@dataclass(frozen=True)
class Chromium:
    """A browser that believes one controller's certificate."""

    browser: Browser
    origin: str

    @asynccontextmanager
    async def visit(self, **options: Any) -> AsyncIterator[Visit]:
        """Somebody's page; options are those of a context of Playwright (viewport, color_scheme and so on)."""
        context = await self.browser.new_context(**options)
        context.set_default_timeout(WAIT_SECONDS * 1000)
        try:
            yield await self._open_page(context)
        finally:
            await context.close()

    async def _open_page(self, context: BrowserContext) -> Visit:
        await context.add_init_script(_TELL_VIOLATIONS)
        visit = Visit(await context.new_page(), self.origin)

        def note(request: Request) -> None:
            visit.requested.append(request.url)

        context.on("request", note)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on(
            "console",
            lambda line: (
                visit.complaints.append(line.text)
                if line.type in ("error", "warning") and not line.text.startswith(_ORDINARY)
                else None
            ),
        )
        return visit


@asynccontextmanager
async def running_chromium(origin: str, certificate: Path) -> AsyncIterator[Chromium]:
    """A browser until the block ends.

    It believes this certificate's key as a person's browser would one of a public authority: a browser that was told to
    ignore errors would refuse to use passkeys.
    """
    trust = f"--ignore-certificate-errors-spki-list={_fingerprint(certificate)}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=[trust])
        try:
            yield Chromium(browser, origin)
        finally:
            await browser.close()


def _fingerprint(certificate: Path) -> str:
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()
