"""`GET /`: what this relay is, for people with a browser; programs get indigo's banner as plain text. `POST /crawl` is
its form for one's own PDS: requestCrawl, with the same checks and limits.

Its figures are gathered once in FIGURES_SECONDS, however many ask. Serves a relay and an edge, which has no hosts. Must
not know how events come or go.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from flask import Response, request
from flask.typing import ResponseReturnValue

from relay.atproto.hostname import parse_endpoint
from relay.hosts.search import HostQuery
from relay.net.http import SERVER
from relay.web.current_request import over_https, requester
from relay.web.errors import XrpcError
from relay.web.public_page import public_page, refuse_foreign_form, wants_page
from relay.web.services import RelayServices, Services
from relay.web.xrpc import crawl_for_anybody

FIGURES_SECONDS = 5.0
MAX_SHOWN = 300
KEEP = "public, max-age=5"

BANNER = f"""{SERVER}

This is a relay of the AT Protocol network.

  firehose: /xrpc/com.atproto.sync.subscribeRepos
  health:   /xrpc/_health
"""

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,260}")
_EMAIL = re.compile(r"[^@\s/:]+@[^@\s/:]+\.[^@\s/:]+")


class Figures(NamedTuple):
    """What the page tells of now. `window` is how far back events can be replayed, in seconds."""

    rate: float | None
    last_seq: int
    window: float | None
    consumers: int
    hosts: int | None
    hosts_connected: int | None


class FrontPage:
    """The front page of a relay or an edge, and its form."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._relay = services if isinstance(services, RelayServices) else None
        self._figures: tuple[float, Figures] | None = None

    def show(self) -> ResponseReturnValue:
        """What this relay is and how to consume it, as a page for browsers and a few lines of text for programs."""
        if not wants_page("text/plain"):
            return Response(BANNER, mimetype="text/plain", headers={"Vary": "Accept"})
        response = self._page()
        response.headers["Cache-Control"] = KEEP
        return response

    def crawl(self) -> ResponseReturnValue:
        """`hostname`: requestCrawl for one's own PDS, as a form."""
        assert self._relay is not None
        refuse_foreign_form()
        asked = request.form.get("hostname", "").strip()
        try:
            hostname = self._request_crawl(asked)
        except XrpcError as error:
            if not wants_page("application/json"):
                raise
            return self._page(error.status, refusal=error.message, asked=asked[:MAX_SHOWN])
        return self._page(crawled=hostname) if wants_page("application/json") else Response()

    def figures(self) -> Figures:
        """What the page shows, at most a few seconds old."""
        now = time.monotonic()
        if self._figures is None or now - self._figures[0] >= FIGURES_SECONDS:
            self._figures = now, self._gather()
        return self._figures[1]

    def _request_crawl(self, asked: str) -> str:
        """The name of the host, which the relay connects to. Raises XrpcError as requestCrawl does."""
        assert self._relay is not None
        actor = self._relay.admin.at_page(requester())
        return parse_endpoint(crawl_for_anybody(actor, {"hostname": asked})).hostname

    def _gather(self) -> Figures:
        window = self._services.firehose.window()
        span = window.newest_at - window.oldest_at if window.newest_at and window.oldest_at else None
        states = self._relay.hosts.search(HostQuery(count=0)).by_state if self._relay else None
        return Figures(
            self._services.live_rate(),
            window.last_seq,
            span,
            sum(1 for _ in self._services.consumers),
            states["all"] if states else None,
            states["connected"] if states else None,
        )

    def _page(self, status: int = 200, *, crawled: str = "", refusal: str = "", asked: str = "") -> Response:
        """The page with what came of its form, if it was sent."""
        settings = self._services.settings
        contact = settings.operator_contact
        link = contact if contact.startswith(("https://", "http://")) else None
        return public_page(
            "front.html",
            status,
            server=SERVER,
            here=request.host if _HOST.fullmatch(request.host) else "relay.example.com",
            tls=over_https(),
            figures=self.figures(),
            edge_of=None if self._relay else settings.edge_upstream,
            crawl_open=self._relay is not None and self._relay.hosts.new_hosts.crawl_enabled,
            json_stream=settings.json_stream,
            operator=settings.operator_name,
            contact=contact,
            contact_link=f"mailto:{contact}" if _EMAIL.fullmatch(contact) else link,
            terms=settings.terms_url,
            crawled=crawled,
            refusal=refusal,
            asked=asked,
        )
