"""What the web gets from the rest of the relay, in one dataclass.

Built by `app`, kept by the Flask application, reached by routes through `parts()`. Holds no logic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import current_app, request

from relay.admin.siblings import Siblings
from relay.collections.imports import Backfill
from relay.config import Settings
from relay.dash.history import History
from relay.dash.sessions import Sessions
from relay.hosts.hosts import Hosts
from relay.ingest.moderation import Moderation
from relay.kit.memory import MemoryDebug
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database
from relay.stream.firehose import Firehose
from relay.web.addresses import client_address
from relay.web.auth import AdminAuth
from relay.web.consumers import Consumers

EXTENSION = "relay"

FindAccount = Callable[[str], tuple[AccountRow, RepoRow | None] | None]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What it takes to serve the firehose, for a relay and for an edge.

    `problem` says in words what is wrong with the event path, or None.
    """

    settings: Settings
    db: Database
    firehose: Firehose
    consumers: Consumers
    auth: AdminAuth
    problem: Callable[[], str | None]


@dataclass(frozen=True, kw_only=True)
class Parts(Serving):
    """The parts that a relay's routes use.

    `find_account` knows an account by its DID as of the newest event; `memory` is there when the operator wants it
    traced.
    """

    fleet: Hosts
    moderation: Moderation
    backfill: Backfill
    siblings: Siblings
    sessions: Sessions
    history: History
    find_account: FindAccount
    memory: MemoryDebug | None = None


def serving() -> Serving:
    """The parts of the application that handles the current request, a relay's or an edge's."""
    return cast(Serving, current_app.extensions[EXTENSION])


def parts() -> Parts:
    """The parts of the relay that handles the current request."""
    return cast(Parts, current_app.extensions[EXTENSION])


def requester() -> str:
    """The address that the current request comes from."""
    environ = request.environ
    trusted = serving().settings.trusted_proxies
    return client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)
