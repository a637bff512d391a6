"""What goes on while a fault strikes: an operator who works, and repeats whatever got no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.faults.stage import Stage

GIVE_UP_SECONDS = 60.0


class Operator:
    """Asks until there is an answer, as a person or a script would: the fault may strike between any two bytes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def persist(self, method: str, path: str, body: Any = None, *, harmless: tuple[int, ...] = ()) -> Any:
        """Repeat until it is answered. `harmless`: what a repetition may be answered with when the first one counted."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while True:
                try:
                    answer = await self.stage.ask(method, path, body)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 503:
                    await asyncio.sleep(0.1)
                    continue
                is_fine = answer.is_success or answer.status_code in harmless
                assert is_fine, f"{method} {path}: {answer.text}\n{self.stage.describe()}"
                return answer.json() if answer.content else None

    async def find(self, path: str, name: str, value: str) -> Any:
        items = (await self.persist("GET", path))["items"]
        return next(item for item in items if item[name] == value)

    async def create_account(self, name: str, node: str) -> Any:
        others = await self.persist("GET", "/accounts")
        like = others["items"][0]
        body = {
            "name": name,
            "client_id": like["client_id"],
            "package_id": like["package_id"],
            "node_id": self.stage.nodes[node].node_id,
        }
        await self.persist("POST", "/accounts", body, harmless=(409,))
        return await self.find("/accounts", "name", name)

    async def create_site(self, account_id: str, domain: str) -> Any:
        body = {"account_id": account_id, "domain": domain}
        await self.persist("POST", "/sites", body, harmless=(409,))
        return await self.find("/sites", "domain", domain)

    async def move_site(self, site_id: str, document_root: str) -> None:
        await self.persist("PATCH", f"/sites/{site_id}", {"document_root": document_root})

    async def ping(self, node: str) -> str:
        """Ask for a sign of life; the job's id."""
        answer = await self.persist("POST", f"/nodes/{self.stage.nodes[node].node_id}/ping")
        return str(answer["jobs"][0]["id"])


async def work(stage: Stage, *, rounds: int = 2) -> None:
    """Something of everything, on both nodes, every content used once."""
    operator = Operator(stage)
    new = await operator.create_account("eve", "sim-1")
    site = await operator.create_site(new["id"], "eve.example")
    old = await operator.find("/sites", "domain", "bob.example")
    for number in range(rounds):
        await asyncio.gather(
            operator.move_site(site["id"], f"public-{number}"),
            operator.move_site(old["id"], f"web-{number}"),
            operator.ping("sim-1"),
            operator.ping("sim-2"),
        )
