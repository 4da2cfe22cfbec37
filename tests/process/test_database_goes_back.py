"""What operators decided, with an older database in the place of the present one: while the relay is down, while it
runs, and with none left at all. On both engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases
from tests.support.collection_source import CollectionSource
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess

COLLECTION = "app.bsky.feed.post"


@pytest.fixture
def relay(tmp_path: Path, database_url: str, plc: FakePlc) -> Iterator[RelayProcess]:
    one = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": plc.url, "DATABASE_URL": database_url})
    one.start()
    yield one
    one.close()


@pytest.fixture
def plc() -> Iterator[FakePlc]:
    with FakePlc() as directory:
        yield directory


@pytest.fixture
def source() -> Iterator[CollectionSource]:
    with CollectionSource() as one:
        one.repos = {COLLECTION: []}
        yield one


def decided(relay: RelayProcess) -> dict[str, Any]:
    """All that an operator can look up of what was decided."""
    kept = ("ID", "Host", "Blocked", "RepoLimit", "Trusted", "AccountLimitAlertsSilenced")
    listed = [{key: host[key] for key in kept if key in host} for host in relay.admin("pds/list")]
    return {
        "bans": sorted(relay.admin("subs/listDomainBans")["banned_domains"]),
        "crawling": relay.admin("subs/getEnabled"),
        "new hosts": relay.admin("subs/perDayLimit"),
        "hosts": sorted(listed, key=lambda host: host["ID"]),
        "imports": [(one["source"], one["running"]) for one in relay.admin("backfill-collections")["backfills"]],
    }


def begin(relay: RelayProcess) -> None:
    """What is decided before the backup."""
    relay.admin("subs/banDomain", {"Domain": "old.test"})
    relay.admin("subs/banDomain", {"Domain": "kept.test"})


def go_on(relay: RelayProcess, known: FakePds, new: FakePds, source: CollectionSource) -> None:
    """What is decided after it."""
    relay.admin("subs/banDomain", {"Domain": "evil.test"})
    relay.admin("subs/unbanDomain", {"Domain": "old.test"})
    relay.admin("subs/setEnabled?enabled=false", method="POST")
    relay.admin("subs/setPerDayLimit?limit=7", method="POST")
    relay.admin("pds/requestCrawl", {"hostname": new.url})
    relay.admin("pds/changeLimits", {"host": new.hostname, "repo_limit": 4321})
    relay.admin(f"pds/block?host={known.hostname}", method="POST")
    relay.admin(f"backfill-collections?source={source.url}", {"collections": [COLLECTION]}, method="POST")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("gone", ["older", "empty"])
def test_while_the_relay_is_down(relay: RelayProcess, database_url: str, gone: str, source: CollectionSource) -> None:
    with FakePds() as known, FakePds() as new:
        relay.crawl(known.url)
        begin(relay)
        assert relay.stop() == 0
        if gone == "older":
            databases.save(database_url)
        relay.start()
        source.fault = lambda *_: (503, b"")
        go_on(relay, known, new, source)
        before = decided(relay)
        assert before["imports"] == [(source.url, True)] and before["bans"] == ["evil.test", "kept.test"]
        assert relay.stop() == 0
        databases.bring_back(database_url) if gone == "older" else databases.wipe(database_url)
        relay.start()
        assert decided(relay) == before
        source.fault = lambda *_: None
        relay.wait_until(lambda: decided(relay)["imports"] == [(source.url, False)], 60)
        relay.kill()
        relay.start()
        assert decided(relay) == {**before, "imports": [(source.url, False)]}


@pytest.mark.timeout(300)
def test_while_the_relay_runs(relay: RelayProcess, database_url: str, source: CollectionSource) -> None:
    """No event shows it: nothing was logged meanwhile."""
    with FakePds() as known, FakePds() as new:
        relay.crawl(known.url)
        begin(relay)
        assert relay.stop() == 0
        databases.save(database_url)
        relay.start()
        source.fault = lambda *_: (503, b"")
        go_on(relay, known, new, source)
        before = decided(relay)
        databases.bring_back_beneath(database_url)
        # A request that finds its connection ended is answered with an error.
        relay.wait_until(lambda: relay.ask_admin("subs/listDomainBans").status == 200, 60)
        relay.wait_until(lambda: decided(relay) == before, 60)
        source.fault = lambda *_: None
        relay.wait_until(lambda: decided(relay)["imports"] == [(source.url, False)], 90)
        assert relay.stop() == 0
        relay.start()
        assert decided(relay) == {**before, "imports": [(source.url, False)]}
