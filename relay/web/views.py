"""The objects of the admin API's lists, with indigo's field names and a few more of ours.

Used by `admin_api`, and by the edge's routes. Pure functions from what the relay knows to what JSON shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.report import HostReport
from relay.store import host_healing
from relay.store.collection_imports import Progress, Summary
from relay.web.consumers import Consumer

SECOND, HOUR, DAY = 1, 3600, 86400


def host_view(report: HostReport) -> dict[str, Any]:
    """A host; the fields from `Status` on are not indigo's."""
    host, row = report.host, report.host.row
    return {
        "ID": host.id,
        "CreatedAt": _go_time(row.created_at),
        "Host": host.hostname,
        "SSL": host.endpoint.tls,
        "Cursor": host.cursor.position,
        "Registered": host.status is Status.ACTIVE,
        "Blocked": host.status is Status.BANNED,
        "CrawlRateLimit": 0,
        "RepoCount": host.account_count,
        "RepoLimit": host.account_limit,
        "HasActiveConnection": host.connected,
        "EventsSeenSinceStartup": host.events_seen,
        "PerSecondEventRate": _rate(host, host.rates.second, SECOND),
        "PerHourEventRate": _rate(host, host.rates.hour, HOUR),
        "PerDayEventRate": _rate(host, host.rates.day, DAY),
        "UserCount": host.account_count,
        "AccountLimitAlertsSilenced": row.alerts_silenced,
        "AccountLimitAlertState": row.alert_state,
        **({"AccountLimitAlertSentAt": _go_time(row.alert_sent_at)} if row.alert_sent_at else {}),
        "Status": host.status.value,
        "Trusted": row.trusted,
        "Failures": row.failures,
        "LastError": row.last_error,
        "LastErrorAt": _time(row.last_error_at),
        "LastEventAt": _time(row.last_event_at),
        "LagSeconds": report.lag_seconds,
        "Advice": report.advice,
    }


def consumer_view(consumer: Consumer) -> dict[str, Any]:
    """A consumer."""
    return {
        "id": consumer.id,
        "remote_addr": consumer.remote_address,
        "user_agent": consumer.user_agent,
        "events_consumed": consumer.events_consumed,
        "connected_at": _go_time(consumer.connected_at),
        "cursor": consumer.position,
        "stream": consumer.stream,
    }


def backfill_view(summary: Summary) -> dict[str, Any]:
    """An import of collections as a whole."""
    times = {"started_at": _time(summary.started_at), "ended_at": _time(summary.ended_at)}
    return summary._asdict() | times


def progress_view(row: Progress) -> dict[str, Any]:
    """How far the import of one collection is."""
    return {
        "collection": row.nsid,
        "listed": row.listed,
        "taken": row.taken,
        "done": row.done,
        "error": row.error,
    }


def heal_view(found: host_healing.Progress) -> dict[str, Any]:
    """The comparison of a host's accounts with the relay's."""
    times = {"noted_at": _time(found.noted_at), "ended_at": _time(found.ended_at)}
    return found._asdict() | times


def _rate(host: Host, maximum: int, window: int) -> dict[str, int]:
    # indigo shows -1 where no limiter runs.
    return {"Max": maximum if host.connected else -1, "Window": window}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else _go_time(datetime.fromtimestamp(seconds, UTC))


def _go_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
