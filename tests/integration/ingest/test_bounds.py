"""One host whose events wait, waits alone: for its own room, and for the room of all that is parked."""

from __future__ import annotations

import gc

import gevent
import pytest

from relay.hosts import host as host_module
from relay.hosts.host import Host
from relay.ingest import lanes
from relay.ingest.delivery import Hold
from tests.integration.ingest.test_event_path import post
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import RepoBuilder
from tests.support.wait import until

LATENCY = 0.6


def known(path: EventPath, host: Host, pds: FakePds) -> RepoBuilder:
    repo = path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    return repo


def strangers(path: EventPath, host: Host, pds: FakePds, count: int) -> gevent.Greenlet:
    """A subscriber that reads an event of one new account after the other."""

    def read() -> None:
        for seq in range(1, count + 1):
            path.put(host, post(path.repo(pds.url), "3kaaa").frame(seq))
            # What is in a lane is not parked yet: let it get there.
            gevent.sleep(0.001)

    return gevent.spawn(read)


def test_a_host_with_too_much_in_flight_waits_alone(
    path: EventPath, pds: FakePds, other_pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, slow = path.host(pds.url), path.host(other_pds.url)
    repo = known(path, good, pds)
    plc.latency = LATENCY
    monkeypatch.setattr(host_module, "MAX_EVENTS_IN_FLIGHT", 10)
    reading = strangers(path, slow, other_pds, 30)
    until(lambda: slow.budget.full)
    for seq in range(2, 22):
        path.put(good, post(repo, f"3kab{seq}").frame(seq))
    until(lambda: path.stream.firehose.last_seq >= 21, timeout=LATENCY)
    assert slow.budget.events == 10 and not reading.ready()
    until(lambda: path.stream.firehose.last_seq == 51, timeout=10)
    assert reading.ready() and slow.budget.events == 0


@pytest.mark.parametrize("bound", ["PARKED_EVENTS", "PARKED_BYTES"])
def test_when_all_parking_is_taken_only_hosts_with_parked_events_wait(
    path: EventPath,
    pds: FakePds,
    other_pds: FakePds,
    plc: FakePlc,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
) -> None:
    good, slow = path.host(pds.url), path.host(other_pds.url)
    repo = known(path, good, pds)
    plc.latency = LATENCY
    parking = path.ingest.lanes._parking
    monkeypatch.setattr(lanes, bound, 10 if bound == "PARKED_EVENTS" else 5_000)
    strangers(path, slow, other_pds, 40)
    until(lambda: parking.full)
    for seq in range(2, 22):
        path.put(good, post(repo, f"3kab{seq}").frame(seq))
    until(lambda: path.stream.firehose.last_seq >= 21, timeout=LATENCY)
    newcomer = path.repo(pds.url)
    path.put(good, post(newcomer, "3kaaa").frame(22))
    assert parking.events <= 12
    until(lambda: path.stream.firehose.last_seq == 62, timeout=20)
    assert parking.events == parking.bytes == 0


def test_what_was_parked_is_freed_without_a_garbage_collection(path: EventPath, pds: FakePds) -> None:
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(5)]
    gc.collect()
    gc.disable()
    try:
        for seq, repo in enumerate(repos, 1):
            path.put(host, post(repo, "one").frame(seq))
        path.logged(len(repos))
        until(lambda: path.ingest.lanes._parking.events == 0)
        assert not [found for found in gc.get_objects() if isinstance(found, Hold)]
    finally:
        gc.enable()
