"""`GET /account/<name>`: why an account is, or is not, in this relay's stream, for its owner and its PDS's operator.

A page for browsers, JSON for everyone else. Public; how often it may be asked for is `account_answers`' matter.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import Any

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from jinja2 import Environment, Template

from relay.atproto.events import effective_status
from relay.kit.errors import CrawlRefused
from relay.web.account_report import AccountReport
from relay.web.errors import invalid
from relay.web.host_page import iso_time, rejected_view
from relay.web.services import relay_services, requester

blueprint = Blueprint("account", __name__)

MAX_NAME = 2048

STYLE = """
:root { color-scheme: light dark; }
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1, dd, p, pre { overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; }
.summary { font-size: 1.15rem; font-weight: 600; }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem; }
button { font: inherit; padding: .5rem 1rem; }
pre { white-space: pre-wrap; }
"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ view.name }} at this relay</title>
<style>{{ style|safe }}</style>
<main>
<h1>{{ view.handle or view.name }}</h1>
{% if notice %}<p role="status">{{ notice }}</p>{% endif %}
<p class="summary">{{ view.summary }}</p>
<p>{{ view.advice }}</p>
{% if view.canRequestCrawl %}
<form method="post" action="/account/{{ view.did }}/crawl"><button>Request a crawl of {{ view.pds }}</button></form>
{% endif %}
<dl>
<dt>DID</dt><dd>{{ view.did or "unknown" }}</dd>
<dt>PDS</dt>
<dd>{% if view.host %}<a href="/host/{{ view.pds }}">{{ view.pds }}</a>
{% else %}{{ view.pds or "unknown" }}{% endif %}</dd>
{% if view.here %}
<dt>At this relay</dt>
<dd>{{ "active" if view.here.active else view.here.status }}, rev {{ view.here.rev or "none yet" }}</dd>
{% endif %}
{% if view.there %}
<dt>At its PDS</dt>
<dd>{% if view.there.failure %}{{ view.there.failure }}{% else %}
{{ "active" if view.there.active else view.there.status or "inactive" }}, rev {{ view.there.rev or "not said" }}
{% endif %}</dd>
{% endif %}
{% if view.host %}
<dt>The relay and the PDS</dt>
<dd>{{ view.host.status }}, {{ "connected" if view.host.connected else "not connected" }},
last connected {{ view.host.lastConnected or "never" }},
{{ view.host.accounts }} of {{ view.host.accountLimit }} accounts</dd>
{% if view.host.lastError %}
<dt>Last error</dt><dd>{{ view.host.lastErrorAt }}: {{ view.host.lastError }}</dd>
{% endif %}
{% endif %}
</dl>
{% for frame in view.rejected %}
<section>
<h2>Rejected {{ frame.at }}: {{ frame.reason }}</h2>
<p>{{ frame.rule }} <a href="{{ frame.specification }}">Specification</a></p>
<pre>{{ frame.shown }}</pre>
</section>
{% endfor %}
<p><small>As of {{ view.checkedAt }}.</small></p>
</main>
</html>
"""
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


@blueprint.get("/account/<name>")
def account(name: str) -> ResponseReturnValue:
    """Why an account, by its DID or handle, is or is not in the stream, and who can act: a page, or JSON."""
    return _answer(*_report(name))


@blueprint.post("/account/<name>/crawl")
def crawl_account(name: str) -> ResponseReturnValue:
    """The button of the account's page: request a crawl of its PDS."""
    _, report = _report(name)
    if not report.can_crawl or report.pds is None:
        raise invalid("a crawl would change nothing for this account")
    services = relay_services()
    try:
        services.admin.public_crawl(services.admin.at_page(requester()), report.pds.url)
        notice = f"The relay connects to {report.pds.hostname}."
    except CrawlRefused as refused:
        notice = f"The relay does not take {report.pds.hostname}: {refused.detail}."
    services.account_answers.forget(_plain(name))
    return _answer(*_report(name), notice)


def _report(name: str) -> tuple[float, AccountReport]:
    services, address = relay_services(), requester()
    # Who is not an admin, and says so, is told that.
    if "Authorization" in request.headers:
        services.auth.check(request.headers["Authorization"], address)
        return services.account_answers.of(_plain(name), None)
    return services.account_answers.of(_plain(name), address)


def _plain(name: str) -> str:
    """As people copy names: with an `at://` or `@` before them."""
    name = name.removeprefix("at://").removeprefix("@")
    if len(name) > MAX_NAME:
        raise invalid("that is neither a DID nor a handle")
    return name


def _answer(made_at: float, report: AccountReport, notice: str = "") -> ResponseReturnValue:
    view = report_view(made_at, report)
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html":
        return jsonify(view)
    page = Response(_template().render(view=view, notice=notice, style=STYLE), mimetype="text/html")
    page.headers["Content-Security-Policy"] = POLICY
    return page


def report_view(made_at: float, report: AccountReport) -> dict[str, Any]:
    """A report as JSON: `here` and `there` are what the relay and the PDS have of the account."""
    view: dict[str, Any] = {
        "name": report.name,
        "did": report.did,
        "handle": report.handle,
        "pds": report.pds and report.pds.hostname,
        "cause": report.finding.cause,
        "summary": report.finding.summary,
        "advice": report.finding.advice,
        "canRequestCrawl": report.can_crawl,
        "here": None,
        "there": None,
        "host": None,
        "rejected": [rejected_view(frame) for frame in report.rejected],
        "checkedAt": iso_time(made_at),
    }
    if report.here is not None:
        row, repo = report.here
        active, status = effective_status(row.status, row.upstream_status)
        view["here"] = {"active": active, "status": status, "rev": repo and repo.rev}
    if report.there is not None:
        view["there"] = report.there._asdict()
    if report.host is not None:
        host, row_of_host = report.host.host, report.host.host.row
        view["host"] = {
            "status": host.status.value,
            "connected": host.connected,
            "lastConnected": iso_time(row_of_host.last_connected_at),
            "lastError": row_of_host.last_error,
            "lastErrorAt": iso_time(row_of_host.last_error_at),
            "accounts": host.account_count,
            "accountLimit": host.account_limit,
        }
    return view


@cache
def _template() -> Template:
    """The page, compiled once: that takes some milliseconds."""
    return Environment(autoescape=True).from_string(PAGE)
