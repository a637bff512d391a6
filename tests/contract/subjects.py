"""Every converger of every module, with what must be there first: the contract suite runs over all of them."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.actions import AnyAction, ConfigTree
from agent.contract.module import Converger, Module, Plan
from agent.modules.account.module import MODULE as ACCOUNT
from agent.modules.php.module import MODULE as PHP
from agent.modules.ssh.module import MODULE as SSH
from agent.modules.web.module import MODULE as WEB
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import HostState
from shared.specs.account import MIB, AccountSpec, ResourceLimits
from shared.specs.base import Presence
from shared.specs.manifest import AnySpec
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec
from shared.specs.ssh_access import SshAccessSpec, SshKey
from shared.types.names import DomainName, UnixName

MODULES: tuple[Module, ...] = (ACCOUNT, PHP, SSH, WEB)
TREES: tuple[ConfigTree, ...] = tuple(tree for module in MODULES for tree in module.config_trees)

ALICE = UnixName("alice")
HOSTS = tuple(ModuleSpec(name=module.name) for module in MODULES)
LIMITS = ResourceLimits(cpu_percent=150, memory_bytes=256 * MIB, processes_max=60, io_weight=80, disk_bytes=512 * MIB)
ACCOUNT_SPEC = AccountSpec(name=ALICE, uid=20001, limits=LIMITS)
POOL_SPEC = PhpPoolSpec(account=ALICE, uid=20001, version="8.2")
SITE_SPEC = SiteSpec(
    account=ALICE,
    uid=20001,
    domain=DomainName("example.com"),
    aliases=(DomainName("www.example.com"),),
    php_socket_path=POOL_SPEC.socket_path,
    extra_directives="location /app { return 418; }",
)

KEY_BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIA" + "A" * 42
SSH_SPEC = SshAccessSpec(
    account=ALICE,
    uid=20001,
    keys=(SshKey(key_type="ssh-ed25519", blob=KEY_BLOB, expires_at=1_900_000_000, networks=("203.0.113.0/24",)),),
)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One spec, what it stands on, and which paths may stay after it is gone."""

    name: str
    spec: AnySpec
    ground: tuple[AnySpec, ...] = ()
    leftovers: frozenset[str] = frozenset()
    stays: frozenset[str] = frozenset()
    """What else may stay, as `table: key`: a service that people need for more than this."""
    either_way: frozenset[str] = frozenset()
    """Units that are right both running and not, such as a master that may be asleep."""


def logs_of(domain: str) -> frozenset[str]:
    folder = "/var/log/wcp360/sites/alice"
    return frozenset({folder, f"{folder}/{domain}.access.log", f"{folder}/{domain}.error.log"})


SUBJECTS: tuple[Subject, ...] = (
    # An empty folder that may be a mount point.
    Subject(name="account-module", spec=ModuleSpec(name="account"), leftovers=frozenset({"/srv/accounts"})),
    Subject(name="php-module", spec=ModuleSpec(name="php")),
    # sshd is how people reach their servers: it stays, and so does what it brought.
    Subject(
        name="ssh-module",
        spec=ModuleSpec(name="ssh"),
        leftovers=frozenset(
            {"/etc/ssh", "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d", "/run/sshd", "/usr/sbin/sshd"}
        ),
        stays=frozenset({"packages: openssh-server", "packages: libpam-systemd", "units: ssh.service"}),
    ),
    # Folders that others use too; dpkg keeps /etc/nginx while our folder is in it, Debian's maintainer script does not.
    Subject(
        name="web-module",
        spec=ModuleSpec(name="web"),
        leftovers=frozenset({"/etc/nginx", "/var/log/wcp360", "/var/log/wcp360/sites"}),
    ),
    Subject(name="account", spec=ACCOUNT_SPEC, ground=HOSTS),
    Subject(name="account-plain", spec=AccountSpec(name=ALICE, uid=20001), ground=HOSTS),
    Subject(
        name="pool",
        spec=POOL_SPEC,
        ground=(*HOSTS, ACCOUNT_SPEC),
        either_way=frozenset({"wcp-php8.2@20001.service"}),
    ),
    Subject(
        name="login",
        spec=AccountSpec(name=ALICE, uid=20001, has_shell=True),
        ground=HOSTS,
    ),
    Subject(name="ssh-access", spec=SSH_SPEC, ground=(*HOSTS, ACCOUNT_SPEC)),
    # The logs of a site stay until its account goes.
    Subject(
        name="site",
        spec=SITE_SPEC,
        ground=(*HOSTS, ACCOUNT_SPEC, POOL_SPEC),
        leftovers=logs_of("example.com"),
    ),
    Subject(
        name="static-site",
        spec=SiteSpec(account=ALICE, uid=20001, domain=DomainName("static.test")),
        ground=(*HOSTS, ACCOUNT_SPEC),
        leftovers=logs_of("static.test"),
    ),
)


def find_converger(spec: AnySpec) -> Converger[Any, Any]:
    if isinstance(spec, ModuleSpec):
        return next(module.host for module in MODULES if module.name == spec.name)
    return next(c for module in MODULES for c in module.convergers if c.spec_type is type(spec))


def make_host() -> MemoryHost:
    return MemoryHost(config_trees=TREES)


async def make_ground(subject: Subject) -> MemoryHost:
    """A host with everything that the subject stands on."""
    host = make_host()
    for spec in subject.ground:
        await converge(host, spec, Presence.ENABLED)
    return host


async def make_plan(host: MemoryHost, spec: AnySpec, presence: Presence) -> Plan:
    converger = find_converger(spec)
    return converger.plan(spec, presence, await converger.observe(spec, host))


async def converge(host: MemoryHost, spec: AnySpec, presence: Presence) -> Plan:
    """Plan and apply as core does, without its undo."""
    plan = await make_plan(host, spec, presence)
    for action in actions_of(plan):
        await host.apply(action)
    return plan


def actions_of(plan: Plan) -> tuple[AnyAction, ...]:
    return plan.actions  # type: ignore[return-value] # every Action is a member of the union


def reversible_actions_of(plan: Plan) -> tuple[AnyAction, ...]:
    return tuple(action for action in actions_of(plan) if not action.IS_IRREVERSIBLE)


def differences(before: HostState, after: HostState) -> set[str]:
    """`table: key` of everything that is not the same."""
    found = set()
    for table in before.__struct_fields__:
        old, new = getattr(before, table), getattr(after, table)
        found |= {f"{table}: {key}" for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return found
