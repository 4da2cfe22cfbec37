"""What admins change from the page for people: the same as by the admin API, with the same trace in the audit log."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator

import pytest
from gevent.queue import PriorityQueue

from relay.admin.siblings import Waiting
from relay.dash.actions import ACTIONS
from relay.store import accounts, hosts
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.dash import DashAdmin
from tests.support.fixtures import StartWeb
from tests.support.pds import FakePds
from tests.support.wait import until
from tests.support.web import ADMIN, PASSWORD, Web


@pytest.fixture
def admin(web: Web) -> DashAdmin:
    admin = DashAdmin(web.url)
    admin.log_in(PASSWORD)
    return admin


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The audit log's lines, as they come."""

    class Lines(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([one.getMessage() for one in caplog.records if one.name == "relay.audit"])

    with caplog.at_level(logging.INFO, "relay.audit"):
        yield Lines()


def test_a_host_is_crawled_limited_disconnected_blocked_and_back(web: Web, admin: DashAdmin, audit: list[str]) -> None:
    with FakePds() as pds:
        host = pds.hostname
        admin.do("crawl", hostname=f" {pds.url} ")
        assert "The relay connects to" in admin.page("/dash/crawling")
        until(lambda: web.hosts.connected() == [host])
        assert "active" in admin.page(f"/dash/hosts/{host}")

        admin.do("limits", host=host, repo_limit="5000", per_second="7", per_hour="", per_day="9")
        status = web.hosts.report(host).host
        assert status.account_limit == 5000 and (status.rates.second, status.rates.day) == (7, 9)
        admin.do("limits", host=host, repo_limit="5000", per_second="", per_hour="", per_day="")
        assert web.hosts.report(host).host.rates.second == 55

        admin.do("alerts", host=host, silenced="true")
        assert "alerts: silenced Alert again" in admin.page(f"/dash/hosts/{host}")
        admin.do("alerts", host=host, silenced="false")
        assert "alerts: ok Silence" in admin.page(f"/dash/hosts/{host}")

        admin.do("disconnect", host=host)
        until(lambda: not web.hosts.connected())
        admin.do("reconnect", host=host)
        until(lambda: web.hosts.connected() == [host])
        admin.do("block", host=host)
        assert web.hosts.report(host).host.status == "banned"
        assert "Unblock" in admin.page(f"/dash/hosts/{host}")
        admin.do("unblock", host=host)
        until(lambda: web.hosts.connected() == [host])
    by = "by=127.0.0.1"
    rates = '{"per_second": 7, "per_hour": null, "per_day": 9}'
    no_rates = '{"per_second": null, "per_hour": null, "per_day": null}'
    assert list(audit) == [
        f'request-crawl hostname="{pds.url}" {by}',
        f'change-limits host="{host}" repo_limit=5000 rates={rates} alerts_silenced=null {by}',
        f'change-limits host="{host}" repo_limit=5000 rates={no_rates} alerts_silenced=null {by}',
        f'change-limits host="{host}" repo_limit=null rates={{}} alerts_silenced=true {by}',
        f'change-limits host="{host}" repo_limit=null rates={{}} alerts_silenced=false {by}',
        f'disconnect host="{host}" block=false {by}',
        f'request-crawl hostname="{pds.url}" {by}',
        f'block host="{host}" {by}',
        f'unblock host="{host}" {by}',
    ]


def test_crawl_requests_and_domains(web: Web, admin: DashAdmin, audit: list[str]) -> None:
    admin.do("crawl-requests", enabled="false")
    assert not web.hosts.new_hosts.crawl_enabled and "crawl: closed" in admin.page("/dash/crawling")
    admin.do("crawl-requests", enabled="true")
    assert web.hosts.new_hosts.crawl_enabled
    admin.do("new-hosts", limit="7")
    assert web.hosts.new_hosts.per_day == 7
    admin.do("ban-domain", domain="Spammers.Net.")
    assert web.admin("/admin/subs/listDomainBans").json == {"banned_domains": ["spammers.net"]}
    assert "spammers.net Lift ban" in admin.page("/dash/crawling")
    admin.do("unban-domain", domain="spammers.net")
    assert web.admin("/admin/subs/listDomainBans").json == {"banned_domains": []}
    assert [line.split()[0] for line in audit] == [
        "set-enabled",
        "set-enabled",
        "set-per-day-limit",
        "ban-domain",
        "unban-domain",
    ]


def test_an_account_is_looked_at_taken_down_and_restored(web: Web, admin: DashAdmin, audit: list[str]) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [("active", "active")])
    page = admin.page(f"/dash/confirm/take-down?did={account}")
    assert f"Take down {account} ?" in page and "Here active" in page and "Host pds1.example.com" in page
    answer = admin.do("take-down", did=account)
    assert f"{account} is taken down." in admin.page(answer.headers["Location"])
    assert web.db.read(accounts.takedowns, 0, 10) == [(1, account)]
    assert "Here takendown" in admin.page(f"/dash/accounts?did={account}")
    admin.do("restore", did=account)
    assert web.db.read(accounts.takedowns, 0, 10) == []
    assert list(audit) == [f'takedown did="{account}" by=127.0.0.1', f'reverse-takedown did="{account}" by=127.0.0.1']


@pytest.mark.parametrize(
    ("action", "fields", "words"),
    [
        ("take-down", {"did": did(9)}, "Take down:"),
        ("take-down", {"did": "nobody"}, "Take down: did"),
        ("take-down", {}, "Take down: did is required"),
        ("block", {"host": "none.example"}, "Block:"),
        ("block", {}, "Block: host is required"),
        ("limits", {"host": "none.example", "repo_limit": "5"}, "Change limits:"),
        ("limits", {"host": "none.example", "repo_limit": "-5"}, "repo_limit must be an integer"),
        ("limits", {"host": "none.example", "per_day": "many"}, "per_day must be an integer"),
        ("limits", {"host": "none.example"}, "no limit is given"),
        ("new-hosts", {"limit": "x"}, "limit must be an integer"),
        ("crawl-requests", {"enabled": "maybe"}, "enabled is"),
        ("limits", {"host": "none.example", "per_day": "0"}, "per_day must be an integer from 1"),
        ("ban-domain", {"domain": "not a name"}, "not a hostname"),
        ("ban-domain", {"domain": "spammers.net:8443"}, "a domain has no port"),
        ("unban-domain", {"domain": "spammers.net"}, "spammers.net is not banned"),
        ("crawl", {"hostname": "not a name"}, "Request a crawl:"),
    ],
)
def test_what_the_api_refuses_is_told_and_changes_nothing(
    web: Web, admin: DashAdmin, audit: list[str], action: str, fields: dict[str, str], words: str
) -> None:
    before = admin.page("/dash/crawling")
    admin.do(action, **fields)
    page = admin.page("/dash/consumers")
    assert words in page
    # Told once.
    assert words not in admin.page("/dash/consumers")
    assert admin.page("/dash/crawling") == before
    assert list(audit) == []


def test_a_field_that_is_sent_twice_changes_nothing(admin: DashAdmin, audit: list[str]) -> None:
    admin.do("new-hosts", limit=["5", "6"])
    assert "limit is given more than once" in admin.page("/dash/consumers")
    assert list(audit) == []


def undo(admin: DashAdmin) -> str:
    """Send the form that the notice of the last change brings; what the relay says to that."""
    page = admin.get("/dash/consumers").body.decode()
    (action, fields), *more = re.findall(r'<form class="undo" method="post" action="([^"]+)">(.*?)<button>Undo', page)
    assert not more
    values = {name: html.unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', fields)}
    assert admin.post(action, values).status == 303
    return admin.page("/dash/consumers")


def test_a_change_can_be_taken_back_from_its_notice(web: Web, admin: DashAdmin) -> None:
    ids = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, ids[0], [("active", "active")])
    host = web.registry.add(web.db.read(hosts.list_hosts, 0, 1)[0])
    name = host.hostname

    def state() -> tuple[object, ...]:
        row = host.row
        new = web.hosts.new_hosts
        taken = web.db.read(accounts.takedowns, 0, 10)
        limits = (row.account_limit, row.per_second, row.per_hour, row.per_day, row.alerts_silenced)
        return (host.status, limits, new.crawl_enabled, new.per_day, web.db.read(hosts.all_bans), taken)

    admin.do("limits", host=name, repo_limit="500", per_second="70", per_hour="", per_day="")
    for action, fields in (
        ("block", {"host": name}),
        ("limits", {"host": name, "repo_limit": "900", "per_second": "", "per_hour": "4000", "per_day": ""}),
        ("alerts", {"host": name, "silenced": "true"}),
        ("crawl-requests", {"enabled": "false"}),
        ("new-hosts", {"limit": "7"}),
        ("ban-domain", {"domain": "spammers.net"}),
        ("take-down", {"did": account}),
    ):
        before = state()
        admin.do(action, **fields)
        after = state()
        assert after != before, action
        # Taken back, and that in turn.
        undo(admin)
        assert state() == before, action
        admin.do(action, **fields)
        assert state() == after
        undo(admin)


def test_what_was_refused_and_what_has_no_way_back_offers_none(web: Web, admin: DashAdmin) -> None:
    for action, fields in (("block", {"host": "none.example"}), ("limits", {}), ("heal", {"host": "none.example"})):
        admin.do(action, **fields)
        assert b"Undo" not in admin.get("/dash/consumers").body, action


def test_what_was_so_already_is_not_taken_back(web: Web, admin: DashAdmin) -> None:
    """From a page that shows what another admin has changed since: their change would be undone."""
    ids = add_hosts(web.db, 1)
    taken, throttled, active = add_accounts(
        web.db, ids[0], [("takendown", "active"), ("host-throttled", "active"), ("active", "active")]
    )
    name = web.registry.add(web.db.read(hosts.list_hosts, 0, 1)[0]).hostname
    web.hosts.ban_domain("spammers.net")
    admin.do("unblock", host=name)
    assert b"Undo" not in admin.get("/dash/consumers").body
    web.hosts.block(name)
    for action, fields in (
        ("block", {"host": name}),
        ("ban-domain", {"domain": " Spammers.net "}),
        ("take-down", {"did": taken}),
        ("restore", {"did": active}),
        ("restore", {"did": throttled}),
    ):
        admin.do(action, **fields)
        page = admin.get("/dash/consumers").body
        assert b"banner good" in page and b"Undo" not in page, action


def test_coming_and_going_is_in_the_audit_log(web: Web, audit: list[str]) -> None:
    admin = DashAdmin(web.url)
    admin.log_in("wrong")
    admin.log_in(PASSWORD)
    admin.post("/dash/logout", {"csrf": admin.csrf()})
    assert list(audit) == ["dash-login by=127.0.0.1", "dash-logout by=127.0.0.1"]


def test_the_script_does_not_take_a_notice_away(admin: DashAdmin) -> None:
    admin.do("new-hosts", limit="8")
    assert "8 new hosts" not in admin.page("/dash/consumers", **{"X-Dash-Live": "1"})
    assert "8 new hosts" in admin.page("/dash/consumers")


def test_dangerous_actions_are_asked_about_first(web: Web, admin: DashAdmin) -> None:
    (host,) = add_hosts(web.db, 1)
    add_accounts(web.db, host, [("active", "active")])
    for name, action in ACTIONS.items():
        if action.subject == "host":
            continue
        page = admin.page(f"/dash/confirm/{name}?{action.subject}={did(1)}")
        assert action.effect in page and action.label in page
        assert admin.get(f"/dash/confirm/{name}").status == 400
    assert admin.get("/dash/confirm/nonsense?host=a").status == 404
    assert admin.get("/dash/confirm/block?host=none.example").status == 404
    assert admin.post("/dash/do/nonsense", {"csrf": admin.csrf()}).status == 404
    assert web.db.read(accounts.takedowns, 0, 10) == []


def test_siblings_hear_of_it_as_of_any_change_by_the_api(start_web: StartWeb) -> None:
    web = start_web(sibling_relays=("http://127.0.0.1:9",))
    heard: PriorityQueue[Waiting] = PriorityQueue()
    web.siblings._queues = {"sibling": heard}
    admin = DashAdmin(web.url)
    admin.log_in(PASSWORD)
    admin.do("ban-domain", domain="spammers.net")
    forward = heard.get(timeout=60).forward
    assert (forward.method, forward.target, forward.body) == (
        "POST",
        "/admin/subs/banDomain",
        b'{"Domain": "spammers.net"}',
    )
    assert forward.headers["Authorization"] == ADMIN["Authorization"]
    assert "Cookie" not in forward.headers
    admin.do("new-hosts", limit="9")
    assert heard.empty()
