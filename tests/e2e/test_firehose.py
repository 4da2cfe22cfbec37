"""The whole path with real parts: reference PDSs, the relay as a process, two consumers that others wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.e2e.consumers import Consumer
from tests.e2e.lives import live_a_little, sign_up, write_on
from tests.e2e.network import POST, Account, Ledger, ReferenceNetwork
from tests.support.relay_process import RelayProcess

Watch = Callable[[str], list[Consumer]]

# Record keys.
A, B, C = "3jzfcijpj2z2a", "3jzfcijpj2z2b", "3jzfcijpj2z2c"


def check(consumers: list[Consumer], ledger: Ledger) -> None:
    for consumer in consumers:
        consumer.check(ledger)


@pytest.mark.timeout(600)
def test_consumers_see_every_write_through_a_crash(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    relay.crawl(*network.pds)
    consumers = watch(relay.url)
    ledger = Ledger()
    accounts = sign_up(network, ledger, 4)
    writer, leaver, deleted, _ = accounts
    for account, friend in zip(accounts, reversed(accounts), strict=True):
        live_a_little(account, friend)
    writer.rename("renamed.test")
    leaver.deactivate()
    leaver.activate()
    leaver.add(POST, text="back")
    check(consumers, ledger)

    # Everyone writes on while the relay dies and comes back.
    writers = [threading.Thread(target=write_on, args=(account, 40)) for account in accounts]
    for one in writers:
        one.start()
    before = len(consumers[0].child.messages)
    consumers[0].child.wait_until(lambda: len(consumers[0].child.messages) > before + 40)
    relay.kill()
    for one in writers:
        one.join()
    relay.start()
    relay.wait_connected(len(network.pds))
    accounts[0].add(POST, text="after the crash")
    check(consumers, ledger)

    # Deleted accounts are gone from replay; those who were there have seen them.
    deleted.delete()
    check(consumers, ledger)
    for late in watch(relay.url):
        late.check(ledger, hidden=frozenset({deleted.did}))
    assert relay.xrpc("getRepoStatus", f"did={deleted.did}").json["status"] == "deleted"
    assert relay.metric("relay_events_dropped_total", reason="signature-invalid") == 0

    assert relay.stop() == 0
    relay.start()
    relay.wait_connected(len(network.pds))
    accounts[1].add(POST, text="after an orderly restart")
    reference, python = consumers
    reference.check(ledger)
    # This one takes a close frame as the end of its work, and has nothing to complain of.
    assert python.child.process.wait(120) == 0
    assert not python.errors()


@pytest.mark.timeout(300)
def test_commits_that_touch_a_record_twice_or_change_nothing_pass_as_they_are(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    relay.crawl(*network.pds)
    consumers = watch(relay.url)
    ledger = Ledger()
    (account,) = sign_up(network, ledger, 1)
    account.apply(("create", A, "first"), ("create", B, "first"))
    account.apply(("update", A, "first"))
    account.apply(("update", A, "second"), ("update", A, "third"))
    account.apply(("delete", A, None), ("create", A, "fourth"))
    account.apply(("update", A, "fifth"), ("delete", A, None))
    account.apply(("create", C, "first"), ("delete", C, None))
    account.apply(("create", C, "first"), ("update", C, "second"))
    account.apply(("delete", C, None), ("create", C, "second"), ("update", B, "first"))
    account.add(POST, text="the last one")
    reference, _ = consumers
    revs = [rev for rev, _ in ledger.commits[account.did]]
    reference.child.wait_until(lambda: [rev for rev, _ in reference.commits().get(account.did, [])] == revs, 60)
    assert not reference.errors()
    assert relay.metric("relay_events_downgraded_total") == 0


@pytest.mark.timeout(300)
def test_a_migrated_account_keeps_flowing_and_its_old_host_is_not_heard(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    relay.crawl(*network.pds)
    consumers = watch(relay.url)
    ledger = Ledger()
    (account,) = sign_up(network, ledger, 1)
    account.add(POST, text="at the old host")
    check(consumers, ledger)
    moved = network.migrate(account, network.pds[1])
    moved.add(POST, text="at the new host")
    check(consumers, ledger)

    # The old host has not been told: it still takes writes for the account and sends them.
    dropped = relay.metric("relay_events_dropped_total")
    late = Account(account.pds, Ledger())
    late.did, late.token = account.did, account.token
    late.add(POST, text="too late")
    relay.wait_metric("relay_events_dropped_total", dropped + 1)
    moved.add(POST, text="still here")
    check(consumers, ledger)
    assert relay.xrpc("getLatestCommit", f"did={account.did}").json["rev"] == ledger.commits[account.did][-1][0]


@pytest.mark.timeout(300)
def test_a_rotated_key_is_followed_on_the_first_event(
    network: ReferenceNetwork, relay: RelayProcess, watch: Watch
) -> None:
    relay.crawl(*network.pds)
    consumers = watch(relay.url)
    ledger = Ledger()
    (account,) = sign_up(network, ledger, 1)
    account.add(POST, text="with the first key")
    check(consumers, ledger)
    network.command("rotateKey", did=account.did, pds=account.pds)
    account.add(POST, text="with the second key")
    check(consumers, ledger)
    assert relay.metric("relay_events_dropped_total", reason="signature-invalid") == 0
