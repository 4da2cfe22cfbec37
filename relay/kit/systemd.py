"""Tells systemd how the service is doing: ready, stopping, and alive as long as the hub runs greenlets.

The sd_notify protocol: datagrams to the socket in NOTIFY_SOCKET. Without one every call does nothing. Run by `app`;
knows nothing of what is ready or stopping.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import gevent
from gevent import Greenlet, socket

EXTEND_SECONDS = 120.0

log = logging.getLogger(__name__)


class Notifier:
    """One service manager, or none. Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._interval = _watchdog_seconds(environment) / 3
        self._heart: Greenlet[[], None] | None = None

    def starting(self) -> None:
        """The service is on its way. As long as the hub runs, the time that TimeoutStartSec= gives it is extended."""
        if self._address:
            self._heart = gevent.spawn(self._extend)

    def ready(self) -> None:
        """The service is up. From now on a hub that is stuck for longer than WatchdogSec= gets it restarted."""
        self.close()
        self._send("READY=1")
        if self._interval and self._address:
            self._heart = gevent.spawn(self._beat)

    def stopping(self) -> None:
        """The service drains and will end. The heart goes on: a drain that hangs is a fault as well."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Stop the heart."""
        if self._heart is not None:
            self._heart.kill()
            self._heart = None

    def _extend(self) -> None:
        while True:
            self._send(f"EXTEND_TIMEOUT_USEC={int(EXTEND_SECONDS * 1_000_000)}")
            gevent.sleep(EXTEND_SECONDS / 4)

    def _beat(self) -> None:
        while True:
            self._send("WATCHDOG=1")
            gevent.sleep(self._interval)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1)
                sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", state, error)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """WatchdogSec= of the unit; 0 when there is none or it is meant for another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000
    except ValueError:
        return 0.0
