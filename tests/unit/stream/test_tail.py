"""The memory tail: the same chunk for everyone at the head, nothing hidden ever handed out, bounded, waking in time."""

from __future__ import annotations

import time

import gevent
import pytest

from relay.atproto.frames import Kind
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record
from relay.stream import tail as tail_module
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, Tail
from tests.support.present import present
from tests.support.stream import payloads, record


def tail(*, head: int = 0, capacity: int = 1 << 20) -> tuple[Tail, Suppressions]:
    suppressions = Suppressions()
    return Tail(head, suppressions, capacity), suppressions


def frames_after(newest: Tail, position: int) -> list[bytes] | None:
    found = newest.after(position)
    return None if found is None else payloads(found[0])


def batch(*seqs: int, uid: int = 1) -> list[Record]:
    return [record(seq, uid=uid) for seq in seqs]


def test_consumers_at_the_head_get_the_same_bytes() -> None:
    newest, _ = tail(head=10)
    assert newest.after(10) is None
    newest.publish(batch(11, 12))
    assert present(newest.after(10))[0] is present(newest.after(10))[0]
    assert present(newest.after(10))[1] == newest.head == 12
    assert frames_after(newest, 10) == [one.frame for one in batch(11, 12)]
    assert newest.after(12) is None and newest.after(9) is None


def test_from_the_middle_of_a_chunk() -> None:
    newest, _ = tail()
    newest.publish(batch(1, 2, 3))
    newest.publish(batch(4, 5, 6))
    assert frames_after(newest, 4) == [one.frame for one in batch(5, 6)]
    assert frames_after(newest, 3) == [one.frame for one in batch(4, 5, 6)]


def test_seqs_passed_over() -> None:
    newest, _ = tail()
    newest.publish(batch(1, 2))
    newest.publish(batch(1000, 1001))
    for position in (2, 500, 999):
        assert frames_after(newest, position) == [one.frame for one in batch(1000, 1001)]
    assert frames_after(newest, 1000) == [record(1001, uid=1).frame]


def test_bounded_by_bytes() -> None:
    newest, _ = tail(capacity=10_000)
    for seq in range(1, 101):
        newest.publish([record(seq, frame=bytes(1000))])
    assert newest.after(50) is None
    assert newest.after(99) is not None
    assert newest._bytes == sum(chunk.size for chunk in newest._chunks.values()) <= 10_000
    newest.publish([record(101, frame=bytes(50_000))])
    assert newest.after(100) is not None, "the newest is always there"


def test_hidden_in_its_own_batch() -> None:
    newest, suppressions = tail()
    mark = record(3, uid=1, kind=Kind.ACCOUNT, flags=FLAG_HIDES)
    suppressions.apply(mark)
    other = record(2, uid=2)
    newest.publish([record(1, uid=1), other, mark, record(4, uid=1)])
    assert frames_after(newest, 0) == [other.frame, mark.frame, record(4, uid=1).frame]
    assert present(newest.after(0))[1] == 4
    suppressions.apply(record(5, uid=1, kind=Kind.ACCOUNT, flags=FLAG_REVEALS))
    assert newest.after(0) is None, "the log has the one that was left out"


@pytest.mark.parametrize("kind", list(Kind))
def test_hidden_at_once_in_older_chunks(kind: Kind) -> None:
    newest, suppressions = tail()
    past, other = record(1, uid=1, kind=kind), record(2, uid=2)
    newest.publish([past, other])
    newest.publish([record(3, uid=1, kind=kind)])
    suppressions.apply(record(4, uid=1, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    kept = kind == Kind.ACCOUNT
    assert frames_after(newest, 0) == ([past.frame] if kept else []) + [other.frame]
    assert newest.after(2) == (b"", 3) or kept
    assert newest._bytes == sum(chunk.size for chunk in newest._chunks.values())


def test_after_a_lift_it_is_read_from_the_log_again() -> None:
    newest, suppressions = tail()
    for start in (1, 3, 5):
        newest.publish([record(start, uid=start), record(start + 1, uid=9)])
    suppressions.apply(record(7, uid=3, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    assert frames_after(newest, 2) == [record(4, uid=9).frame]
    suppressions.apply(record(8, uid=3, kind=Kind.ACCOUNT, flags=FLAG_REVEALS))
    for position in (2, 3):
        assert newest.after(position) is None
    assert [len(present(frames_after(newest, seq))) for seq in (0, 4, 5)] == [2, 2, 1]


def test_a_wave_of_deletions_looks_through_nothing_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tens of thousands of marks, set and then forgotten together, beside a tail of many chunks."""
    looked: list[int] = []
    real = tail_module.without_hidden

    def counted(chunk: Chunk, suppressions: Suppressions) -> Chunk:
        looked.append(chunk.last_seq)
        return real(chunk, suppressions)

    monkeypatch.setattr(tail_module, "without_hidden", counted)
    newest, suppressions = tail(capacity=64 << 20)
    for seq in range(1, 2001):
        newest.publish([record(seq, uid=seq)])
    began = time.process_time()
    for uid in range(1, 20_001):
        suppressions.apply(record(2000 + uid, uid=uid, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    assert looked == []
    assert newest.after(500) == (b"", 501) and newest.after(500) == (b"", 501)
    assert looked == [501], "once for all who read it"
    suppressions.forget_before(30_000)
    assert time.process_time() - began < 2.0
    assert newest.after(500) is None and frames_after(newest, 600) == [record(601, uid=601).frame]


def test_suppressions_follow_the_log() -> None:
    suppressions = Suppressions()
    changes: list[tuple[int, int | None]] = []
    suppressions.watch(lambda uid, before: changes.append((uid, before)))
    suppressions.restore({5: 50})
    suppressions.apply(record(10, uid=1, flags=FLAG_HIDES))
    assert suppressions.hides(1, 9, Kind.COMMIT) and not suppressions.hides(1, 11, Kind.COMMIT)
    assert not suppressions.hides(1, 9, Kind.ACCOUNT) and not suppressions.hides(2, 9, Kind.COMMIT)
    assert suppressions.hides(5, 49, Kind.IDENTITY) and not suppressions.hides(5, 50, Kind.SYNC)
    suppressions.apply(record(20, uid=1, flags=0))
    assert suppressions.hides(1, 9, Kind.COMMIT), "active again at its host is no reason to show the past"
    suppressions.apply(record(21, uid=1, flags=FLAG_REVEALS))
    assert not suppressions.hides(1, 9, Kind.COMMIT)
    assert changes == [(1, 10), (1, None)]


def test_a_mark_is_kept_for_as_long_as_it_hides_something() -> None:
    suppressions = Suppressions()
    suppressions.restore({1: 30, 2: 10, 3: 20})
    suppressions.apply(record(40, uid=2, flags=FLAG_HIDES))
    for first_seq, kept in ((19, [1, 2, 3]), (20, [1, 2]), (29, [1, 2]), (30, [2]), (39, [2]), (40, [])):
        suppressions.forget_before(first_seq)
        assert sorted(suppressions.marks()) == kept


def test_everyone_is_woken() -> None:
    newest, _ = tail()
    woken: list[int] = []

    def wait(number: int) -> None:
        newest.wait(0, time.monotonic() + 20)
        woken.append(number)

    waiting = [gevent.spawn(wait, number) for number in range(200)]
    gevent.sleep(0)
    waiting[7].kill()
    newest.publish(batch(1))
    gevent.joinall(waiting, timeout=60)
    assert sorted(woken) == [number for number in range(200) if number != 7]
    newest.wait(0, time.monotonic() + 20)


def test_who_converts_is_woken_after_those_who_do_not() -> None:
    newest, _ = tail()
    woken: list[bool] = []

    def wait(converts: bool) -> None:
        newest.wait(0, time.monotonic() + 20, converts=converts)
        woken.append(converts)

    waiting = [gevent.spawn(wait, number % 2 == 0) for number in range(300)]
    gevent.sleep(0)
    newest.publish(batch(1))
    gevent.joinall(waiting, timeout=20)
    assert woken == [False] * 150 + [True] * 150


def test_a_wait_ends_at_its_deadline() -> None:
    newest, _ = tail()
    started = time.monotonic()
    *short, long = (gevent.spawn(newest.wait, 0, started + timeout) for timeout in (0.0, 0.1, 600.0))
    gevent.joinall(short, timeout=60)
    assert all(one.ready() for one in short) and time.monotonic() - started >= 0.1
    assert not long.ready()
    long.kill()
    newest.wait(0, time.monotonic() + 0.01)
