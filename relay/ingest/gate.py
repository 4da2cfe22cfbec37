"""Judges one event: who may send it, for which account, in which state; then has it verified.

Called by lanes, one event of an account at a time. It fills the delivery's entry for the log, raises `Rejected`, or
raises `Hold` when something must be found out first. It asks nobody itself: it must not wait on the network. A repo's
event is admitted by what is known, verified without any state (`verification`), and then compared with the account's
last one.
"""

from __future__ import annotations

import logging
import time

from relay.atproto import frames
from relay.atproto.car import root_block
from relay.atproto.commit import Unproven, commit_alone, parse_commit
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import ProtocolError
from relay.atproto.events import HIDING_STATUSES, SERVED, effective_status, host_status, status_code
from relay.atproto.frames import Account, Commit, Kind, Sync
from relay.atproto.frames import Identity as IdentityEvent
from relay.atproto.syntax import check_account_did
from relay.identity.identity import Identity, IdentityCache
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.delivery import Again, Delivery, Fetched, Hold, Rejected, Wait
from relay.ingest.hosting import Hosting, time_now
from relay.ingest.penalties import Penalties
from relay.ingest.verification import INTERNAL_ERROR, SIGNATURE_INVALID, Outcome, Refusal, Verdict, is_long, verify
from relay.ingest.worker_pool import WorkerPool
from relay.ingest.worker_supervisor import Check
from relay.kit import metrics
from relay.kit.errors import IdentityError
from relay.store.accounts import AccountRow, RepoRow
from relay.stream.changes import changes_of

OWN_STATUSES = frozenset({"takendown", "host-throttled"})

log = logging.getLogger(__name__)


class Gate:
    """The rules, the cheapest first, over the accounts and identities in memory.

    `pool` verifies events while it is there, and may come and go at any time: an event whose check it gave back is
    verified in-line. `verified_seconds` is what that has taken in all.
    """

    def __init__(
        self,
        accounts: Accounts,
        identities: IdentityCache,
        hosting: Hosting,
        penalties: Penalties,
        *,
        lenient: bool,
    ) -> None:
        self._accounts = accounts
        self._identities = identities
        self._hosting = hosting
        self._penalties = penalties
        self.pool: WorkerPool | None = None
        self.verified_seconds = 0.0
        self._lenient = lenient

    def judge(self, delivery: Delivery) -> None:
        """Fill in what the log needs of `delivery`.

        Raises Rejected, ProtocolError or IdentityError, each with the reason, when the event is dropped; Hold or
        Again when it has to wait; StoreError when SQL is needed and away.
        """
        event = delivery.event
        check_account_did(event.did)
        if isinstance(event, IdentityEvent):
            self._judge_identity(delivery, event)
        elif isinstance(event, Account):
            self._judge_account(delivery, event)
        else:
            self._judge_repo_event(delivery, event)

    def verify_ahead(self, delivery: Delivery) -> None:
        """Have an event verified before its turn, if there are worker processes and nothing known speaks against it.

        Decides nothing: in its turn the event is judged by what is known then, the outcome included.
        """
        event = delivery.event
        if self.pool is None or not isinstance(event, Commit | Sync) or is_long(event):
            return
        identity = self._known_identity(event.did)
        if identity is None or identity.key is None or not delivery.host.endpoint.same_host(identity.pds):
            return
        state = self._accounts.if_busy(event.did)
        if state is None or state.repo is None or event.rev > state.repo.rev:
            delivery.check = self.pool.ahead(event, identity.key)

    def _judge_repo_event(self, delivery: Delivery, event: Commit | Sync) -> None:
        state, key = self._admit(delivery, event)
        outcome = self._outcome(delivery, event, key)
        if isinstance(outcome, Refusal):
            raise self._refused(delivery, outcome)
        strict = state.repo is not None and not self._lenient
        if strict and isinstance(outcome, Verdict) and isinstance(event, Commit) and event.prev_data is None:
            outcome = commit_alone(event, outcome.data, "prev-data-missing")
        if isinstance(outcome, Unproven):
            self._downgrade(delivery, event, outcome, state)
            return
        self._follow(delivery, event, outcome, state)
        _fill(delivery, state.row, frames.split_at_seq(event))
        if outcome.lenient:
            metrics.EVENTS_LENIENT.labels(outcome.lenient).inc()

    def _admit(self, delivery: Delivery, event: Commit | Sync) -> tuple[AccountState, PublicKey]:
        """The account and its key, once every cheap check speaks for the event."""
        identity = self._authoritative_identity(delivery)
        state = self._accounts.lookup(event.did)
        if state is None or state.row.host_id != delivery.host.id:
            state = self._take_in(delivery, state)
        row, repo = state.row, state.repo
        if row.status not in SERVED:
            if row.status in OWN_STATUSES:
                raise Rejected(f"account-{row.status}")
            # A status that another relay has put into the database.
            raise Rejected("account-inactive", row.status)
        # A #sync may state another rev than its commit's, which is the one that counts.
        if repo is not None and isinstance(event, Commit) and not self._brings_newer(delivery, event, repo):
            _check_newer(event.rev, repo)
        # An account is no longer desynchronized once a verified event follows on its last one.
        if row.upstream_status not in SERVED:
            if Wait.STATUS not in delivery.done:
                raise Hold(Wait.STATUS)
            raise Rejected("account-inactive", row.upstream_status)
        penalties = self._penalties
        if event.did in penalties.charged and Wait.COOL_DOWN not in delivery.done and penalties.owed(event.did):
            raise Hold(Wait.COOL_DOWN)
        if identity.key is None:
            if not delivery.refreshed:
                raise Hold(Wait.REFRESH)
            raise Rejected("no-signing-key")
        return state, identity.key

    def _brings_newer(self, delivery: Delivery, event: Commit, repo: RepoRow) -> bool:
        """Whether an event with an old rev has a newer commit than that: then it is not a repetition, but wrong."""
        if event.rev > repo.rev or event.commit == repo.commit:
            return False
        began = time.perf_counter()
        try:
            return parse_commit(root_block(event.blocks)[1]).rev > repo.rev
        except ProtocolError:
            return False
        finally:
            delivery.took += time.perf_counter() - began

    def _outcome(self, delivery: Delivery, event: Commit | Sync, key: PublicKey) -> Outcome:
        check = delivery.check
        # An event verified ahead may have been checked against a key that has been rotated since.
        if check is None or check.given_back or check.key != key:
            if is_long(event):
                delivery.check = Check.beside(key)
                raise Hold(Wait.LONG)
            if self.pool is None:
                began = time.perf_counter()
                outcome = verify(event, key, int(time.time() * 1_000_000), lenient=self._lenient)
                took = time.perf_counter() - began
                delivery.took += took
                self.verified_seconds += took
                return outcome
            check = delivery.check = self.pool.begin(event, key)
        if check.outcome is None:
            raise Again
        delivery.took = check.took
        return check.outcome

    def _refused(self, delivery: Delivery, refusal: Refusal) -> Hold | Rejected:
        # The key may have been rotated since the document was read.
        if refusal.reason == SIGNATURE_INVALID and not delivery.refreshed:
            return Hold(Wait.REFRESH)
        self._penalties.charge(delivery.event.did)
        if refusal.reason == INTERNAL_ERROR:
            log.error("verifying an event of %s crashed: %s", delivery.event.did, refusal.detail)
            return Rejected(INTERNAL_ERROR)
        return Rejected(refusal.reason, refusal.detail)

    def _follow(self, delivery: Delivery, event: Commit | Sync, verdict: Verdict, state: AccountState) -> None:
        """Compare the verified event with what is known of its repo, and take its new state."""
        before, stated = state.repo, isinstance(event, Sync)
        if stated and before is not None and verdict.commit != before.commit:
            _check_newer(event.rev, before)
        changed = changes_of(event, state.row.uid, verdict.commit, verdict.data, verdict.touched, before)
        if state.desynchronized:
            if not changed.follows:
                raise Hold(Wait.STATUS) if Wait.STATUS not in delivery.done else Rejected("account-inactive")
            self._hosting.recover(state)
            # While that waited for room in the queue to the log the account may have been taken down, or have moved.
            raise Again
        if stated:
            self._penalties.charge(event.did)
        if not changed.follows:
            # The commit itself is proven: the gap before it is counted and marked.
            metrics.CHAIN_BREAKS.inc()
        if before is not None and isinstance(delivery, Fetched):
            # Consumers know the account by now.
            delivery.silent = False
        delivery.repo, delivery.collections = changed.repo, changed.collections
        state.set_repo(changed.repo)

    def _downgrade(self, delivery: Delivery, event: Commit | Sync, unproven: Unproven, state: AccountState) -> None:
        """Pass on the signed commit alone, as `#sync`: consumers fetch the repo instead of missing the change."""
        # A time that could not be read is empty.
        stated = Sync(event.did, event.seq, event.time or time_now(), unproven.rev, unproven.blocks, b"")
        self._follow(delivery, stated, Verdict(unproven.commit, unproven.data, None, {}), state)
        delivery.kind = Kind.SYNC
        _fill(delivery, state.row, frames.sync_frame(stated.did, stated.rev, stated.time, stated.blocks))
        metrics.EVENTS_DOWNGRADED.labels(unproven.reason).inc()
        log.debug("event of %s passed on as #sync: %s %s", event.did, unproven.reason, unproven.detail)

    def _judge_account(self, delivery: Delivery, event: Account) -> None:
        try:
            self._authoritative_identity(delivery)
        except IdentityError:
            # A DID may go with its account. Then the last host may still say that the account is gone, and no more.
            known = self._accounts.lookup(event.did)
            if event.active or known is None or known.row.host_id != delivery.host.id:
                raise
        state, status = self._accounts.lookup(event.did), host_status(event.active, event.status)
        changes = state is not None and state.row.upstream_status != status
        if (changes or not event.active) and not delivery.refreshed:
            # With a cached document a former host could still speak for an account that has moved. It is read each
            # time, and an account for which that is often waits.
            penalties = self._penalties
            if event.did in penalties.charged and Wait.COOL_DOWN not in delivery.done and penalties.owed(event.did):
                raise Hold(Wait.COOL_DOWN)
            penalties.charge(event.did)
            raise Hold(Wait.REFRESH)
        if state is None or state.row.host_id != delivery.host.id:
            state = self._take_in(delivery, state)
        delivery.own_status = self._hosting.host_says(state, status)
        row = delivery.account = state.row
        active, shown = effective_status(row.status, row.upstream_status)
        delivery.hides = shown in HIDING_STATUSES
        # Beside `active`, the host may add a word such as "throttled".
        agreed = active == event.active and (active or shown == event.status)
        if agreed and event.time:
            parts = frames.split_at_seq(event)
        else:
            word = event.status if agreed else shown
            parts = frames.account_frame(event.did, event.time or time_now(), active, word)
        _fill(delivery, row, parts)

    def _judge_identity(self, delivery: Delivery, event: IdentityEvent) -> None:
        state = self._accounts.lookup(event.did)
        if not delivery.refreshed:
            foreign = state is not None and state.row.host_id != delivery.host.id
            raise Hold(Wait.FOREIGN if foreign else Wait.REFRESH)
        # Not before SQL was perhaps asked: meanwhile the document may have been read again.
        identity = self._known_identity(event.did)
        if state is None:
            # While the directory gives no answer nothing else says whose an account is that is not known: not even a
            # document that was stored before, if it names another host.
            if identity is None and Wait.ANSWER not in delivery.done:
                raise Hold(_unknown(delivery))
            if identity is None or not delivery.host.endpoint.same_host(identity.pds):
                if self._identities.negatives.unanswered(event.did) and Wait.FOREIGN not in delivery.done:
                    raise Hold(Wait.FOREIGN)
                raise Rejected("wrong-host", delivery.host.hostname)
            state = self._hosting.make(event.did, delivery.host)
        # A handle is passed on only if the DID document names it. Letters beyond ASCII may be others in lower case.
        handle = event.handle
        proven = handle is None or (handle.isascii() and identity is not None and identity.handle == handle.lower())
        if proven and event.time:
            parts = frames.split_at_seq(event)
        else:
            parts = frames.identity_frame(event.did, event.time or time_now(), handle if proven else None)
        _fill(delivery, state.row, parts)

    def _take_in(self, delivery: Delivery, state: AccountState | None) -> AccountState:
        """The account, new on the event's host; `state` is what there is of it on another one, from where it moves."""
        # The host was the account's before SQL was perhaps asked, and may no longer be.
        self._authoritative_identity(delivery)
        if state is not None:
            self._hosting.move(state, delivery.host)
            # While telling consumers waited for room in the queue to the log it may have moved on.
            raise Again
        return self._hosting.make(delivery.event.did, delivery.host)

    def _known_identity(self, did: str) -> Identity | None:
        try:
            return self._identities.cached(did)
        except IdentityError:
            return None

    def _authoritative_identity(self, delivery: Delivery) -> Identity:
        """The DID's identity, once it names the host that sent the event."""
        try:
            identity = self._identities.cached(delivery.event.did)
        except IdentityError as error:
            # For three days a tombstone can be taken back.
            if error.reason == "did-tombstone" and not delivery.refreshed:
                raise Hold(Wait.FOREIGN) from None
            raise
        if identity is None:
            raise Hold(_unknown(delivery))
        if not delivery.host.endpoint.same_host(identity.pds):
            if not delivery.refreshed:
                raise Hold(Wait.FOREIGN)
            raise Rejected("wrong-host", f"{delivery.host.hostname} is not {identity.pds}")
        return identity


def _unknown(delivery: Delivery) -> Wait:
    """What an event waits for whose DID document is not in memory."""
    return Wait.ANSWER if Wait.IDENTITY in delivery.done else Wait.IDENTITY


def _check_newer(rev: str, repo: RepoRow) -> None:
    if rev <= repo.rev:
        raise Rejected("rev-old", f"{rev} is not after {repo.rev}")


def _fill(delivery: Delivery, row: AccountRow, parts: tuple[bytes, bytes]) -> None:
    """Write the account and the frame around `seq` into the entry."""
    delivery.uid = row.uid
    delivery.status = status_code(row.upstream_status)
    delivery.head, delivery.tail = parts
