"""What sibling relays tell one another of alerts that they sent, so that the operator is told once: indigo's JSON.

`parse` is used by `admin` for what a sibling says, `announcement` by `app` for what this relay says. Must not know when
alerts are due.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import NamedTuple

from relay.admin.siblings import LOOP_MARK, Forward
from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import parse_endpoint
from relay.hosts.limit_alerts import Alert, Kind
from relay.web import params
from relay.web.errors import invalid
from relay.web.params import Body

PATH = "/admin/alerts/accountLimitSent"


class Sent(NamedTuple):
    """An alert that a sibling sent. Host ids are each relay's own: the name says which host is meant."""

    kind: Kind
    hostname: str
    sent_at: datetime


def parse(body: Body, now: datetime) -> Sent:
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
    try:
        hostname = parse_endpoint(params.body_text(body, "hostname")).hostname
    except SyntaxInvalid as error:
        raise invalid(f"hostname: {error}") from None
    return Sent("warning" if kind == "warning" else "recovery", hostname, _time(body, now))


def _time(body: Body, now: datetime) -> datetime:
    if body.get("sentat") is None:
        return now
    try:
        sent_at = datetime.fromisoformat(params.body_text(body, "sentat"))
    except ValueError:
        raise invalid("sentAt is no time such as 2026-01-01T00:00:00Z") from None
    if sent_at.tzinfo is None:
        raise invalid("sentAt has no time zone")
    # Go's zero time stands for none. It is compared by year, since it has no place in every time zone.
    return now if sent_at.year == 1 else min(sent_at.astimezone(UTC), now)


def announcement(alert: Alert, password: str, user_agent: str) -> Forward:
    """The request that tells a sibling of `alert`."""
    body = {
        "kind": alert.kind,
        "hostID": alert.host_id,
        "hostname": alert.hostname,
        "accountCount": alert.account_count,
        "accountLimit": alert.account_limit,
        "usage": alert.usage,
        "sentAt": alert.sent_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    credentials = base64.b64encode(f"admin:{password}".encode()).decode()
    headers = {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/json",
        "User-Agent": user_agent,
        "Via": f"1.1 {LOOP_MARK}",
    }
    return Forward("POST", PATH, headers, json.dumps(body).encode())
