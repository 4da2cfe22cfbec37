"""Judges one event: who may send it, for which account, in which state; then has it verified.

Called by lanes, one event of an account at a time. It fills the delivery's entry for the log, or raises `Rejected`, or
`Hold` when something must be found out first. Asks nobody itself: it must not wait on the network. What a repo's event
goes through is admitted by what is known, verified without any state (`verification`), and concluded.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from relay.atproto import frames
from relay.atproto.commit import Unproven
from relay.atproto.crypto import PublicKey
from relay.atproto.events import HIDING_STATUSES, STATUSES, effective_status
from relay.atproto.frames import Account, Commit, Sync
from relay.atproto.frames import Identity as IdentityEvent
from relay.atproto.syntax import check_account_did
from relay.hosts.host import Host
from relay.hosts.registry import HostRegistry
from relay.identity.resolver import Identity, Resolver
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.delivery import Delivery, Hold, Rejected, Unverified, Wait
from relay.ingest.rejections import Penalties
from relay.ingest.verification import INTERNAL_ERROR, SIGNATURE_INVALID, Outcome, Refusal, Verdict, verify
from relay.ingest.worker_pool import WorkerPool
from relay.kit import metrics
from relay.kit.errors import IdentityError
from relay.store.accounts import AccountRow, RepoRow
from relay.stream.changes import changes_of, continues
from relay.stream.projector import Projector

log = logging.getLogger(__name__)


class Gate:
    """The rules of protocol.md 10-20, in that order, over the accounts and identities in memory."""

    def __init__(
        self,
        accounts: Accounts,
        resolver: Resolver,
        registry: HostRegistry,
        projector: Projector,
        penalties: Penalties,
        pool: WorkerPool | None = None,
        *,
        lenient: bool,
    ) -> None:
        self._accounts = accounts
        self._resolver = resolver
        self._registry = registry
        self._projector = projector
        self._penalties = penalties
        self._pool = pool
        self._lenient = lenient

    def judge(self, delivery: Delivery) -> None:
        """Make of `delivery` what the log takes.

        Raises Rejected, ProtocolError or IdentityError, each with the reason, when the event is dropped; Hold or
        Unverified when it has to wait; StoreError when SQL is needed and away.
        """
        event = delivery.event
        check_account_did(event.did)
        if isinstance(event, IdentityEvent):
            self._judge_identity(delivery, event)
        elif isinstance(event, Account):
            self._judge_account(delivery, event)
        else:
            self._judge_repo_event(delivery, event)

    def look_ahead(self, delivery: Delivery) -> None:
        """Have an event verified before its turn, if there are processes for it and nothing known speaks against it.

        Decides nothing: when its turn comes the event is judged by what is known then, the outcome being one more fact.
        """
        event = delivery.event
        if self._pool is None or not isinstance(event, Commit | Sync):
            return
        identity = self._known_identity(event.did)
        if identity is None or identity.key is None or not delivery.host.endpoint.same_host(identity.pds):
            return
        state = self._accounts.if_busy(event.did)
        if state is None or state.repo is None or event.rev > state.repo.rev:
            delivery.check = self._pool.ahead(event, identity.key)

    def _judge_repo_event(self, delivery: Delivery, event: Commit | Sync) -> None:
        state, key = self._admit(delivery, event)
        verdict = self._verdict(delivery, event, key)
        if isinstance(verdict, Unproven):
            raise self._refused(delivery, Refusal(verdict.reason, verdict.detail))
        if isinstance(verdict, Refusal):
            raise self._refused(delivery, verdict)
        self._conclude(delivery, event, state, verdict)

    def _admit(self, delivery: Delivery, event: Commit | Sync) -> tuple[AccountState, PublicKey]:
        """The account and its key, once all that costs little speaks for the event."""
        identity = self._authoritative_identity(delivery)
        state = self._hosted_account(delivery)
        _check_local_status(state.row)
        if state.repo is not None and event.rev <= state.repo.rev:
            raise Rejected("rev-old", f"{event.rev} is not after {state.repo.rev}")
        self._check_upstream_status(delivery, state.row)
        self._check_conduct(delivery)
        if identity.key is None:
            if Wait.REFRESH not in delivery.done:
                raise Hold(Wait.REFRESH)
            raise Rejected("no-signing-key")
        return state, identity.key

    def _verdict(self, delivery: Delivery, event: Commit | Sync, key: PublicKey) -> Outcome:
        if self._pool is None:
            return verify(event, key, int(time.time() * 1_000_000), lenient=self._lenient)
        # What was verified ahead may have been so against a key that has been rotated since.
        if delivery.check is None or delivery.check.key != key:
            delivery.check = self._pool.begin(event, key)
        if delivery.check.outcome is None:
            raise Unverified
        return delivery.check.outcome

    def _refused(self, delivery: Delivery, refusal: Refusal) -> Hold | Rejected:
        # The key may have been rotated since the document was read.
        if refusal.reason == SIGNATURE_INVALID and Wait.REFRESH not in delivery.done:
            return Hold(Wait.REFRESH)
        self._penalties.charge(delivery.event.did)
        if refusal.reason == INTERNAL_ERROR:
            log.error("verifying an event of %s failed: %s", delivery.event.did, refusal.detail)
            return Rejected(INTERNAL_ERROR)
        return Rejected(refusal.reason, refusal.detail)

    def _conclude(self, delivery: Delivery, event: Commit | Sync, state: AccountState, verdict: Verdict) -> None:
        """Put the verified event after what is known of its repo."""
        if isinstance(event, Sync):
            self._penalties.charge(event.did)
        elif state.repo is not None:
            self._check_chain(event, state.repo)
        if verdict.lenient:
            metrics.EVENTS_LENIENT.labels(verdict.lenient).inc()
        state.repo, delivery.collections = changes_of(
            event, state.row.uid, verdict.commit, verdict.data, verdict.touched, state.repo
        )
        delivery.repo = state.repo
        _fill(delivery, state.row, frames.split_at_seq(event))

    def _judge_account(self, delivery: Delivery, event: Account) -> None:
        state = self._accounts.lookup(event.did)
        if state is None or state.row.host_id != delivery.host.id:
            self._authoritative_identity(delivery)
            state = self._hosted_account(delivery)
        row = state.row = replace(state.row, upstream_status=_upstream_status(event))
        active, status = effective_status(row.status, row.upstream_status)
        if (active, status) == (event.active, event.status):
            parts = frames.split_at_seq(event)
        else:
            parts = frames.account_frame(event.did, event.time, active, status)
        delivery.account = row
        delivery.hides = status in HIDING_STATUSES
        _fill(delivery, row, parts)

    def _judge_identity(self, delivery: Delivery, event: IdentityEvent) -> None:
        if Wait.REFRESH not in delivery.done:
            raise Hold(Wait.REFRESH)
        identity = self._known_identity(event.did)
        state = self._accounts.lookup(event.did)
        if state is None:
            if identity is None or not delivery.host.endpoint.same_host(identity.pds):
                raise Rejected("wrong-host", delivery.host.hostname)
            state = self._hosted_account(delivery)
        # Any host may announce a change of identity, so only the handle that the DID document names is passed on.
        if event.handle is None or (identity is not None and identity.handle == event.handle):
            parts = frames.split_at_seq(event)
        else:
            parts = frames.identity_frame(event.did, event.time, None)
        _fill(delivery, state.row, parts)

    def _known_identity(self, did: str) -> Identity | None:
        try:
            return self._resolver.cached(did)
        except IdentityError:
            return None

    def _authoritative_identity(self, delivery: Delivery) -> Identity:
        """The DID's identity, once it names the host that sent the event."""
        identity = self._resolver.cached(delivery.event.did)
        if identity is None:
            raise Hold(Wait.IDENTITY)
        if not delivery.host.endpoint.same_host(identity.pds):
            if Wait.REFRESH not in delivery.done:
                raise Hold(Wait.REFRESH)
            raise Rejected("wrong-host", f"{delivery.host.hostname} is not {identity.pds}")
        return identity

    def _hosted_account(self, delivery: Delivery) -> AccountState:
        """The account, made or moved to the host that sent the event; its authority is established."""
        state = self._accounts.lookup(delivery.event.did)
        if state is None:
            state = self._accounts.create(delivery.event.did, delivery.host)
            self._projector.note_account(state.row)
        elif state.row.host_id != delivery.host.id:
            self._move(state, delivery.host)
        return state

    def _move(self, state: AccountState, host: Host) -> None:
        former = self._registry.by_id(state.row.host_id)
        if former is not None:
            former.account_count -= 1
        host.account_count += 1
        state.row = replace(state.row, host_id=host.id)
        self._projector.note_account(state.row)

    def _check_upstream_status(self, delivery: Delivery, row: AccountRow) -> None:
        if row.upstream_status == "active":
            return
        if Wait.STATUS not in delivery.done:
            raise Hold(Wait.STATUS)
        raise Rejected("account-inactive", row.upstream_status)

    def _check_conduct(self, delivery: Delivery) -> None:
        if Wait.COOL_DOWN not in delivery.done and self._penalties.owed(delivery.event.did):
            raise Hold(Wait.COOL_DOWN)

    def _check_chain(self, event: Commit, repo: RepoRow) -> None:
        """Compare with the last commit seen. A gap is counted, marked and passed: the commit itself is proven."""
        if event.prev_data is None and not self._lenient:
            raise Rejected("prev-data-missing")
        if not continues(event, repo):
            metrics.CHAIN_BREAKS.inc()


def _check_local_status(row: AccountRow) -> None:
    if row.status != "active":
        raise Rejected(f"account-{row.status}")


def _upstream_status(event: Account) -> str:
    if event.active:
        return "active"
    return event.status if event.status in STATUSES and event.status != "active" else "inactive"


def _fill(delivery: Delivery, row: AccountRow, parts: tuple[bytes, bytes]) -> None:
    """Write into the entry whose it is, and its frame around `seq`."""
    delivery.uid = row.uid
    delivery.status = STATUSES.index(row.upstream_status)
    delivery.head, delivery.tail = parts
