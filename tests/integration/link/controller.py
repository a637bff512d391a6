"""The controller's public side for tests: /ca.pem and an enrolment that obeys the test. It signs jobs, too."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest, EnrolmentState, EnrolmentToken
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, sign_envelope
from shared.protocol.frames import OfferJob
from shared.protocol.job import Job, encode_job
from shared.protocol.trust import JobKey, TrustBundle, encode_trust_bundle
from tests.integration.link.pki import TestAuthority

CLUSTER = "11111111-1111-4111-8111-111111111111"
WORDS = "acid acorn actor agent alarm album"


class FakeController:
    """Answers each enrolment with the next of `answers`: a state, or (status, code) for a problem."""

    def __init__(self, authority: TestAuthority, *, gateway_url: str = "wss://localhost:1/agent/v1") -> None:
        self.authority = authority
        self.gateway_url = gateway_url
        self.root_key = Ed25519PrivateKey.generate()
        self.job_key = Ed25519PrivateKey.generate()
        self.answers: list[EnrolmentState | tuple[int, str]] = []
        self.requests: list[EnrolmentRequest] = []
        self.clock_offset_seconds = 0.0
        self.files: dict[str, bytes] = {"/ca.pem": authority.ca_pem.encode()}
        self.url = ""

    @property
    def job_key_entry(self) -> JobKey:
        public_key = self.job_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return JobKey(kid="job", public_key=public_key, not_before=0.0, expires_at=time.time() + 86_400)

    def sign_job(self, job: Job) -> OfferJob:
        """An offer as the gateway sends it."""
        envelope = sign_envelope(JOB_TYPE, encode_job(job), {"job": self.job_key})
        return OfferJob(envelope=envelope, job_id=job.job_id, seq=job.seq)

    @property
    def token(self) -> str:
        return str(EnrolmentToken(token_id="0" * 16, secret="1" * 64, ca_pins=(self.authority.pin,)))

    @contextmanager
    def running(self, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeController]:
        server = ThreadingHTTPServer((host, port), self._make_handler())
        server.socket = self.authority.server_context(wants_client=False).wrap_socket(server.socket, server_side=True)
        self.url = f"https://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, body: bytes) -> tuple[int, bytes]:
        request = msgspec.json.decode(body, type=EnrolmentRequest)
        self.requests.append(request)
        decision = self.answers.pop(0) if self.answers else EnrolmentState.APPROVED
        if isinstance(decision, tuple):
            status, code = decision
            return status, msgspec.json.encode({"status": status, "code": code, "detail": f"it is {code}"})
        reply = EnrolmentReply(state=decision, fingerprint_words=WORDS, retry_after_seconds=0.01)
        if decision is EnrolmentState.APPROVED:
            reply = self._approve(request)
        return 200, msgspec.json.encode(reply)

    def _approve(self, request: EnrolmentRequest) -> EnrolmentReply:
        key = x509.load_pem_x509_csr(request.csr_pem.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        bundle = TrustBundle(
            cluster_id=CLUSTER,
            version=1,
            issued_at=time.time(),
            expires_at=time.time() + 86_400,
            ca_certificates=(self.authority.certificate.public_bytes(Encoding.DER),),
            job_keys=(self.job_key_entry,),
        )
        envelope = sign_envelope(TRUST_TYPE, encode_trust_bundle(bundle), {"root": self.root_key})
        return EnrolmentReply(
            state=EnrolmentState.APPROVED,
            fingerprint_words=WORDS,
            node_id=f"node-{request.hostname}",
            node_name=request.hostname,
            node_gen=1,
            cluster_id=CLUSTER,
            certificate_pem=self.authority.issue_for(key, "node"),
            ca_pem=self.authority.ca_pem,
            root_key_id="root",
            root_public_key=self.root_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
            trust_bundle=msgspec.msgpack.encode(envelope),
            gateway_url=self.gateway_url,
        )

    def _make_handler(controller: FakeController) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has its own self
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = controller.files.get(self.path)
                self._send(404 if content is None else 200, content or b"")

            def do_POST(self) -> None:
                self._send(*controller.answer(self.rfile.read(int(self.headers["Content-Length"]))))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return email.utils.formatdate(time.time() + controller.clock_offset_seconds, usegmt=True)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        return Handler
