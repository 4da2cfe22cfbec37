"""How many `#sync` events healing may send: for an account, for a host and in all.

A `#sync` has every consumer fetch a repository. A host makes its gaps itself, so what heals them must cost consumers no
more than the events do that it may send anyway. Pure arithmetic; the time is passed in, in seconds.
"""

from __future__ import annotations

from relay.hosts.host import Host
from relay.kit.limits import Allowance

# How many at once, and the seconds between two after that.
OF_ACCOUNT = (3, 1800.0)
OF_HOST = (200, 1.0)
OF_TRUSTED_HOST = (1000, 0.1)
IN_ALL = (2000, 0.02)
ACCOUNTS = 50_000
HOSTS = 20_000


class Budgets:
    """Three allowances, of which an account needs all."""

    def __init__(self) -> None:
        # By host, too: what others say of an account must not use up what its own host has for it.
        self._of_account: Allowance[tuple[str, int]] = Allowance(*OF_ACCOUNT, ACCOUNTS)
        self._of_host: Allowance[int] = Allowance(*OF_HOST, HOSTS)
        self._of_trusted_host: Allowance[int] = Allowance(*OF_TRUSTED_HOST, HOSTS)
        self._in_all: Allowance[None] = Allowance(*IN_ALL, 1)

    def __len__(self) -> int:
        """Accounts and hosts that are remembered."""
        return len(self._of_account) + len(self._of_host) + len(self._of_trusted_host)

    def take(self, did: str, host: Host, now: float) -> bool:
        """Whether one more may be sent for `did` on `host`; takes it from all three."""
        of_host = self._of_trusted_host if host.row.trusted else self._of_host
        if not (
            self._of_account.has((did, host.id), now) and of_host.has(host.id, now) and self._in_all.has(None, now)
        ):
            return False
        return (
            self._of_account.take((did, host.id), now) and of_host.take(host.id, now) and self._in_all.take(None, now)
        )

    def give_back(self, did: str, host: Host) -> None:
        """What was taken for `did` on `host` was not sent."""
        self._of_account.give_back((did, host.id))
        (self._of_trusted_host if host.row.trusted else self._of_host).give_back(host.id)
        self._in_all.give_back(None)
