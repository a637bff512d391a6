"""The module as core sees it."""

from __future__ import annotations

from agent.contract.actions import content_hash
from agent.contract.facts import Probe
from agent.contract.module import Module, Plan, Verification
from agent.modules.ssh import layout, render
from agent.modules.ssh.facts import AccessFacts, SshHostFacts, read_access, read_host
from agent.modules.ssh.plan import plan_access, plan_host
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.ssh_access import SshAccessSpec


class SshHostConverger:
    """sshd with our rules for tenants."""

    spec_type = ModuleSpec

    async def observe(self, spec: ModuleSpec, probe: Probe) -> SshHostFacts:  # noqa: ARG002 - the contract's signature
        return await read_host(probe)

    def plan(self, spec: ModuleSpec, presence: Presence, facts: SshHostFacts) -> Plan:
        return plan_host(spec, presence, facts)

    async def verify(self, spec: ModuleSpec, presence: Presence, probe: Probe) -> Verification:  # noqa: ARG002 - as above
        rules = await probe.path(layout.DROP_IN)
        if presence is Presence.ABSENT:
            word = "gone" if rules is None else "still there"
            return Verification(is_good=rules is None, note=f"our rules for tenants are {word}")
        is_open = presence is Presence.ENABLED
        has_rules = rules is not None and rules.content_hash == content_hash(render.render_drop_in(is_open=is_open))
        if not has_rules:
            return Verification(is_good=False, note=f"{layout.DROP_IN} does not say what tenants may do")
        unit = await probe.unit(layout.UNIT)
        if not is_open:
            return Verification(is_good=True, note="sshd lets no tenant in")
        word = "runs" if unit.is_running else "does not run"
        return Verification(is_good=unit.is_running, note=f"{layout.UNIT} {word}, with our rules for tenants")


class AccessConverger:
    """Which keys open one account."""

    spec_type = SshAccessSpec

    async def observe(self, spec: SshAccessSpec, probe: Probe) -> AccessFacts:
        return await read_access(spec, probe)

    def plan(self, spec: SshAccessSpec, presence: Presence, facts: AccessFacts) -> Plan:
        return plan_access(spec, presence, facts)

    async def verify(self, spec: SshAccessSpec, presence: Presence, probe: Probe) -> Verification:
        """Sshd reads this file and no other, so what it says is who gets in."""
        keys = await probe.path(layout.keys_file(spec.account))
        if presence is not Presence.ENABLED or not spec.keys:
            word = "no key opens" if keys is None else "keys still open"
            return Verification(is_good=keys is None, note=f"{word} {spec.account}")
        is_good = keys is not None and keys.content_hash == content_hash(render.render_keys(spec))
        word = "open" if is_good else "should open"
        return Verification(is_good=is_good, note=f"{len(spec.keys)} keys {word} {spec.account}")


MODULE = Module(
    name="ssh",
    version="1",
    host=SshHostConverger(),
    convergers=(AccessConverger(),),
    config_trees=(layout.TREE,),
)
