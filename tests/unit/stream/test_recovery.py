"""What a start believes of a checkpoint, and which numbers of a host it finds in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.atproto.events import Kind
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.stream import recovery
from relay.stream.checkpoint import Checkpoint
from relay.stream.cursors import NONE_YET, CursorBook, HostCursor
from relay.stream.recovery import LoggedSeqs
from tests.support.hosts import EmptyLog
from tests.support.stream import append, record

NEWEST = 40


def found(seqs: LoggedSeqs) -> tuple[CursorBook, HostCursor]:
    """The book with what was found, and the cursor of host 1 in it."""
    book = CursorBook(EmptyLog())
    seqs.fill(book)
    return book, book.get(1)


def noted(seqs: LoggedSeqs, seq: int, upstream_seq: int, host_id: int = 1) -> None:
    seqs.note(Record(seq, 0, 1, host_id, upstream_seq, Kind.COMMIT, 0, 0, b""))


@pytest.mark.parametrize(
    ("at", "sql_at", "used"),
    [
        (20, 10, True),
        (20, 20, True),
        (NEWEST, 10, True),
        (20, 21, False),
        (NEWEST + 1, 10, False),
        (25, 10, False),
        (2, 1, False),
    ],
    ids=["newer than SQL", "as new", "newest", "older than SQL", "ahead of the log", "lost", "trimmed"],
)
def test_a_checkpoint_is_believed_as_far_as_the_log_bears_it_out(
    tmp_path: Path, at: int, sql_at: int, used: bool
) -> None:
    log = SegmentLog(tmp_path, initial_seq=3)
    append(log, [record(seq) for seq in range(3, 21)])
    # The log lost 21 to 30, and so passes them over.
    log.advance(31)
    append(log, [record(seq) for seq in range(31, NEWEST + 1)])
    kept = Checkpoint(at, 1, {}, {})
    assert recovery._borne_out(kept, log, sql_at) is (kept if used else None)


def test_which_numbers_of_a_host_count_as_logged() -> None:
    seqs = LoggedSeqs({1: 10}, {1: 100})
    for seq, upstream_seq in (
        (100, 15),  # from before its numbers began anew
        (101, 0),  # fetched
        (102, 10),  # settled
        (103, 14),
        (104, 12),
        (105, 14),  # once more
    ):
        noted(seqs, seq, upstream_seq)
    noted(seqs, 106, 20, host_id=2)
    book, cursor = found(seqs)
    assert (cursor.position, cursor.since, cursor.oldest_logged()) == (10, 100, 102)
    assert [seq for seq in range(10, 22) if cursor.begin(seq)] == [11, 13, *range(15, 22)]
    assert not book.dirty and book.get(2).position == NONE_YET, "nobody knows host 2"


def test_a_host_without_a_cursor_starts_before_its_first_event_in_the_log() -> None:
    seqs = LoggedSeqs({1: NONE_YET}, {})
    # Fetched, by no number of the host's.
    noted(seqs, 4, 0)
    noted(seqs, 5, 8)
    noted(seqs, 6, 7)
    book, cursor = found(seqs)
    assert cursor.position == 6 and book.dirty == {1}
    assert [seq for seq in range(6, 10) if cursor.begin(seq)] == [9]


def test_what_waits_for_an_earlier_event_is_bounded_as_it_was_before_the_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "MAX_AHEAD", 10)
    seqs = LoggedSeqs({1: 0}, {})
    for upstream_seq in range(2, 101):
        noted(seqs, upstream_seq, upstream_seq)
        assert len(seqs._logged[1]) < 20
    book, cursor = found(seqs)
    assert 80 < cursor.position <= 90 and book.dirty == {1}
    assert [seq for seq in range(1, 103) if cursor.begin(seq)] == [101, 102]
