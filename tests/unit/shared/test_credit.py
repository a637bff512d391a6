"""Hard credit: whatever the streams do, nobody holds more than was promised and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.errors import ProtocolError, UnavailableError
from shared.protocol.credit import CreditPool, ReceiveWindow, SendWindow
from shared.protocol.streams import CONNECTION_WINDOW_BYTES, MAX_CHUNK_BYTES, MAX_STREAMS, STREAM_WINDOW_BYTES


class Pair:
    """A compliant sender and its receiver; credit frames travel and may be late."""

    def __init__(self, window: ReceiveWindow) -> None:
        self.window = window
        self.sender = SendWindow(window.next_credit() or 0)
        self.in_flight: list[int] = []

    def send(self, wanted: int) -> None:
        size = min(wanted, self.sender.available, MAX_CHUNK_BYTES)
        if size > 0:
            self.window.take(self.sender.sent, size)
            self.sender.note_sent(size)

    def consume(self, wanted: int) -> None:
        size = min(wanted, self.window.received - self.window.consumed)
        if size > 0:
            self.window.consume(size)
            upto = self.window.next_credit()
            if upto is not None:
                self.in_flight.append(upto)

    def deliver(self) -> None:
        while self.in_flight:
            self.sender.raise_to(self.in_flight.pop())


class CreditMachine(RuleBasedStateMachine):
    """Many streams of one session, in any order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = CreditPool()
        self.pairs: list[Pair] = []

    @precondition(lambda self: len(self.pairs) < MAX_STREAMS)
    @rule(window=st.sampled_from([MAX_CHUNK_BYTES, 64 * 1024, STREAM_WINDOW_BYTES]))
    def open(self, window: int) -> None:
        self.pairs.append(Pair(self.pool.open(window)))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), size=st.integers(1, 40_000))
    def send(self, data: st.DataObject, size: int) -> None:
        data.draw(st.sampled_from(self.pairs)).send(size)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), size=st.integers(1, STREAM_WINDOW_BYTES))
    def consume(self, data: st.DataObject, size: int) -> None:
        data.draw(st.sampled_from(self.pairs)).consume(size)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.pairs)).deliver()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.pairs))
        self.pairs.remove(pair)
        pair.window.close()
        pair.window.consume(pair.window.received - pair.window.consumed)

    @invariant()
    def promises_fit_the_session(self) -> None:
        assert self.pool.outstanding <= CONNECTION_WINDOW_BYTES
        assert self.pool.outstanding == sum(pair.window.outstanding for pair in self.pairs)

    @invariant()
    def each_stream_holds_at_most_its_window(self) -> None:
        assert all(0 <= pair.window.outstanding <= STREAM_WINDOW_BYTES for pair in self.pairs)

    @invariant()
    def whoever_was_read_dry_may_send_again(self) -> None:
        for pair in self.pairs:
            if pair.window.consumed == pair.window.received and not pair.in_flight:
                assert pair.sender.available > 0


TestCreditMachine = CreditMachine.TestCase


def test_pool_when_full_streams_are_open_refuses_one_more_and_gives_room_back() -> None:
    pool = CreditPool()
    windows = [pool.open() for _ in range(MAX_STREAMS)]
    for window in windows:
        window.next_credit()

    with pytest.raises(UnavailableError) as refused:
        pool.open()
    for window in windows:
        window.close()

    assert refused.value.code == "too_many_streams"
    assert pool.outstanding == 0
    assert pool.open().next_credit() == STREAM_WINDOW_BYTES


@given(extra=st.integers(1, 10_000))
def test_window_when_more_comes_than_was_promised_is_a_protocol_error(extra: int) -> None:
    window = CreditPool().open()
    granted = window.next_credit() or 0
    window.take(0, granted)

    with pytest.raises(ProtocolError) as broken:
        window.take(granted, extra)

    assert broken.value.code == "credit_exceeded"


def test_window_when_bytes_are_missing_in_between_is_a_protocol_error() -> None:
    window = CreditPool().open()
    window.next_credit()
    window.take(0, 10)

    with pytest.raises(ProtocolError) as broken:
        window.take(11, 10)

    assert broken.value.code == "stream_gap"


def test_sender_when_an_old_promise_comes_late_keeps_the_newer_one() -> None:
    sender = SendWindow(100)
    sender.raise_to(300)
    sender.raise_to(200)

    assert sender.available == 300
    with pytest.raises(ProtocolError):
        sender.note_sent(301)
