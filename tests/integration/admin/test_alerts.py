"""Alerts of account limits: who is told what and when, through a real webhook, and what siblings tell one another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.admin.siblings import announcement
from relay.config import Settings
from relay.hosts.limit_alerts import Alert, LimitAlerts, Webhook
from relay.kit.errors import HttpError, StoreError
from relay.net.http import GuardedHttp
from relay.store import hosts
from relay.store.database import Database
from tests.support.accounts import add_hosts
from tests.support.chat import Chat
from tests.support.fixtures import StartWeb
from tests.support.wait import until
from tests.support.web import Web

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SETTINGS = Settings(alert_dashboard_url="https://relay.example.com/dash/")
SUCCESS = {"success": "true"}


@pytest.fixture
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


@pytest.fixture
def web(start_web: StartWeb, database: Database) -> Web:
    """A relay on each engine with three hosts that may have 100 accounts each."""
    add_hosts(database, 3)
    return start_web(db=database)


def count(web: Web, **accounts: int) -> None:
    """Give hosts these numbers of accounts: `pds1=80`."""
    for host in web.registry:
        host.account_count = accounts.get(host.hostname.partition(".")[0], host.account_count)


@pytest.fixture
def announced() -> list[Alert]:
    """What siblings were told."""
    return []


@pytest.fixture
def alerts(web: Web, chat: Chat, announced: list[Alert]) -> LimitAlerts:
    webhook = Webhook(GuardedHttp("relay-test", allow_insecure=False), chat.url)
    return LimitAlerts(web.db, web.registry, webhook.send, announced.append, SETTINGS)


def listed(web: Web, host: str) -> dict[str, Any]:
    (found,) = [row for row in web.admin("/admin/pds/list").json if row["Host"] == host]
    return found  # type: ignore[no-any-return]


def test_a_warning_repeats_and_one_recovery(
    web: Web, chat: Chat, alerts: LimitAlerts, announced: list[Alert], start_web: StartWeb
) -> None:
    count(web, pds1=79, pds2=80, pds3=100)
    assert alerts.run_once(NOW) == 2
    assert chat.texts == [
        "Relay: 2 host(s) at 80% of their account limit or above\n"
        "- pds3.example.com: 100.0% used (100 / 100 accounts)\n"
        "- pds2.example.com: 80.0% used (80 / 100 accounts)\n"
        "https://relay.example.com/dash/"
    ]
    assert [(alert.kind, alert.host_id) for alert in announced] == [("warning", 3), ("warning", 2)]
    assert listed(web, "pds2.example.com")["AccountLimitAlertState"] == "warning"
    assert listed(web, "pds2.example.com")["AccountLimitAlertSentAt"] == "2026-11-24T12:00:00Z"
    assert "AccountLimitAlertSentAt" not in listed(web, "pds1.example.com")
    # Not again for six hours, also by a relay that starts in between.
    assert alerts.run_once(NOW + timedelta(hours=5, minutes=59)) == 0
    again = start_web(db=web.db)
    count(again, pds2=80, pds3=10)
    restarted = LimitAlerts(again.db, again.registry, chat.texts.append, announced.append, SETTINGS)
    assert restarted.run_once(NOW + timedelta(hours=1)) == 1
    assert chat.texts[1].startswith(
        "Relay: 1 host(s) below 80% of their account limit again\n- pds3.example.com: 10.0%"
    )
    assert restarted.run_once(NOW + timedelta(hours=2)) == 0
    assert restarted.run_once(NOW + timedelta(hours=6)) == 1
    assert "- pds2.example.com: 80.0%" in chat.texts[2]
    assert announced[-2].kind == "recovery"


def test_a_warning_that_a_wrong_clock_dated_ahead_is_repeated(web: Web, alerts: LimitAlerts) -> None:
    count(web, pds2=90)
    assert alerts.run_once(NOW + timedelta(days=400)) == 1
    assert alerts.run_once(NOW) == 1
    assert alerts.run_once(NOW + timedelta(hours=1)) == 0


def test_a_message_that_is_not_taken_is_sent_again(web: Web, chat: Chat, alerts: LimitAlerts) -> None:
    count(web, pds2=90)
    chat.status = "500 Broken"
    with pytest.raises(HttpError, match="http-refused"):
        alerts.run_once(NOW)
    assert listed(web, "pds2.example.com")["AccountLimitAlertState"] == "ok"
    chat.status = "200 OK"
    assert alerts.run_once(NOW + timedelta(minutes=5)) == 1
    assert len(chat.texts) == 1
    count(web, pds2=10)
    chat.status = "404 Gone"
    with pytest.raises(HttpError):
        alerts.run_once(NOW + timedelta(minutes=10))
    chat.status = "202 Accepted"
    assert alerts.run_once(NOW + timedelta(minutes=15)) == 1
    assert "below 80%" in chat.texts[1]


def test_messages_are_bounded(web: Web, chat: Chat, alerts: LimitAlerts) -> None:
    for number in range(4, 131):
        name = f"pds{number}.example.com" if number < 70 else f"{'very-long-name-' * 4}{number}.example.com"
        web.db.write(hosts.insert, name, no_ssl=False, account_limit=100, trusted=False)
    web.registry.load()
    for host in web.registry:
        host.account_count = 95
    assert alerts.run_once(NOW) == 130
    assert all(text.count("\n- ") <= 50 and len(text) <= 2800 for text in chat.texts)
    assert sum(text.count("\n- ") for text in chat.texts) == 130 and len(chat.texts) <= 5


def test_who_is_not_alerted_of(web: Web, chat: Chat, alerts: LimitAlerts) -> None:
    count(web, pds1=90, pds2=90, pds3=90)
    web.hosts.change_limits("pds1.example.com", account_limit=0)
    assert web.admin("/admin/pds/block?host=pds2.example.com", method="POST").json == SUCCESS
    silence = {"host": "pds3.example.com", "account_limit_alerts_silenced": True}
    assert web.admin("/admin/pds/changeLimits", silence).json == SUCCESS
    assert alerts.run_once(NOW) == 0
    assert listed(web, "pds3.example.com")["AccountLimitAlertsSilenced"] is True
    web.admin("/admin/pds/changeLimits", silence | {"account_limit_alerts_silenced": False})
    assert alerts.run_once(NOW) == 1 and "pds3" in chat.texts[0]
    # Silencing forgets what was said: heard again, the host is new.
    web.admin("/admin/pds/changeLimits", silence)
    assert listed(web, "pds3.example.com")["AccountLimitAlertState"] == "ok"
    assert "AccountLimitAlertSentAt" not in listed(web, "pds3.example.com")


def test_what_a_sibling_said_is_not_said_again(web: Web, alerts: LimitAlerts, start_web: StartWeb) -> None:
    count(web, pds2=90)
    alert = Alert("warning", 77, "pds2.example.com", 90, 100, NOW)
    other = start_web(sibling_relays=(web.url,))
    other.siblings.forward(other.siblings.own(announcement(alert)))
    until(lambda: listed(web, "pds2.example.com")["AccountLimitAlertState"] == "warning")
    assert alerts.run_once(NOW + timedelta(hours=1)) == 0
    stored = web.db.read(hosts.by_hostname, "pds2.example.com")
    assert stored is not None and (stored.alert_state, stored.alert_sent_at) == ("warning", NOW)


def said(**changes: Any) -> dict[str, Any]:
    body = {
        "kind": "warning",
        "hostID": 9,
        "hostname": "pds2.example.com",
        "accountCount": 90,
        "accountLimit": 100,
        "usage": 0.9,
        "sentAt": "2026-11-24T12:00:00.123456789Z",
    }
    return body | changes


def test_older_news_and_unknown_hosts_change_nothing(web: Web) -> None:
    path = "/admin/alerts/accountLimitSent"
    assert web.admin(path, said()).json == SUCCESS
    assert web.admin(path, said(kind="recovery", sentAt="2026-11-24T11:00:00+02:00")).json == SUCCESS
    assert listed(web, "pds2.example.com")["AccountLimitAlertState"] == "warning"
    assert web.admin(path, said(kind="recovery", sentAt="0001-01-01T00:00:00Z")).json == SUCCESS
    assert listed(web, "pds2.example.com")["AccountLimitAlertState"] == "ok"
    assert web.admin(path, said(hostname="pds99.example.com")).json == SUCCESS
    # A sibling whose clock is ahead can not silence this relay for long.
    assert web.admin(path, said(sentAt="9999-12-31T00:00:00Z")).json == SUCCESS
    assert listed(web, "pds2.example.com")["AccountLimitAlertSentAt"] < "2100"
    for absurd in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        assert web.admin(path, said(sentAt=absurd)).json == SUCCESS


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "x"},
        {"hostID": 0},
        {"hostID": None},
        {"hostname": "no host"},
        {"accountCount": -1},
        {"accountLimit": "1"},
        {"usage": -0.1},
        {"usage": True},
        {"sentAt": "soon"},
        {"sentAt": "2026-11-24T12:00:00"},
    ],
)
def test_what_no_sibling_says(web: Web, changes: dict[str, Any]) -> None:
    answer = web.admin("/admin/alerts/accountLimitSent", said(**changes))
    assert (answer.status, answer.json["error"]) == (400, "InvalidRequest")


def test_the_webhooks_address_is_in_no_log(caplog: pytest.LogCaptureFixture, web: Web) -> None:
    webhook = Webhook(GuardedHttp("relay-test", allow_insecure=False), "http://127.0.0.1:1/services/secret")
    count(web, pds2=90)
    alerts = LimitAlerts(web.db, web.registry, webhook.send, lambda alert: None, Settings(alert_interval=0.01))
    with caplog.at_level(logging.DEBUG):
        alerts.start()
        until(lambda: "was not sent" in caplog.text)
        alerts.stop()
    assert "http-connect" in caplog.text and "secret" not in caplog.text


def test_the_database_being_away_sends_nothing_twice(chat: Chat, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    alerts = LimitAlerts(web.db, web.registry, chat.texts.append, lambda alert: None, SETTINGS)
    count(web, pds2=90)

    def away(*_: object, **__: object) -> None:
        raise StoreError("store-unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(web.db, "write", away)
        assert alerts.run_once(NOW) == 1
    assert alerts.run_once(NOW + timedelta(minutes=5)) == 0
    stored = web.db.read(hosts.by_hostname, "pds2.example.com")
    assert stored is not None and stored.alert_state == "warning" and len(chat.texts) == 1
