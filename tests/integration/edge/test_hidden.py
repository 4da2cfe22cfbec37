"""What an edge keeps in SQL, while SQL is away: bounded, and all there once it is back, be it an older state."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from prometheus_client import REGISTRY

from relay.atproto.frames import Kind
from relay.edge import hidden
from relay.edge.hidden import Hidden
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import FLAG_HIDES
from relay.kit.errors import StoreError
from relay.store import projection
from relay.store.database import Database, Transaction
from relay.stream.firehose import Firehose
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from tests.support.stream import append, record

SEGMENT_BYTES = 2_000


class Edge:
    """The log of an edge, the marks of what is logged, and SQL, which can be away."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.log = SegmentLog(folder, copy=True, segment_bytes=SEGMENT_BYTES)
        self.suppressions = Suppressions()
        self.hidden = Hidden(db, self.log, self.suppressions)
        self.db = db

    def delete(self, first: int, last: int) -> None:
        """Log that accounts were deleted, each by the record of its number."""
        for seq in range(first, last + 1):
            deleted = record(seq, uid=seq, kind=Kind.ACCOUNT, flags=FLAG_HIDES)
            append(self.log, [deleted])
            self.suppressions.apply(deleted)
        self.hidden.advance(last)

    def stored(self) -> dict[int, int]:
        return self.db.read(projection.suppressions)


@pytest.fixture
def edge(tmp_path: Path, database: Database) -> Edge:
    return Edge(tmp_path / "persist", database)


def away(*_: Any, **__: Any) -> None:
    raise StoreError("store-unavailable", "away")


def test_what_waits_for_sql_is_bounded_and_written_when_it_is_back(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "MAX_CHANGED", 50)
    monkeypatch.setattr(hidden, "ROWS_AT_A_TIME", 40)
    edge.delete(1, 10)
    edge.hidden.flush()
    with monkeypatch.context() as patched:
        patched.setattr(edge.db, "write", away)
        for first in range(11, 200, 20):
            edge.delete(first, first + 19)
            edge.hidden.flush()
            assert edge.hidden.problem is not None
            assert REGISTRY.get_sample_value("relay_queue_size", {"queue": "edge-hidden"}) <= 50  # type: ignore[operator]
    assert len(edge.stored()) == 10 and edge.hidden.stored_position == 10
    edge.hidden.flush()
    assert edge.hidden.problem is None
    assert edge.stored() == {seq: seq for seq in range(1, 211)}
    assert edge.db.read(projection.position)[0] == 210


@pytest.mark.parametrize("broken_off_by", [gevent.GreenletExit, RuntimeError])
def test_a_write_that_is_broken_off_loses_none(
    tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch, broken_off_by: type[BaseException]
) -> None:
    """At the end of the edge, for one: what comes then stands for all that was logged."""

    def broken_off(*_: Any, **__: Any) -> None:
        raise broken_off_by

    edge.delete(1, 5)
    with monkeypatch.context() as patched, suppress(broken_off_by):
        patched.setattr(edge.db, "write", broken_off)
        edge.hidden.flush()
    edge.hidden.stop()
    assert edge.stored() == {seq: seq for seq in range(1, 6)} and edge.db.read(projection.position)[0] == 5
    edge.log._unlock()
    assert Edge(tmp_path / "persist", edge.db).suppressions.marks() == {seq: seq for seq in range(1, 6)}


def test_a_database_that_hangs_does_not_hold_up_the_end(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "LAST_WRITE_SECONDS", 0.1)
    edge.delete(1, 5)
    with monkeypatch.context() as patched, gevent.Timeout(60):
        patched.setattr(edge.db, "write", lambda *_, **__: gevent.sleep(3600))
        edge.hidden.stop()
    edge.hidden.flush()
    assert edge.stored() == {seq: seq for seq in range(1, 6)}


def test_an_outage_in_the_middle_of_the_pieces_loses_none(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "ROWS_AT_A_TIME", 10)
    write, calls = edge.db.write, 0

    def now_and_then(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return away() if calls == 3 else write(*args, **options)

    monkeypatch.setattr(edge.db, "write", now_and_then)
    edge.delete(1, 45)
    edge.hidden.flush()
    assert edge.db.read(projection.position)[0] == 0 and 0 < len(edge.stored()) < 45
    edge.delete(46, 50)
    edge.hidden.flush()
    assert edge.stored() == {seq: seq for seq in range(1, 51)} and edge.db.read(projection.position)[0] == 50


def test_the_log_is_trimmed_whatever_sql_has(tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of what is gone are not needed; a start finds those of what is there in the log."""
    with monkeypatch.context() as patched:
        patched.setattr(edge.db, "write", away)
        edge.delete(1, 100)
        edge.hidden.flush()
        edge.log.trim(3600.0, 3 * SEGMENT_BYTES, edge.log.next_seq)
        edge.suppressions.forget_before(edge.log.first_seq)
    first_seq = edge.log.first_seq
    assert first_seq > 50
    edge.log._unlock()
    again = Edge(tmp_path / "persist", edge.db)
    assert again.suppressions.marks() == {seq: seq for seq in range(first_seq, 101)}
    again.hidden.flush()
    assert again.stored() == again.suppressions.marks()


def put_back(tx: Transaction, marks: dict[int, int], position: int) -> None:
    """An older state in the place of this one, as after a failover to a replica that lags."""
    tx.execute("DELETE FROM log_suppression")
    tx.execute("DELETE FROM relay_position")
    projection.write(tx, projection.ProjectionBatch(position, position + 1, suppressed=marks))


def test_a_database_that_goes_back_is_noticed_and_has_all_marks_again(
    tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "ROWS_AT_A_TIME", 8)
    edge.delete(1, 10)
    edge.hidden.flush()
    older = edge.stored()
    edge.delete(11, 30)
    edge.hidden.flush()
    edge.db.write(put_back, older, 10)
    went_back = REGISTRY.get_sample_value("relay_store_went_back_total")
    edge.delete(31, 31)
    edge.hidden.flush()
    assert edge.hidden.problem is not None and edge.hidden.stored_position == 10
    assert REGISTRY.get_sample_value("relay_store_went_back_total") == (went_back or 0) + 1
    edge.hidden.flush()
    assert edge.hidden.problem is None
    assert edge.stored() == {seq: seq for seq in range(1, 32)} and edge.db.read(projection.position)[0] == 31
    edge.log._unlock()
    assert Edge(tmp_path / "persist", edge.db).suppressions.marks() == {seq: seq for seq in range(1, 32)}


def test_a_kill_before_the_marks_are_told_again_loses_none(tmp_path: Path, edge: Edge) -> None:
    edge.delete(1, 20)
    edge.hidden.flush()
    edge.db.write(put_back, {}, 3)
    edge.delete(21, 25)
    edge.hidden.flush()
    edge.log._unlock()
    again = Edge(tmp_path / "persist", edge.db)
    assert again.suppressions.marks() == {seq: seq for seq in range(4, 26)}


def test_a_write_of_which_no_answer_came_is_no_going_back(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    write = edge.db.write

    def stored_without_an_answer(*args: Any, **options: Any) -> Any:
        write(*args, **options)
        return away()

    edge.delete(1, 10)
    with monkeypatch.context() as patched:
        patched.setattr(edge.db, "write", stored_without_an_answer)
        edge.hidden.flush()
    assert edge.hidden.problem is not None
    edge.delete(11, 12)
    edge.hidden.flush()
    assert edge.hidden.problem is None and edge.db.read(projection.position)[0] == 12


def test_a_log_that_is_older_than_the_database_is_no_going_back(tmp_path: Path, edge: Edge) -> None:
    edge.db.write(put_back, {7: 40}, 50)
    edge.log._unlock()
    again = Edge(tmp_path / "persist", edge.db)
    again.delete(1, 10)
    again.hidden.flush()
    assert again.hidden.problem is None
    again.delete(11, 20)
    again.hidden.flush()
    assert again.hidden.problem is None and again.stored() == {**{seq: seq for seq in range(1, 21)}, 7: 7}


def test_the_metrics_of_the_log_are_those_of_the_edge(edge: Edge) -> None:
    edge.delete(1, 30)
    Firehose(edge.log, Tail(edge.log.last_seq, edge.suppressions), edge.suppressions)
    shown = {name: REGISTRY.get_sample_value(f"relay_log_{name}") for name in ("first_seq", "last_seq", "segments")}
    assert shown == {"first_seq": 1, "last_seq": 30, "segments": len(edge.log.segments)}
