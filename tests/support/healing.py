"""Accounts of which something was missed: what tests of healing begin with."""

from __future__ import annotations

import time

from relay.hosts.host import Host
from relay.store import healing
from relay.store.healing import Missed
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.repo import POST, RepoBuilder, create


def connected(path: EventPath, pds: FakePds, *, account_limit: int = 100) -> Host:
    """The host of `pds`, as if there were a connection to it that brought all that there is."""
    host = path.host(pds.url, account_limit=account_limit)
    host.connected_at = time.time() - 60
    return host


def known(path: EventPath, pds: FakePds, host: Host, seq: int = 1) -> RepoBuilder:
    """An account with one commit in the log, which `pds` serves."""
    repo = path.repo(pds.url)
    pds.repos[repo.did] = repo
    path.put(host, repo.commit(create(f"{POST}/a", {})).frame(seq))
    path.logged(seq)
    return repo


def noted(path: EventPath, host: Host) -> list[Missed]:
    """What is noted of the host's accounts, once all is stored."""
    path.store()
    return path.db.read(healing.due, host.id, time.time() + 1e9, 1000)
