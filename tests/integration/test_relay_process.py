"""The whole relay as a process between a fake host and a consumer that resumes by cursor: drained, and killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from relay.atproto import frames
from relay.atproto.frames import Commit
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document

ACCOUNTS = 8
EVENTS_A_ROUND = 120
KILLS = 3


class Writer:
    """Accounts that write through a host, and what each of them wrote, in order."""

    def __init__(self, plc: FakePlc, pds: FakePds) -> None:
        self.pds = pds
        self.seq = 0
        self.repos = [RepoBuilder(account_did(n), SigningKey.create(seed=n)) for n in range(1, ACCOUNTS + 1)]
        self.written: dict[str, list[str]] = {repo.did: [] for repo in self.repos}
        for repo in self.repos:
            plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)

    def write(self, count: int) -> None:
        for _ in range(count):
            self.seq += 1
            repo = self.repos[self.seq % ACCOUNTS]
            event = repo.commit(create(f"app.bsky.feed.post/{self.seq:013d}", {"n": self.seq}))
            self.pds.publish(self.seq, event.frame(self.seq))
            self.written[repo.did].append(event.fields["rev"])
            gevent.sleep(0.002)

    @property
    def total(self) -> int:
        return sum(map(len, self.written.values()))


class ResumingConsumer:
    """Reads the firehose from the last seq it has, again and again, until it is stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[Commit] = []
        self.close_codes: list[int | None] = []
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            cursor = self.events[-1].seq if self.events else 0
            try:
                with connect(f"{self.url}?cursor={cursor}", max_size=None) as stream:
                    for message in stream:
                        event = frames.decode(bytes(message))
                        assert isinstance(event, Commit), event
                        self.events.append(event)
            except ConnectionClosed:
                pass
            except (OSError, InvalidHandshake):
                gevent.sleep(0.05)
            else:
                self.close_codes.append(stream.close_code)

    def stop(self) -> None:
        self._greenlet.kill()

    def revs(self, did: str) -> list[str]:
        return [event.rev for event in self.events if event.did == did]


@pytest.fixture
def network() -> Iterator[tuple[FakePlc, FakePds]]:
    with FakePlc() as plc, FakePds() as pds:
        yield plc, pds


@pytest.fixture
def relay(tmp_path: Path, network: tuple[FakePlc, FakePds]) -> Iterator[RelayProcess]:
    process = RelayProcess(tmp_path, {"RELAY_PLC_HOST": network[0].url})
    process.start()
    yield process
    process.close()


def check_whole(consumer: ResumingConsumer, writer: Writer) -> None:
    seqs = [event.seq for event in consumer.events]
    assert seqs == sorted(set(seqs)), "a seq came twice or fell back"
    for did, revs in writer.written.items():
        assert consumer.revs(did) == revs


@pytest.mark.timeout(180)
def test_sigterm_drains_and_a_restart_goes_on(relay: RelayProcess, network: tuple[FakePlc, FakePds]) -> None:
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    writing = gevent.spawn(writer.write, EVENTS_A_ROUND)
    relay.wait_until(lambda: len(consumer.events) > EVENTS_A_ROUND // 3)
    assert relay.child is not None
    relay.child.process.send_signal(signal.SIGTERM)
    assert relay.child.process.wait(30) == 0
    writing.join()
    relay.start()
    writer.write(EVENTS_A_ROUND)
    relay.wait_until(lambda: len(consumer.events) >= writer.total)
    consumer.stop()
    check_whole(consumer, writer)
    assert consumer.close_codes[:1] == [1001], "a drained consumer is told that the relay goes away"


@pytest.mark.timeout(300)
def test_kills_in_the_middle_lose_and_repeat_nothing(relay: RelayProcess, network: tuple[FakePlc, FakePds]) -> None:
    chance = random.Random(7)
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    for _ in range(KILLS):
        before = len(consumer.events)
        writing = gevent.spawn(writer.write, EVENTS_A_ROUND)
        relay.wait_until(lambda before=before: len(consumer.events) > before + chance.randrange(EVENTS_A_ROUND // 2))
        relay.kill()
        writing.join()
        relay.start()
    relay.wait_until(lambda: len(consumer.events) >= writer.total, 60)
    consumer.stop()
    check_whole(consumer, writer)
    for repo in writer.repos:
        status = relay.xrpc("getLatestCommit", f"did={repo.did}").json
        assert status["rev"] == writer.written[repo.did][-1]
