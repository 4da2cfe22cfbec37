"""The admin API: indigo's routes and JSON, so that its tools and dashboards work unchanged, and zlay's for imports.

Every route needs the admin password. Routes parse, call `Admin`, and answer; what they show is read from memory and
SQL. Must not know what a change does, nor who else is told about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from relay.admin.actions import Admin
from relay.hosts.limit_alerts import Kind
from relay.kit.background import in_turns
from relay.kit.errors import AccountUnknown, HostUnknown, ImportBusy
from relay.store import accounts, collection_imports, host_healing
from relay.store.hosts import each_ban
from relay.web import params
from relay.web.current_request import actor, admit_admin
from relay.web.errors import XrpcError, invalid
from relay.web.services import relay_services
from relay.web.views import backfill_view, consumer_view, heal_view, host_view, progress_view

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
TAKEDOWNS_PER_PAGE = 500
COLLECTIONS_PER_PAGE = 1000


@blueprint.before_request
def authenticate() -> None:
    """Every route of the admin API needs the admin password, and each parameter at most once."""
    admit_admin()
    params.refuse_repeated(request.args)


@blueprint.errorhandler(HostUnknown)
def host_unknown(error: HostUnknown) -> ResponseReturnValue:
    """A host that is not in the table."""
    return jsonify(error="HostNotFound", message=str(error)), 404


@blueprint.errorhandler(AccountUnknown)
def account_unknown(error: AccountUnknown) -> ResponseReturnValue:
    """An account that is not in the table."""
    return jsonify(error="RepoNotFound", message=str(error)), 404


@blueprint.errorhandler(ImportBusy)
def import_busy(error: ImportBusy) -> ResponseReturnValue:
    """One import at a time."""
    return jsonify(error="BackfillRunning", message=error.detail), 409


@blueprint.get("/subs/getUpstreamConns")
def get_upstream_conns() -> ResponseReturnValue:
    """Hostnames of the connected hosts."""
    return jsonify(relay_services().hosts.connected())


@blueprint.post("/subs/killUpstream")
def kill_upstream() -> ResponseReturnValue:
    """`host`, `block`: disconnect a host, and ban it with `block=true`."""
    admin().disconnect(actor(), _host(), block=params.flag(request.args, "block", default=False))
    return done()


@blueprint.get("/subs/getEnabled")
def get_enabled() -> ResponseReturnValue:
    """Whether requestCrawl is open to the public."""
    return jsonify(enabled=relay_services().hosts.new_hosts.crawl_enabled)


@blueprint.post("/subs/setEnabled")
def set_enabled() -> ResponseReturnValue:
    """`enabled`: open requestCrawl to the public, or close it."""
    admin().open_crawling(actor(), params.flag(request.args, "enabled"))
    return done()


@blueprint.get("/subs/perDayLimit")
def per_day_limit() -> ResponseReturnValue:
    """How many new hosts requestCrawl may add in 24 hours."""
    return jsonify(limit=relay_services().hosts.new_hosts.per_day)


@blueprint.post("/subs/setPerDayLimit")
def set_per_day_limit() -> ResponseReturnValue:
    """`limit`: change how many new hosts requestCrawl may add in 24 hours."""
    admin().limit_new_hosts(actor(), params.whole_number(params.required(request.args, "limit"), "limit"))
    return done()


@blueprint.get("/subs/listDomainBans")
def list_domain_bans() -> ResponseReturnValue:
    """Banned domains, whose hosts are not crawled."""
    texts = [json.dumps(domain) for domain in in_turns(each_ban(relay_services().db))]
    return Response(f'{{"banned_domains":[{",".join(texts)}]}}\n', mimetype="application/json")


@blueprint.post("/subs/banDomain")
def ban_domain() -> ResponseReturnValue:
    """`{"Domain"}`: ban a domain and all its hosts, including connected ones."""
    admin().ban_domain(actor(), params.domain(params.body_text(_body(), "domain")))
    return done()


@blueprint.post("/subs/unbanDomain")
def unban_domain() -> ResponseReturnValue:
    """`{"Domain"}`: lift a domain's ban."""
    admin().unban_domain(actor(), params.domain(params.body_text(_body(), "domain")))
    return done()


@blueprint.get("/repo/takedowns")
def takedowns() -> ResponseReturnValue:
    """`cursor`: accounts taken down here."""
    rows = relay_services().db.read(accounts.takedowns, params.cursor(request.args), TAKEDOWNS_PER_PAGE)
    view: dict[str, Any] = {"dids": [did for _, did in rows]}
    if len(rows) == TAKEDOWNS_PER_PAGE:
        view["cursor"] = str(rows[-1][0])
    return jsonify(view)


@blueprint.post("/repo/takeDown")
def take_down() -> ResponseReturnValue:
    """`{"did"}`: take an account down; its events stop, and its past ones can no longer be replayed."""
    admin().take_down(actor(), params.did(params.body_text(_body(), "did")))
    return done()


@blueprint.post("/repo/reverseTakedown")
def reverse_takedown() -> ResponseReturnValue:
    """`{"did"}`: undo a takedown."""
    admin().restore(actor(), params.did(params.body_text(_body(), "did")))
    return done()


@blueprint.get("/pds/list")
def list_pds() -> ResponseReturnValue:
    """Every known host with its state, limits and rates."""
    # Thousands of hosts take longer than the hub may be kept from everything else.
    texts = [json.dumps(host_view(report)) for report in in_turns(relay_services().hosts.reports())]
    return Response(f"[{','.join(texts)}]", mimetype="application/json")


@blueprint.get("/pds/rejected")
def rejected() -> ResponseReturnValue:
    """`host`, `id`: a rejected frame, as far as it was kept; `GET /host/HOST` lists them."""
    number = params.whole_number(params.required(request.args, "id"), "id")
    frame = relay_services().hosts.rejected_frame(_host(), number)
    if frame is None:
        raise XrpcError(404, "FrameNotFound", "this frame of the host is no longer kept")
    return Response(frame.frame, mimetype="application/octet-stream")


@blueprint.post("/pds/requestCrawl")
def request_crawl() -> ResponseReturnValue:
    """`{"hostname"}`: subscribe to a host, without the checks that requests from the public have to pass."""
    try:
        hostname = params.body_text(_body(), "hostname")
    except XrpcError as error:
        # indigo's name on this route.
        raise XrpcError(error.status, "BadRequest", error.message) from None
    admin().crawl(actor(), hostname)
    return done()


@blueprint.post("/pds/changeLimits")
def change_limits() -> ResponseReturnValue:
    """`{"host", "repo_limit", "per_second", "per_hour", "per_day", "account_limit_alerts_silenced"}`: change limits."""
    body = _body()
    hostname = params.hostname(params.body_text(body, "host"))
    admin().change_limits(actor(), hostname, params.limit_change(body))
    return done()


@blueprint.get("/pds/cursor")
def get_cursor() -> ResponseReturnValue:
    """`host`: the number up to which all of a host's events are settled; -1 when there is none."""
    host = relay_services().hosts.report(_host()).host
    return jsonify(host=host.hostname, cursor=host.cursor.position)


@blueprint.post("/pds/cursor")
def set_cursor() -> ResponseReturnValue:
    """`{"host", "cursor"}`: take a host's events again after a number, from its `oldest`, or from now on (`live`)."""
    body = _body()
    admin().set_cursor(actor(), params.hostname(params.body_text(body, "host")), params.position(body))
    return done()


@blueprint.get("/pds/heal")
def show_heal() -> ResponseReturnValue:
    """`host`: the progress of comparing a host's accounts with the relay's, or how the last comparison ended."""
    host = relay_services().hosts.known(_host())
    found = relay_services().db.read(host_healing.progress, host.id)
    if found is None:
        raise XrpcError(404, "HealNotFound", "the accounts of this host were never compared")
    return jsonify(heal_view(found) | {"host": host.hostname, "accounts": host.account_count})


@blueprint.post("/pds/heal")
def heal_pds() -> ResponseReturnValue:
    """`host`, or `stop=true`: compare a host's accounts with the relay's, and fetch what is missing."""
    if params.flag(request.args, "stop", default=False):
        admin().end_heal(actor(), _host())
    else:
        admin().heal(actor(), _host())
    return done()


@blueprint.post("/pds/block")
def block_pds() -> ResponseReturnValue:
    """`host`: ban one host and disconnect it."""
    admin().block(actor(), _host())
    return done()


@blueprint.post("/pds/unblock")
def unblock_pds() -> ResponseReturnValue:
    """`host`: lift one host's ban and connect to it."""
    admin().unblock(actor(), _host())
    return done()


@blueprint.post("/alerts/accountLimitSent")
def account_limit_alert_sent() -> ResponseReturnValue:
    """`{"kind", "hostID", "hostname", "sentAt"}`: a sibling relay has sent an alert about a host's account limit."""
    admin().note_alert(actor(), *alert_sent(_body(), datetime.now(UTC)))
    return done()


@blueprint.get("/consumers/list")
def list_consumers() -> ResponseReturnValue:
    """The consumers that are connected."""
    return jsonify([consumer_view(consumer) for consumer in relay_services().consumers])


@blueprint.get("/debug/memory")
def debug_memory() -> ResponseReturnValue:
    """What uses the memory, and what has grown since the last request; only with `RELAY_DEBUG_MEMORY`."""
    memory = relay_services().memory
    if memory is None:
        raise XrpcError(400, "DebugMemoryOff", "start the relay with RELAY_DEBUG_MEMORY=true")
    report = memory.report()
    if report is None:
        raise XrpcError(503, "ServiceUnavailable", "another report is being made")
    return jsonify(report)


@blueprint.get("/backfill-collections")
def show_imports() -> ResponseReturnValue:
    """`source`, `limit`, `cursor`: all imports of collections, or one source's with each of its collections."""
    summaries = relay_services().db.read(collection_imports.summaries)
    if params.optional(request.args, "source") is None:
        return jsonify(backfills=[backfill_view(summary) for summary in summaries])
    source = params.endpoint(params.required(request.args, "source"), "source").url
    found = next((summary for summary in summaries if summary.source == source), None)
    if found is None:
        raise XrpcError(404, "BackfillNotFound", "nothing was imported from this source")
    after = params.optional(request.args, "cursor") or ""
    if after:
        params.nsid(after, "cursor")
    limit = params.limit(request.args, default=COLLECTIONS_PER_PAGE, maximum=COLLECTIONS_PER_PAGE)
    rows = relay_services().db.read(collection_imports.progress, source, after, limit)
    view = backfill_view(found) | {"progress": [progress_view(row) for row in rows]}
    return jsonify(view | ({"cursor": rows[-1].nsid} if len(rows) == limit else {}))


@blueprint.post("/backfill-collections")
def begin_import() -> ResponseReturnValue:
    """`source`, `{"collections"}` (all when absent), or `stop=true`: import another relay's collection index."""
    source = params.endpoint(params.required(request.args, "source"), "source")
    if params.flag(request.args, "stop", default=False):
        admin().end_import(actor(), source)
        return done()
    body = _body(default=b"{}")
    nsids = params.body_texts(body, "collections", maximum=collection_imports.MAX_COLLECTIONS)
    for nsid in nsids:
        params.nsid(nsid, "collections")
    admin().begin_import(actor(), source, nsids)
    return done()


def admin() -> Admin:
    """What the routes change things with."""
    return relay_services().admin


def done() -> ResponseReturnValue:
    """indigo's answer to a change."""
    return jsonify(success="true")


def _host() -> str:
    """The host that the query names."""
    return params.hostname(params.required(request.args, "host"))


def _body(default: bytes = b"") -> Mapping[str, Any]:
    """The JSON object that is sent. Forms of web pages can send text that reads as JSON, but not its media type."""
    data = request.get_data()
    if data and not request.is_json:
        raise XrpcError(415, "UnsupportedMediaType", "send JSON, with the header Content-Type: application/json")
    return params.json_body(data or default)


class AlertSent(NamedTuple):
    """An alert that a sibling sent. Host ids are each relay's own: the name says which host is meant."""

    hostname: str
    kind: Kind
    sent_at: datetime


def alert_sent(body: params.Body, now: datetime) -> AlertSent:
    """The body of a sibling's request. Raises XrpcError 400. A time in the future counts as `now`."""
    kind = params.body_text(body, "kind")
    if kind not in ("warning", "recovery"):
        raise invalid("kind must be warning or recovery")
    if not params.body_number(body, "hostid"):
        raise invalid("hostID is required")
    for name in ("accountcount", "accountlimit"):
        params.body_number(body, name)
    usage = body.get("usage", 0)
    if isinstance(usage, bool) or not isinstance(usage, int | float) or not usage >= 0:
        raise invalid("usage must be a number, zero or above")
    hostname = params.endpoint(params.body_text(body, "hostname"), "hostname").hostname
    return AlertSent(hostname, "warning" if kind == "warning" else "recovery", _time_sent(body, now))


def _time_sent(body: params.Body, now: datetime) -> datetime:
    if body.get("sentat") is None:
        return now
    try:
        sent_at = datetime.fromisoformat(params.body_text(body, "sentat"))
    except ValueError:
        raise invalid("sentAt is not a time such as 2026-01-01T00:00:00Z") from None
    if sent_at.tzinfo is None:
        raise invalid("sentAt has no time zone")
    # Go's zero time stands for none. Neither it nor the last year has a place in every time zone.
    return now if sent_at.year in (1, 9999) else min(sent_at.astimezone(UTC), now)
