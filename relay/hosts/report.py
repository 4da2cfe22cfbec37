"""Why a host is, or is not, in the network: what the relay knows of it, in words that its operator can act on.

Made by the fleet on demand for `GET /host/<hostname>` and for the admin's list. Pure: everything is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from relay.hosts.host import Host, Rates
from relay.hosts.lifecycle import Status


@dataclass(frozen=True, slots=True)
class HostStatus:
    """Everything that the relay tells of a host. Times are Unix seconds; None where nothing is known."""

    id: int
    hostname: str
    tls: bool
    status: Status
    connected: bool
    created_at: float
    last_attempt_at: float | None
    last_connected_at: float | None
    last_event_at: float | None
    last_error: str | None
    last_error_at: float | None
    failures: int
    next_attempt_at: float | None
    cursor: int
    lag_seconds: float | None
    events_since_start: int
    account_count: int
    account_limit: int
    trusted: bool
    rates: Rates
    drops_last_day: dict[str, int]
    advice: str
    alerts_silenced: bool
    alert_state: str
    alert_sent_at: datetime | None


_BY_STATUS = {
    Status.ACTIVE: "The relay is trying to connect. Nothing needs to be done yet.",
    Status.IDLE: "The relay is not connected because the host was quiet. Call requestCrawl when it has events.",
    Status.OFFLINE: "The relay gave up after many attempts and looks again every few hours. Correct the error shown, "
    "then call requestCrawl: the relay connects at once.",
    Status.THROTTLED: "The host sends more than its hourly or daily limit and is read more slowly; nothing is lost. "
    "Ask the relay's operator for a higher account limit if the traffic is real.",
    Status.BANNED: "The relay's operator has blocked this host. Only the operator can lift that.",
}

_BY_ERROR = {
    "name-unresolved": "The hostname has no address. Check its DNS records.",
    "address-refused": "The hostname's address is private or reserved. It must be reachable from the internet.",
    "connect-failed": "No TCP connection. Check that the host runs and that its firewall lets port 443 in.",
    "dial-timeout": "The host did not finish the connection in time. Check its load, its firewall and its proxy.",
    "tls-failed": "TLS failed. Check that the certificate is valid, for this name, and sent with its whole chain.",
    "handshake-refused": "The host answered without a WebSocket. Check that the proxy passes upgrades on "
    "for /xrpc/com.atproto.sync.subscribeRepos.",
    "handshake-invalid": "The answer was no WebSocket handshake. Check what listens behind the hostname.",
    "frame-invalid": "The stream holds frames that are no valid DRISL-CBOR. Update the PDS software.",
    "text-message": "The stream holds text messages; event streams are binary. Update the PDS software.",
    "message-too-big": "The stream holds a message of over 5 MB, which the protocol forbids.",
    "future-cursor": "The host's sequence numbers went back, perhaps after a restore. They must go on rising.",
    "no-pong": "The host stopped answering pings. Check its load and the proxy's time limits for WebSockets.",
    "loop": "The host is itself a relay; a relay crawls PDS hosts only.",
}

_ACCOUNT_LIMIT = (
    "The host has reached its account limit: new accounts are throttled. Ask the relay's operator for more."
)
_DROPS = "The host is connected, but events were dropped in the last day; the reasons are listed."
_FINE = "The host is connected and its events pass."


def advise(host: Host, drops: dict[str, int]) -> str:
    """What the host's operator can do, the most pressing thing first."""
    if host.status is Status.BANNED:
        return _BY_ERROR["loop"] if _reason(host) == "loop" else _BY_STATUS[Status.BANNED]
    if host.status is Status.THROTTLED:
        return _BY_STATUS[Status.THROTTLED]
    if host.connected_at is None:
        specific = _BY_ERROR.get(_reason(host)) if host.status is not Status.IDLE else None
        return f"{specific} {_BY_STATUS[host.status]}" if specific else _BY_STATUS[host.status]
    if host.account_count >= host.account_limit:
        return _ACCOUNT_LIMIT
    return _DROPS if drops else _FINE


def describe(host: Host, drops: dict[str, int], next_attempt_in: float | None, now: float) -> HostStatus:
    """All that is known of a host at `now`; `next_attempt_in` is in seconds."""
    row = host.row
    return HostStatus(
        id=row.id,
        hostname=row.hostname,
        tls=not row.no_ssl,
        status=host.status,
        connected=host.connected_at is not None,
        created_at=row.created_at.timestamp(),
        last_attempt_at=row.last_attempt_at,
        last_connected_at=row.last_connected_at,
        last_event_at=row.last_event_at,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        failures=row.failures,
        next_attempt_at=None if next_attempt_in is None else now + next_attempt_in,
        cursor=host.cursor.position,
        lag_seconds=lag_seconds(host),
        events_since_start=host.events_seen,
        account_count=host.account_count,
        account_limit=host.account_limit,
        trusted=row.trusted,
        rates=host.rates,
        drops_last_day=drops,
        advice=advise(host, drops),
        alerts_silenced=row.alerts_silenced,
        alert_state=row.alert_state,
        alert_sent_at=row.alert_sent_at,
    )


def lag_seconds(host: Host) -> float | None:
    """Seconds between what the newest event says and when it came; None when it says nothing usable."""
    if host.last_event_time is None or host.row.last_event_at is None:
        return None
    try:
        stated = datetime.fromisoformat(host.last_event_time)
    except ValueError:
        return None
    if stated.tzinfo is None:
        stated = stated.replace(tzinfo=UTC)
    return max(0.0, host.row.last_event_at - stated.timestamp())


def _reason(host: Host) -> str:
    return (host.row.last_error or "").partition(":")[0]
