"""Asks an account's PDS for its status when it is stored as inactive and yet sends commits.

An `#account` event may have been missed; then the record is healed here. Run by the errand runner, one question per
account at a time. Must not decide what becomes of the event: the gate looks again afterwards.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from urllib.parse import quote

from cachetools import TTLCache

from relay.atproto.events import STATUSES
from relay.hosts.host import Host
from relay.ingest.accounts import Accounts
from relay.kit import metrics
from relay.kit.errors import RelayError
from relay.kit.limits import Tally
from relay.net.http import GuardedHttp
from relay.stream.projector import Projector

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 64 << 10
REMEMBERED_SECONDS = 600.0
# No answer confirms nothing; yet a host that is away is not asked again for each event of the account.
UNANSWERED_SECONDS = 30.0
REMEMBERED_CAPACITY = 100_000
QUESTIONS_PER_HOST_WINDOW = 60
HOST_WINDOW_SECONDS = 60.0

log = logging.getLogger(__name__)


class StatusCheck:
    """`getRepoStatus` at the account's host: rate-limited per host, the answer remembered for ten minutes."""

    def __init__(self, http: GuardedHttp, accounts: Accounts, projector: Projector) -> None:
        self._http = http
        self._accounts = accounts
        self._projector = projector
        self._confirmed: TTLCache[str, bool] = TTLCache(REMEMBERED_CAPACITY, REMEMBERED_SECONDS)
        self._asked: Tally[int] = Tally(HOST_WINDOW_SECONDS, REMEMBERED_CAPACITY)
        self._unanswered: TTLCache[str, bool] = TTLCache(REMEMBERED_CAPACITY, UNANSWERED_SECONDS)
        metrics.QUEUE_CAPACITY.labels("status-checks").set(3 * REMEMBERED_CAPACITY)

    def run(self, did: str, host: Host) -> None:
        """Bring the stored upstream status of `did` in line with what `host` says; unchanged when it says nothing.

        Called for an account by one greenlet at a time.
        """
        now = time.monotonic()
        asked_enough = self._asked.count(host.id, now) >= QUESTIONS_PER_HOST_WINDOW
        if did in self._confirmed or did in self._unanswered or asked_enough:
            metrics.STATUS_CHECKS.labels("skipped").inc()
            return
        self._asked.add(host.id, now)
        status = self._ask(did, host)
        remembered = self._unanswered if status is None else self._confirmed
        remembered[did] = True
        # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
        size = len(self._confirmed) + len(self._unanswered) + len(self._asked)
        metrics.QUEUE_SIZE.labels("status-checks").set(size)
        state = self._accounts.lookup(did)
        if status is None or state is None or status == state.row.upstream_status:
            return
        state.row = replace(state.row, upstream_status=status)
        self._projector.note_account(state.row)

    def _ask(self, did: str, host: Host) -> str | None:
        url = f"{host.endpoint.url}/xrpc/com.atproto.sync.getRepoStatus?did={quote(did, safe=':')}"
        try:
            response = self._http.get(url, timeout=TIMEOUT_SECONDS, max_bytes=MAX_BYTES)
            answer = response.json_object() if response.status == 200 else None
        except (RelayError, OSError) as error:
            log.debug("getRepoStatus of %s at %s failed: %s", did, host.hostname, error)
            answer = None
        if answer is None or answer.get("did") != did:
            metrics.STATUS_CHECKS.labels("unanswered").inc()
            return None
        metrics.STATUS_CHECKS.labels("answered").inc()
        if answer.get("active") is True:
            return "active"
        status = answer.get("status")
        return status if status in STATUSES and status != "active" else "inactive"
