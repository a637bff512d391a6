"""Hypothesis strategies for every Struct that crosses the wire, built from the Structs' own types."""

from __future__ import annotations

from hypothesis import strategies as st

from shared.protocol.envelope import Envelope, Signature
from shared.specs.account import MAX_TENANT_UID, MIB, MIN_TENANT_UID, AccountSpec, ResourceLimits, StorageDriver
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy, Manifest, Suspension
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec, php_socket_path
from shared.specs.site import SiteSpec
from shared.types.names import RESERVED_UNIX_NAMES, DomainName, ResourceKey, UnixName

uids = st.integers(MIN_TENANT_UID, MAX_TENANT_UID)
unix_names = (
    st.from_regex(r"[a-z]([a-z0-9]|-[a-z0-9]){1,11}", fullmatch=True)
    .filter(lambda name: name not in RESERVED_UNIX_NAMES and not name.startswith(("systemd-", "wcp-")))
    .map(UnixName)
)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
domain_names = st.builds(
    lambda parts, last: DomainName(".".join([*parts, last])),
    st.lists(labels, min_size=1, max_size=4),
    st.from_regex(r"[a-z]{2,10}", fullmatch=True),
)
versions = st.sampled_from(["7.4", "8.1", "8.2", "8.4"])


def optional(low: int, high: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(low, high)


limits = st.builds(
    ResourceLimits,
    cpu_percent=optional(1, 100_000),
    memory_bytes=optional(16 * MIB, 2**40),
    processes_max=optional(5, 100_000),
    io_weight=optional(1, 10_000),
    disk_bytes=optional(10 * MIB, 2**50),
)
account_specs = st.builds(AccountSpec, name=unix_names, uid=uids, limits=limits, storage=st.sampled_from(StorageDriver))
php_pool_specs = st.builds(
    PhpPoolSpec, account=unix_names, uid=uids, version=versions, children_max=st.integers(1, 500)
)
site_specs = st.builds(
    lambda account, uid, names, version: SiteSpec(
        account=account,
        uid=uid,
        domain=names[0],
        aliases=tuple(names[1:]),
        php_socket_path=php_socket_path(version, uid) if version else None,
    ),
    unix_names,
    uids,
    st.lists(domain_names, min_size=1, max_size=4, unique=True),
    st.none() | versions,
)
module_specs = st.builds(
    ModuleSpec,
    name=st.sampled_from(["account", "web", "php"]),
    presence=st.sampled_from(Presence),
    settings=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
)
specs = st.one_of(account_specs, php_pool_specs, site_specs, module_specs)
manifests = st.builds(
    Manifest,
    subject=unix_names.map(lambda name: f"account/{name}") | st.just("node"),
    generation=st.integers(1, 2**40),
    presence=st.sampled_from(Presence),
    suspension=st.none() | st.builds(Suspension, reason=st.text(max_size=50)),
    specs=st.lists(specs, max_size=4, unique_by=lambda spec: spec.key).map(tuple),
    held=st.lists(domain_names.map(lambda name: ResourceKey(f"site/{name}")), max_size=2).map(tuple),
    drift_policy=st.sampled_from(DriftPolicy),
)
envelopes = st.builds(
    Envelope,
    payload_type=st.text(max_size=40),
    payload=st.binary(max_size=200),
    signatures=st.lists(st.builds(Signature, kid=st.text(max_size=10), sig=st.binary(max_size=64)), max_size=3).map(
        tuple
    ),
)

directives = st.lists(
    st.sampled_from(
        (
            *(
                "add_header X-A b;",
                "set $a ",
                "location /x ",
                "{",
                "}",
                ";",
                "#",
                '"',
                "'",
                "\\",
                "$",
                "${",
                " ",
                "\n",
                "a",
            ),
            *("it's", 'a"b', "# }\n", "return 204;", "server ", "server_name victim.test;", ")", "\t", "{}", ' "'),
        )
    ),
    max_size=16,
).map("".join)
"""Pieces of directives in any order: most are broken, some try to leave their block."""
