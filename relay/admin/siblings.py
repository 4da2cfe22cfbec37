"""Tells sibling relays what was changed here, in the background: one bounded queue and one greenlet for each.

`Admin` hands over a request as it came, or a call of this relay's own. A `Via` header marks what was sent on, and what
carries it is never sent on again, so relays that name each other make no loop. Must not know what any change means.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlencode

from gevent.queue import PriorityQueue

from relay.hosts.limit_alerts import Alert
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.credentials import basic
from relay.kit.errors import RelayError
from relay.net.http import RELAY_MARK, SERVER, GuardedHttp

log = logging.getLogger(__name__)

TIMEOUT = 10.0
QUEUE_SIZE = 256
# How many of them may be the public's, whose requests wait behind those of admins.
PUBLIC_SIZE = 128
PUBLIC_PATH = "/xrpc/"
COPIED_HEADERS = ("Accept", "User-Agent", "Authorization", "Content-Type")
_OVER_HTTP = {"ws": "http", "wss": "https"}


class Call(NamedTuple):
    """A POST of the admin API: its path, its query, and its JSON body if it takes one."""

    path: str
    query: Mapping[str, str] = {}
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """A request to repeat at a sibling; `target` is path and query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def public(self) -> bool:
        """Whether anybody may ask for it, however often."""
        return self.target.startswith(PUBLIC_PATH)


class Waiting(NamedTuple):
    """The order in which requests are sent: those of admins first, each kind as they came."""

    public: bool
    number: int
    forward: Forward


def forward_of(method: str, target: str, headers: Mapping[str, str], body: bytes, protocol: str) -> Forward | None:
    """The request to send on, or None when it came from a relay itself. `protocol` is as in `HTTP/1.1`."""
    if any(RELAY_MARK in headers.get(name, "").lower() for name in ("Via", "User-Agent")):
        return None
    copied = {name: headers[name] for name in COPIED_HEADERS if name in headers}
    return Forward(method, target, copied | {"Via": f"{protocol.removeprefix('HTTP/')} {RELAY_MARK}"}, body)


def announcement(alert: Alert) -> Call:
    """What tells a sibling of an alert that was sent: indigo's JSON."""
    body = {
        "kind": alert.kind,
        "hostID": alert.host_id,
        "hostname": alert.hostname,
        "accountCount": alert.account_count,
        "accountLimit": alert.account_limit,
        "usage": alert.usage,
        "sentAt": alert.sent_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    return Call("/admin/alerts/accountLimitSent", body=body)


class Siblings:
    """The operator's other relays. Their addresses are the operator's word, and so may be plain or private."""

    def __init__(self, http: GuardedHttp, siblings: Sequence[str], password: str | None = None) -> None:
        """`password` goes with this relay's own calls; without one, as a random one opens no sibling, none is made."""
        self._http = http.for_operator()
        self._password = password
        self._queues: dict[str, PriorityQueue[Waiting]] = {
            _base_url(name): PriorityQueue(QUEUE_SIZE) for name in siblings
        }
        self._numbers = count()
        # A sibling that does not answer delays no other.
        self._loops = [
            Loop(f"forwarding to {base}", partial(self._send_next, base, queue), every=1.0)
            for base, queue in self._queues.items()
        ]
        metrics.show_bound("forwards", lambda: sum(map(len, self._queues.values())), QUEUE_SIZE * len(self._queues))

    def start(self) -> None:
        """Begin to forward."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Stop at once: what was not forwarded yet is lost, as it is when a sibling is down."""
        for loop in self._loops:
            loop.stop()

    def forward(self, forward: Forward | None) -> None:
        """Send to every sibling, some time soon."""
        if forward is None:
            return
        say = log.debug if forward.public else log.warning
        for base, queue in self._queues.items():
            if len(queue) >= (PUBLIC_SIZE if forward.public else QUEUE_SIZE):
                metrics.FORWARDS.labels("dropped").inc()
                say("sibling %s does not keep up: %s is not forwarded", base, forward.target)
            else:
                queue.put_nowait(Waiting(forward.public, next(self._numbers), forward))

    def own(self, call: Call) -> Forward | None:
        """`call` as this relay sends it by itself."""
        if self._password is None:
            return None
        headers = {
            "Authorization": basic(self._password),
            "User-Agent": SERVER,
            "Via": f"1.1 {RELAY_MARK}",
        }
        target = f"{call.path}?{urlencode(call.query)}" if call.query else call.path
        if call.body is None:
            return Forward("POST", target, headers, b"")
        return Forward("POST", target, headers | {"Content-Type": "application/json"}, json.dumps(call.body).encode())

    def _send_next(self, base: str, queue: PriorityQueue[Waiting]) -> float:
        """Send the next one, when there is one."""
        forward = queue.get().forward
        # The public must not be able to fill the log.
        say = log.debug if forward.public else log.warning
        try:
            answer = self._http.request(
                forward.method, base + forward.target, forward.body, timeout=TIMEOUT, headers=forward.headers
            )
        except RelayError as error:
            metrics.FORWARDS.labels("failed").inc()
            say("forwarding %s to %s failed: %s", forward.target, base, error)
            return 0.0
        metrics.FORWARDS.labels("sent" if answer.status < 400 else "refused").inc()
        if answer.status >= 400:
            say("forwarding %s to %s was refused: HTTP %d", forward.target, base, answer.status)
        return 0.0


def _base_url(sibling: str) -> str:
    """Where a sibling is asked. As with hosts, a bare name has TLS but `localhost:PORT` has not, and ws means http."""
    scheme, _, rest = sibling.rstrip("/").rpartition("://")
    scheme = scheme.lower() or ("http" if rest.lower().startswith("localhost:") else "https")
    return f"{_OVER_HTTP.get(scheme, scheme)}://{rest}"
