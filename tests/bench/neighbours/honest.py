"""The honest side in a process of its own: a PLC directory, and hosts whose accounts write at a steady rate.

Run by the harness: `python -m tests.bench.neighbours.honest HOSTS ACCOUNTS RATE`. Prints its addresses as one JSON
line, then takes one JSON command a line on stdin: `documents` for the directory, whether it is `throttled` or `silent`,
`toggle` for an account of the first host that is switched on and off, `identities` for `#identity` events, `go` for the
traffic, `report` for what was sent: DID, rev, when, and whether the account was new. Ends when stdin closes.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from itertools import count  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from tests.bench.neighbours.swing import Swing  # noqa: E402
from tests.support.blocks import cbor  # noqa: E402
from tests.support.pds import FakePds  # noqa: E402
from tests.support.plc import FakePlc  # noqa: E402
from tests.support.repo import did_document, frame  # noqa: E402

# Of so many commits one is the first of a new account.
COMMITS_PER_NEW_ACCOUNT = 200
COMMITS_PER_IDENTITY = 50
LATENCY_SECONDS, SILENT_SECONDS = 0.01, 30.0
TOGGLES_PER_SECOND = 50
RETRY_AFTER = "3"
TIME = "2026-11-24T00:00:00.000Z"
PATHS = [f"app.bsky.feed.post/3k{number:05d}" for number in range(30)]


class Network:
    """The hosts, their accounts, and what they wrote."""

    def __init__(self, hosts: int, accounts: int) -> None:
        self.plc = FakePlc(latency=LATENCY_SECONDS).start()
        self.hosts = [FakePds().__enter__() for _ in range(hosts)]
        self.sent: list[tuple[str, str, float, bool]] = []
        self.toggling = self.identities = False
        self._seqs = [count(1) for _ in range(hosts)]
        self._numbers = count()
        self._accounts = [self._account() for _ in range(accounts)]
        self._toggled = self._account()

    def _account(self) -> tuple[int, Swing]:
        number = next(self._numbers)
        host = number % len(self.hosts)
        account = Swing(number, PATHS[1:], PATHS[:1], lambda side, _: cbor({"text": "hello" * 40, "n": side}))
        self.plc.documents[account.did] = did_document(account.did, account.key, self.hosts[host].url)
        return host, account

    def write(self, rate: float) -> None:
        """One commit after the other, for ever."""
        began = time.monotonic()
        for number in count():
            gevent.sleep(max(0.0, began + number / rate - time.monotonic()))
            new = number % COMMITS_PER_NEW_ACCOUNT == COMMITS_PER_NEW_ACCOUNT - 1
            host, account = self._account() if new else self._accounts[number % len(self._accounts)]
            if self.identities and number % COMMITS_PER_IDENTITY == 0:
                seq = next(self._seqs[host])
                self.hosts[host].publish(seq, frame("#identity", {"did": account.did, "seq": seq, "time": TIME}))
            seq = next(self._seqs[host])
            event = account.frame(seq)
            self.sent.append((account.did, account.rev, time.monotonic(), new))
            self.hosts[host].publish(seq, event)

    def toggle(self) -> None:
        """Switch one account on and off, with a commit each time, whenever that is asked for."""
        _, account = self._toggled
        for number in count():
            gevent.sleep(1 / TOGGLES_PER_SECOND)
            if not self.toggling:
                continue
            status = {} if number % 2 else {"status": "deactivated"}
            event = {"did": account.did, "time": TIME, "active": bool(number % 2), **status}
            self.hosts[0].publish(seq := next(self._seqs[0]), frame("#account", {**event, "seq": seq}))
            self.hosts[0].publish(seq := next(self._seqs[0]), account.frame(seq))

    def obey(self, command: dict[str, Any], rate: float) -> None:
        """One command of the harness."""
        self.plc.documents.update(command.get("documents", {}))
        if "throttled" in command:
            self.plc.throttled = 1 << 30 if command["throttled"] else 0
            self.plc.retry_after = RETRY_AFTER
        if "silent" in command:
            self.plc.latency = SILENT_SECONDS if command["silent"] else LATENCY_SECONDS
        self.toggling = command.get("toggle", self.toggling)
        self.identities = command.get("identities", self.identities)
        if "go" in command:
            gevent.spawn(self.write, rate)
            gevent.spawn(self.toggle)
        if "report" in command:
            print(json.dumps(self.sent), flush=True)


def main() -> None:
    hosts, accounts, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    network = Network(hosts, accounts)
    print(json.dumps({"plc": network.plc.url, "hosts": [pds.url for pds in network.hosts]}), flush=True)
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        network.obey(json.loads(line), rate)


if __name__ == "__main__":
    main()
