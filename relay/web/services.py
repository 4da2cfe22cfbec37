"""What the web gets from the rest of the relay, in one dataclass.

Built by `app`, kept by the Flask application, reached by routes through `services()`. Holds no logic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from relay.admin.actions import Admin
from relay.config import Settings
from relay.hosts.hosts import Hosts
from relay.kit.memory import MemoryDebug
from relay.store.database import Database
from relay.stream.firehose import Firehose
from relay.web.account_answers import AccountAnswers
from relay.web.account_report import FindAccount
from relay.web.callers import AdminAuth
from relay.web.consumers import Consumers
from relay.web.crawls import PublicCrawls
from relay.web.deflated import Deflated

EXTENSION = "relay"
PREFIX = "/xrpc/com.atproto.sync."


@dataclass(frozen=True, kw_only=True)
class Services:
    """What it takes to serve the firehose, for a relay and for an edge.

    `problem` says in words what is wrong with the event path, or None; `warning` what an operator has to know although
    all is well again. `live_rate` is how many events are logged per second now, None while that is not known.
    `role` is what a load balancer may want to know: relay, edge, or active or standby in a cluster, in which this is
    called `node`.
    """

    settings: Settings
    db: Database
    firehose: Firehose
    consumers: Consumers
    auth: AdminAuth
    problem: Callable[[], str | None]
    warning: Callable[[], str | None] = lambda: None
    role: str = "relay"
    node: str = ""
    deflated: Deflated = field(default_factory=Deflated)
    live_rate: Callable[[], float | None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class RelayServices(Services):
    """What a relay's routes use beside that.

    `crawls` are what the public asks of `admin`; `find_account` knows an account by its DID as of the newest event;
    `account_answers` say what is the matter with one; `memory` is there when the operator wants it traced.
    """

    hosts: Hosts
    admin: Admin
    crawls: PublicCrawls
    find_account: FindAccount
    account_answers: AccountAnswers
    memory: MemoryDebug | None = None


def services() -> Services:
    """The services of the application that handles the current request, a relay's or an edge's."""
    return cast(Services, current_app.extensions[EXTENSION])


def relay_services() -> RelayServices:
    """The services of the relay that handles the current request."""
    return cast(RelayServices, current_app.extensions[EXTENSION])
