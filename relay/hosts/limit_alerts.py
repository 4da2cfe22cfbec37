"""Tells the operator which hosts come near their account limit: a warning, repeats, and a word when it is over.

Looks at all hosts every few minutes, in a loop of its own. What was said of a host is in its row, so that a restart
does not say it again; it is noted after the message was taken, so that one which was not is sent again. Built by `app`
when the operator has a webhook.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from relay.config import Settings
from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import HttpError, RelayError, StoreError
from relay.net.http import GuardedHttp
from relay.store import hosts as table
from relay.store.database import Database

HOSTS_PER_MESSAGE = 50
MESSAGE_CHARACTERS = 2_800
JITTER = 0.2
WEBHOOK_SECONDS = 10.0

# The states in indigo's column, and the kinds in what siblings tell one another.
OK, WARNING = "ok", "warning"
Kind = Literal["warning", "recovery"]

log = logging.getLogger(__name__)


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


def due_alert(host: Host, settings: Settings, now: datetime) -> Alert | None:
    """What is to be said of a host at `now`, if anything."""
    row = host.row
    if row.alerts_silenced or host.status is Status.BANNED or host.account_limit <= 0:
        return None
    near = host.account_count >= settings.alert_threshold * host.account_limit
    warned = row.alert_state == WARNING
    if near and warned and row.alert_sent_at is not None:
        # One that a wrong clock dated ahead was not sent then.
        if abs((now - row.alert_sent_at).total_seconds()) < settings.alert_repeat_interval:
            return None
    elif not near and not warned:
        return None
    kind: Kind = "warning" if near else "recovery"
    return Alert(kind, host.id, host.hostname, host.account_count, host.account_limit, now)


def messages(alerts: Iterable[Alert], settings: Settings) -> Iterator[tuple[str, list[Alert]]]:
    """The texts to send, each with the alerts that are in it: recoveries first, then the fullest hosts."""
    ordered = sorted(alerts, key=lambda alert: (alert.kind, -alert.usage, alert.host_id))
    part: list[Alert] = []
    for alert in ordered:
        together = [*part, alert]
        full = len(together) > HOSTS_PER_MESSAGE or len(_text(together, settings)) > MESSAGE_CHARACTERS
        if part and (full or part[0].kind != alert.kind):
            yield _text(part, settings), part
            together = [alert]
        part = together
    if part:
        yield _text(part, settings), part


class LimitAlerts:
    """Sends what is due. Holds no more than the hosts that it could not store yet."""

    def __init__(
        self,
        db: Database,
        hosts: Iterable[Host],
        send: Callable[[str], None],
        announce: Callable[[Alert], None],
        settings: Settings,
    ) -> None:
        """`send(text)` delivers a message or raises RelayError; `announce(alert)` tells sibling relays that it did."""
        self._db = db
        self._hosts = hosts
        self._send = send
        self._announce = announce
        self._settings = settings
        self._unstored: dict[int, Host] = {}
        self._loop = Loop("looking at account limits", self._look, settings.alert_interval)

    def start(self) -> None:
        """Start looking; siblings that start together look at different moments."""
        self._loop.start(after=random.uniform(0, JITTER) * self._settings.alert_interval)

    def stop(self) -> None:
        """Stop; what is due then is due after the next start."""
        self._loop.stop()

    def run_once(self, now: datetime) -> int:
        """Send the alerts that are due at `now`; how many they are. Raises RelayError when a message was not taken."""
        self._store(self._unstored.values())
        hosts = {host.id: host for host in self._hosts}
        due = [alert for host in hosts.values() if (alert := due_alert(host, self._settings, now))]
        for text, alerts in messages(due, self._settings):
            self._send(text)
            self._note([(hosts[alert.host_id], alert) for alert in alerts])
        return len(due)

    def _note(self, sent: Sequence[tuple[Host, Alert]]) -> None:
        for host, alert in sent:
            host.row.alert_state = WARNING if alert.kind == "warning" else OK
            host.row.alert_sent_at = alert.sent_at
            self._unstored[host.id] = host
        # Before siblings hear of it: what one of them knows is not forgotten in a crash.
        self._store(list(self._unstored.values()))
        for _, alert in sent:
            self._announce(alert)

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
                log.debug("the alert about %s is not stored: %s", host.hostname, error)
                return
            self._unstored.pop(host.id, None)

    def _look(self) -> float:
        try:
            self.run_once(datetime.now(UTC))
        except RelayError as error:
            # The reason alone: a webhook's address is a secret, and errors name addresses.
            log.warning("an alert about account limits was not sent, and will be tried again: %s", error.reason)
        return random.uniform(1 - JITTER, 1 + JITTER) * self._settings.alert_interval


class Webhook:
    """The operator's webhook: takes the JSON that Slack, and what speaks like it, takes.

    The operator's word, and so its address may be plain or private. It is a secret, as whoever has it may post there:
    no error names it.
    """

    def __init__(self, http: GuardedHttp, url: str) -> None:
        self._http = http.for_operator()
        self._url = url

    def send(self, text: str) -> None:
        """Post `text`. Raises HttpError when it was not taken: `http-refused` for a status other than success."""
        try:
            status = self._http.post_json(self._url, {"text": text}, timeout=WEBHOOK_SECONDS).status
        except RelayError as error:
            metrics.ALERTS_SENT.labels("failed").inc()
            raise HttpError(error.reason) from None
        if not 200 <= status < 300:
            metrics.ALERTS_SENT.labels("refused").inc()
            raise HttpError("http-refused", f"HTTP {status}")
        metrics.ALERTS_SENT.labels("sent").inc()


def _text(alerts: Sequence[Alert], settings: Settings) -> str:
    share = f"{settings.alert_threshold:.0%}"
    if alerts[0].kind == "warning":
        head = f"Relay: {len(alerts)} host(s) at {share} of their account limit or above"
    else:
        head = f"Relay: {len(alerts)} host(s) below {share} of their account limit again"
    lines = [
        f"- {alert.hostname}: {alert.usage:.1%} used ({alert.account_count} / {alert.account_limit} accounts)"
        for alert in alerts
    ]
    return "\n".join([head, *lines, *([settings.alert_dashboard_url] if settings.alert_dashboard_url else [])])
