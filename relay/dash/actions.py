"""What an admin can change from the pages: each a form, a route of the admin API, and words for both.

Whatever cannot be taken back by a second click is asked about first, on a page of its own, so that it works without a
script. Must not know how a change is made: that is the admin API's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import abort, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from relay.dash import guard
from relay.dash.admin_call import AdminCall, ask_admin_api
from relay.dash.pages import account_view
from relay.dash.rendering import page
from relay.dash.sessions import Notice
from relay.web.services import parts

Form = MultiDict[str, str]


@dataclass(frozen=True)
class Action:
    """`subject` names the field that says what is changed; `effect` is what the admin is told before, `done` after."""

    subject: str
    label: str
    effect: str
    done: str
    call: Callable[[Form], AdminCall]
    back: Callable[[Form], str]
    danger: bool = False


def _host_page(form: Form) -> str:
    return url_for("dash.host_detail", hostname=form.get("host") or "-")


def _crawling(_: Form) -> str:
    return url_for("dash.crawling")


def _account(form: Form) -> str:
    return url_for("dash.account_list", did=form.get("did", ""))


def _by_query(path: str, *names: str) -> Callable[[Form], AdminCall]:
    return lambda form: AdminCall(path, query={name: form.get(name, "") for name in names})


def _by_body(path: str, field: str, name: str) -> Callable[[Form], AdminCall]:
    return lambda form: AdminCall(path, body={name: form.get(field, "").strip()})


def _reconnect(form: Form) -> AdminCall:
    endpoint = parts().fleet.report(form.get("host", "")).host.endpoint
    return AdminCall("/admin/pds/requestCrawl", body={"hostname": endpoint.url})


def _change_limits(form: Form) -> AdminCall:
    body: dict[str, Any] = {"host": form.get("host", "")}
    if form.get("repo_limit"):
        body["repo_limit"] = _number(form["repo_limit"])
    # An empty rate gives the tier back to the formula.
    body |= {tier: _number(form[tier]) for tier in ("per_second", "per_hour", "per_day") if tier in form}
    return AdminCall("/admin/pds/changeLimits", body=body)


def _silence(form: Form) -> AdminCall:
    body = {"host": form.get("host", ""), "account_limit_alerts_silenced": form.get("silenced") == "true"}
    return AdminCall("/admin/pds/changeLimits", body=body)


def _number(text: str) -> int | str | None:
    """A JSON number where it is one. Anything else goes as it is, for the API to refuse in its own words."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 17:
        return int(text)
    return text or None


ACTIONS = {
    "crawl": Action(
        "hostname",
        "Request a crawl",
        "The relay asks the host who it is, and subscribes to it.",
        "The relay connects to {}.",
        _by_body("/admin/pds/requestCrawl", "hostname", "hostname"),
        _crawling,
    ),
    "reconnect": Action(
        "host",
        "Connect",
        "The relay connects to the host at once; its failures are forgotten.",
        "The relay connects to {}.",
        _reconnect,
        _host_page,
    ),
    "disconnect": Action(
        "host",
        "Disconnect",
        "The connection ends and the host is idle. It comes back with a crawl request, or when the relay looks again.",
        "{} is disconnected.",
        _by_query("/admin/subs/killUpstream", "host"),
        _host_page,
        danger=True,
    ),
    "block": Action(
        "host",
        "Block",
        "The connection ends, and no event of this host passes until it is unblocked. Its past events stay in replay.",
        "{} is blocked.",
        _by_query("/admin/pds/block", "host"),
        _host_page,
        danger=True,
    ),
    "unblock": Action(
        "host",
        "Unblock",
        "The host is no longer blocked, and the relay connects to it at once.",
        "{} is unblocked.",
        _by_query("/admin/pds/unblock", "host"),
        _host_page,
    ),
    "limits": Action(
        "host",
        "Change limits",
        "The new limits apply at once, also to the open connection.",
        "The limits of {} are changed.",
        _change_limits,
        _host_page,
    ),
    "alerts": Action(
        "host",
        "Change alerts",
        "Whether the operators are alerted when this host comes near its account limit.",
        "The alerts of {} are changed.",
        _silence,
        _host_page,
    ),
    "crawl-requests": Action(
        "enabled",
        "Change",
        "Whether the public may ask for a crawl of new hosts.",
        "Public crawl requests are changed.",
        _by_query("/admin/subs/setEnabled", "enabled"),
        _crawling,
    ),
    "new-hosts": Action(
        "limit",
        "Change",
        "How many new hosts the public may bring in 24 hours.",
        "The limit is {} new hosts in 24 hours.",
        _by_query("/admin/subs/setPerDayLimit", "limit"),
        _crawling,
    ),
    "ban-domain": Action(
        "domain",
        "Ban domain",
        "Every host of this domain and below it is blocked, connected ones at once, and none of them can come in.",
        "{} is banned.",
        _by_body("/admin/subs/banDomain", "domain", "Domain"),
        _crawling,
        danger=True,
    ),
    "unban-domain": Action(
        "domain",
        "Lift ban",
        "Hosts of this domain may come in again; those that were blocked with it are connected at once.",
        "The ban of {} is lifted.",
        _by_body("/admin/subs/unbanDomain", "domain", "Domain"),
        _crawling,
    ),
    "take-down": Action(
        "did",
        "Take down",
        "The account's events stop at once, its past ones cannot be replayed any more, and consumers are told.",
        "{} is taken down.",
        _by_body("/admin/repo/takeDown", "did", "did"),
        _account,
        danger=True,
    ),
    "restore": Action(
        "did",
        "Restore",
        "The account's events pass again, its past ones can be replayed, and consumers are told.",
        "{} is restored.",
        _by_body("/admin/repo/reverseTakedown", "did", "did"),
        _account,
    ),
}


def confirm(action: str) -> ResponseReturnValue:
    """The host, domain or DID in the query, what the action does to it, and the button that does it."""
    known = _known(action)
    subject = request.args.get(known.subject, "").strip()
    if not subject:
        abort(400, f"No {known.subject} is given.")
    account = account_view(subject) if known.subject == "did" else None
    host = parts().fleet.report(subject).host if known.subject == "host" else None
    back = known.back(request.args)
    return page("confirm.html", name=action, action=known, subject=subject, account=account, host=host, back=back)


def perform(action: str) -> ResponseReturnValue:
    """The form of an action: asks the admin API for the change, and goes back to where it shows."""
    known = _known(action)
    refused = ask_admin_api(known.call(request.form), guard.session().authorization)
    subject = request.form.get(known.subject, "")
    words = known.done.format(subject) if refused is None else f"{known.label}: {refused}"
    guard.session().notice = Notice(refused is None, words)
    return redirect(known.back(request.form), 303)


def _known(action: str) -> Action:
    if action not in ACTIONS:
        abort(404, "There is no such action.")
    return ACTIONS[action]
