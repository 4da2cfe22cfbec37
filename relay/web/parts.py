"""What the web gets from the rest of the relay, in one dataclass.

Built by `app`, kept by the Flask application, reached by routes through `parts()`. Holds no logic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import current_app, request

from relay.config import Settings
from relay.ingest.moderation import Moderation
from relay.memory import MemoryDebug
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database
from relay.stream.firehose import Firehose
from relay.upstream.backfill import Backfill
from relay.upstream.fleet import Fleet
from relay.web.addresses import client_address
from relay.web.auth import AdminAuth
from relay.web.consumers import Consumers
from relay.web.dash.history import History
from relay.web.dash.sessions import Sessions
from relay.web.siblings import Siblings

EXTENSION = "relay"

FindAccount = Callable[[str], tuple[AccountRow, RepoRow | None] | None]


@dataclass(frozen=True)
class Parts:
    """The parts that routes use.

    `find_account` knows an account by its DID as of the newest event; `problem` says in words what is wrong with the
    event path, or None; `memory` is there when the operator wants it traced.
    """

    settings: Settings
    db: Database
    firehose: Firehose
    fleet: Fleet
    moderation: Moderation
    backfill: Backfill
    consumers: Consumers
    siblings: Siblings
    auth: AdminAuth
    sessions: Sessions
    history: History
    find_account: FindAccount
    problem: Callable[[], str | None]
    memory: MemoryDebug | None = None


def parts() -> Parts:
    """The parts of the application that handles the current request."""
    return cast(Parts, current_app.extensions[EXTENSION])


def requester() -> str:
    """The address that the current request comes from."""
    environ = request.environ
    trusted = parts().settings.trusted_proxies
    return client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)
