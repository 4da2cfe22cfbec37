"""`GET /host/<hostname>`: why a host is, or is not, in the network, for whoever runs it.

A page for browsers, JSON for everyone else, with the last rejected frames and the rules that they break. Public, like
the answers of `getHostStatus`; the frames themselves are for admins. The words are those of `hosts`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from relay.atproto import diagnostic
from relay.hosts.rejected import RejectedFrame
from relay.hosts.report import HostReport, public_error
from relay.hosts.rules import RULES
from relay.kit.background import in_turns
from relay.kit.errors import HostUnknown
from relay.web.errors import XrpcError
from relay.web.public_page import public_page, wants_page
from relay.web.services import relay_services

blueprint = Blueprint("host", __name__)


@blueprint.get("/host/<hostname>")
def host(hostname: str) -> ResponseReturnValue:
    """What the relay knows of a host, and what its operator can do: a page, or JSON."""
    try:
        view = status_view(relay_services().hosts.report(hostname))
    except HostUnknown:
        raise XrpcError(404, "HostNotFound", "no such host is known here; call requestCrawl") from None
    return public_page("host.html", view=view) if wants_page("application/json") else jsonify(view)


def status_view(report: HostReport) -> dict[str, Any]:
    """A host's status as JSON: times in ISO 8601, rates and drops in words of their own."""
    host, row = report.host, report.host.row
    return {
        "hostname": host.hostname,
        "status": host.status.value,
        "connected": host.connected,
        "advice": report.advice,
        "lastTried": iso_time(row.last_attempt_at),
        "nextTry": iso_time(report.next_attempt_at),
        "lastConnected": iso_time(row.last_connected_at),
        "lastEvent": iso_time(row.last_event_at),
        "lastError": row.last_error and public_error(row.last_error),
        "lastErrorAt": iso_time(row.last_error_at),
        "numbersStartedAgain": iso_time(host.restarted_at),
        "lagSeconds": report.lag_seconds,
        "accounts": host.account_count,
        "accountLimit": host.account_limit,
        "eventsPerSecond": host.rates.second,
        "eventsPerHour": host.rates.hour,
        "eventsPerDay": host.rates.day,
        "droppedLastDay": report.drops,
        "rejected": [rejected_view(frame) for frame in in_turns(report.rejected)],
    }


def rejected_view(frame: RejectedFrame) -> dict[str, Any]:
    """A rejected frame as JSON, with the rule that it breaks."""
    rule = RULES.get(frame.reason)
    return {
        "id": frame.number,
        "at": iso_time(frame.at),
        "reason": frame.reason,
        "rule": rule and rule.text,
        "specification": rule and rule.link,
        "detail": frame.detail,
        "did": frame.did,
        "seq": frame.seq,
        "size": frame.size,
        "shown": diagnostic.show(frame.frame),
    }


def iso_time(seconds: float | None) -> str | None:
    """Unix seconds in ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
