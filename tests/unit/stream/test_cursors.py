"""Upstream cursors: never past an unsettled event, never taking one twice, the same again after a restart."""

from __future__ import annotations

import random

import pytest

from relay.stream.cursors import RESTORED_EVENTS, CursorBook, HostCursor


class Book(CursorBook):
    """A book over a log that is at `log_seq`."""

    last_time_us = 0

    def __init__(self) -> None:
        self.log_seq = 0
        super().__init__(self)

    @property
    def last_seq(self) -> int:
        return self.log_seq


def begun(*seqs: int) -> tuple[Book, HostCursor]:
    book = Book()
    cursor = book.get(1)
    for seq in seqs:
        assert cursor.begin(seq)
    return book, cursor


def test_position_waits_for_the_oldest() -> None:
    book, cursor = begun(10, 12, 15)
    assert cursor.position == -1
    cursor.finish(12)
    cursor.finish(15)
    assert cursor.position == -1 and book.take_dirty() == {}
    cursor.finish(10)
    assert cursor.position == 15
    assert book.take_dirty() == {1: 15}
    assert book.take_dirty() == {}


def test_an_event_is_begun_once() -> None:
    _, cursor = begun(10, 12)
    assert not cursor.begin(12), "outstanding"
    cursor.finish(12)
    assert not cursor.begin(12), "finished above the position"
    cursor.finish(10)
    assert not cursor.begin(12) and not cursor.begin(10) and not cursor.begin(3), "settled"
    assert cursor.begin(13)


def test_finish_of_the_unknown_changes_nothing() -> None:
    _, cursor = begun(10)
    cursor.finish(99)
    assert cursor.position == -1


def test_any_order_of_finishing() -> None:
    seqs = random.Random(1).sample(range(1000), 200)
    _, cursor = begun(*sorted(seqs))
    settled: set[int] = set()
    for seq in seqs:
        cursor.finish(seq)
        settled.add(seq)
        unsettled = [other for other in seqs if other not in settled]
        expected = [other for other in seqs if not unsettled or other < min(unsettled)]
        assert cursor.position == max(expected, default=-1)


def test_a_number_that_comes_after_a_higher_one_is_waited_for() -> None:
    """As after a reconnect: the host passed it over before."""
    book, cursor = begun(10)
    book.log_seq = 100
    cursor.begin(12)
    book.log_seq = 200
    assert cursor.begin(11) and not cursor.begin(11) and cursor.begin(14)
    cursor.finish(10)
    cursor.finish(12)
    assert cursor.position < 11 and not cursor.begin(12)
    assert book.replay_from() == 1, "after a restart, 10 and 12 would come again"
    cursor.finish(11)
    assert cursor.position == 12 and not cursor.begin(11)
    assert book.replay_from() == 201
    cursor.begin(13)
    cursor.finish(14)
    cursor.finish(13)
    assert cursor.position == 14 and not cursor.outstanding


def test_the_position_never_goes_back() -> None:
    _, cursor = begun(12, 10)
    cursor.finish(12)
    cursor.finish(10)
    assert cursor.position == 12


def test_replay_from_is_where_the_oldest_outstanding_event_was_begun() -> None:
    book = Book()
    slow, quick = book.get(1), book.get(2)
    book.log_seq = 100
    assert book.replay_from() == 101
    slow.begin(1)
    book.log_seq = 200
    slow.begin(2)
    quick.begin(1)
    book.log_seq = 300
    slow.finish(2)
    quick.finish(1)
    assert book.replay_from() == 101
    slow.finish(1)
    assert book.replay_from() == 301


def test_after_a_restart_what_the_log_has_is_not_taken_again() -> None:
    book = Book()
    book.log_seq = 500
    cursor = book.get(1)
    cursor.restore(10, {12: 401, 14: 402})
    assert book.replay_from() == 401
    assert cursor.begin(11), "was under way when the relay died"
    assert not cursor.begin(12)
    assert cursor.begin(13)
    assert not cursor.begin(14)
    assert cursor.position == 10
    assert book.replay_from() == 401, "after another restart, 12 and 14 would come again"
    cursor.finish(11)
    assert cursor.position == 12
    assert book.replay_from() == 401
    cursor.finish(13)
    assert cursor.position == 14
    assert book.replay_from() == 501


def test_a_host_that_does_not_send_again_what_was_logged() -> None:
    book = Book()
    book.log_seq = 500
    book.get(1).restore(10, {12: 401, 14: 402})
    assert book.get(1).begin(20), "past all of them"
    book.get(1).finish(20)
    assert book.replay_from() == 501


def test_a_host_that_never_returns_does_not_keep_the_log() -> None:
    book = Book()
    book.log_seq = 500
    book.get(1).restore(10, {12: 401})
    book.log_seq = RESTORED_EVENTS * 3
    assert book.replay_from() == RESTORED_EVENTS * 2 + 1


def test_what_is_under_way_keeps_the_log_however_long_that_takes() -> None:
    book, _ = begun(1)
    book.log_seq = RESTORED_EVENTS * 3
    assert book.replay_from() == 1


def test_reset_forgets_and_is_stored() -> None:
    book, cursor = begun(10, 11)
    assert cursor.outstanding
    with pytest.raises(AssertionError):
        cursor.reset()
    cursor.finish(11)
    cursor.finish(10)
    book.take_dirty()
    assert not cursor.outstanding
    cursor.reset()
    assert (cursor.position, book.take_dirty(), book.replay_from()) == (-1, {1: -1}, 1)
    assert cursor.begin(10) and cursor.begin(11), "new events under old numbers"


def test_where_numbers_start_is_stored_with_the_position() -> None:
    book = Book()
    book.log_seq = 77
    cursor = book.get(1)
    cursor.start(9)
    assert cursor.position == 9 and not cursor.begin(9) and cursor.begin(10)
    moved, started = book.take_dirty(), book.take_started()
    assert (moved, started) == ({1: 9}, {1: 77})
    cursor.note_gap("unreadable")
    gaps = book.take_gaps()
    assert (book.take_dirty(), gaps) == ({1: 9}, {1: "unreadable"}), "a gap is stored, whether or not events come"
    assert (book.take_dirty(), book.take_started(), book.take_gaps()) == ({}, {}, {})
    book.give_back(moved, started, gaps)
    assert (book.take_dirty(), book.take_started()) == ({1: 9}, {1: 77}), "SQL was away the first time"
    assert book.take_gaps() == {1: "unreadable"}
    cursor.finish(10)
    cursor.reset()
    book.log_seq = 88
    cursor.start(4)
    book.give_back(moved, started, gaps)
    assert (book.take_dirty(), book.take_started()) == ({1: 4}, {1: 88}), "what is newer stays"
    book.forget_stored()
    assert (book.take_dirty(), book.take_started()) == ({1: 4}, {1: 88}), "an older database has taken its place"


def test_reset_forgets_what_was_restored() -> None:
    book = Book()
    book.log_seq = 9
    cursor = book.get(1)
    cursor.restore(10, {12: 5})
    cursor.reset()
    assert cursor.begin(12)
    cursor.finish(12)
    assert book.replay_from() == 10


def test_a_cursor_is_full_until_the_oldest_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stream.cursors.MAX_AHEAD", 100)
    _, cursor = begun(1)
    for seq in range(2, 101):
        assert not cursor.full
        cursor.begin(seq)
        cursor.finish(seq)
    assert cursor.full
    cursor.finish(1)
    assert not cursor.full
