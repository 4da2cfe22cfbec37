"""What an admin can change from the pages: each a form, an action of `Admin`, and words for both.

Whatever cannot be taken back by a second click is asked about first, on a page of its own, so that it works without a
script. Fields are read as the admin API reads them, and refused in its words. Must not know how a change is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import abort, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from relay.admin.actions import Actor, Admin
from relay.dash import access
from relay.dash.access import Notice
from relay.dash.pages import account_view
from relay.dash.rendering import page
from relay.dash.undo import undo_of
from relay.kit.errors import Refused, RelayError, StoreError
from relay.store.hosts import RATE_TIERS
from relay.web import params
from relay.web.errors import XrpcError
from relay.web.services import relay_services

Form = MultiDict[str, str]


@dataclass(frozen=True)
class Action:
    """`subject` names the field that says what is changed; `effect` is what the admin is told before, `done` after."""

    subject: str
    label: str
    effect: str
    done: str
    perform: Callable[[Admin, Actor, Form], None]
    back: Callable[[Form], str]
    danger: bool = False


def _host_page(form: Form) -> str:
    return url_for("dash.host_detail", hostname=form.get("host") or "-")


def _crawling(_: Form) -> str:
    return url_for("dash.crawling")


def _account(form: Form) -> str:
    return url_for("dash.account_list", did=form.get("did", ""))


def _host(form: Form) -> str:
    return params.hostname(params.required(form, "host"))


def _domain(form: Form) -> str:
    return params.domain(_text(form, "domain"))


def _did(form: Form) -> str:
    return params.did(_text(form, "did"))


def _text(form: Form, name: str) -> str:
    return params.body_text({name: form.get(name, "").strip()}, name)


def _reconnect(admin: Admin, actor: Actor, form: Form) -> None:
    admin.crawl(actor, relay_services().hosts.report(form.get("host", "")).host.endpoint.url)


def _change_limits(admin: Admin, actor: Actor, form: Form) -> None:
    body: dict[str, Any] = {}
    if form.get("repo_limit"):
        body["repo_limit"] = _number(form["repo_limit"])
    # An empty rate gives the tier back to the formula.
    body |= {tier: _number(form[tier]) for tier in RATE_TIERS if tier in form}
    admin.change_limits(actor, _host(form), params.limit_change(body))


def _silence(admin: Admin, actor: Actor, form: Form) -> None:
    body = {"account_limit_alerts_silenced": form.get("silenced") == "true"}
    admin.change_limits(actor, _host(form), params.limit_change(body))


def _number(text: str) -> int | str | None:
    """A JSON number where it is one. Anything else goes as it is, to be refused in the words of the API."""
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
        lambda admin, actor, form: admin.crawl(actor, _text(form, "hostname")),
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
        "The connection ends. The host comes back with a crawl request, or when the relay looks again in some hours.",
        "{} is disconnected.",
        lambda admin, actor, form: admin.disconnect(actor, _host(form), block=False),
        _host_page,
        danger=True,
    ),
    "block": Action(
        "host",
        "Block",
        "The connection ends, and no event of this host passes until it is unblocked. Its past events stay in replay.",
        "{} is blocked.",
        lambda admin, actor, form: admin.block(actor, _host(form)),
        _host_page,
        danger=True,
    ),
    "unblock": Action(
        "host",
        "Unblock",
        "The host is no longer blocked, and the relay connects to it at once.",
        "{} is unblocked.",
        lambda admin, actor, form: admin.unblock(actor, _host(form)),
        _host_page,
    ),
    "heal": Action(
        "host",
        "Heal",
        "The accounts that the host lists are compared with the relay's own, and what is missing is fetched from it.",
        "The accounts of {} are being compared.",
        lambda admin, actor, form: admin.heal(actor, _host(form)),
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
        lambda admin, actor, form: admin.open_crawling(actor, params.flag(form, "enabled")),
        _crawling,
    ),
    "new-hosts": Action(
        "limit",
        "Change",
        "How many new hosts the public may bring in 24 hours.",
        "The limit is {} new hosts in 24 hours.",
        lambda admin, actor, form: admin.limit_new_hosts(
            actor, params.whole_number(params.required(form, "limit"), "limit")
        ),
        _crawling,
    ),
    "ban-domain": Action(
        "domain",
        "Ban domain",
        "Every host of this domain and below it is blocked, connected ones at once, and none of them can come in.",
        "{} is banned.",
        lambda admin, actor, form: admin.ban_domain(actor, _domain(form)),
        _crawling,
        danger=True,
    ),
    "unban-domain": Action(
        "domain",
        "Lift ban",
        "Hosts of this domain may come in again; those that were blocked with it are connected at once.",
        "The ban of {} is lifted.",
        lambda admin, actor, form: admin.unban_domain(actor, _domain(form)),
        _crawling,
    ),
    "take-down": Action(
        "did",
        "Take down",
        "The account's events stop at once, its past ones can no longer be replayed, and consumers are told.",
        "{} is taken down.",
        lambda admin, actor, form: admin.take_down(actor, _did(form)),
        _account,
        danger=True,
    ),
    "restore": Action(
        "did",
        "Restore",
        "The account's events pass again, its past ones can be replayed, and consumers are told.",
        "{} is restored.",
        lambda admin, actor, form: admin.restore(actor, _did(form)),
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
    host = relay_services().hosts.report(subject).host if known.subject == "host" else None
    back = known.back(request.args)
    return page("confirm.html", name=action, action=known, subject=subject, account=account, host=host, back=back)


def perform(action: str) -> ResponseReturnValue:
    """The form of an action: makes the change and returns to the page that shows it."""
    known = _known(action)
    undo = undo_of(action, request.form)
    try:
        params.refuse_repeated(request.form)
        known.perform(relay_services().admin, access.actor(), request.form)
    except (XrpcError, RelayError) as error:
        notice = Notice(False, f"{known.label}: {_words(error)}")
    else:
        notice = Notice(True, known.done.format(request.form.get(known.subject, "")), undo)
    access.session().notice = notice
    return redirect(known.back(request.form), 303)


def _words(error: XrpcError | RelayError) -> str:
    """What the admin API answers in this case."""
    if isinstance(error, XrpcError):
        return error.message
    if isinstance(error, Refused):
        return error.detail
    return "the database does not answer" if isinstance(error, StoreError) else str(error)


def _known(action: str) -> Action:
    if action not in ACTIONS:
        abort(404, "There is no such action.")
    return ACTIONS[action]
