"""A host's accounts as it lists them, a page at a time, and how they differ from what the relay knows of them.

Used by `hosts`. A page is bounded in bytes, entries and time; entries that are not accounts are left out. Keeps
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from relay.atproto.events import SERVED, host_status
from relay.atproto.syntax import is_account_did, is_tid, tid_micros
from relay.healing.source import ask
from relay.hosts.host import Host
from relay.kit.errors import HealError
from relay.net.http import GuardedHttp
from relay.net.pages import read_cursor
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow

PAGE_SECONDS = 30.0
# A page of full size has some 150 KB. Reading more JSON than this at a time would hold up the hub.
PAGE_BYTES = 512 << 10
PAGE_REPOS = 1000
# A page, no page from there on, no such method. Any other status may come from a proxy in between.
FACTS = frozenset({200, 400, 501})


class Listed(NamedTuple):
    """An account in a host's list; `status` in the words of `events.host_status`."""

    did: str
    rev: str
    status: str


class Page(NamedTuple):
    """The accounts of a page, how many entries it had in total, and where the next one starts."""

    accounts: list[Listed]
    entries: int
    cursor: str | None


def page(http: GuardedHttp, host: Host, cursor: str) -> Page:
    """One page of the host's `listRepos`. Raises HealError."""
    query = {"limit": str(PAGE_REPOS), **({"cursor": cursor} if cursor else {})}
    answer = ask(http, host, "listRepos", query, PAGE_BYTES, PAGE_SECONDS, beginning=False)
    body = answer.json_object() if answer.status == 200 else None
    repos = body.get("repos") if body is not None else None
    if answer.status not in FACTS:
        raise HealError("heal-unanswered", f"listRepos: HTTP {answer.status}")
    if body is None or not isinstance(repos, list):
        raise HealError("heal-answer", f"listRepos: HTTP {answer.status} without a list of repos")
    try:
        following = read_cursor(body.get("cursor"))
    except ValueError as error:
        raise HealError("heal-answer", f"listRepos: {error}") from None
    accounts = {account.did: account for entry in repos if (account := _account(entry)) is not None}
    return Page(list(accounts.values()), len(repos), following)


def differences(
    listed: Iterable[Listed], known: Mapping[str, AccountAndRepo], host: Host
) -> tuple[list[str], list[str]]:
    """The DIDs of which something is missing here, and of those that the relay has never had an event of.

    An account that is new here and has written since the host is known has been missed; an older one is merely unseen.
    """
    differing: list[str] = []
    unseen: list[str] = []
    for account in listed:
        row, repo = known.get(account.did, (None, None))
        if row is None:
            if account.status == "active":
                (differing if is_news(account.rev, host) else unseen).append(account.did)
        elif _differs(account, row, repo, host):
            differing.append(account.did)
    return differing, unseen


def is_news(rev: str, host: Host) -> bool:
    """Whether a commit was made since the host is known, so that consumers should have been told of it."""
    return tid_micros(rev) > int(host.row.created_at.timestamp() * 1_000_000)


def _differs(account: Listed, row: AccountRow, repo: RepoRow | None, host: Host) -> bool:
    if row.status not in SERVED:
        # Healed when it is served again.
        return False
    newer = repo is None or account.rev > repo.rev
    if row.host_id != host.id:
        # It may have moved here. If not, its DID document says so.
        return newer and account.status == "active"
    here = "active" if row.upstream_status in SERVED else row.upstream_status
    if account.status != here:
        return True
    return account.status == "active" and (newer or (repo is not None and repo.desynchronized))


def _account(entry: object) -> Listed | None:
    if not isinstance(entry, dict):
        return None
    did, rev, active, status = (entry.get(name) for name in ("did", "rev", "active", "status"))
    if not isinstance(did, str) or not is_account_did(did) or not isinstance(rev, str) or not is_tid(rev):
        return None
    # `active` was not always there.
    stated = host_status(active is not False, status if isinstance(status, str) else None)
    return Listed(did, rev, "active" if stated in SERVED else stated)
