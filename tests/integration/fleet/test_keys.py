"""Certificates, keys and trust: made once, renewed in time, and never believed beyond their purpose."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controller.fleet.identity.authorities import Arrangement
from controller.fleet.identity.authority import SERVER_LIFETIME, Authority, parse_csr
from controller.fleet.identity.server_certificate import ensure_server_certificate
from controller.fleet.identity.trust import BUNDLE_RENEWAL, ensure_trust_bundle, find_trust_bundle
from controller.fleet.signing.signer import JOB_KEY_LIFETIME, JOB_KEY_OVERLAP, LocalSigner
from shared.errors import FleetError, UnavailableError
from shared.protocol.envelope import JOB_TYPE, Envelope, verify_envelope
from shared.protocol.renewal import RenewalReply, RenewalRequest, renewal_message
from shared.protocol.trust import open_trust_bundle
from tests.integration.fleet.agent import FakeAgent, Machine
from tests.integration.fleet.bench import FleetBench


@pytest.fixture
def bench(still_bench: FleetBench) -> FleetBench:
    return still_bench


def pki(bench: FleetBench) -> Path:
    return bench.settings.data_dir / "pki"


# --- files ------------------------------------------------------------------------------------------------------------


async def test_keys_are_for_the_controllers_user_only(bench: FleetBench) -> None:
    assert stat.S_IMODE(pki(bench).stat().st_mode) == 0o700
    keys = sorted(pki(bench).glob("*.key"))
    assert [path.name for path in keys if not path.name.startswith("job-")] == ["ca.key", "root.key", "server.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


async def test_authority_opened_again_is_the_same(bench: FleetBench) -> None:
    again = Authority.open_or_create(pki(bench), now=bench.clock())

    assert (again.ca_pem, again.ca_pin) == (bench.fleet.authority.ca_pem, bench.fleet.authority.ca_pin)


async def test_authority_of_an_installation_of_before_is_found_in_its_only_file(bench: FleetBench) -> None:
    before = bench.fleet.authority.ca_pem
    (pki(bench) / "ca.crt").unlink()

    again = LocalSigner(pki(bench), clock=bench.clock)
    again.open()

    assert again.authority.ca_pem == before


async def test_file_for_people_holds_every_trusted_authority(bench: FleetBench) -> None:
    await bench.signer.arrange_authorities(Arrangement(trusted=("ca", "next")))

    trusted = (await bench.signer.list_authorities()).trusted
    assert bench.fleet.authority.ca_path.read_text() == "".join(info.pem for info in trusted)


async def test_key_that_is_broken_is_named(bench: FleetBench) -> None:
    (pki(bench) / "ca.key").write_text("garbage")

    with pytest.raises(UnavailableError) as caught:
        Authority.open_or_create(pki(bench), now=bench.clock())

    assert "ca.key" in caught.value.message


# --- the server's certificate -----------------------------------------------------------------------------------------


def server_certificate(bench: FleetBench) -> x509.Certificate:
    return x509.load_pem_x509_certificate((pki(bench) / "server.pem").read_bytes())


async def test_server_certificate_is_kept_while_it_is_good(bench: FleetBench) -> None:
    before = server_certificate(bench)

    bench.fleet.open_keys()

    assert server_certificate(bench) == before


async def test_server_certificate_near_its_end_is_renewed_with_the_same_key(bench: FleetBench) -> None:
    before, pin = server_certificate(bench), bench.fleet.server_certificate.pin
    bench.clock.advance(days=SERVER_LIFETIME.days - 59)

    bench.fleet.open_keys()

    assert server_certificate(bench).serial_number != before.serial_number
    assert bench.fleet.server_certificate.pin == pin


async def test_server_certificate_follows_the_names(bench: FleetBench) -> None:
    names = ("panel.example", "192.0.2.7", "fd00::7")

    ensure_server_certificate(bench.signer, pki(bench), names, now=bench.clock())

    names = server_certificate(bench).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["panel.example", "192.0.2.7", "fd00::7"]


# --- job keys and bundles ---------------------------------------------------------------------------------------------


async def opened_bundle(bench: FleetBench) -> Any:
    async with bench.database.write() as session:
        row = await ensure_trust_bundle(session, signer=bench.signer, now=bench.clock())
    root = Ed25519PublicKey.from_public_bytes(bench.signer.root_public_key)
    return open_trust_bundle(
        msgspec.msgpack.decode(row.envelope, type=Envelope), root_keys={bench.signer.root_kid: root}
    )


async def test_trust_bundle_asked_for_again_is_the_same(bench: FleetBench) -> None:
    assert (await opened_bundle(bench)).version == (await opened_bundle(bench)).version == 1


async def test_trust_bundle_grows_when_a_job_key_is_added(bench: FleetBench) -> None:
    first = await opened_bundle(bench)
    bench.clock.advance(seconds=(JOB_KEY_LIFETIME - JOB_KEY_OVERLAP).total_seconds() + 1)

    second = await opened_bundle(bench)

    assert (first.version, second.version) == (1, 2)
    assert {key.kid for key in first.job_keys} < {key.kid for key in second.job_keys}


async def test_trust_bundle_is_renewed_long_before_it_ends(bench: FleetBench) -> None:
    first = await opened_bundle(bench)
    bench.clock.advance(seconds=BUNDLE_RENEWAL.total_seconds() + 60)

    second = await opened_bundle(bench)

    assert second.version > first.version
    assert second.expires_at > first.expires_at


async def test_jobs_are_signed_by_old_and_new_key_while_both_are_valid(bench: FleetBench) -> None:
    """A node that has not seen the new bundle yet must still be able to verify."""
    old = await opened_bundle(bench)
    bench.clock.advance(seconds=(JOB_KEY_LIFETIME - JOB_KEY_OVERLAP).total_seconds() + 1)

    envelope = await bench.signer.sign_job(b"a job")

    assert len(envelope.signatures) == 2
    keys = {key.kid: Ed25519PublicKey.from_public_bytes(key.public_key) for key in old.job_keys}
    assert verify_envelope(envelope, payload_type=JOB_TYPE, keys=keys)[0] == b"a job"


async def test_jobs_are_not_signed_by_a_key_that_ended(bench: FleetBench) -> None:
    old = await opened_bundle(bench)
    bench.clock.advance(seconds=JOB_KEY_LIFETIME.total_seconds() + 60)

    envelope = await bench.signer.sign_job(b"a job")

    assert {signature.kid for signature in envelope.signatures}.isdisjoint({key.kid for key in old.job_keys})


async def test_signer_opened_again_has_the_same_keys(bench: FleetBench) -> None:
    again = LocalSigner(pki(bench), clock=bench.clock)
    again.open()

    assert again.cluster_id == bench.signer.cluster_id
    assert await again.current_job_keys() == await bench.signer.current_job_keys()


async def test_renew_keeps_the_bundle_when_nothing_is_due(bench: FleetBench) -> None:
    await opened_bundle(bench)
    await bench.fleet.renew()

    async with bench.database.read() as session:
        row = await find_trust_bundle(session)
    assert row is not None
    assert row.version == 1


# --- a node's next certificate ----------------------------------------------------------------------------------------


async def renew(bench: FleetBench, agent: FakeAgent, next_machine: Machine, **options: Any) -> RenewalReply:
    csr_pem, signed_at = next_machine.csr_pem(), int(bench.clock().timestamp())
    values: dict[str, Any] = {
        "certificate_pem": agent.reply.certificate_pem,
        "csr_pem": csr_pem,
        "signed_at": signed_at,
        "signature": agent.machine.key.sign(renewal_message(csr_pem, signed_at), ECDSA(hashes.SHA256())),
    }
    request = RenewalRequest(**(values | options))
    reply = await bench.change(lambda ctx: bench.fleet.renew_certificate(ctx, request))
    if isinstance(reply, FleetError):
        raise reply
    assert isinstance(reply, RenewalReply)
    return reply


async def test_renewal_with_a_new_key_gives_the_same_identity(bench: FleetBench) -> None:
    agent, fresh = await bench.enrol(), Machine()

    reply = await renew(bench, agent, fresh)

    certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
    assert certificate.public_key() == fresh.key.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={agent.node_id}"


async def test_renewal_after_the_end_works_for_30_days(bench: FleetBench) -> None:
    agent = await bench.enrol()
    bench.clock.advance(days=7 + 29)
    assert (await renew(bench, agent, Machine())).certificate_pem
    bench.clock.advance(days=2)

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, Machine())

    assert caught.value.code == "certificate_expired"


async def test_renewal_signed_by_another_key_is_refused(bench: FleetBench) -> None:
    agent = await bench.enrol()

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, Machine(), signature=b"\x30\x00")

    assert caught.value.code == "bad_signature"


async def test_renewal_of_another_request_than_the_signed_one_is_refused(bench: FleetBench) -> None:
    agent = await bench.enrol()

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, Machine(), csr_pem=Machine().csr_pem())

    assert caught.value.code == "bad_signature"


async def test_renewal_signed_long_ago_is_refused(bench: FleetBench) -> None:
    agent, fresh = await bench.enrol(), Machine()
    csr_pem, signed_at = fresh.csr_pem(), int((bench.clock() - timedelta(hours=1)).timestamp())
    signature = agent.machine.key.sign(renewal_message(csr_pem, signed_at), ECDSA(hashes.SHA256()))

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, fresh, csr_pem=csr_pem, signed_at=signed_at, signature=signature)

    assert caught.value.code == "clock_skew"


async def test_renewal_of_a_revoked_node_is_refused(bench: FleetBench) -> None:
    agent = await bench.enrol()
    await bench.change(lambda ctx: bench.fleet.nodes.revoke(ctx, agent.node_id))

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, Machine())

    assert caught.value.code == "revoked"


async def test_renewal_with_a_certificate_of_another_authority_is_refused(bench: FleetBench, tmp_path: Path) -> None:
    agent = await bench.enrol()
    foreign = Authority.open_or_create(tmp_path / "foreign", now=bench.clock())
    issued = foreign.issue_node_certificate(
        parse_csr(agent.machine.csr_pem()), cluster_id="x", node_id=agent.node_id, now=bench.clock()
    )

    with pytest.raises(FleetError) as caught:
        await renew(bench, agent, Machine(), certificate_pem=issued.pem)

    assert caught.value.code == "certificate_unknown"
