"""Keys asked for one by one are read together, each as of after it was asked for; errors reach all who waited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
import pytest
from gevent.event import Event

from relay.kit.errors import StoreError
from relay.store import batched_reads
from relay.store.batched_reads import BatchedReads


class Slow:
    """A database whose reads wait for `gate`."""

    def __init__(self) -> None:
        self.gate = Event()
        self.gate.set()
        self.reads: list[list[str]] = []
        self.error: Exception | None = None

    def read(self, work: Callable[..., Any], keys: Sequence[str]) -> Any:
        self.reads.append(list(keys))
        self.gate.wait(5)
        if self.error is not None:
            raise self.error
        return work(None, keys)


def found(_tx: object, keys: Sequence[str]) -> dict[str, int]:
    return {key: int(key) for key in keys if key.isdigit()}


def asked(rows: BatchedReads[int], *keys: str) -> list[gevent.Greenlet[..., int | None]]:
    greenlets = [gevent.spawn(rows.get, key) for key in keys]
    gevent.sleep(0.01)
    return greenlets


def test_one_key_is_read_at_once_and_all_that_come_meanwhile_together() -> None:
    db = Slow()
    rows: BatchedReads[int] = BatchedReads(db, found)  # type: ignore[arg-type]
    db.gate.clear()
    first = asked(rows, "1")
    later = asked(rows, "2", "3", "none", "3")
    assert db.reads == [["1"]]
    db.gate.set()
    assert [one.get(timeout=60) for one in (*first, *later)] == [1, 2, 3, None, 3]
    assert db.reads == [["1"], ["2", "3", "none", "3"]]
    assert rows.get("4") == 4


def test_a_read_takes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_reads, "MAX_KEYS", 10)
    db = Slow()
    rows: BatchedReads[int] = BatchedReads(db, found)  # type: ignore[arg-type]
    db.gate.clear()
    greenlets = asked(rows, *map(str, range(35)))
    db.gate.set()
    assert [one.get(timeout=60) for one in greenlets] == list(range(35))
    assert all(len(keys) <= 10 for keys in db.reads)


def test_an_outage_is_told_to_all_and_passes() -> None:
    db = Slow()
    rows: BatchedReads[int] = BatchedReads(db, found)  # type: ignore[arg-type]
    db.gate.clear()
    greenlets = asked(rows, "1", "2", "3")
    db.error = StoreError("store-unavailable", "away")
    db.gate.set()
    for one in greenlets:
        with pytest.raises(StoreError):
            one.get(timeout=60)
    db.error = None
    assert rows.get("1") == 1


def test_who_is_killed_while_reading_for_others_leaves_nobody_waiting() -> None:
    db = Slow()
    rows: BatchedReads[int] = BatchedReads(db, found)  # type: ignore[arg-type]
    db.gate.clear()
    busy, leader, follower = asked(rows, "1", "2", "3")
    leader.kill()
    with pytest.raises(StoreError):
        follower.get(timeout=60)
    db.gate.set()
    assert busy.get(timeout=60) == 1
    assert rows.get("3") == 3
