"""The JSON stream with real parts: reference PDSs, the relay as a process, the client that bots use for Jetstream."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.e2e.consumers import Consumer
from tests.e2e.lives import live_a_little, sign_up, write_on
from tests.e2e.network import POST, Ledger, ReferenceNetwork
from tests.support.relay_process import RelayProcess


@pytest.mark.timeout(600)
def test_a_jetstream_client_sees_every_write_through_a_crash(network: ReferenceNetwork, tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": network.plc, "RELAY_JSON_STREAM": "true"})
    relay.start()
    relay.crawl(*network.pds)
    consumer = Consumer.jetstream(relay.url)
    ledger = Ledger()
    try:
        accounts = sign_up(network, ledger, 4)
        for account, friend in zip(accounts, reversed(accounts), strict=True):
            live_a_little(account, friend)
        accounts[1].deactivate()
        accounts[1].activate()
        consumer.check(ledger)

        writers = [threading.Thread(target=write_on, args=(account, 30)) for account in accounts]
        for one in writers:
            one.start()
        before = len(consumer.child.messages)
        consumer.child.wait_until(lambda: len(consumer.child.messages) > before + 20)
        relay.kill()
        for one in writers:
            one.join()
        relay.start()
        relay.wait_connected(len(network.pds))
        accounts[0].add(POST, text="after the crash")
        consumer.check(ledger)
    finally:
        consumer.close()
        relay.close()
