"""The admin API: indigo's routes and JSON, so that its tools and dashboards work unchanged.

Every route needs the admin password; every change is stored, survives a restart, leaves an audit line, and is sent
on to sibling relays where indigo does so. Must not know how hosts are connected or accounts announced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import gevent
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from relay.admin.actions import audit
from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import parse_endpoint
from relay.kit.errors import AccountUnknown, HostUnknown
from relay.store import accounts, bans
from relay.store.hosts import RateTier
from relay.web import params, sibling_alerts
from relay.web.errors import XrpcError, invalid
from relay.web.forwarding import forward_request
from relay.web.services import parts, requester
from relay.web.views import consumer_view, host_view

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
TAKEDOWNS_PER_PAGE = 500
HOSTS_AT_A_TIME = 50
RATE_TIERS: tuple[RateTier, ...] = ("per_second", "per_hour", "per_day")


@blueprint.before_request
def authenticate() -> None:
    """Every route of the admin API needs the admin password."""
    parts().auth.check(request.headers.get("Authorization"), requester())


@blueprint.errorhandler(HostUnknown)
def host_unknown(error: HostUnknown) -> ResponseReturnValue:
    """A host that is not in the table."""
    return jsonify(error="HostNotFound", message=str(error)), 404


@blueprint.errorhandler(AccountUnknown)
def account_unknown(error: AccountUnknown) -> ResponseReturnValue:
    """An account that is not in the table."""
    return jsonify(error="RepoNotFound", message=str(error)), 404


@blueprint.get("/subs/getUpstreamConns")
def get_upstream_conns() -> ResponseReturnValue:
    """Hostnames of the connected hosts."""
    return jsonify(sorted(parts().fleet.connected()))


@blueprint.post("/subs/killUpstream")
def kill_upstream() -> ResponseReturnValue:
    """`host`, `block`: disconnect a host, and ban it with `block=true`."""
    hostname = _hostname(params.required(request.args, "host"))
    block = params.flag(request.args, "block", default=False)
    if hostname not in parts().fleet.connected():
        raise XrpcError(400, "NoActiveConnection", "the host is not connected")
    parts().fleet.disconnect(hostname, block=block)
    return changed("disconnect", host=hostname, block=block)


@blueprint.get("/subs/getEnabled")
def get_enabled() -> ResponseReturnValue:
    """Whether requestCrawl is open to the public."""
    return jsonify(enabled=parts().fleet.crawl_enabled)


@blueprint.post("/subs/setEnabled")
def set_enabled() -> ResponseReturnValue:
    """`enabled`: open requestCrawl to the public, or close it."""
    enabled = params.flag(request.args, "enabled")
    parts().fleet.crawl_enabled = enabled
    return changed("set-enabled", forward=False, enabled=enabled)


@blueprint.get("/subs/perDayLimit")
def per_day_limit() -> ResponseReturnValue:
    """New hosts that requestCrawl takes in 24 hours."""
    return jsonify(limit=parts().fleet.new_hosts_per_day)


@blueprint.post("/subs/setPerDayLimit")
def set_per_day_limit() -> ResponseReturnValue:
    """`limit`: change how many new hosts requestCrawl takes in 24 hours."""
    limit = params.whole_number(params.required(request.args, "limit"), "limit")
    parts().fleet.new_hosts_per_day = limit
    return changed("set-per-day-limit", forward=False, limit=limit)


@blueprint.get("/subs/listDomainBans")
def list_domain_bans() -> ResponseReturnValue:
    """Domains none of whose hosts are crawled."""
    return jsonify(banned_domains=parts().db.read(bans.all_domains))


@blueprint.post("/subs/banDomain")
def ban_domain() -> ResponseReturnValue:
    """`{"Domain"}`: ban a domain with all its hosts, connected ones as well."""
    domain = _hostname(params.body_text(_body(), "domain"))
    parts().fleet.ban_domain(domain)
    return changed("ban-domain", domain=domain)


@blueprint.post("/subs/unbanDomain")
def unban_domain() -> ResponseReturnValue:
    """`{"Domain"}`: lift a domain's ban."""
    domain = _hostname(params.body_text(_body(), "domain"))
    parts().fleet.unban_domain(domain)
    return changed("unban-domain", domain=domain)


@blueprint.get("/repo/takedowns")
def takedowns() -> ResponseReturnValue:
    """`cursor`: accounts taken down here."""
    rows = parts().db.read(accounts.takedowns, params.cursor(request.args), TAKEDOWNS_PER_PAGE)
    view: dict[str, Any] = {"dids": [did for _, did in rows]}
    if len(rows) == TAKEDOWNS_PER_PAGE:
        view["cursor"] = str(rows[-1][0])
    return jsonify(view)


@blueprint.post("/repo/takeDown")
def take_down() -> ResponseReturnValue:
    """`{"did"}`: take an account down; its events stop, and its past ones cannot be replayed any more."""
    did = params.did(params.body_text(_body(), "did"))
    parts().moderation.takedown(did)
    return changed("takedown", did=did)


@blueprint.post("/repo/reverseTakedown")
def reverse_takedown() -> ResponseReturnValue:
    """`{"did"}`: undo a takedown."""
    did = params.did(params.body_text(_body(), "did"))
    parts().moderation.restore(did)
    return changed("reverse-takedown", did=did)


@blueprint.get("/pds/list")
def list_pds() -> ResponseReturnValue:
    """Every known host with its state, limits and rates."""
    # Thousands of hosts take longer than the hub may be kept from everything else.
    texts = []
    for number, report in enumerate(parts().fleet.reports()):
        texts.append(json.dumps(host_view(report)))
        if number % HOSTS_AT_A_TIME == 0:
            gevent.sleep(0)
    return Response(f"[{','.join(texts)}]", mimetype="application/json")


@blueprint.post("/pds/requestCrawl")
def request_crawl() -> ResponseReturnValue:
    """`{"hostname"}`: subscribe to a host, past the checks that only the public has to pass."""
    hostname = params.body_text(_body(), "hostname")
    parts().fleet.request_crawl(hostname, admin=True)
    return changed("request-crawl", hostname=hostname)


@blueprint.post("/pds/changeLimits")
def change_limits() -> ResponseReturnValue:
    """`{"host", "repo_limit", "per_second", "per_hour", "per_day", "account_limit_alerts_silenced"}`: change limits."""
    body = _body()
    hostname = _hostname(params.body_text(body, "host"))
    account_limit = params.body_number(body, "repo_limit")
    rates: dict[RateTier, int | None] = {tier: params.body_number(body, tier) for tier in RATE_TIERS if tier in body}
    silenced = params.body_flag(body, "account_limit_alerts_silenced")
    if account_limit is None and not rates and silenced is None:
        raise invalid("no limit is given")
    parts().fleet.change_limits(hostname, account_limit=account_limit, rates=rates, alerts_silenced=silenced)
    return changed("change-limits", host=hostname, repo_limit=account_limit, rates=rates, alerts_silenced=silenced)


@blueprint.post("/pds/block")
def block_pds() -> ResponseReturnValue:
    """`host`: ban one host and disconnect it."""
    hostname = _hostname(params.required(request.args, "host"))
    parts().fleet.block(hostname)
    return changed("block", host=hostname)


@blueprint.post("/pds/unblock")
def unblock_pds() -> ResponseReturnValue:
    """`host`: lift one host's ban and connect to it."""
    hostname = _hostname(params.required(request.args, "host"))
    parts().fleet.unblock(hostname)
    return changed("unblock", host=hostname)


@blueprint.post("/alerts/accountLimitSent")
def account_limit_alert_sent() -> ResponseReturnValue:
    """`{"kind", "hostID", "hostname", "sentAt"}`: a sibling relay alerted of a host's account limit."""
    sent = sibling_alerts.parse(_body(), datetime.now(UTC))
    if not parts().fleet.note_alert(sent.hostname, sent.kind, sent.sent_at):
        return jsonify(success="true")
    return changed("alert-sent", forward=False, host=sent.hostname, kind=sent.kind)


@blueprint.get("/consumers/list")
def list_consumers() -> ResponseReturnValue:
    """Who consumes the firehose now."""
    return jsonify([consumer_view(consumer) for consumer in parts().consumers])


@blueprint.get("/debug/memory")
def debug_memory() -> ResponseReturnValue:
    """Where the memory is, and what grew since this was last asked; with `RELAY_DEBUG_MEMORY` only."""
    memory = parts().memory
    if memory is None:
        raise XrpcError(400, "DebugMemoryOff", "start the relay with RELAY_DEBUG_MEMORY=true")
    report = memory.report()
    if report is None:
        raise XrpcError(503, "ServiceUnavailable", "another report is being made")
    return jsonify(report)


def changed(action: str, *, forward: bool = True, **values: object) -> ResponseReturnValue:
    """A change is made: say so in the audit log, to siblings and to the admin."""
    audit(action, **values)
    if forward:
        forward_request()
    return jsonify(success="true")


def _body() -> Mapping[str, Any]:
    return params.json_body(request.get_data())


def _hostname(text: str) -> str:
    try:
        return parse_endpoint(text).hostname
    except SyntaxInvalid as error:
        raise invalid(f"no hostname: {error}") from None
