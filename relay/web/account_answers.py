"""Reports of accounts, made no more often than they may be: each costs requests to strangers.

Used by `account_page`. An answer is kept for half a minute, few are made at a time, and each address may
have a few made in a minute. Admins have places of their own. Must not know what is in one.
"""

from __future__ import annotations

import time

from cachetools import TTLCache
from gevent.lock import Semaphore

from relay.kit import metrics
from relay.kit.limits import Allowance, Places
from relay.web.account_report import AccountReport, AccountReports
from relay.web.callers import counted_as
from relay.web.errors import XrpcError, too_many

KEPT_SECONDS = 30.0
KEPT = 1024
AT_ONCE = 8
AT_ONCE_PER_ADDRESS = 3
AT_ONCE_OF_ADMINS = 4
WAIT_SECONDS = 20.0
# One address may have BURST reports at once, then one every SECONDS_EACH.
BURST = 10
SECONDS_EACH = 6.0
ADDRESSES = 10_000


class AccountAnswers:
    """Reports, made no more often than they may be. One for the application."""

    def __init__(self, reports: AccountReports) -> None:
        self._reports = reports
        self._kept: TTLCache[str, tuple[float, AccountReport]] = TTLCache(KEPT, KEPT_SECONDS)
        self._places = Semaphore(AT_ONCE)
        self._admins_places = Semaphore(AT_ONCE_OF_ADMINS)
        self._asking: Places[str] = Places(KEPT, AT_ONCE_PER_ADDRESS)
        self._allowed: Allowance[str] = Allowance(BURST, SECONDS_EACH, ADDRESSES)
        metrics.show_bound("account-pages", lambda: metrics.kept(self._kept), KEPT)
        metrics.show_bound("account-page-addresses", lambda: len(self._allowed), ADDRESSES)

    def of(self, name: str, address: str | None) -> tuple[float, AccountReport]:
        """When it was made, and the report. Raises XrpcError 429 when `address`, or everybody, asks too often.

        An admin asks from no address, as often as needed.
        """
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if address is None:
            return self._made(name, self._admins_places)
        key = counted_as(address)
        # One that names servers which do not answer has a report take half a minute.
        if not self._asking.take(key):
            raise _of_your_address()
        try:
            if not self._allowed.take(key, time.monotonic()):
                raise _of_your_address()
            return self._made(name, self._places)
        finally:
            self._asking.give_back(key)

    def _made(self, name: str, places: Semaphore) -> tuple[float, AccountReport]:
        if not places.acquire(timeout=WAIT_SECONDS):
            raise too_many("too many accounts are asked for", int(WAIT_SECONDS))
        try:
            # Another may have asked for it meanwhile.
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = time.time(), self._reports.report(name)
            return kept
        finally:
            places.release()

    def forget(self, name: str) -> None:
        """Make it anew the next time: something has changed."""
        self._kept.pop(name, None)


def _of_your_address() -> XrpcError:
    return too_many("too many accounts are asked for from your address", int(SECONDS_EACH))
