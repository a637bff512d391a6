"""An executor for tests of the link: it keeps results until they are stored, as the real one does."""

from __future__ import annotations

import msgspec

from agent.link.port import Listener
from shared.errors import UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import DriftReport, OfferJob
from shared.protocol.job import JobResult, JobState
from shared.protocol.local import (
    CancelLocal,
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    JobAccepted,
    JobFinished,
    JobProgress,
    RequestDrift,
    RequestStatus,
    ResultStored,
    SubmitJob,
    SubmitTrust,
    ToExecutor,
    TrustTaken,
)


def envelope_of(job_id: str, seq: int) -> Envelope:
    """What this executor takes for a job: unsigned, since verification is not the link's business."""
    return Envelope(payload_type="test", payload=msgspec.msgpack.encode([job_id, seq]), signatures=())


class FakeExecutor:
    """ExecutorPort whose jobs end when the test says so."""

    def __init__(self) -> None:
        self.received: list[ToExecutor] = []
        self.unstored: dict[str, JobResult] = {}
        self.states: dict[str, JobState] = {}
        self.is_reachable = True
        self.quarantine = ""
        self.drift = DriftReport(subjects=("account/a",))
        self.last_seq = 0
        self.seq_gaps: tuple[int, ...] = ()
        self._listener: Listener | None = None

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    @property
    def is_connected(self) -> bool:
        return self.is_reachable

    @property
    def open_jobs(self) -> frozenset[str]:
        return frozenset(job_id for job_id, state in self.states.items() if not state.is_final)

    async def request_status(self) -> ExecutorStatus:
        self._require_reachable()
        self.received.append(RequestStatus())
        status = ExecutorStatus(
            journal_epoch="e1",
            last_seq=self.last_seq,
            bundle_version=1,
            node_id="n1",
            node_gen=1,
            cluster_id="c1",
            running_jobs=len(self.open_jobs),
            quarantine=self.quarantine,
            modules={"web": "1"},
            seq_gaps=self.seq_gaps,
        )
        await self.tell(status)
        return status

    async def submit(self, offer: OfferJob) -> None:
        self._require_reachable()
        self.received.append(SubmitJob(envelope=offer.envelope))
        job_id, seq = msgspec.msgpack.decode(offer.envelope.payload, type=tuple[str, int])
        self.last_seq = max(self.last_seq, seq)
        state = self.states.setdefault(job_id, JobState.RECEIVED)
        await self.tell(JobAccepted(job_id=job_id, seq=seq, state=state))

    async def send(self, frame: ToExecutor) -> None:
        self._require_reachable()
        self.received.append(frame)
        match frame:
            case ResultStored():
                self.unstored.pop(frame.job_id, None)
            case CancelLocal():
                await self.finish(frame.job_id, JobState.CANCELLED)
            case RequestDrift():
                await self.tell(DriftFound(report=self.drift))
            case SubmitTrust():
                await self.tell(TrustTaken(version=2))
            case _:
                pass

    async def close(self) -> None:
        pass

    async def progress(self, job_id: str, number: int) -> None:
        await self.tell(JobProgress(job_id=job_id, number=number, done=number, total=9, message="working"))

    async def finish(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
        self.states[job_id] = state
        self.unstored[job_id] = JobResult(job_id=job_id, state=state)
        await self.tell(JobFinished(result=self.unstored[job_id]))

    async def deliver_again(self) -> None:
        """What the real one does at each new connection."""
        for result in tuple(self.unstored.values()):
            await self.tell(JobFinished(result=result))

    async def tell(self, frame: FromExecutor) -> None:
        assert self._listener is not None
        await self._listener(frame)

    def _require_reachable(self) -> None:
        if not self.is_reachable:
            raise UnavailableError("the executor cannot be reached")

    def of(self, kind: type[ToExecutor]) -> list[ToExecutor]:
        return [frame for frame in self.received if isinstance(frame, kind)]
