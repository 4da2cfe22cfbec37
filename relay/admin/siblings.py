"""Forwards what admins and crawl requests change to sibling relays, in the background.

Called by `admin` and `xrpc` with the request as it came. A `Via` header marks what was forwarded, and what carries
it is never forwarded again, so relays that name each other make no loop. Must not know what any request means.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gevent
from gevent.queue import Full, Queue

from relay.kit import metrics
from relay.kit.errors import RelayError
from relay.net.http import GuardedHttp

log = logging.getLogger(__name__)

LOOP_MARK = "atproto-relay"
TIMEOUT = 10.0
QUEUE_SIZE = 256
COPIED_HEADERS = ("Accept", "User-Agent", "Authorization", "Content-Type")


@dataclass(frozen=True, slots=True)
class Forward:
    """A request to repeat at a sibling; `target` is path and query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def forward_of(method: str, target: str, headers: Mapping[str, str], body: bytes, protocol: str) -> Forward | None:
    """The request to send on, or None when it came from a relay itself. `protocol` is as in `HTTP/1.1`."""
    if any(LOOP_MARK in headers.get(name, "").lower() for name in ("Via", "User-Agent")):
        return None
    copied = {name: headers[name] for name in COPIED_HEADERS if name in headers}
    return Forward(method, target, copied | {"Via": f"{protocol.removeprefix('HTTP/')} {LOOP_MARK}"}, body)


class Siblings:
    """One bounded queue and one greenlet per sibling, so that one that does not answer delays no other. Their addresses
    are the operator's word, and so may be plain or private.
    """

    def __init__(self, http: GuardedHttp, siblings: Sequence[str]) -> None:
        self._http = http.for_operator()
        self._queues: dict[str, Queue[Forward]] = {_base_url(name): Queue(QUEUE_SIZE) for name in siblings}
        metrics.QUEUE_SIZE.labels("forwards").set_function(lambda: sum(map(len, self._queues.values())))
        metrics.QUEUE_CAPACITY.labels("forwards").set(QUEUE_SIZE * len(self._queues))
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        """Begin to forward."""
        self._greenlets = [gevent.spawn(self._run, base, queue) for base, queue in self._queues.items()]

    def stop(self) -> None:
        """Stop at once: what was not forwarded yet is lost, as it is when a sibling is down."""
        gevent.killall(self._greenlets)

    def forward(self, forward: Forward | None) -> None:
        """Send to every sibling, some time soon."""
        if forward is None:
            return
        for base, queue in self._queues.items():
            try:
                queue.put_nowait(forward)
            except Full:
                metrics.FORWARDS.labels("dropped").inc()
                log.warning("sibling %s does not keep up: %s is not forwarded", base, forward.target)

    def _run(self, base: str, queue: Queue[Forward]) -> None:
        while True:
            forward = queue.get()
            gevent.sleep(0)
            try:
                answer = self._http.request(
                    forward.method, base + forward.target, forward.body, timeout=TIMEOUT, headers=forward.headers
                )
            except RelayError as error:
                metrics.FORWARDS.labels("failed").inc()
                log.warning("forwarding %s to %s failed: %s", forward.target, base, error)
                continue
            metrics.FORWARDS.labels("sent" if answer.status < 400 else "refused").inc()
            if answer.status >= 400:
                log.warning("forwarding %s to %s: HTTP %d", forward.target, base, answer.status)


def _base_url(sibling: str) -> str:
    return sibling.rstrip("/") if "://" in sibling else f"https://{sibling.rstrip('/')}"
