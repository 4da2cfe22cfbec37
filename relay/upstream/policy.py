"""The operator's choices that the fleet works by.

Built by `app` from the settings. Pure data.
"""

from __future__ import annotations

from typing import NamedTuple


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
