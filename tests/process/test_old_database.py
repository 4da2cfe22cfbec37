"""Last night's database beside today's log: the relay serves while it brings the one up to the other."""

from __future__ import annotations

import sys

import gevent
import pytest

from tests.support import databases
from tests.support.http import call
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer

# A relay for which little is much, and that takes its time.
SLOW = """
import sys
from relay.patched import patch
patch()
import gevent
from relay import app
from relay.stream import catch_up, recovery
recovery.WAIT_FOR_EVENTS = 50
catch_up.PIECE_RECORDS = 10
catch_up.READ_BYTES = 5000
step = catch_up.CatchUp.step
def slow_step(self):
    gevent.sleep(0.4)
    return step(self)
catch_up.CatchUp.step = slow_step
sys.exit(app.main(None))
"""


@pytest.mark.timeout(600)
def test_it_serves_while_it_recovers_and_goes_on_after_a_kill(
    relay: RelayProcess, network: tuple[FakePlc, FakePds], database_url: str
) -> None:
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    relay.lift_limits(network[1].hostname)
    writer.write(80)
    relay.wait_until(lambda: len(consumer.events) >= writer.total)
    relay.stop()
    databases.save(database_url)
    relay.start()
    relay.wait_connected(1)
    writer.write(400)
    relay.wait_until(lambda: len(consumer.events) >= writer.total, 60)
    down = writer.repos[3].did
    relay.admin("repo/takeDown", {"did": down})
    relay.stop()
    databases.bring_back(database_url)
    relay.command = (sys.executable, "-c", SLOW)
    for killed in (True, False):
        starting = gevent.spawn(relay.start, 120)
        relay.wait_until(lambda: relay_answers(relay), 60)
        assert "events to go" in call(f"{relay.url}/_health").json["msg"]
        to_go = relay.metric("relay_recovery_remaining_events")
        assert to_go > 100
        replayed = ResumingConsumer(relay.firehose)
        relay.wait_until(lambda: len(replayed.events) >= 480 - 60)  # noqa: B023 - of each round
        assert not any(event.did == down for event in replayed.events)
        replayed.stop()
        assert relay.xrpc("listRepos", "limit=10").status == 200 and not relay.admin("subs/getUpstreamConns")
        assert relay.xrpc("getRepoStatus", f"did={down}").status == 500, "nobody can tell yet"
        relay.wait_until(lambda: relay.metric("relay_recovery_remaining_events") < to_go - 50, 60)  # noqa: B023
        if killed:
            starting.kill()
            relay.kill()
    starting.get()
    relay.wait_connected(1)
    assert relay.xrpc("getRepoStatus", f"did={down}").json["status"] == "takendown"
    passing = [repo for repo in writer.repos if repo.did != down]
    assert len(relay.xrpc("listRepos", "limit=1000").json["repos"]) == len(passing)
    before = len(consumer.events)
    writer.write(40)
    relay.wait_until(lambda: len(consumer.events) >= before + 35)
    consumer.stop()
    seqs = [event.seq for event in consumer.events]
    assert seqs == sorted(set(seqs))
    for repo in passing:
        assert consumer.revs(repo.did) == writer.written[repo.did], "an event is missing, or was taken twice"


def relay_answers(relay: RelayProcess) -> bool:
    try:
        return call(f"{relay.url}/_healthz", timeout=5).status == 200
    except OSError:
        return False
