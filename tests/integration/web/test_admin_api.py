"""The admin API: indigo's routes and JSON, who may use them, what each change leaves behind."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from operator import contains
from typing import Any

import pytest

from relay.admin.siblings import Forward
from relay.atproto import frames
from relay.atproto.frames import Account
from relay.kit.memory import MemoryDebug
from relay.store import hosts
from relay.store.database import Database
from relay.web.application import create_app
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.fixtures import StartWeb
from tests.support.holds import holds
from tests.support.http import call
from tests.support.pds import FakePds
from tests.support.wait import until
from tests.support.web import ADMIN, PASSWORD, Web

SUCCESS = {"success": "true"}


def admin_routes(web: Web) -> list[tuple[str, str]]:
    rules = [rule for rule in web.app.url_map.iter_rules() if rule.rule.startswith("/admin/")]
    return [(method, rule.rule) for rule in rules for method in (rule.methods or set()) & {"GET", "POST"}]


def test_no_route_answers_without_the_password(web: Web) -> None:
    routes = admin_routes(web)
    assert len(routes) >= 17
    for method, path in routes:
        answer = call(web.url + path, method=method)
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_no_route_takes_a_parameter_twice(web: Web) -> None:
    for method, path in admin_routes(web):
        answer = web.admin(f"{path}?host=a.example.com&host=b.example.com", method=method)
        assert (answer.status, answer.json["error"]) == (400, "InvalidRequest"), path
        assert answer.json["message"] == "host is given more than once"


def test_the_password_opens_as_basic_and_as_bearer(web: Web) -> None:
    for header in (ADMIN["Authorization"], f"Bearer {PASSWORD}"):
        assert web.get("/admin/subs/getEnabled", Authorization=header).json == {"enabled": True}


def test_guessing_is_stopped(web: Web) -> None:
    headers = {"X-Forwarded-For": "198.51.100.9"}
    statuses = [
        call(f"{web.url}/admin/pds/list", headers={"Authorization": f"Bearer {guess}", **headers}).status
        for guess in range(11)
    ]
    assert statuses == [401] * 10 + [429]
    assert web.admin("/admin/pds/list").status == 200


@pytest.fixture
def pds(web: Web) -> Any:
    with FakePds() as pds:
        assert web.admin("/admin/pds/requestCrawl", {"hostname": pds.url}).json == SUCCESS
        until(lambda: web.hosts.connected() == [pds.hostname])
        yield pds


def listed(web: Web) -> dict[str, Any]:
    (host,) = web.admin("/admin/pds/list").json
    return host  # type: ignore[no-any-return]


def test_the_host_list_has_indigos_fields(web: Web, pds: FakePds) -> None:
    assert web.admin("/admin/subs/getUpstreamConns").json == [pds.hostname]
    host = listed(web)
    assert {name: host[name] for name in ("ID", "Host", "SSL", "Registered", "Blocked", "HasActiveConnection")} == {
        "ID": 1,
        "Host": pds.hostname,
        "SSL": False,
        "Registered": True,
        "Blocked": False,
        "HasActiveConnection": True,
    }
    assert (host["RepoLimit"], host["RepoCount"], host["UserCount"], host["CrawlRateLimit"]) == (100, 0, 0, 0)
    assert host["PerSecondEventRate"] == {"Max": 50, "Window": 1}
    assert host["PerHourEventRate"] == {"Max": 2600, "Window": 3600}
    assert host["PerDayEventRate"] == {"Max": 21000, "Window": 86400}
    assert host["CreatedAt"].endswith("Z") and host["AccountLimitAlertState"] == "ok"
    assert host["EventsSeenSinceStartup"] == 0 and host["AccountLimitAlertsSilenced"] is False


def test_a_host_is_disconnected_blocked_and_unblocked(web: Web, pds: FakePds) -> None:
    assert web.admin(f"/admin/subs/killUpstream?host={pds.hostname}", method="POST").json == SUCCESS
    until(lambda: not web.hosts.connected())
    assert listed(web)["PerSecondEventRate"]["Max"] == -1
    assert listed(web)["Status"] == "active" and listed(web)["Registered"] is True
    again = web.admin(f"/admin/subs/killUpstream?host={pds.hostname}", method="POST")
    assert (again.status, again.json["error"]) == (400, "NoActiveConnection")
    assert web.admin(f"/admin/pds/block?host={pds.hostname}", method="POST").json == SUCCESS
    assert listed(web)["Blocked"] is True
    refused = web.admin("/admin/pds/requestCrawl", {"hostname": pds.url})
    assert (refused.status, refused.json["error"]) == (400, "HostBanned")
    assert web.admin(f"/admin/pds/unblock?host={pds.hostname}", method="POST").json == SUCCESS
    until(lambda: web.hosts.connected() == [pds.hostname])
    assert web.admin(f"/admin/subs/killUpstream?host={pds.hostname}&block=true", method="POST").json == SUCCESS
    assert listed(web)["Blocked"] is True


def test_a_host_that_was_blocked_is_compared_once_it_is_unblocked(web: Web, pds: FakePds) -> None:
    """What was noted of its accounts is forgotten by then, and it keeps what it sent meanwhile as long as it likes."""
    reasons = "SELECT reason FROM heal_host"
    assert web.admin(f"/admin/pds/unblock?host={pds.hostname}", method="POST").json == SUCCESS
    web.projector.flush()
    assert web.db.read(lambda tx: tx.rows(reasons)) == [], "it was not blocked"
    for change in ("block", "unblock"):
        assert web.admin(f"/admin/pds/{change}?host={pds.hostname}", method="POST").json == SUCCESS
    web.projector.flush()
    assert web.db.read(lambda tx: tx.rows(reasons)) == [("unblocked",)]


def test_limits_change_at_once(web: Web, pds: FakePds) -> None:
    body = {"host": pds.hostname, "repo_limit": 5000, "per_second": 7, "per_hour": 8, "per_day": 9, "crawl_rate": 1}
    assert web.admin("/admin/pds/changeLimits", body).json == SUCCESS
    host = listed(web)
    assert host["RepoLimit"] == 5000
    assert [host[f"Per{tier}EventRate"]["Max"] for tier in ("Second", "Hour", "Day")] == [7, 8, 9]
    assert web.admin("/admin/pds/changeLimits", {"host": pds.hostname}).status == 400
    assert web.admin("/admin/pds/changeLimits", {"host": pds.hostname, "repo_limit": -1}).status == 400
    for tier in ("per_second", "per_hour", "per_day"):
        # It would hang for ever; blocking is for that.
        assert web.admin("/admin/pds/changeLimits", {"host": pds.hostname, tier: 0}).status == 400


def test_a_host_is_disconnected_and_blocked_also_between_two_connections(
    start_web: StartWeb, database: Database
) -> None:
    """For indigo a host is active while it is dialled: no answer depends on the moment, here or at a sibling."""
    add_hosts(database, 1)
    web = start_web(db=database)
    path = "/admin/subs/killUpstream?host=pds1.example.com"
    (host,) = list(web.registry)
    until(lambda: host.row.failures > 0)
    assert web.admin(path, method="POST").json == SUCCESS
    until(lambda: not web.hosts.follows("pds1.example.com"))
    assert web.admin(path, method="POST").status == 400
    assert web.admin(f"{path}&block=true", method="POST").json == SUCCESS
    assert [host["Blocked"] for host in web.admin("/admin/pds/list").json] == [True]
    assert web.admin(path, method="POST").status == 400
    unknown = web.admin("/admin/subs/killUpstream?host=pds9.example.com&block=true", method="POST")
    assert (unknown.status, unknown.json["error"]) == (404, "HostNotFound")


def test_what_the_list_shows_of_a_host_that_is_not_connected_changes_no_rate(
    start_web: StartWeb, database: Database
) -> None:
    """indigo's page sends all of a host's limits back when one of them is changed."""
    (host,) = add_hosts(database, 1)
    web = start_web(db=database)
    (shown,) = web.admin("/admin/pds/list").json
    rates = {f"per_{tier.lower()}": shown[f"Per{tier}EventRate"]["Max"] for tier in ("Second", "Hour", "Day")}
    assert set(rates.values()) == {-1}
    body = {"host": shown["Host"], "repo_limit": 700, **rates}
    assert web.admin("/admin/pds/changeLimits", body).json == SUCCESS
    row = web.db.read(hosts.by_id, host)
    assert row is not None
    assert (row.account_limit, row.per_second, row.per_hour, row.per_day) == (700, None, None, None)
    assert web.admin("/admin/pds/changeLimits", {"host": shown["Host"], **rates}).status == 400, "nothing is changed"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/pds/block?host=pds9.example.com", None),
        ("/admin/pds/unblock?host=pds9.example.com", None),
        ("/admin/pds/changeLimits", {"host": "pds9.example.com", "repo_limit": 1}),
        ("/admin/repo/takeDown", {"did": did(9)}),
        ("/admin/repo/reverseTakedown", {"did": did(9)}),
    ],
)
def test_what_is_unknown_is_not_found(web: Web, path: str, body: Any) -> None:
    assert web.admin(path, body, method="POST").status == 404


def test_a_hosts_cursor_is_read_and_set(web: Web, pds: FakePds) -> None:
    path = f"/admin/pds/cursor?host={pds.hostname}"
    assert web.admin(path).json == {"host": pds.hostname, "cursor": -1}
    for position, cursor in ((5, "5"), ("oldest", "0"), ("live", None)):
        pds.cursors.clear()
        assert web.admin("/admin/pds/cursor", {"host": pds.hostname, "cursor": position}).json == SUCCESS
        until(partial(contains, pds.cursors, cursor))
    wrong: object
    for wrong in (-1, 1.5, True, None, "5", "newest", [], 2**53):
        answer = web.admin("/admin/pds/cursor", {"host": pds.hostname, "cursor": wrong})
        assert (answer.status, answer.json["error"]) == (400, "InvalidRequest"), wrong
    assert web.admin("/admin/pds/cursor?host=none.example").status == 404
    assert web.admin("/admin/pds/cursor", {"host": "none.example", "cursor": 1}).status == 404


def test_a_domain_that_is_not_banned_is_not_unbanned(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "relay.audit"):
        answer = web.admin("/admin/subs/unbanDomain", {"Domain": "spammers.net"})
    assert (answer.status, answer.json["error"]) == (404, "BanNotFound")
    assert not [record for record in caplog.records if record.name == "relay.audit"]


@pytest.mark.parametrize("domain", ["spammers.net:8443", "https://spammers.net:8443/", "[2001:db8::1]:80"])
def test_a_ban_with_a_port_is_refused(web: Web, domain: str) -> None:
    answer = web.admin("/admin/subs/banDomain", {"Domain": domain})
    assert (answer.status, answer.json["error"]) == (400, "InvalidRequest")
    assert web.admin("/admin/subs/listDomainBans").json == {"banned_domains": []}


@pytest.mark.parametrize(
    "body", [{}, {"hostname": ""}, {"hostname": 5}, {"hostname": "no name"}, {"hostname": "localhost"}]
)
def test_a_crawl_request_of_an_admin_is_refused_by_indigos_name(web: Web, body: Any) -> None:
    answer = web.admin("/admin/pds/requestCrawl", body)
    assert (answer.status, answer.json["error"]) == (400, "BadRequest")


def test_a_host_is_added_by_the_address_of_its_firehose(web: Web) -> None:
    with FakePds() as pds:
        address = pds.url.replace("http://", "ws://") + "/xrpc/com.atproto.sync.subscribeRepos?cursor=0"
        assert web.admin("/admin/pds/requestCrawl", {"hostname": address}).json == SUCCESS
        until(lambda: web.hosts.connected() == [pds.hostname])


def test_domains_are_banned_as_people_write_them(web: Web) -> None:
    assert web.admin("/admin/subs/banDomain", {"Domain": "Spammers.Net."}).json == SUCCESS
    assert web.admin("/admin/subs/banDomain", {"domain": "spammers.net"}).json == SUCCESS
    assert web.admin("/admin/subs/listDomainBans").json == {"banned_domains": ["spammers.net"]}
    refused = call(f"{web.url}/xrpc/com.atproto.sync.requestCrawl", {"hostname": "pds.spammers.net"})
    assert (refused.status, refused.json["error"]) == (401, "HostBanned")
    assert web.admin("/admin/subs/unbanDomain", {"Domain": "spammers.net"}).json == SUCCESS
    assert web.admin("/admin/subs/listDomainBans").json == {"banned_domains": []}
    assert web.admin("/admin/subs/banDomain", {"Domain": "not a name"}).status == 400


def test_a_long_list_of_banned_domains_leaves_others_their_turn(web: Web) -> None:
    domains = [f"spammers-{number}.example.net" for number in range(50_000)]
    sql = "INSERT INTO domain_bans (created_at, domain) VALUES (?, ?)"
    web.db.write(lambda tx: tx.many(sql, [("2026-01-01 00:00:00", domain) for domain in domains]))
    began = time.thread_time()
    with holds() as longest:
        answer = web.admin("/admin/subs/listDomainBans")
    took = time.thread_time() - began
    assert answer.json == {"banned_domains": domains}
    assert longest[0] < took / 4


def test_a_takedown_is_announced_listed_and_undone(web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [("active", "active")])
    feed = web.firehose.attach(None)
    assert web.admin("/admin/repo/takeDown", {"did": account}).json == SUCCESS
    assert web.admin("/admin/repo/takedowns").json == {"dids": [account]}
    status = web.get(f"/xrpc/com.atproto.sync.getRepoStatus?did={account}").json
    assert status == {"did": account, "active": False, "status": "takendown"}
    assert web.admin("/admin/repo/reverseTakedown", {"did": account}).json == SUCCESS
    assert web.admin("/admin/repo/takedowns").json == {"dids": []}
    said = []
    for _ in range(2):
        chunk = feed.next(5)
        assert chunk is not None
        event = frames.decode(chunk[4:] if chunk[1] == 126 else chunk[2:])
        assert isinstance(event, Account)
        said.append((event.did, event.active, event.status))
    assert said == [(account, False, "takendown"), (account, True, None)]


def test_takedowns_page_by_500(web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    dids = add_accounts(web.db, host, [("takendown", "active")] * 501)
    first = web.admin("/admin/repo/takedowns").json
    second = web.admin(f"/admin/repo/takedowns?cursor={first['cursor']}").json
    assert first["dids"] + second["dids"] == dids and "cursor" not in second


def test_the_two_switches_are_kept(web: Web, start_web: StartWeb) -> None:
    assert web.admin("/admin/subs/perDayLimit").json == {"limit": 50}
    assert web.admin("/admin/subs/setPerDayLimit?limit=7", method="POST").json == SUCCESS
    assert web.admin("/admin/subs/setEnabled?enabled=false", method="POST").json == SUCCESS
    closed = call(f"{web.url}/xrpc/com.atproto.sync.requestCrawl", {"hostname": "pds.example.com"})
    assert (closed.status, closed.json["error"]) == (403, "Forbidden")
    restarted = start_web(db=web.db)
    assert restarted.admin("/admin/subs/getEnabled").json == {"enabled": False}
    assert restarted.admin("/admin/subs/perDayLimit").json == {"limit": 7}


def test_every_change_is_one_audit_line_that_nothing_can_break(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "relay.audit"):
        web.admin("/admin/subs/setPerDayLimit?limit=7", method="POST")
        web.admin("/admin/subs/banDomain", {"Domain": "spammers.net"})
        web.admin("/admin/subs/getEnabled")
        web.admin("/admin/subs/banDomain", {"Domain": "bad\nname"})
    lines = [record.getMessage() for record in caplog.records if record.name == "relay.audit"]
    assert lines == ["set-per-day-limit limit=7 by=127.0.0.1", 'ban-domain domain="spammers.net" by=127.0.0.1']


def test_siblings_hear_of_changes_once(start_web: StartWeb) -> None:
    second = start_web()
    # They name each other: without the loop mark, one change would go round for ever.
    first = start_web(sibling_relays=(second.url,))
    second.siblings._queues[first.url] = next(iter(first.siblings._queues.values()))
    assert first.admin("/admin/subs/banDomain", {"Domain": "spammers.net"}).json == SUCCESS
    until(lambda: second.admin("/admin/subs/listDomainBans").json == {"banned_domains": ["spammers.net"]})
    assert all(not len(queue) for queue in first.siblings._queues.values())


def test_memory_is_traced_only_when_the_operator_wants_it(web: Web) -> None:
    answer = web.admin("/admin/debug/memory")
    assert (answer.status, answer.json["error"]) == (400, "DebugMemoryOff")
    assert "RELAY_DEBUG_MEMORY" in answer.json["message"]


def test_where_the_memory_is_and_what_grew(web: Web) -> None:
    memory = MemoryDebug()
    try:
        client = create_app(replace(web.services, memory=memory)).test_client()
        first = client.get("/admin/debug/memory", headers=ADMIN).json
        kept = [bytes(1000) for _ in range(2000)]
        second = client.get("/admin/debug/memory", headers=ADMIN).json
    finally:
        memory.stop()
    assert first and second
    assert len(kept) == 2000
    assert first["grown_since_last_report"] == []
    grown = second["grown_since_last_report"][0]
    assert "test_admin_api.py" in grown["line"]
    assert grown["bytes"] > 2_000_000
    assert grown["count"] >= 2000
    assert any("test_admin_api.py" in entry["line"] for entry in second["lines"])
    assert second["objects"]["function"] > 1000
    assert second["queues"]["tail-bytes"]["capacity"] > 0
    assert second["resident_bytes"] > second["traced_bytes"]
    assert second["gc"]["thresholds"]


# Every route that changes something: path and query, body, the audit line's first word, whether siblings hear of it.
CHANGES: list[tuple[str, Any, str, bool]] = [
    ("/admin/subs/setEnabled?enabled=true", None, "set-enabled", False),
    ("/admin/subs/setPerDayLimit?limit=9", None, "set-per-day-limit", False),
    ("/admin/subs/banDomain", {"Domain": "spammers.net"}, "ban-domain", True),
    ("/admin/subs/unbanDomain", {"Domain": "spammers.net"}, "unban-domain", True),
    ("/admin/repo/takeDown", {"did": did(1)}, "takedown", True),
    ("/admin/repo/reverseTakedown", {"did": did(1)}, "reverse-takedown", True),
    ("/admin/pds/changeLimits", {"host": "HOST", "repo_limit": 7}, "change-limits", True),
    ("/admin/pds/cursor", {"host": "HOST", "cursor": "live"}, "set-cursor", False),
    ("/admin/pds/heal?host=HOST", None, "heal", False),
    ("/admin/alerts/accountLimitSent", {"kind": "warning", "hostID": 1, "hostname": "HOST"}, "alert-sent", False),
    ("/admin/subs/killUpstream?host=HOST", None, "disconnect", True),
    ("/admin/pds/requestCrawl", {"hostname": "HOST"}, "request-crawl", True),
    ("/admin/pds/block?host=HOST", None, "block", True),
    ("/admin/pds/unblock?host=HOST", None, "unblock", True),
    ("/admin/backfill-collections?source=HOST", {"collections": ["app.bsky.feed.post"]}, "backfill-begin", False),
]


def test_every_changing_route_leaves_one_audit_line_and_tells_siblings_where_indigo_does(
    web: Web, pds: FakePds, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_accounts(web.db, 1, [("active", "active")])
    forwarded: list[Forward | None] = []
    monkeypatch.setattr(web.siblings, "forward", forwarded.append)
    assert {path.partition("?")[0] for path, *_ in CHANGES} == {
        p for method, p in admin_routes(web) if method == "POST"
    }
    for path, body, action, told in CHANGES:
        caplog.clear()
        forwarded.clear()
        filled = body and {name: pds.hostname if value == "HOST" else value for name, value in body.items()}
        with caplog.at_level(logging.INFO, "relay.audit"):
            answer = web.admin(path.replace("HOST", pds.hostname), filled, method="POST")
        assert (answer.status, answer.json) == (200, SUCCESS), (path, answer.body)
        lines = [record.getMessage() for record in caplog.records if record.name == "relay.audit"]
        assert len(lines) == 1 and lines[0].startswith(f"{action} ") and lines[0].endswith(" by=127.0.0.1"), path
        assert len(forwarded) == told, path
        if told:
            assert forwarded[0] is not None and forwarded[0].target == path.replace("HOST", pds.hostname)
            assert forwarded[0].headers["Authorization"] == ADMIN["Authorization"]
        if action not in ("disconnect", "block"):
            until(lambda: web.hosts.connected() == [pds.hostname])


def test_a_crawl_request_that_is_refused_goes_to_no_sibling(
    web: Web, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may ask: what is refused here must not be multiplied."""
    forwarded: list[Forward | None] = []
    monkeypatch.setattr(web.siblings, "forward", forwarded.append)
    crawl = f"{web.url}/xrpc/com.atproto.sync.requestCrawl"
    web.admin("/admin/subs/banDomain", {"Domain": "spammers.net"})
    forwarded.clear()
    for hostname in ("no name", "pds.spammers.net", "localhost:1"):
        assert call(crawl, {"hostname": hostname}).status in (400, 401)
    assert forwarded == []
