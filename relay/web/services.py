"""What the web gets from the rest of the relay, in one dataclass.

Built by `app`, kept by the Flask application, reached by routes through `services()`. Holds no logic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, request

from relay.admin.actions import Actor, Admin
from relay.admin.siblings import forward_of
from relay.config import Settings
from relay.hosts.hosts import Hosts
from relay.kit.memory import MemoryDebug
from relay.store.database import Database
from relay.stream.firehose import Firehose
from relay.web.account_answers import AccountAnswers
from relay.web.account_report import FindAccount
from relay.web.callers import AdminAuth, client_address, counted_as, from_other_site, is_proxy
from relay.web.consumers import Consumers
from relay.web.crawls import PublicCrawls
from relay.web.deflated import Deflated
from relay.web.errors import XrpcError

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


def requester() -> str:
    """The address that the current request comes from."""
    environ = request.environ
    trusted = services().settings.trusted_proxies
    return client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)


def crawl_for_public(actor: Actor, hostname: str) -> None:
    """What anybody may ask: subscribe to a host. Raises CrawlRefused."""
    services, address = relay_services(), requester()
    # A proxy that does not say for whom it asks may ask for anyone.
    key = None if is_proxy(address, services.settings.trusted_proxies) else counted_as(address)
    services.crawls.request(actor, hostname, key)


def over_https() -> bool:
    """True when the current request came over TLS, to us or to a proxy that is believed."""
    if request.scheme == "https":
        return True
    peer = request.environ.get("REMOTE_ADDR", "")
    return is_proxy(peer, services().settings.trusted_proxies) and request.headers.get("X-Forwarded-Proto") == "https"


def admit_admin() -> None:
    """Let an admin's request pass. Raises XrpcError 403, 401 or 429.

    Browsers add a password that they remember to whatever a page makes them send: what another site's page sent is
    refused. Programs do not say where a request comes from, and need not.
    """
    headers = request.headers
    if from_other_site(headers.get("Sec-Fetch-Site"), headers.get("Origin"), request.host):
        raise XrpcError(403, "Forbidden", "a page of another site sent this request")
    services().auth.check(headers.get("Authorization"), requester())


def actor() -> Actor:
    """Whoever sent the current request, which siblings are sent as it came, unless a relay sent it."""
    target = request.full_path if request.query_string else request.path
    protocol = str(request.environ.get("SERVER_PROTOCOL", "HTTP/1.1"))
    forward = forward_of(request.method, target, dict(request.headers), request.get_data(cache=True), protocol)
    return Actor(requester(), lambda _: forward)
