"""The whole relay as a process between a fake host and a consumer that resumes by cursor, and killed."""

from __future__ import annotations

import random
import socket
import time
from functools import partial
from pathlib import Path

import gevent
import gevent.event
import pytest

from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole

EVENTS_A_ROUND = 120
KILLS = 3


@pytest.mark.timeout(600)
def test_kills_in_the_middle_lose_and_repeat_nothing(relay: RelayProcess, network: tuple[FakePlc, FakePds]) -> None:
    chance = random.Random(7)
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)

    def past(count: int) -> bool:
        return len(consumer.events) > count + chance.randrange(EVENTS_A_ROUND // 2)

    for _ in range(KILLS):
        before = len(consumer.events)
        writing = gevent.spawn(writer.write, EVENTS_A_ROUND)
        relay.wait_until(partial(past, before))
        relay.kill()
        writing.join()
        relay.start()
    relay.wait_until(lambda: len(consumer.events) >= writer.total, 60)
    consumer.stop()
    check_whole(consumer, writer)
    for repo in writer.repos:
        status = relay.xrpc("getLatestCommit", f"did={repo.did}").json
        assert status["rev"] == writer.written[repo.did][-1]


@pytest.mark.timeout(300)
def test_a_second_relay_on_the_same_database_says_why_it_does_not_start(
    relay: RelayProcess, network: tuple[FakePlc, FakePds], tmp_path: Path
) -> None:
    """And changes nothing: the first one goes on, also where the second one has a log of its own."""
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    second = RelayProcess(tmp_path / "second", {"DATABASE_URL": relay.settings["DATABASE_URL"]})
    with pytest.raises(AssertionError, match="the relay did not start"):
        second.start()
    assert second.child is not None and second.child.process.wait(30) == 75
    said = [line for line in second.log_tail().splitlines() if "cannot start" in line]
    assert len(said) == 1 and "store-locked" in said[0] and "another relay uses this database" in said[0]
    assert "Traceback" not in second.log_tail()
    writer.write(40)
    relay.wait_until(lambda: len(consumer.events) >= writer.total)
    relay.stop()
    second.settings["RELAY_PERSIST_DIR"] = relay.settings["RELAY_PERSIST_DIR"]
    second.start()
    second.close()
    consumer.stop()
    check_whole(consumer, writer)


@pytest.mark.timeout(180)
def test_the_memory_is_told_at_the_end(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, {"RELAY_DEBUG_MEMORY": "true"})
    relay.start()
    assert relay.admin("debug/memory")["lines"]
    assert relay.stop() == 0
    assert '"grown_since_last_report"' in relay.log_tail()


@pytest.mark.timeout(180)
def test_the_api_is_up_whatever_the_pull_of_hosts_does(tmp_path: Path) -> None:
    """The relay to pull from takes the connection and says nothing; a page may take 30 seconds."""
    with FakePds() as mute:
        asked = gevent.event.Event()

        def say_nothing(sock: socket.socket) -> None:
            asked.set()
            while sock.recv(1000):
                pass

        mute.on_accept = say_nothing
        relay = RelayProcess(tmp_path, {"RELAY_BOOTSTRAP_HOST": mute.url})
        began = time.monotonic()
        relay.start()
        try:
            assert time.monotonic() - began < 60
            assert asked.wait(60)
            assert relay.xrpc("listHosts").json["hosts"] == []
        finally:
            relay.close()
