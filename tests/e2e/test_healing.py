"""What the relay missed reaches consumers all the same, with the reference PDS and consumers that others wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from tests.e2e.consumers import Consumer
from tests.e2e.network import POST, Account, Ledger, ReferenceNetwork
from tests.support.relay_process import RelayProcess

Watch = Callable[[str], list[Consumer]]
# What healing promises.
HEALED_SECONDS = 60.0


def newest(account: Account) -> str:
    """The rev that the account's PDS has."""
    return str(account.call("sync.getLatestCommit", query=f"did={account.did}")["rev"])


def heard(consumer: Consumer, did: str) -> str:
    """The newest rev of an account that a consumer heard of: of a `#sync` it fetches the repository."""
    return max(
        (message["rev"] for message in consumer.child.messages if message.get("did") == did and message.get("rev")),
        default="",
    )


def knows(consumer: Consumer, revs: dict[str, str]) -> bool:
    return all(heard(consumer, did) == rev for did, rev in revs.items())


def wait_for_all(consumers: list[Consumer], accounts: list[Account]) -> None:
    """Every consumer knows the newest commit of every account."""
    revs = {account.did: newest(account) for account in accounts}
    for consumer in consumers:
        consumer.child.wait_until(partial(knows, consumer, revs), HEALED_SECONDS)
        assert consumer.errors() == []


def has_state(relay: RelayProcess) -> bool:
    with closing(sqlite3.connect(relay.folder / "relay.sqlite", timeout=60)) as db:
        return bool(db.execute("SELECT count(*) FROM host_state WHERE last_connected_at IS NOT NULL").fetchone()[0])


def had_given_up(relay: RelayProcess) -> None:
    """Have the relay, which is not running, believe that of its only host, and that it was long ago."""
    with closing(sqlite3.connect(relay.folder / "relay.sqlite", timeout=60)) as db, db:
        for change in ("host_state SET last_connected_at = NULL", "host SET status = 'offline'"):
            assert db.execute(f"UPDATE {change}").rowcount == 1


@pytest.mark.timeout(600)
def test_what_was_written_past_the_window_is_fetched(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    """The host was away for longer than the relay may ask for: it starts live, and compares the host's accounts."""
    pds, ledger = network.pds[0], Ledger()
    accounts = [Account(pds, ledger) for _ in range(3)]
    relay.crawl(pds)
    consumers = watch(relay.url)
    for account in accounts:
        account.create()
        account.add(POST, text="before")
    wait_for_all(consumers, accounts)
    # Its state is stored some seconds after it was connected.
    relay.wait_until(lambda: has_state(relay))
    relay.kill()
    for account in accounts[:2]:
        account.add(POST, text="missed")
        account.add_many(5)
    newcomer = Account(pds, ledger)
    newcomer.create()
    newcomer.add(POST, text="missed from the first")
    had_given_up(relay)
    relay.start()
    relay.crawl(pds)
    wait_for_all(consumers, [*accounts, newcomer])
    # The stream goes on from there.
    syncs = sum(message.get("event") == "sync" for message in consumers[0].child.messages)
    for account in (*accounts, newcomer):
        account.add(POST, text="after")
    wait_for_all(consumers, [*accounts, newcomer])
    assert sum(message.get("event") == "sync" for message in consumers[0].child.messages) == syncs
    assert relay.metric("relay_chain_breaks_total") == 0


@pytest.mark.timeout(600)
def test_what_an_account_over_its_hosts_limit_wrote_is_fetched_once_there_is_room(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    pds, ledger = network.pds[0], Ledger()
    first, second = Account(pds, ledger), Account(pds, ledger)
    relay.crawl(pds)
    host = pds.removeprefix("http://")
    relay.admin("pds/changeLimits", {"host": host, "repo_limit": 1})
    consumers = watch(relay.url)
    # One after the other: who is looked up first has the place.
    for account in (first, second):
        account.create()
        account.add(POST, text="hello")
        wait_for_all(consumers, [first])
    relay.wait_until(lambda: relay.metric("relay_events_dropped_total", reason="account-host-throttled") >= 1)
    assert heard(consumers[0], second.did) == ""
    relay.admin("pds/changeLimits", {"host": host, "repo_limit": 2})
    wait_for_all(consumers, [first, second])
