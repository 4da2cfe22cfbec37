"""The operator's choices that the fleet works by.

Built by `app` from the settings. Pure data and what follows from it alone.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.hosts.host import TRUSTED_ACCOUNT_LIMIT


class Policy(NamedTuple):
    """Durations are seconds; an `idle_after` of 0 keeps quiet hosts connected."""

    user_agent: str
    allow_insecure_hosts: bool = False
    disable_request_crawl: bool = False
    default_account_limit: int = 100
    new_hosts_per_day: int = 50
    trusted_domains: tuple[str, ...] = ()
    replay_window: float = 72 * 3600.0
    idle_after: float = 0.0
    account_limit_autoscale: bool = True
    hosts: tuple[str, ...] = ()
    bootstrap_host: str = ""
    skip_host_checks: bool = False

    def is_trusted(self, hostname: str) -> bool:
        """True when a trusted domain names the host exactly or, as `*.example.com`, by the end of its name."""
        return any(
            hostname.endswith(pattern[1:]) if pattern.startswith("*") else hostname == pattern
            for pattern in self.trusted_domains
        )

    def first_account_limit(self, hostname: str) -> int:
        """Accounts that a host may have when it is new."""
        return TRUSTED_ACCOUNT_LIMIT if self.is_trusted(hostname) else self.default_account_limit
