"""Tells the operator which hosts come near their account limit: a warning, repeats, and a word when it is over.

Looks at all hosts every few minutes, in a greenlet of its own. What was said of a host is in its row, so that a restart
does not say it again; it is noted after the message was taken, so that one which was not is sent again. Must not know
where messages go.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import gevent

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.kit.errors import RelayError, StoreError
from relay.store import hosts as table
from relay.store.database import Database

HOSTS_PER_MESSAGE = 50
MESSAGE_CHARACTERS = 2_800
JITTER = 0.2

# The states in indigo's column, and the kinds in what siblings tell one another.
OK, WARNING = "ok", "warning"
Kind = Literal["warning", "recovery"]

log = logging.getLogger(__name__)


class Rules(NamedTuple):
    """`threshold` is a share of the account limit, intervals are seconds; `dashboard_url` may be empty."""

    threshold: float = 0.8
    interval: float = 300.0
    repeat_interval: float = 21_600.0
    dashboard_url: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What was said of one host, with the numbers of that moment."""

    kind: Kind
    host_id: int
    hostname: str
    account_count: int
    account_limit: int
    sent_at: datetime

    @property
    def usage(self) -> float:
        """The share of the limit that is used."""
        return self.account_count / self.account_limit


def due_alert(host: Host, rules: Rules, now: datetime) -> Alert | None:
    """What is to be said of a host at `now`, if anything."""
    row = host.row
    if row.alerts_silenced or host.status is Status.BANNED or host.account_limit <= 0:
        return None
    near = host.account_count >= rules.threshold * host.account_limit
    warned = row.alert_state == WARNING
    if near and warned and row.alert_sent_at is not None:
        if (now - row.alert_sent_at).total_seconds() < rules.repeat_interval:
            return None
    elif not near and not warned:
        return None
    kind: Kind = "warning" if near else "recovery"
    return Alert(kind, host.id, host.hostname, host.account_count, host.account_limit, now)


def messages(alerts: Iterable[Alert], rules: Rules) -> Iterator[tuple[str, list[Alert]]]:
    """The texts to send, each with the alerts that are in it: recoveries first, then the fullest hosts."""
    ordered = sorted(alerts, key=lambda alert: (alert.kind, -alert.usage, alert.host_id))
    part: list[Alert] = []
    for alert in ordered:
        together = [*part, alert]
        full = len(together) > HOSTS_PER_MESSAGE or len(_text(together, rules)) > MESSAGE_CHARACTERS
        if part and (full or part[0].kind != alert.kind):
            yield _text(part, rules), part
            together = [alert]
        part = together
    if part:
        yield _text(part, rules), part


class LimitAlerts:
    """Sends what is due. Holds no more than the hosts that it could not store yet."""

    def __init__(
        self,
        db: Database,
        hosts: Iterable[Host],
        send: Callable[[str], None],
        announce: Callable[[Alert], None],
        rules: Rules,
    ) -> None:
        """`send(text)` delivers a message or raises RelayError; `announce(alert)` tells sibling relays that it did."""
        self._db = db
        self._hosts = hosts
        self._send = send
        self._announce = announce
        self._rules = rules
        self._unstored: dict[int, Host] = {}
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Start looking; siblings that start together look at different moments."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop; what is due then is due after the next start."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)
            self._greenlet = None

    def run_once(self, now: datetime) -> int:
        """Send what is due at `now`; of how many hosts. Raises RelayError of the message that was not taken."""
        self._store(self._unstored.values())
        hosts = {host.id: host for host in self._hosts}
        due = [alert for host in hosts.values() if (alert := due_alert(host, self._rules, now))]
        for text, alerts in messages(due, self._rules):
            self._send(text)
            self._note([(hosts[alert.host_id], alert) for alert in alerts])
        return len(due)

    def _note(self, sent: Sequence[tuple[Host, Alert]]) -> None:
        for host, alert in sent:
            host.row.alert_state = WARNING if alert.kind == "warning" else OK
            host.row.alert_sent_at = alert.sent_at
            self._announce(alert)
            self._unstored[host.id] = host
        self._store(list(self._unstored.values()))

    def _store(self, hosts: Iterable[Host]) -> None:
        """Store where the alerts stand; what fails is tried with the next message, or the next look."""
        for host in list(hosts):
            row = host.row
            try:
                self._db.write(
                    table.set_alert,
                    row.id,
                    silenced=row.alerts_silenced,
                    state=row.alert_state,
                    sent_at=row.alert_sent_at,
                )
            except StoreError as error:
                log.warning("that %s was alerted of is not stored: %s", host.hostname, error)
                return
            self._unstored.pop(host.id, None)

    def _run(self) -> None:
        interval = self._rules.interval
        gevent.sleep(random.uniform(0, JITTER) * interval)
        while True:
            try:
                self.run_once(datetime.now(UTC))
            except RelayError as error:
                # The reason alone: a webhook's address is a secret, and errors name addresses.
                log.warning("an alert of account limits is not sent, and will be tried again: %s", error.reason)
            except Exception:
                log.exception("looking at account limits failed")
            gevent.sleep(random.uniform(1 - JITTER, 1 + JITTER) * interval)


def _text(alerts: Sequence[Alert], rules: Rules) -> str:
    share = f"{rules.threshold:.0%}"
    if alerts[0].kind == "warning":
        head = f"Relay: {len(alerts)} host(s) at {share} of their account limit or above"
    else:
        head = f"Relay: {len(alerts)} host(s) below {share} of their account limit again"
    lines = [
        f"- {alert.hostname}: {alert.usage:.1%} used ({alert.account_count} / {alert.account_limit} accounts)"
        for alert in alerts
    ]
    return "\n".join([head, *lines, *([rules.dashboard_url] if rules.dashboard_url else [])])
