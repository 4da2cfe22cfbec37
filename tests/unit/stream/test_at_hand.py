"""Replay out of the page cache: it hands out what `LogReader.read` would, and nothing that is damaged or hidden."""

from __future__ import annotations

import os
from collections import Counter
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto.frames import Kind
from relay.eventlog import disk
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import FLAG_HIDES, HEADER_SIZE, Record, encode_header, records_in
from relay.eventlog.segment import BLOCK, paths
from relay.kit.background import yield_hub
from relay.stream import at_hand
from relay.stream import feed as feed_module
from relay.stream.at_hand import NOBODY, AtHand, Passage, passage, shown
from relay.stream.feed import Feed
from relay.stream.firehose import REPLAY_TURNS, Firehose
from relay.stream.read_budget import READING, ReadBudget, Share
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from tests.support.stream import append, payloads, record
from tests.support.wait import until

ALL = 1 << 62
COUNT = 400


def encoded(records: list[Record]) -> bytes:
    return b"".join(encode_header(one) + one.frame for one in records)


def passage_of(data: bytes, after_seq: int = 0, limit: int = ALL) -> Passage:
    # What follows in the buffer is from an earlier block, and sound.
    rest = encoded([record(seq) for seq in range(900, 910)])
    block = mmap(-1, len(data) + len(rest))
    block[:] = data + rest
    return passage(block, len(data), after_seq, limit)


def hiding(uid: int, before_seq: int) -> Suppressions:
    suppressions = Suppressions()
    suppressions.apply(record(before_seq, uid=uid, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    return suppressions


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_frames_of_any_size(size: int) -> None:
    records = [record(seq)._replace(frame=bytes((seq,)) * size) for seq in (1, 2, 3)]
    found = passage_of(encoded(records))
    assert (found.seqs, found.length) == ([1, 2, 3], 3 * (HEADER_SIZE + size))
    assert payloads(shown(found, Suppressions())) == [one.frame for one in records]


@pytest.mark.parametrize("damaged", [0, 1, 2])
@pytest.mark.parametrize("at", [*range(HEADER_SIZE), HEADER_SIZE, -1])
def test_it_ends_before_a_damaged_byte(damaged: int, at: int) -> None:
    records = [record(seq) for seq in (1, 2, 3)]
    pieces = [bytearray(encoded([one])) for one in records]
    pieces[damaged][at] ^= 1
    found = passage_of(b"".join(pieces))
    assert found.seqs == [1, 2, 3][:damaged]
    assert payloads(shown(found, Suppressions())) == [one.frame for one in records[:damaged]]


@pytest.mark.parametrize(
    ("seqs", "after_seq", "limit", "found"),
    [
        ((5, 6, 6, 7), 4, ALL, [5, 6]),
        ((5, 6, 3, 7), 4, ALL, [5, 6]),
        ((5, 6, 7), 5, ALL, []),
        ((5, 9, 12), 4, 12, [5, 9]),
        ((5, 9, 12), 4, 5, []),
        ((5, 9, 12), 4, 0, []),
    ],
)
def test_seqs_rise_and_stay_below_the_limit(
    seqs: tuple[int, ...], after_seq: int, limit: int, found: list[int]
) -> None:
    assert passage_of(encoded([record(seq) for seq in seqs]), after_seq, limit).seqs == found


def test_a_record_that_is_cut_off_waits_for_the_rest() -> None:
    data = encoded([record(1), record(2)])
    first = HEADER_SIZE + len(record(1).frame)
    for size in range(len(data)):
        assert passage_of(data[:size]).length == (first if size >= first else 0)
    assert passage_of(data).length == len(data)


@given(
    sizes=st.lists(st.integers(0, 300), max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=2),
    cut=st.integers(0, 2000),
)
def test_it_finds_what_replay_by_records_finds(sizes: list[int], flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(encoded([record(seq)._replace(frame=bytes(size)) for seq, size in enumerate(sizes, 1)]))
    for at, bits in flips:
        if at < len(data):
            data[at] ^= bits
    block = bytes(data[:cut])
    records, length = records_in(block, 0)
    found = passage_of(block)
    assert (found.seqs, found.length) == ([one.seq for one in records], length)
    assert found.parts[1::2] == [one.frame for one in records]


def test_little_is_done_at_once() -> None:
    records = [record(seq) for seq in range(1, at_hand.RECORDS + 10)]
    assert passage_of(encoded(records)).seqs == [one.seq for one in records[: at_hand.RECORDS]]


def test_what_is_hidden_is_left_out() -> None:
    records = [
        record(1, uid=7),
        record(2, uid=8),
        record(3, uid=7, kind=Kind.SYNC),
        record(4, uid=7, kind=Kind.ACCOUNT),
        record(5, uid=7, kind=Kind.IDENTITY),
        record(6, uid=7),
    ]
    found = passage_of(encoded(records))
    assert found.uids == [7, 8, 7, NOBODY, 7, 7]
    frames = [one.frame for one in records]
    assert payloads(shown(found, hiding(7, 6))) == [frames[1], frames[3], frames[5]]
    assert payloads(shown(found, hiding(9, 6))) == frames


def filled(folder: Path) -> SegmentLog:
    """Several segments, in pieces of a few records."""
    log = SegmentLog(folder / "persist", segment_bytes=100_000)
    for start in range(1, COUNT + 1, 10):
        append(log, [record(seq, frame=b"%d" % seq * 400) for seq in range(start, start + 10)])
    return log


def firehose_of(log: SegmentLog, head: int, suppressions: Suppressions) -> Firehose:
    return Firehose(log, Tail(head, suppressions), suppressions)


def drained(feed: Feed) -> list[bytes]:
    frames: list[bytes] = []
    while feed.behind:
        frames += payloads(feed.next(10.0) or b"")
    return frames


def frames_of(seqs: range) -> list[bytes]:
    return [b"%d" % seq * 400 for seq in seqs]


def test_a_feed_gets_all_up_to_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path)
    blocks = [0]
    advance = LogReader.advance

    def counted(reader: LogReader, length: int, seq: int) -> None:
        blocks[0] += 1
        advance(reader, length, seq)

    monkeypatch.setattr(LogReader, "advance", counted)
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    firehose = firehose_of(log, COUNT - 3, Suppressions())
    assert drained(firehose.attach(0)) == frames_of(range(1, COUNT - 2))
    assert drained(firehose.attach(333)) == frames_of(range(334, COUNT - 2))
    assert blocks[0] > 3, "nothing was read without a thread"
    firehose.close()
    log.close()


@pytest.mark.parametrize("how", ["no such flag", "not for this file system", "not in memory"])
def test_where_the_system_cannot_tell_a_thread_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    log = filled(tmp_path)

    def refused(*_: object) -> int:
        raise OSError("not supported") if how == "not for this file system" else BlockingIOError()

    if how == "no such flag":
        monkeypatch.setattr(disk, "_AT_ONCE", None)
    else:
        monkeypatch.setattr(os, "preadv", refused)
    firehose = firehose_of(log, COUNT, Suppressions())
    assert drained(firehose.attach(0)) == frames_of(range(1, COUNT + 1))
    firehose.close()
    log.close()


@pytest.mark.parametrize("header", [False, True])
def test_a_damaged_record_is_never_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bool) -> None:
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    log = filled(tmp_path)
    log.close()
    segments = paths(log.directory)
    firsts = [int(path.name.removesuffix(".seg")) for path in segments]
    damaged = firsts[1] + 20
    data = bytearray(segments[1].read_bytes())
    at = data.index(frames_of(range(damaged, damaged + 1))[0])
    data[at - 10 if header else at + 5] ^= 1
    segments[1].write_bytes(data)
    log = SegmentLog(tmp_path / "persist")
    firehose = firehose_of(log, COUNT, Suppressions())
    # Without its header nobody knows where a record ends, and this small segment has no index to tell.
    goes_on = firsts[2] if header else damaged + 1
    expected = frames_of(range(1, damaged)) + frames_of(range(goes_on, COUNT + 1))
    assert drained(firehose.attach(0)) == expected
    firehose.close()
    log.close()


def test_what_is_wholly_hidden_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long a turn was waited for, it is for one block.
    monkeypatch.setattr(feed_module, "TURN_SHARE", 0.0)
    log = SegmentLog(tmp_path / "persist")
    append(log, [record(seq, uid=1, frame=bytes(3000)) for seq in range(1, 2001)])
    append(log, [record(2001, uid=1, kind=Kind.ACCOUNT)])
    firehose = firehose_of(log, 2001, hiding(1, 2001))
    feed = firehose.attach(0)
    turns = [0]

    def others() -> None:
        while True:
            yield_hub()
            turns[0] += 1

    other = gevent.spawn(others)
    until(lambda: turns[0])
    seen: list[int] = []
    fill = LogReader.fill

    def noted(reader: LogReader, buffer: mmap, after_seq: int) -> tuple[int, int]:
        seen.append(turns[0])
        return fill(reader, buffer, after_seq)

    monkeypatch.setattr(LogReader, "fill", noted)
    assert payloads(feed.next(10.0) or b"") == [record(2001).frame]
    assert len(seen) > 3
    assert seen[1:] == sorted(set(seen[1:])), "others had no turn between two blocks"
    other.kill()
    firehose.close()
    log.close()


def test_hidden_events_take_no_longer_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the consumer is listened to meanwhile."""
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    log = SegmentLog(tmp_path / "persist")
    append(log, [record(seq, uid=1) for seq in range(1, 10 * at_hand.RECORDS)])
    append(log, [record(10 * at_hand.RECORDS, uid=1, kind=Kind.ACCOUNT)])
    firehose = firehose_of(log, log.last_seq, hiding(1, log.last_seq))
    feed = firehose.attach(0)
    positions = []
    while (found := feed.next(0.0)) is None:
        positions.append(feed.position)
    assert len(positions) >= 9 and positions == sorted(set(positions))
    assert payloads(found) == [record(log.last_seq).frame] and not feed.behind
    feed.close()
    firehose.close()
    log.close()


def test_those_who_wait_for_the_disk_hold_up_nobody_who_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    log = filled(tmp_path)
    firehose = firehose_of(log, COUNT, Suppressions())
    feed = firehose.attach(0)
    frames = payloads(feed.next(10.0) or b"")
    others = [Share(firehose._budget) for _ in range(READING + 1)]
    assert [other.ask(0.0) for other in others] == [True] * READING + [False]
    at_hand = payloads(feed.next(0.0) or b"")
    assert at_hand, "it stood in line behind them"
    frames += at_hand
    assert feed.next(0.0) is None, "the next segment is opened in a thread"
    for other in others:
        other.give_back()
    assert frames + drained(feed) == frames_of(range(1, COUNT + 1))
    feed.close()
    assert firehose._budget.taken == firehose._budget.reading == 0
    firehose.close()
    log.close()


def test_however_many_replay_others_have_turns_between_a_few_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    monkeypatch.setattr(at_hand, "RECORDS", 4)
    # On a slow machine the turns of so many are waited for as long as those of a busy hub.
    monkeypatch.setattr(feed_module, "TURN_SHARE", 0.0)
    log = filled(tmp_path)
    firehose = firehose_of(log, COUNT, Suppressions())
    blocks, seen = [0], []
    advance = LogReader.advance

    def counted(reader: LogReader, length: int, seq: int) -> None:
        blocks[0] += 1
        advance(reader, length, seq)

    def consume() -> list[bytes]:
        feed, frames = firehose.attach(0), []
        while feed.behind:
            frames += payloads(feed.next(10.0) or b"")
            feed.give_way()
        feed.close()
        return frames

    def look() -> None:
        while True:
            yield_hub()
            seen.append(blocks[0])

    monkeypatch.setattr(LogReader, "advance", counted)
    other = gevent.spawn(look)
    consumers = [gevent.spawn(consume) for _ in range(5 * REPLAY_TURNS)]
    assert all(one.get(timeout=60.0) == frames_of(range(1, COUNT + 1)) for one in consumers)
    other.kill()
    at_once = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert blocks[0] > 20 * len(consumers) and max(at_once) <= REPLAY_TURNS
    firehose.close()
    log.close()


@pytest.mark.parametrize(
    ("waited", "others", "blocks"),
    [(0.0, 0, 1), (0.006, 0, 1), (0.01, 0, 2), (0.1, 9, 2), (1.0, 999, 1), (10.0, 0, 4), (10.0, 999, 2)],
)
def test_a_turn_that_was_long_in_coming_is_for_more_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waited: float, others: int, blocks: int
) -> None:
    monkeypatch.setattr(at_hand, "RECORDS", 4)
    log = filled(tmp_path)
    firehose = firehose_of(log, COUNT, Suppressions())
    now, turns = [0.0], [0]

    def wait(line: object) -> None:
        now[0] += waited
        turns[0] += 1

    monkeypatch.setattr(feed_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(feed_module, "yield_hub", wait)
    firehose._turns._waiting = others
    feed, read = firehose.attach(0), Counter[int]()
    while feed.behind:
        assert feed.next(10.0)
        read[turns[0]] += 1
        now[0] += 0.001_3
        feed.give_way()
    # The first piece is read in no turn, the last turn may end with the log.
    assert set(list(read.values())[1:-1]) == {blocks}
    feed.close()
    firehose.close()
    log.close()


def test_what_is_at_hand_counts_as_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogReader.read, "__defaults__", (5_000,))
    log = filled(tmp_path)
    firehose = firehose_of(log, COUNT, Suppressions())
    firehose._budget = budget = ReadBudget(2 * BLOCK)
    slow, other = firehose.attach(0), firehose.attach(0)
    for feed in (slow, other):
        assert feed.next(10.0)
    held = slow.next(10.0)
    assert held and budget.taken > len(held)
    full = Share(budget)
    assert full.ask(0.0) and budget.full
    # What it had is sent, and there is no room for more.
    assert other.next(0.0) is None and budget.taken == BLOCK + len(held)
    full.give_back()
    assert other.next(10.0)
    for feed in (slow, other):
        feed.close()
    assert budget.taken == budget.reading == 0 and not budget.waiting
    firehose.close()
    log.close()


@pytest.mark.parametrize("segment", ["sealed", "newest", "newest of an earlier run"])
def test_the_file_system_is_asked_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: str
) -> None:
    """It may be one of another machine, and would hold up the hub for as long as that does not answer."""
    log = filled(tmp_path)
    if segment == "newest of an earlier run":
        log.close()
        log = SegmentLog(tmp_path / "persist")
    hand, reader = AtHand(Suppressions()), LogReader(log)
    first = log.segments[0 if segment == "sealed" else -1].first_seq
    last = reader.read(first - 1, 3_000)[-1].seq

    def unanswered(*_: object, **__: object) -> None:
        raise AssertionError("the file system was asked")

    with monkeypatch.context() as silent:
        silent.setattr(os, "fstat", unanswered)
        silent.setattr(os, "stat", unanswered)
        found = hand.after(last, COUNT, reader)
    assert found is not None and payloads(found[0])[0] == b"%d" % (last + 1) * 400
    log.close()


def test_what_is_not_synced_is_not_at_hand(tmp_path: Path) -> None:
    unsynced = False

    def sync(_: int) -> None:
        if unsynced:
            found.append(hand.after(2, ALL, reader))

    found: list[tuple[bytes, int] | None] = []
    log = SegmentLog(tmp_path / "persist", sync=sync)
    append(log, [record(1), record(2)])
    hand, reader = AtHand(Suppressions()), LogReader(log)
    assert [one.seq for one in reader.read(0)] == [1, 2]
    unsynced = True
    append(log, [record(3)])
    assert found == [None]
    assert hand.after(2, ALL, reader) is not None
    log.close()


def test_another_place_is_left_to_the_reader(tmp_path: Path) -> None:
    log = filled(tmp_path)
    hand, reader = AtHand(Suppressions()), LogReader(log)
    assert hand.after(0, COUNT, reader) is None
    records = reader.read(0, 5_000)
    last = records[-1].seq
    assert hand.after(last - 1, COUNT, reader) is None
    found = hand.after(last, COUNT, reader)
    assert found is not None
    assert payloads(found[0])[0] == b"%d" % (last + 1) * 400
    assert hand.after(last, COUNT, reader) is None, "the reader has gone on"
    assert hand.after(found[1], found[1], reader) is None, "the next is not published"
    reader.let_go()
    assert hand.after(found[1], COUNT, reader) is None
    assert reader.read(found[1], 5_000)[0].seq == found[1] + 1
    assert len(hand._buffer) == BLOCK
    log.close()
