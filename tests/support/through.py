"""Both ends of a relay that runs as a process: accounts that write through a fake host, and a consumer that resumes by
cursor, with the check that what comes out is what went in.
"""

from __future__ import annotations

import gevent
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from relay.atproto import frames
from relay.atproto.frames import Commit, Event, Info
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document
from tests.support.websocket import connect

ACCOUNTS = 8


class Writer:
    """Accounts that write through a host, and what each of them wrote, in order."""

    def __init__(self, plc: FakePlc, pds: FakePds) -> None:
        self.plc = plc
        self.pds = pds
        self.seq = 0
        self.repos: list[RepoBuilder] = []
        self.written: dict[str, list[str]] = {}
        for _ in range(ACCOUNTS):
            self.sign_up()

    def sign_up(self) -> None:
        """One more account, unknown to the relay until it writes."""
        number = len(self.repos) + 1
        repo = RepoBuilder(account_did(number), SigningKey.create(seed=number))
        self.plc.documents[repo.did] = did_document(repo.did, repo.key, self.pds.url)
        self.repos.append(repo)
        self.written[repo.did] = []

    def write(self, count: int) -> None:
        for _ in range(count):
            self.seq += 1
            repo = self.repos[self.seq % len(self.repos)]
            event = repo.commit(create(f"app.bsky.feed.post/{self.seq:013d}", {"n": self.seq}))
            self.pds.publish(self.seq, event.frame(self.seq))
            self.written[repo.did].append(event.fields["rev"])
            gevent.sleep(0.002)

    @property
    def total(self) -> int:
        return sum(map(len, self.written.values()))


class ResumingConsumer:
    """Reads the firehose from the last seq it has, again and again, until it is stopped: commits, and `others`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[Commit] = []
        self.others: list[Event] = []
        self.infos: list[str] = []
        self.close_codes: list[int | None] = []
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            cursor = max((events[-1].seq for events in (self.events, self.others) if events), default=0)
            try:
                with connect(f"{self.url}?cursor={cursor}", max_size=None) as stream:
                    for message in stream:
                        assert isinstance(message, bytes)
                        event = frames.decode(message)
                        if isinstance(event, Info):
                            self.infos.append(event.name)
                            continue
                        assert isinstance(event, Event), event
                        if isinstance(event, Commit):
                            self.events.append(event)
                        else:
                            self.others.append(event)
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


def check_whole(consumer: ResumingConsumer, writer: Writer) -> None:
    assert not consumer.others
    seqs = [event.seq for event in consumer.events]
    assert seqs == sorted(set(seqs)), "a seq came twice or fell back"
    for did, revs in writer.written.items():
        assert consumer.revs(did) == revs
