"""Who sent the request that is being handled, over what, and whether they may do what an admin may.

Asked by the routes of every room that has some. What is decided by headers and addresses alone is `callers`'; here they
are taken from the current request. Must not know what is asked for.
"""

from __future__ import annotations

from flask import request

from relay.admin.actions import Actor
from relay.admin.siblings import forward_of
from relay.web.callers import client_address, counted_as, from_other_site, is_proxy
from relay.web.errors import XrpcError
from relay.web.services import relay_services, services


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
