"""Reading a certificate's end without `cryptography`, compared with `cryptography`."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent.link.certificate import parse_not_after
from shared.errors import InvalidInputError

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    not_after: dt.datetime, *, name: str = "node", key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = EC_KEY
) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(not_after)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


@given(
    st.datetimes(min_value=dt.datetime(2001, 1, 1), max_value=dt.datetime(2200, 1, 1)),  # noqa: DTZ001 - made aware below
    st.sampled_from([EC_KEY, RSA_KEY]),
)
def test_not_after_of_any_certificate_is_what_cryptography_reads(
    moment: dt.datetime, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    wanted = moment.replace(microsecond=0, tzinfo=dt.UTC)

    assert parse_not_after(certificate(wanted, key=key)) == wanted


def test_not_after_when_name_is_long_is_found() -> None:
    wanted = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

    assert parse_not_after("some text before\n" + certificate(wanted, name="x" * 64)) == wanted


@given(st.binary(max_size=200))
def test_not_after_of_garbage_is_refused(garbage: bytes) -> None:
    text = "-----BEGIN CERTIFICATE-----\n" + garbage.hex() + "\n-----END CERTIFICATE-----\n"

    with pytest.raises(InvalidInputError):
        parse_not_after(text)


@given(st.data())
def test_not_after_of_a_cut_certificate_is_refused_or_read(data: st.DataObject) -> None:
    pem = certificate(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    body = "".join(pem.splitlines()[1:-1])
    cut = body[: data.draw(st.integers(0, 100)) // 4 * 4]

    with pytest.raises(InvalidInputError):
        parse_not_after(f"-----BEGIN CERTIFICATE-----\n{cut}\n-----END CERTIFICATE-----")


def test_not_after_of_a_file_without_certificate_says_so() -> None:
    with pytest.raises(InvalidInputError, match="holds no certificate"):
        parse_not_after("hello")
