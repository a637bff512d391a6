"""The module as core sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agent.contract.facts import HttpFact, Probe
from agent.contract.module import Module, Plan, Verification
from agent.modules.web import layout, render
from agent.modules.web.facts import SiteFacts, WebHostFacts, read_site, read_web_host
from agent.modules.web.health import WebHealth
from agent.modules.web.plan_host import plan_host
from agent.modules.web.plan_site import plan_site
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.site import SiteSpec

RELOAD_PATIENCE_SECONDS: Final = (0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0)
"""Pauses between looks: nginx takes a reload at once and serves the new files later (3.8 s with 10,000 sites)."""
Judge = Callable[[HttpFact | None], bool]
UNKNOWN_HOST: Final = "unknown-host.wcp360.invalid"
BROKEN_PHP: Final = frozenset({404, 500, 502, 503})
"""nginx found no PHP behind the socket. 504 is not here: a busy site answers late and is none the worse configured."""


class WebHostConverger:
    """nginx with our main configuration."""

    spec_type = ModuleSpec

    def __init__(self, patience_seconds: tuple[float, ...] = RELOAD_PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds

    async def observe(self, spec: ModuleSpec, probe: Probe) -> WebHostFacts:  # noqa: ARG002 - the contract's signature
        return await read_web_host(probe)

    def plan(self, spec: ModuleSpec, presence: Presence, facts: WebHostFacts) -> Plan:
        return plan_host(spec, presence, facts)

    async def verify(self, spec: ModuleSpec, presence: Presence, probe: Probe) -> Verification:  # noqa: ARG002 - as above
        unit = await probe.unit(layout.UNIT)
        if presence is not Presence.ENABLED:
            return Verification(is_good=not unit.is_running, note=f"{layout.UNIT} is {_running(is_it=unit.is_running)}")
        answer = await ask_patiently(probe, UNKNOWN_HOST, lambda seen: _says(seen, "no site"), self._patience_seconds)
        is_good = unit.is_running and _says(answer, "no site")
        note = f"{layout.UNIT} is {_running(is_it=unit.is_running)}; an unknown host gets {_words(answer)}"
        return Verification(is_good=is_good, note=note)


class SiteConverger:
    """One site's virtual server and folders."""

    spec_type = SiteSpec

    def __init__(self, patience_seconds: tuple[float, ...] = RELOAD_PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds

    async def observe(self, spec: SiteSpec, probe: Probe) -> SiteFacts:
        return await read_site(spec, probe)

    def plan(self, spec: SiteSpec, presence: Presence, facts: SiteFacts) -> Plan:
        return plan_site(spec, presence, facts)

    async def verify(self, spec: SiteSpec, presence: Presence, probe: Probe) -> Verification:
        """Each host name is answered by exactly this configuration, and PHP stands behind it.

        What the tenant's own pages answer is the tenant's business and not looked at.
        """
        if presence is Presence.ABSENT:
            return await self._verify_absence(spec, probe)
        is_suspended = presence is Presence.DISABLED
        expected = render.probe_answer(spec, is_suspended=is_suspended)
        for name in (spec.domain, *spec.aliases):
            answer = await self._ask(probe, name, lambda seen: _says(seen, expected))
            if not _says(answer, expected):
                return Verification(
                    is_good=False, note=f"{name} is not answered by this site but with {_words(answer)}"
                )
        if is_suspended:
            return await self._verify_suspension(spec, probe)
        return await self._verify_php(spec, probe)

    async def _verify_absence(self, spec: SiteSpec, probe: Probe) -> Verification:
        if await probe.path(layout.site_file(spec.domain)) is not None:
            return Verification(is_good=True, note=f"{spec.domain} is another account's site now")
        answer = await self._ask(probe, spec.domain, lambda seen: not _names(seen, spec.domain))
        return Verification(
            is_good=not _names(answer, spec.domain), note=f"{spec.domain} is answered with {_words(answer)}"
        )

    async def _ask(self, probe: Probe, name: str, is_final: Judge, *, path: str = layout.PROBE_PATH) -> HttpFact | None:
        return await ask_patiently(probe, name, is_final, self._patience_seconds, path=path)

    async def _verify_suspension(self, spec: SiteSpec, probe: Probe) -> Verification:
        answer = await self._ask(probe, spec.domain, lambda seen: seen is not None and seen.status == 503, path="/")
        is_good = answer is not None and answer.status == 503
        return Verification(is_good=is_good, note=f"the suspended site answers {_words(answer)}")

    async def _verify_php(self, spec: SiteSpec, probe: Probe) -> Verification:
        count = 1 + len(spec.aliases)
        note = f"{count} host names are answered by this configuration"
        if spec.php_socket_path is None:
            return Verification(is_good=True, note=note)
        # Patiently again: after a reload an old worker may take this request although a new one took the last.
        answer = await self._ask(
            probe, spec.domain, lambda seen: seen is None or seen.status not in BROKEN_PHP, path=layout.PHP_PROBE_PATH
        )
        if answer is not None and answer.status in BROKEN_PHP:
            return Verification(is_good=False, note=f"PHP does not answer at {spec.php_socket_path}: {_words(answer)}")
        return Verification(is_good=True, note=f"{note}, PHP answers {_words(answer)}")


async def ask_patiently(
    probe: Probe,
    host_name: str,
    is_final: Judge,
    patience_seconds: tuple[float, ...],
    *,
    path: str = layout.PROBE_PATH,
) -> HttpFact | None:
    """Ask a host name (which configuration is live, by default) until the answer is final or patience ends.

    For a moment after a reload, nginx's old workers and its new ones both take requests.
    """
    answer = await probe.http_get(host_name=host_name, path=path)
    for pause in patience_seconds:
        if is_final(answer):
            break
        await asyncio.sleep(pause)
        answer = await probe.http_get(host_name=host_name, path=path)
    return answer


def _says(answer: HttpFact | None, expected: str) -> bool:
    return answer is not None and answer.status == 200 and answer.body_start.strip() == expected


def _names(answer: HttpFact | None, domain: str) -> bool:
    """Whether a site's probe of this domain has answered."""
    return answer is not None and answer.status == 200 and answer.body_start.split()[1:2] == [domain]


def _words(answer: HttpFact | None) -> str:
    return "silence" if answer is None else f"{answer.status} {answer.body_start.strip()[:80]!r}"


def _running(*, is_it: bool) -> str:
    return "running" if is_it else "not running"


MODULE = Module(
    name="web",
    version="1",
    host=WebHostConverger(),
    convergers=(SiteConverger(),),
    config_trees=(layout.SITES_TREE, layout.MAIN_TREE),
    health=WebHealth(),
)
