"""Every query of the API over its socket with a million accounts in SQL, on both engines: each is under 50 ms.

The time is a client's: connection, routing, SQL, JSON. `RELAY_BENCH_ACCOUNTS` makes the database smaller.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import pytest

from relay.store import collections, hosts
from relay.store.database import Database
from tests.bench.accounts import ACCOUNTS, BATCH, HOSTS, QUERY_LIMIT_SECONDS, did, fill
from tests.support.http import call
from tests.support.web import ADMIN, Web

ROUNDS = 20
POST, RARE = "app.bsky.feed.post", "com.example.rare"
SYNC = "/xrpc/com.atproto.sync."
MIDDLE = ACCOUNTS // 2
ACTIVE, INACTIVE, TAKEN_DOWN = did(7), did(MIDDLE), did(ACCOUNTS - 1)

QUERIES = [
    *(f"{SYNC}listHosts?limit={limit}&cursor={cursor}" for limit in (200, 1000) for cursor in (0, HOSTS - 500)),
    f"{SYNC}getHostStatus?hostname=pds7.example.com",
    *(f"{SYNC}listRepos?limit={limit}&cursor={cursor}" for limit in (500, 1000) for cursor in (0, ACCOUNTS // 4 - 10)),
    f"{SYNC}listRepos?limit=1000&cursor={ACCOUNTS - 1500}",
    *(f"{SYNC}getRepoStatus?did={each}" for each in (ACTIVE, INACTIVE, TAKEN_DOWN, did(0))),
    *(f"{SYNC}getLatestCommit?did={each}" for each in (ACTIVE, INACTIVE)),
    f"{SYNC}getRepo?did={ACTIVE}",
    *(
        f"{SYNC}listReposByCollection?collection={nsid}&limit={limit}&cursor={cursor}"
        for nsid in (POST, RARE)
        for limit in (1, 500, 2000)
        for cursor in (0, ACCOUNTS // 4 - 10, MIDDLE, ACCOUNTS - 1500)
    ),
    "/xrpc/_health",
    "/_readyz",
    "/host/pds7.example.com",
    "/admin/repo/takedowns",
    "/admin/subs/listDomainBans",
    "/admin/subs/getUpstreamConns",
    "/admin/consumers/list",
    "/admin/backfill-collections",
]
# All 3,000 hosts in one answer, as indigo has it: its page is for people and tools, and may take longer.
WHOLE_LISTS = ["/admin/pds/list"]


@pytest.fixture(scope="module")
def web(empty: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A relay over the database; its hosts are offline, so that none is dialled."""
    fill(empty)
    for host_id in range(1, HOSTS + 1):
        empty.write(hosts.set_status, host_id, "offline")
    for start in range(1, ACCOUNTS + 1, BATCH):
        uids = range(start, min(start + BATCH, ACCOUNTS + 1))
        empty.write(
            collections.write,
            {(uid, POST): True for uid in uids} | {(uid, RARE): True for uid in uids if uid % 1000 == 0},
        )
    web = Web(empty, tmp_path_factory.mktemp("api"), 64 << 20)
    web.start()
    yield web
    web.stop()


def seconds(web: Web, path: str) -> tuple[float, float, int]:
    """Median and longest time of a query, and the bytes of its answer."""
    times = []
    for _ in range(ROUNDS + 2):
        started = time.perf_counter()
        answer = call(web.url + path, headers=ADMIN if path.startswith("/admin/") else {})
        times.append(time.perf_counter() - started)
        assert answer.status < 500, answer.body
    return median(times[2:]), max(times[2:]), len(answer.body)


def test_every_query(web: Web) -> None:
    engine = web.db.read(lambda tx: tx.engine)
    slow = []
    print(f"\n{engine}, {ACCOUNTS:,} accounts: median and longest of {ROUNDS} requests, in ms")
    for path in QUERIES + WHOLE_LISTS:
        middle, longest, size = seconds(web, path)
        print(f"{middle * 1000:7.1f} {longest * 1000:7.1f} {size:9,} bytes  {path}")
        if middle >= QUERY_LIMIT_SECONDS and path not in WHOLE_LISTS:
            slow.append(path)
    assert not slow
