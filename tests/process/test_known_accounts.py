"""A restart of the whole relay with 100,000 accounts known: the PLC directory is asked nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relay.store import accounts, hosts, identities
from relay.store.accounts import AccountRow
from relay.store.database import Database
from relay.store.identities import IdentityRow
from relay.store.open import open_database
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document

KNOWN = 100_000
KNOWN_AT_ONCE = 5_000
KNOWN_THAT_WRITE = 1_000
LEARNT = 50
KEY = SigningKey.create("k256")


def store_known(database: Database, pds: FakePds) -> None:
    """What a relay has in SQL of a host whose accounts it has known for long. A transaction has limited time."""
    host = database.write(hosts.insert, pds.hostname, no_ssl=True, account_limit=10 * KNOWN, trusted=False)
    resolved_at = time.time() - 3600
    for first in range(1, KNOWN + 1, KNOWN_AT_ONCE):
        known = [(uid, account_did(uid)) for uid in range(first, first + KNOWN_AT_ONCE)]
        rows = [AccountRow(uid, did, host.id, "active", "active") for uid, did in known]
        database.write(accounts.insert_many, rows)
        resolved = [IdentityRow(did, pds.url, KEY.curve, KEY.public, "user.test", resolved_at) for _, did in known]
        database.write(identities.upsert_many, resolved, time.time())


@pytest.mark.timeout(300)
def test_a_restart_asks_nobody_about_accounts_that_are_known(tmp_path: Path, database_url: str) -> None:
    """Those that an earlier run has put into the table, and those that the run just before it looked up itself."""
    known = [account_did(number) for number in range(1, KNOWN + 1, KNOWN // KNOWN_THAT_WRITE)]
    learnt = [account_did(KNOWN + number) for number in range(1, LEARNT + 1)]
    repos = {did: RepoBuilder(did, KEY) for did in (*known, *learnt)}
    with FakePlc() as plc, FakePds() as pds:
        database = open_database(database_url, max_connections=1)
        store_known(database, pds)
        database.close()
        for did in learnt:
            plc.documents[did] = did_document(did, KEY, pds.url)

        def write(dids: list[str]) -> None:
            for did in dids:
                seq = len(pds.events) + 1
                pds.publish(seq, repos[did].commit(create(f"app.bsky.feed.post/{seq:013d}", {"n": seq})).frame(seq))

        relay = RelayProcess(tmp_path, {"RELAY_PLC_HOST": plc.url, "DATABASE_URL": database_url})
        try:
            relay.start()
            relay.wait_connected(1)
            write(learnt)
            relay.wait_metric("relay_events_logged_total", LEARNT)
            assert plc.requests == LEARNT
            assert relay.stop() == 0
            plc.asked.clear()

            relay.start()
            relay.wait_connected(1)
            write([*known, *learnt])
            relay.wait_metric("relay_events_logged_total", len(repos))
            assert plc.requests == 0
            assert relay.metric("relay_identity_reads_total", source="table") == len(repos)
            assert relay.metric("relay_events_dropped_total") == 0
        finally:
            relay.close()
