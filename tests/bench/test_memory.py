"""What an account costs in memory: identity and state of a million, kept as the relay keeps them."""

from __future__ import annotations

import gc
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from relay.atproto.cid import Cid
from relay.atproto.crypto import PublicKey
from relay.atproto.hostname import Endpoint
from relay.identity.identity import Identity, pack
from relay.ingest.accounts import AccountState
from relay.kit.generations import RecordCache
from relay.kit.own_process import resident_bytes
from relay.store.accounts import AccountRow, RepoRow
from tests.support.repo import SigningKey, account_did, tid

ACCOUNTS = 1_000_000
CAPACITY = 1_100_000
HOSTS = 3000
BYTES_PER_ACCOUNT = 400


def collected_bytes() -> int:
    gc.collect()
    return resident_bytes()


def fill(recent: RecordCache, count: int) -> None:
    key = PublicKey.from_compressed("k256", SigningKey.create("k256", 1).public)
    now = time.time()
    for number in range(count):
        did = account_did(number)
        pds = Endpoint(f"shiitake{number % HOSTS}.us-east.host.bsky.network", True)
        recent.identities.put(did, pack(Identity(did, pds, key, f"somebody{number}.bsky.social"), now))
        commit, data = Cid.of_dag_cbor(b"c%d" % number), Cid.of_dag_cbor(b"d%d" % number)
        row = AccountRow(number, did, number % HOSTS, "active", "active")
        AccountState(row, RepoRow(number, tid(1_700_000_000_000_000 + number), commit, data)).pack_into(recent.accounts)


def measured() -> tuple[int, float]:
    """(accounts in memory, bytes that each took). Run in a fresh process, which has no free memory to fill first."""
    recent = RecordCache(CAPACITY)
    fill(recent, 1)
    before = collected_bytes()
    fill(recent, ACCOUNTS)
    return len(recent), (collected_bytes() - before) / len(recent)


def test_a_million_accounts() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        count, each = pool.submit(measured).result()
    print(f"\n{count} accounts in memory, identity and state: {each:.0f} bytes each, {count * each / 2**20:.0f} MiB")
    assert count >= 0.99 * ACCOUNTS
    assert each <= BYTES_PER_ACCOUNT
