"""`GET /account/<name>`: why an account is, or is not, in this relay's stream, for its owner and its PDS's operator.

A page for browsers, JSON for everyone else. Public; how often it may be asked for is `account_answers`' matter.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue

from relay.atproto.events import effective_status
from relay.hosts.report import public_error
from relay.kit.errors import CrawlRefused
from relay.web import params
from relay.web.account_report import AccountReport
from relay.web.current_request import crawl_for_public, requester
from relay.web.errors import invalid
from relay.web.host_page import iso_time, rejected_view
from relay.web.public_page import public_page, refuse_foreign_form, wants_page
from relay.web.services import relay_services

blueprint = Blueprint("account", __name__)

MAX_NAME = 2048


@blueprint.get("/account")
def look_up() -> ResponseReturnValue:
    """`name`: leads to the page of the account that a DID or handle names."""
    name = plain_name(params.required(request.args, "name"))
    return redirect(url_for("account.account", name=name), 303)


@blueprint.get("/account/<name>")
@blueprint.get("/account/<path:name>")
def account(name: str) -> ResponseReturnValue:
    """Why an account, by its DID or handle, is or is not in the stream, and who can act: a page, or JSON."""
    return _answer(*_report(name))


@blueprint.post("/account/<name>/crawl")
def crawl_account(name: str) -> ResponseReturnValue:
    """The button of the account's page: request a crawl of its PDS."""
    refuse_foreign_form()
    _, report = _report(name)
    if not report.can_crawl or report.pds is None:
        raise invalid("a crawl would change nothing for this account")
    services = relay_services()
    try:
        crawl_for_public(services.admin.at_page(requester()), report.pds.url)
        notice = f"The relay connects to {report.pds.hostname}."
    except CrawlRefused as refused:
        notice = f"The relay does not accept {report.pds.hostname}: {refused.detail}."
    services.account_answers.forget(plain_name(name))
    return _answer(*_report(name), notice)


def _report(name: str) -> tuple[float, AccountReport]:
    services, address = relay_services(), requester()
    # Whoever sends credentials wants to be served as an admin: wrong ones are refused.
    if "Authorization" in request.headers:
        services.auth.check(request.headers["Authorization"], address)
        return services.account_answers.of(plain_name(name), None)
    return services.account_answers.of(plain_name(name), address)


def plain_name(text: str) -> str:
    """The name in what people copy: with an `at://` or `@` before it, and perhaps a record's path behind it.

    Raises XrpcError 400 where there is none.
    """
    name = text.strip().removeprefix("at://").removeprefix("@").partition("/")[0]
    if not name or len(name) > MAX_NAME:
        raise invalid("that is neither a DID nor a handle")
    return name


def _answer(made_at: float, report: AccountReport, notice: str = "") -> ResponseReturnValue:
    view = report_view(made_at, report)
    return public_page("account.html", view=view, notice=notice) if wants_page("application/json") else jsonify(view)


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
            "lastError": row_of_host.last_error and public_error(row_of_host.last_error),
            "lastErrorAt": iso_time(row_of_host.last_error_at),
            "accounts": host.account_count,
            "accountLimit": host.account_limit,
        }
    return view
