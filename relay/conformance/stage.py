"""What a scenario has at hand: accounts and hosts of its own, the relay's firehose, and what must and must not come.

That something does not come can only be told by something behind it that does: an `#identity` of the same account,
since events of one account stay in order.
"""

from __future__ import annotations

import secrets
import threading
import time
from base64 import b32encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay.atproto.events import Commit, Event, Identity, Kind, Sync
from relay.conformance.firehose import Watcher
from relay.conformance.identities import CurveName, SigningKey, did_document
from relay.conformance.network import Directory, FakeHost
from relay.conformance.repository import CommitEvent, Repository
from relay.conformance.subject import Subject
from relay.conformance.verdict import Broken, RelayEnded

OneEvent = TypeVar("OneEvent", bound=Event)
Found = TypeVar("Found")

POLL_SECONDS = 0.02

# How long a relay has to do what it must not do, where nothing behind it tells that it is through.
QUIET_SECONDS = 1.5


@dataclass
class Account:
    """An account on a fake host."""

    repo: Repository
    host: FakeHost

    @property
    def did(self) -> str:
        """Its DID."""
        return self.repo.did

    def send(self, event: CommitEvent | bytes | Callable[[int], bytes]) -> int:
        """Have its host send an event, whose seq is returned."""
        if isinstance(event, bytes):
            return self.host.send(lambda _: event)
        return self.host.send(event.frame if isinstance(event, CommitEvent) else event)


class Stage:
    """Given to each scenario. Shared hosts carry accounts of several; `own_hosts` are taken by one scenario each.

    `patience` is for how many seconds something is waited for that must come.
    """

    def __init__(
        self,
        subject: Subject,
        watcher: Watcher,
        directory: Directory,
        shared: Sequence[FakeHost],
        own_hosts: Sequence[FakeHost],
        patience: float,
    ) -> None:
        self.relay = subject
        self.firehose = watcher
        self.directory = directory
        self.hosts = shared
        self.patience = patience
        self._free = list(own_hosts)
        self._lock = threading.Lock()
        self._next = 0

    def wait_for(self, find: Callable[[], Found | None], what: str) -> Found:
        """What `find` returns once that is true. Raises Broken with `what` was waited for, or RelayEnded."""
        deadline = time.monotonic() + self.patience
        while True:
            found = find()
            if found:
                return found
            if self.firehose.ended:
                raise RelayEnded
            if time.monotonic() > deadline:
                raise Broken(f"{what}: not within {self.patience:g} s")
            time.sleep(POLL_SECONDS)

    def own_host(self) -> FakeHost:
        """A host that nobody else uses, connected."""
        with self._lock:
            host = self._free.pop()
        self.wait_for(lambda: host.connected, "the relay is connected to the host")
        return host

    def account(
        self,
        host: FakeHost | None = None,
        *,
        did: str | None = None,
        curve: CurveName = "k256",
        document: Callable[[str, SigningKey, str], dict[str, object]] = did_document,
        known: bool = True,
    ) -> Account:
        """An account with a DID document; `known`: the relay has passed a first commit of it."""
        key = SigningKey(curve)
        did = did or new_did()
        account = Account(Repository(did, key), host or self._shared_host())
        if did.startswith("did:plc:"):
            self.directory.documents[did] = document(did, key, account.host.url)
        account.host.statuses[did] = {"did": did, "active": True}
        if known:
            first = account.repo.commit(account.repo.create())
            account.send(first)
            self.passes(first, "the first commit of an account")
        return account

    def passes(self, event: CommitEvent, what: str = "the commit") -> Commit:
        """The event, once the relay has passed it on. Broken when it does not, or when its blocks have changed."""

        def find() -> Commit | None:
            return next((found for found in self.commits(event.did) if found.rev == event.rev), None)

        passed = self.wait_for(find, f"{what} passes")
        if passed.blocks != event.car:
            raise Broken(f"{what} passes with other blocks")
        return passed

    def sends(self, account: Account, event: CommitEvent) -> Commit:
        """Send a commit that must pass."""
        account.send(event)
        return self.passes(event)

    def refuses(self, account: Account, event: CommitEvent, what: str) -> None:
        """Send a commit that must not pass; as a `#sync`, without what is wrong, it may."""
        account.send(event)
        self.settled(account)
        self.not_passed(event, what)

    def not_passed(self, event: CommitEvent, what: str) -> None:
        """Broken when the commit has been passed on as it came."""
        if any(
            commit.rev == event.rev and commit.commit == event.fields["commit"] for commit in self.commits(event.did)
        ):
            raise Broken(f"{what} passes")

    def nothing_of(self, did: str, what: str, since: int = 0) -> None:
        """Broken when a commit or `#sync` of the account has come, beside the first so many."""
        found = [event for event in self.firehose.events(did) if isinstance(event, Commit | Sync)]
        if len(found) > since:
            raise Broken(f"{what} passes")

    def settled(self, account: Account, what: str = "an event behind it passes") -> None:
        """Return when the relay is through with all that was sent of a known account so far."""
        before = self.count(account.did, Kind.IDENTITY)
        account.send(account.repo.identity_frame)
        self.wait_for(lambda: self.count(account.did, Kind.IDENTITY) > before, what)

    def quiet(self, host: FakeHost) -> None:
        """Wait as long as something that must not happen on a host may take."""
        self.account(host)
        time.sleep(QUIET_SECONDS)

    def commits(self, did: str) -> list[Commit]:
        """The commits of an account that have come so far."""
        return [event for event in self.firehose.events(did) if isinstance(event, Commit) and event.fault is None]

    def count(self, did: str, kind: Kind) -> int:
        """How many events of a kind have come of an account."""
        return sum(event.kind is kind for event in self.firehose.events(did))

    def last(self, did: str, kind: type[OneEvent]) -> OneEvent | None:
        """The newest event of that kind of an account."""
        found = [event for event in self.firehose.events(did) if isinstance(event, kind)]
        return found[-1] if found else None

    def identity_comes(self, account: Account) -> Identity:
        """Send an `#identity`, which must pass."""
        self.settled(account, "the #identity passes")
        found = self.last(account.did, Identity)
        assert found is not None
        return found

    def _shared_host(self) -> FakeHost:
        with self._lock:
            self._next += 1
            host = self.hosts[self._next % len(self.hosts)]
        self.wait_for(lambda: host.connected, "the relay is connected to the host")
        return host


def new_did() -> str:
    """A DID that nobody has."""
    return "did:plc:" + b32encode(secrets.token_bytes(15)).decode().lower()
