"""Promise 14: A host's cursor is the last contiguous settled upstream seq. It is stored with the log position it
belongs to, and never compared with numbers from before the host began anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import post
from tests.support.wait import until


def test_one_event_that_waits_holds_the_cursor_and_nothing_else(
    path: EventPath, pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay ends while event 11 waits, and 12 to 30 are in the log: 11 comes again, and the others do not."""
    host, known, stranger = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    frames = [post(known, f"3ka{seq:02}").frame(seq) for seq in range(1, 11)]
    frames.append(post(stranger, "3kaaa").frame(11))
    frames += [post(known, f"3ka{seq:02}").frame(seq) for seq in range(12, 31)]
    for frame in frames[:10]:
        path.put(host, frame)
    path.logged(10)
    plc.latency = 30
    for frame in frames[10:]:
        path.put(host, frame)
    path.logged(29)
    assert host.cursor.position == 10
    path.stream.projector.flush()
    assert path.host_row(host).last_seq == 10
    path.restart()
    plc.latency = 0
    host = path.host(pds.url)
    assert host.cursor.position == 10
    for frame in frames[10:]:
        path.put(host, frame)
    until(lambda: host.cursor.position == 30)
    out = path.logged(30)
    assert len(out) == 30 and out[-1].did == stranger.did


def test_a_number_that_comes_after_a_higher_one_holds_the_cursor(path: EventPath, pds: FakePds, plc: FakePlc) -> None:
    """A host that passed 11 over gives it after a reconnect, while 12 is under way; the relay ends before it has 11."""
    host, known, stranger, late = path.host(pds.url), *(path.repo(pds.url) for _ in range(3))
    for seq in range(1, 11):
        path.put(host, post(known, f"3ka{seq:02}").frame(seq))
    path.logged(10)
    eleven, twelve = post(late, "3kaaa").frame(11), post(stranger, "3kaaa").frame(12)
    plc.latency = 1
    path.put(host, twelve)
    until(lambda: plc.asked[stranger.did] > 0)
    plc.latency = 30
    path.put(host, eleven)
    path.logged(11)
    path.stream.projector.flush()
    assert path.host_row(host).last_seq == 10
    path.restart()
    plc.latency = 0
    host = path.host(pds.url)
    for frame in (eleven, twelve):
        path.put(host, frame)
    until(lambda: host.cursor.position == 12)
    assert [event.did for event in path.logged(12)][-2:] == [stranger.did, late.did]


def test_numbers_from_before_a_host_began_anew_count_for_nothing(
    tmp_path: Path, database_url: str, plc: FakePlc, pds: FakePds
) -> None:
    path = EventPath(tmp_path / "persist", database_url, plc)
    host, repo = path.host(pds.url), path.repo(pds.url)
    for seq in (1000, 1001):
        path.put(host, post(repo, f"3k{seq}").frame(seq))
    path.logged(2)
    until(lambda: host.cursor.position == 1001)
    host.cursor.reset()
    for seq in (5, 6):
        path.put(host, post(repo, f"3kb{seq}").frame(seq))
    path.logged(4)
    until(lambda: host.cursor.position == 6)
    path.restart()
    host = path.host(pds.url)
    assert host.cursor.position == 6
    path.put(host, post(repo, "3kb7").frame(7))
    path.logged(5)
    path.close()
