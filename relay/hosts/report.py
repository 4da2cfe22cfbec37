"""What the relay reports about a host: what is known of it, and why it is or is not in the network.

Made by Hosts on demand for `GET /host/<hostname>`, the admin's list and the pages for people. The advice is in words
that a host's operator can act on. Pure: everything is passed in.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.hosts.host import Host, seconds_of
from relay.hosts.lifecycle import Status
from relay.hosts.rejected import RejectedFrame

ADDRESS_REFUSED = "address-refused"


class HostReport(NamedTuple):
    """A host, and what follows from it now. `drops` are of the last day, by reason; times are Unix seconds.

    `rejected` are its last rejected frames, the newest first, where one host is asked for.
    """

    host: Host
    drops: dict[str, int]
    next_attempt_at: float | None
    lag_seconds: float | None
    advice: str
    rejected: list[RejectedFrame]


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
    ADDRESS_REFUSED: "The hostname's address is private or reserved. It must be reachable from the internet.",
    "connect-failed": "No TCP connection. Check that the host is running and that its firewall allows port 443.",
    "dial-timeout": "The host did not finish the connection in time. Check its load, its firewall and its proxy.",
    "tls-failed": "TLS failed. Check that the certificate is valid for this name and is sent with its whole chain.",
    "handshake-refused": "The host answered without a WebSocket. Check that the proxy passes upgrades on "
    "for /xrpc/com.atproto.sync.subscribeRepos.",
    "handshake-invalid": "The answer was not a WebSocket handshake. Check what is listening behind the hostname.",
    "frames-unreadable": "Most of the stream cannot be read, and the relay waits longer each time before it "
    "continues behind it. The rejected frames say what is wrong with them. Update the PDS software.",
    "message-too-big": "The stream contains a WebSocket frame of over 1 GB. The relay continues behind it.",
    "message-stalled": "A message took over five minutes to arrive. The relay continues behind it.",
    "websocket-invalid": "The stream does not consist of WebSocket frames. Check what the proxy does to it.",
    "future-cursor": "The host's sequence numbers started again, perhaps after a restore. They must go on rising.",
    "no-pong": "The host stopped answering pings. Check its load and the proxy's time limits for WebSockets.",
    "loop": "The host is itself a relay; a relay crawls only PDS hosts.",
}

_ACCOUNT_LIMIT = (
    "The host has reached its account limit: new accounts are throttled. Ask the relay's operator for more."
)
_RESTARTED = (
    "The host's sequence numbers started again, perhaps after a restore. Its events pass as long as their revs are "
    "new; the numbers must go on rising."
)
RESTARTED_SECONDS = 86_400.0
_DROPS = "The host is connected, but events were dropped in the last day; the reasons are listed."
_FINE = "The host is connected and its events pass."


def advise(host: Host, drops: dict[str, int], now: float) -> str:
    """What the host's operator can do, the most pressing thing first."""
    if host.status is Status.BANNED:
        return _BY_ERROR["loop"] if _reason(host) == "loop" else _BY_STATUS[Status.BANNED]
    if host.status is Status.THROTTLED:
        return _BY_STATUS[Status.THROTTLED]
    if not host.connected:
        specific = _BY_ERROR.get(_reason(host)) if host.status is not Status.IDLE else None
        return f"{specific} {_BY_STATUS[host.status]}" if specific else _BY_STATUS[host.status]
    if host.account_count >= host.account_limit:
        return _ACCOUNT_LIMIT
    if host.restarted_at is not None and now - host.restarted_at < RESTARTED_SECONDS:
        return _RESTARTED
    return _DROPS if drops else _FINE


def report_of(
    host: Host, next_attempt_in: float | None, now: float, rejected: list[RejectedFrame] | None = None
) -> HostReport:
    """All that is known of a host at `now`; `next_attempt_in` is in seconds."""
    drops = host.drops.last_day(now)
    next_attempt_at = None if next_attempt_in is None else now + next_attempt_in
    return HostReport(host, drops, next_attempt_at, lag_seconds(host), advise(host, drops, now), rejected or [])


def public_error(error: str) -> str:
    """An error as anybody may read it: not to which addresses a name leads here, since that would tell strangers what
    the resolver of a private network knows.
    """
    return ADDRESS_REFUSED if error.startswith(f"{ADDRESS_REFUSED}:") else error


def lag_seconds(host: Host) -> float | None:
    """Seconds between what the newest event says and when it came; None when it says nothing usable."""
    stated, came_at = seconds_of(host.last_event_time), host.row.last_event_at
    return None if stated is None or came_at is None else max(0.0, came_at - stated)


def _reason(host: Host) -> str:
    return (host.row.last_error or "").partition(":")[0]
