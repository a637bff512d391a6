"""The module as core sees it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from agent.contract.facts import Probe
from agent.contract.module import Module, Plan, Verification
from agent.modules.account.facts import (
    ACCOUNTS_DIR,
    AccountFacts,
    HostFacts,
    home_path,
    read_account,
    read_host,
)
from agent.modules.account.limits import broken_promises, prove_disk, prove_slice
from agent.modules.account.plan import HOME_MODE, plan_account, plan_host
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec

SETTLE_SECONDS: Final = 5.0
"""How long verifying waits for the last processes of a suspended account to be gone."""
_LOOK_SECONDS: Final = 0.1


class AccountHostConverger:
    """The folder of all homes, and the tools of its file system."""

    spec_type = ModuleSpec

    async def observe(self, spec: ModuleSpec, probe: Probe) -> HostFacts:  # noqa: ARG002 - the contract's signature
        return await read_host(probe)

    def plan(self, spec: ModuleSpec, presence: Presence, facts: HostFacts) -> Plan:
        return plan_host(spec, presence, facts)

    async def verify(self, spec: ModuleSpec, presence: Presence, probe: Probe) -> Verification:  # noqa: ARG002 - as above
        ground = await probe.path(ACCOUNTS_DIR)
        if presence is Presence.ABSENT:
            return Verification(is_good=True, note="no accounts are kept here")
        is_there = ground is not None and ground.kind == "directory"
        return Verification(is_good=is_there, note=f"{ACCOUNTS_DIR} {'is there' if is_there else 'is missing'}")


class AccountConverger:
    """One account: user, home, limits."""

    spec_type = AccountSpec

    async def observe(self, spec: AccountSpec, probe: Probe) -> AccountFacts:
        return await read_account(spec, probe)

    def plan(self, spec: AccountSpec, presence: Presence, facts: AccountFacts) -> Plan:
        return plan_account(spec, presence, facts)

    async def verify(self, spec: AccountSpec, presence: Presence, probe: Probe) -> Verification:
        """Identity and home as promised, and every limit as the kernel has it."""
        if presence is Presence.ABSENT:
            return await _verify_absence(spec, probe)
        complaints = await _read_complaints(spec, presence, probe)
        home = await probe.home(home_path(spec.name))
        read_at = time.time()
        proofs = (*prove_slice(spec, await probe.slice(spec.uid), read_at), *prove_disk(spec, home, read_at))
        complaints += broken_promises(proofs, home)
        unenforced = [proof.limit for proof in proofs if proof.enforced is None]
        note = "; ".join(complaints) or f"user, home and {len(proofs)} limits are as promised"
        if unenforced and not complaints:
            note += f" ({', '.join(unenforced)} cannot be enforced here)"
        return Verification(is_good=not complaints, note=note, proofs=proofs)


async def _runs_on(uid: int, probe: Probe) -> bool:
    """Whether something still runs after SETTLE_SECONDS: the end of a login has helpers of its own for a moment."""
    for _ in range(round(SETTLE_SECONDS / _LOOK_SECONDS)):
        if not await probe.has_processes(uid):
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return await probe.has_processes(uid)


async def _read_complaints(spec: AccountSpec, presence: Presence, probe: Probe) -> list[str]:
    user = await probe.user(spec.name)
    home = await probe.path(home_path(spec.name))
    is_suspended = presence is Presence.DISABLED
    complaints = []
    if user is None or user.uid != spec.uid:
        complaints.append(f"there is no user {spec.name} with uid {spec.uid}")
    elif user.is_locked != is_suspended:
        complaints.append(f"the user is {'locked' if user.is_locked else 'not locked'}")
    if home is None or (home.owner, home.mode) != (spec.name, HOME_MODE):
        complaints.append(f"{home_path(spec.name)} is not a home of {spec.name} with mode {HOME_MODE:04o}")
    if is_suspended and await _runs_on(spec.uid, probe):
        complaints.append("processes of the suspended account still run")
    return complaints


async def _verify_absence(spec: AccountSpec, probe: Probe) -> Verification:
    user = await probe.user(spec.name)
    is_gone = user is None or user.uid != spec.uid
    return Verification(is_good=is_gone, note=f"user {spec.name} is {'gone' if is_gone else 'still there'}")


MODULE = Module(name="account", version="1", host=AccountHostConverger(), convergers=(AccountConverger(),))
