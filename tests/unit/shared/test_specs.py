"""Specs that exist are valid, and say the same after a trip over the wire."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError
from shared.specs.account import AccountSpec, ResourceLimits
from shared.specs.manifest import Manifest, decode_manifest, encode_manifest, manifest_digest
from shared.specs.php_pool import PhpPoolSpec, php_socket_path
from shared.specs.site import SiteSpec, require_directives
from tests.unit.shared.strategies import manifests


@given(manifests)
def test_manifest_when_encoded_decodes_to_itself(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(manifests)
def test_manifest_digest_when_content_equal_is_equal(manifest: Manifest) -> None:
    again = decode_manifest(encode_manifest(manifest))

    assert manifest_digest(again) == manifest_digest(manifest)


@given(st.binary(max_size=200))
def test_decode_manifest_when_garbage_raises_invalid_input(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_manifest(raw)


def test_decode_manifest_when_field_unknown_refuses() -> None:
    raw = msgspec.msgpack.encode({"subject": "node", "generation": 1, "new": 1})

    with pytest.raises(InvalidInputError, match="unknown field"):
        decode_manifest(raw)


def test_decode_manifest_when_uid_outside_tenants_refuses() -> None:
    spec = {"kind": "account", "name": "alice", "uid": 0}
    raw = msgspec.msgpack.encode({"subject": "account/alice", "generation": 1, "specs": [spec]})

    with pytest.raises(InvalidInputError, match="uid 0"):
        decode_manifest(raw)


def test_manifest_when_two_specs_share_a_key_refuses() -> None:
    spec = AccountSpec(name="alice", uid=20_001)

    with pytest.raises(InvalidInputError, match="same key"):
        Manifest(subject="account/alice", generation=1, specs=(spec, spec))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu_percent", 0),
        ("cpu_percent", -5),
        ("memory_bytes", 1024),
        ("processes_max", 1),
        ("io_weight", 10_001),
        ("disk_bytes", -1),
    ],
)
def test_limits_when_outside_their_range_name_the_field(field: str, value: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ResourceLimits(**{field: value})

    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    ["}", "{", "location / { } }", '"open', "return 200 '}';}", "a } b {", "\x00", "x" * 20_000],
)
def test_directives_when_leaving_their_block_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        require_directives(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "location /x { return 204; }",
        'add_header X "}";',
        "# } a comment\nexpires 1d;",
        "if ($a ~ \\}) { return 403; }",
    ],
)
def test_directives_when_balanced_are_kept(text: str) -> None:
    assert require_directives(text) == text


def test_site_when_alias_repeats_domain_refuses() -> None:
    with pytest.raises(InvalidInputError, match="twice"):
        SiteSpec(account="alice", uid=20_001, domain="example.com", aliases=("example.com",))


def test_php_pool_socket_path_when_asked_is_the_one_sites_are_given() -> None:
    pool = PhpPoolSpec(account="alice", uid=20_001, version="8.2")

    assert pool.socket_path == php_socket_path("8.2", 20_001) == "/run/wcp-php/8.2/20001.sock"
