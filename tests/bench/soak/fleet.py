"""The upstream side of the soak in a process of its own: a PLC directory and hosts with TLS that are never at rest.

Run by the harness: `python -m tests.bench.soak.fleet FOLDER HOSTS ACCOUNTS`. Writes hosts and identities into the
relay's database, prints `{"plc": URL, "taken": [DID, …]}`, then takes one JSON command a line on stdin: `{"rate": R,
"new": N}` begins with R commits, N new accounts and as many changed identities a second; hosts are cut off, go away for
a while, or come new, which prints `{"crawl": URL}`. `{"calm": true}` has all hosts come back and stay, `{"stop":
FILE}` ends the events, writes into FILE how many of each account were sent and prints `{"sent": N}`. Accounts whose DID
is in `taken` are the harness' to take down: they are never replaced, and not in FILE. Ends when stdin closes.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import ssl  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from itertools import accumulate, count, cycle  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from relay.store.open import open_database  # noqa: E402
from tests.bench.hosts.fleet import store  # noqa: E402
from tests.bench.hosts.traffic import Owner  # noqa: E402
from tests.bench.soak.population import Account, SoakHost  # noqa: E402
from tests.bench.startup.filler import fill  # noqa: E402
from tests.support.certificate import make_certificate, server_context  # noqa: E402
from tests.support.plc import FakePlc  # noqa: E402

SILENT = 100_000  # accounts in the database alone: it is larger than its page caches from the start
TAKEN = 50  # accounts, each of another host
# Only then may an account's key change: who has not asked for the first one cannot verify what it signed.
KNOWN_SECONDS = 120.0
CUT_EVERY = 2.0
AWAY_EVERY, AWAY_SECONDS = 10.0, 20.0
BUSY_HOSTS = 20  # those send more than a host keeps while it is away
VISIT_EVERY, VISIT_SECONDS, VISITOR_ACCOUNTS = 120.0, 300.0, 5


class Fleet:
    """The hosts, by how busy they are, with their accounts, and what is to happen to them."""

    def __init__(self, context: ssl.SSLContext, hosts: int, accounts: int) -> None:
        self.plc = FakePlc()
        self.hosts = [SoakHost(tls=context) for _ in range(hosts)]
        self.taken: list[Account] = []
        self.sent: dict[str, tuple[int, int]] = {}
        self.calm = self.stopped = False
        self._context = context
        self._visitors: list[SoakHost] = []
        self._numbers = count(1)
        self._weights = list(accumulate(1 / rank for rank in range(1, hosts + 1)))
        for rank, host in enumerate(self.hosts, 1):
            host.__enter__()
            for _ in range(max(1, round(accounts / rank / self._weights[-1]))):
                self.add_account(host)
            if rank <= TAKEN:
                self.taken.append(host.accounts[0])
                host.repos[host.accounts[0].did] = host.accounts[0].repo

    def add_account(self, host: SoakHost) -> None:
        """A new account of `host`, known to the directory."""
        account = Account(next(self._numbers))
        self.plc.documents[account.did] = account.document(host.url)
        host.accounts.append(account)

    def start(self, rate: float, new: float) -> None:
        """Begin with everything."""
        for act in (self._cut_off, self._send_away, self._receive_visitors):
            gevent.spawn(act)
        gevent.spawn(self._send, rate)
        gevent.spawn(self._replace_accounts, new)
        gevent.spawn(self._change_identities, new)

    def settle(self) -> None:
        """Have all hosts come back and stay."""
        self.calm = True
        for host in self.hosts:
            host.come_back()

    def stop(self) -> dict[str, tuple[int, int]]:
        """End the events. Returns how many commits and identities of each account there were, but for `taken`."""
        self.stopped = True
        for host in (*self.hosts, *self._visitors):
            for account in host.accounts:
                self._note(account)
        for account in self.taken:
            self.sent.pop(account.did, None)
        return self.sent

    def _note(self, account: Account) -> None:
        self.sent[account.did] = account.commits, account.identities

    def _send(self, rate: float) -> None:
        """Every account once, so that the relay's caches are warm, and then as it happens."""
        first = ((host, account) for host in self.hosts for account in list(host.accounts))
        sent, began = 0, time.monotonic()
        while not self.stopped:
            due = int((time.monotonic() - began) * rate)
            for host in random.choices(self.hosts, cum_weights=self._weights, k=due - sent):
                named, account = next(first, (host, None))
                named.commit(account)
            sent = due
            gevent.sleep(0.005)

    def _replace_accounts(self, per_second: float) -> None:
        """A host's oldest account is silent from when a new one comes, so that the fleet stays as large as it is."""
        for host in cycle(self.hosts):
            gevent.sleep(1 / per_second)
            if self.stopped:
                return
            old = next((one for one in host.accounts if one not in self.taken), None)
            if old is not None:
                host.accounts.remove(old)
                self._note(old)
            self.add_account(host)

    def _change_identities(self, per_second: float) -> None:
        for host in cycle(self.hosts):
            gevent.sleep(1 / per_second)
            if self.stopped:
                return
            known_since = time.monotonic() - KNOWN_SECONDS
            account = next((one for one in reversed(host.accounts) if one.born < known_since), None)
            if account is not None and account not in self.taken:
                host.change_identity(account)
                self.plc.documents[account.did] = account.document(host.url)

    def _cut_off(self) -> None:
        while not self.calm:
            random.choice(self.hosts).hang_up()
            gevent.sleep(CUT_EVERY)

    def _send_away(self) -> None:
        while not self.calm:
            host = random.choice(self.hosts[BUSY_HOSTS:] or self.hosts)
            host.go_away()
            gevent.spawn_later(AWAY_SECONDS, host.come_back)
            gevent.sleep(AWAY_EVERY)

    def _receive_visitors(self) -> None:
        while not self.calm:
            gevent.spawn(self._visit)
            gevent.sleep(VISIT_EVERY)

    def _visit(self) -> None:
        """A host that nobody knew before, and that leaves for good."""
        host = SoakHost(tls=self._context)
        with host:
            self._visitors.append(host)
            for _ in range(VISITOR_ACCOUNTS):
                self.add_account(host)
            tell(crawl=host.url)
            leaves = time.monotonic() + VISIT_SECONDS
            while time.monotonic() < leaves and not self.stopped:
                host.commit()
                gevent.sleep(1.0)
            while host.accounts and not self.stopped:
                self._note(host.accounts.pop())
            gevent.sleep(VISIT_SECONDS)
        self._visitors.remove(host)


def tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main(folder: Path, hosts: int, accounts: int) -> None:
    fleet = Fleet(server_context(make_certificate(folder, "localhost")), hosts, accounts)
    owners = [[Owner(one.did, one.repo.key.public) for one in host.accounts] for host in fleet.hosts]
    address = f"sqlite://{folder}/relay.sqlite"
    database = open_database(address, max_connections=1)
    database.write(store, list(fleet.hosts), owners)
    database.close()
    fill(address, SILENT, hosts)
    with fleet.plc:
        tell(plc=fleet.plc.url, taken=[account.did for account in fleet.taken])
        while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
            command = json.loads(line)
            if "rate" in command:
                fleet.start(command["rate"], command["new"])
            elif "calm" in command:
                fleet.settle()
            else:
                sent = fleet.stop()
                Path(command["stop"]).write_text(json.dumps(sent))
                tell(sent=sum(map(sum, sent.values())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
