"""What the public may ask of `Admin`: a crawl, a few of them under way at a time for each address.

Each holds one of few places for seconds, while a host is asked what it is: whoever names hosts that do not answer takes
no more of them than anyone else. Used by requestCrawl and by the forms of the pages. Must not know which hosts are
accepted.
"""

from __future__ import annotations

from relay.admin.actions import Actor, Admin
from relay.kit import metrics
from relay.kit.errors import CrawlRefused
from relay.kit.limits import Places

AT_ONCE = 200
AT_ONCE_PER_ADDRESS = 5


class PublicCrawls:
    """The crawl requests that are under way. One for the application."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._places: Places[str] = Places(AT_ONCE, AT_ONCE_PER_ADDRESS)
        metrics.show_bound("crawl-requests", self._places.__len__, AT_ONCE)

    def request(self, actor: Actor, hostname: str, key: str | None) -> None:
        """Subscribe to a host. `key` is what the address is counted as, None when nobody says whose it is.

        Raises CrawlRefused.
        """
        if not self._places.take(key):
            raise CrawlRefused(
                "crawl-busy", "RateLimitExceeded", 429, "too many crawl requests at once, in total or from your address"
            )
        try:
            self._admin.public_crawl(actor, hostname)
        finally:
            self._places.give_back(key)
