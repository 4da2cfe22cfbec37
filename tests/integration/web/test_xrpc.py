"""The queries on both databases: what they answer, how they page, what they call what is missing."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from relay.store import hosts
from relay.store.database import Database
from tests.support.accounts import COMMIT, REV, add_accounts, add_hosts, did
from tests.support.fixtures import StartWeb
from tests.support.http import call
from tests.support.pds import FakePds
from tests.support.repo import frame
from tests.support.wait import until
from tests.support.web import Web

SYNC = "/xrpc/com.atproto.sync."


@pytest.fixture
def web(start_web: StartWeb, database: Database) -> Web:
    return start_web(db=database)


def pages(web: Web, path: str, name: str, limit: int) -> list[list[Any]]:
    """Every page of a list, and that only the last has no cursor."""
    found, cursor = [], ""
    while True:
        answer = web.get(f"{path}?limit={limit}&cursor={quote(cursor)}").json
        found.append(answer[name])
        if "cursor" not in answer:
            return found
        assert len(answer[name]) == limit
        cursor = answer["cursor"]


def test_list_hosts_pages_by_any_size(web: Web) -> None:
    add_hosts(web.db, 5)
    names = [f"pds{number}.example.com" for number in range(1, 6)]
    for limit in (1, 2, 5, 1000):
        listed = [host for page in pages(web, f"{SYNC}listHosts", "hosts", limit) for host in page]
        assert [host["hostname"] for host in listed] == names
    assert listed[0] == {"hostname": names[0], "seq": 1001, "status": "active", "accountCount": 0}
    assert web.get(f"{SYNC}listHosts").json["hosts"] == listed


def test_lists_of_nothing_are_empty_and_have_no_cursor(web: Web) -> None:
    assert web.get(f"{SYNC}listHosts").json == {"hosts": []}
    assert web.get(f"{SYNC}listRepos").json == {"repos": []}
    assert web.get(f"{SYNC}listRepos?cursor=9007199254740991").json == {"repos": []}


def test_of_a_parameter_that_is_repeated_the_first_counts(web: Web) -> None:
    add_hosts(web.db, 3)
    listed = web.get(f"{SYNC}listHosts?limit=1&limit=x&cursor=1&cursor=2").json
    assert [host["hostname"] for host in listed["hosts"]] == ["pds2.example.com"]
    answer = web.get(f"{SYNC}getHostStatus?hostname=pds3.example.com&hostname=pds1.example.com")
    assert answer.json["hostname"] == "pds3.example.com"
    assert web.get(f"{SYNC}listHosts?limit=x&limit=1").status == 400


@pytest.mark.parametrize("name", ["pds2.example.com", "PDS2.Example.com.", "https://pds2.example.com/"])
def test_host_status_takes_a_name_as_people_write_it(web: Web, name: str) -> None:
    add_hosts(web.db, 2)
    answer = web.get(f"{SYNC}getHostStatus?hostname={quote(name, safe='')}")
    assert answer.json == {"hostname": "pds2.example.com", "seq": 1002, "status": "active", "accountCount": 0}


def test_an_unknown_host_is_not_found(web: Web) -> None:
    answer = web.get(f"{SYNC}getHostStatus?hostname=pds9.example.com")
    assert (answer.status, answer.json["error"]) == (404, "HostNotFound")


def test_list_repos_shows_active_accounts_with_a_repo(web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    dids = add_accounts(
        web.db,
        host,
        [("active", "active"), ("takendown", "active"), ("active", "deactivated"), ("active", "active")],
    )
    for limit in (1, 2, 500):
        listed = [repo for page in pages(web, f"{SYNC}listRepos", "repos", limit) for repo in page]
        assert listed == [
            {"did": wanted, "head": str(COMMIT), "rev": REV, "active": True} for wanted in (dids[0], dids[3])
        ]


STATUSES = [
    (("active", "active"), None, 200, ""),
    (("takendown", "active"), "takendown", 403, "RepoTakendown"),
    (("takendown", "deleted"), "takendown", 403, "RepoTakendown"),
    (("active", "takendown"), "takendown", 403, "RepoTakendown"),
    (("active", "suspended"), "suspended", 403, "RepoSuspended"),
    (("active", "deactivated"), "deactivated", 403, "RepoDeactivated"),
    (("active", "deleted"), "deleted", 404, "RepoNotFound"),
    (("host-throttled", "active"), "throttled", 404, "RepoNotFound"),
    (("active", "desynchronized"), "desynchronized", 404, "RepoNotFound"),
    (("active", "inactive"), "inactive", 404, "RepoNotFound"),
]


@pytest.mark.parametrize(("both", "status", "http_status", "error"), STATUSES)
def test_an_account_is_told_as_its_status_here(
    web: Web, both: tuple[str, str], status: str | None, http_status: int, error: str
) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [both])
    shown = web.get(f"{SYNC}getRepoStatus?did={account}").json
    if status is None:
        assert shown == {"did": account, "active": True, "rev": REV}
        assert web.get(f"{SYNC}getLatestCommit?did={account}").json == {"cid": str(COMMIT), "rev": REV}
    else:
        assert shown == {"did": account, "active": False, "status": status}
        answer = web.get(f"{SYNC}getLatestCommit?did={account}")
        assert (answer.status, answer.json["error"]) == (http_status, error)


def test_an_account_without_a_commit_is_not_synchronized(web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [("active", "active")], with_repo=False)
    assert web.get(f"{SYNC}getRepoStatus?did={account}").json == {"did": account, "active": True}
    answer = web.get(f"{SYNC}getLatestCommit?did={account}")
    assert (answer.status, answer.json["error"]) == (404, "RepoNotFound")


@pytest.mark.parametrize("method", ["getRepoStatus", "getLatestCommit", "getRepo"])
def test_an_unknown_account_is_not_found(web: Web, method: str) -> None:
    answer = web.get(f"{SYNC}{method}?did={did(7)}")
    assert (answer.status, answer.json["error"]) == (404, "RepoNotFound")


def test_get_repo_sends_to_the_accounts_host_with_the_same_query(web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    active, taken_down = add_accounts(web.db, host, [("active", "active"), ("takendown", "active")])
    query = f"did={quote(active, safe='')}&since={REV}"
    answer = web.get(f"{SYNC}getRepo?{query}")
    assert answer.status == 302
    assert answer.headers["Location"] == f"https://pds1.example.com{SYNC}getRepo?{query}"
    refused = web.get(f"{SYNC}getRepo?did={taken_down}")
    assert (refused.status, refused.json["error"]) == (403, "RepoTakendown")


def test_request_crawl_subscribes_and_refuses_by_name(web: Web) -> None:
    with FakePds() as pds:
        local = call(f"{web.url}{SYNC}requestCrawl", {"hostname": pds.url})
        assert (local.status, local.json["error"]) == (400, "InvalidRequest")
        assert web.admin("/admin/pds/requestCrawl", {"hostname": pds.url}).json == {"success": "true"}
        until(lambda: web.hosts.connected() == [pds.hostname])
    bodies: list[Any] = [{}, {"hostname": 1}, {"hostname": ""}, [], "x"]
    for body in bodies:
        answer = call(f"{web.url}{SYNC}requestCrawl", body)
        assert (answer.status, answer.json["error"]) == (400, "InvalidRequest")


def test_unknown_methods_wrong_verbs_and_unknown_paths(web: Web) -> None:
    for path in (f"{SYNC}getBlob", "/xrpc/com.example.thing", "/xrpc/", "/xrpc/%00", "/xrpc/a/b"):
        bodies: list[Any] = [None, {}]
        for body in bodies:
            answer = call(web.url + path, body)
            assert (answer.status, answer.json["error"]) == (501, "MethodNotImplemented"), path
    wrong = call(f"{web.url}{SYNC}listRepos", {})
    assert (wrong.status, wrong.json["error"]) == (405, "MethodNotAllowed")
    assert set(wrong.headers["Allow"].split(", ")) >= {"GET", "HEAD"}
    for method in ("PUT", "PATCH", "DELETE"):
        for path in ("listRepos", "subscribeRepos", "requestCrawl"):
            wrong = call(f"{web.url}{SYNC}{path}", method=method)
            assert (wrong.status, wrong.json["error"]) == (405, "MethodNotAllowed"), (method, path)
    assert call(f"{web.url}{SYNC}requestCrawl").status == 405
    unknown = web.get("/no/such/page")
    assert (unknown.status, unknown.json["error"]) == (404, "NotFound")


def test_every_answer_is_open_to_browsers_and_names_the_relay(web: Web) -> None:
    for path in ("/", f"{SYNC}listRepos", f"{SYNC}nothing", "/_health", "/nowhere"):
        headers = web.get(path).headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Server"].endswith("(atproto-relay)")
    preflight = call(f"{web.url}{SYNC}listRepos", method="OPTIONS")
    assert preflight.status == 204
    allowed = preflight.headers["Access-Control-Allow-Headers"].split(", ")
    # Of others than Authorization the star is enough, such as `atproto-accept-labelers`.
    assert {"*", "Authorization"} <= set(allowed)


def test_a_body_above_the_limit_is_refused(web: Web) -> None:
    answer = call(f"{web.url}{SYNC}requestCrawl", b"x" * 70_000)
    assert (answer.status, answer.json["error"]) == (413, "PayloadTooLarge")


def test_a_database_that_is_away_is_an_error_with_a_name(web: Web) -> None:
    web.db.close()
    for path in (f"{SYNC}listRepos", f"{SYNC}getRepoStatus?did={did(1)}"):
        answer = web.get(path)
        assert (answer.status, answer.json["error"]) == (500, "DatabaseError")


def test_a_fault_of_ours_tells_nothing_of_itself(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.xrpc._host_view", lambda row: 1 / 0)
    add_hosts(web.db, 1)
    answer = web.get(f"{SYNC}listHosts")
    assert (answer.status, answer.json) == (
        500,
        {"error": "InternalServerError", "message": "Internal Server Error"},
    )


def test_health_ready_and_alive(web: Web) -> None:
    for path in ("/_health", "/xrpc/_health", "/_healthz", "/_readyz"):
        assert (web.get(path).status, web.get(path).json) == (200, {"status": "ok"})
    asked = {role: web.get(f"/_readyz?role={role}") for role in ("", "relay", "edge", "activ")}
    assert [answer.status for answer in asked.values()] == [200, 200, 503, 400]
    assert asked["edge"].json == {"status": "error", "msg": "the role is relay"}
    assert asked["activ"].json["error"] == "InvalidRequest"
    web.problem = "log: disk full"
    for path in ("/_health", "/xrpc/_health"):
        assert (web.get(path).status, web.get(path).json) == (500, {"status": "error", "msg": "log: disk full"})
    assert web.get("/_readyz").status == web.get("/_healthz").status == 200
    web.db.close()
    assert web.get("/_readyz").status == 503
    assert web.get("/_health").status == 500
    assert web.get("/_healthz").status == 200


def test_the_host_page_shows_what_was_rejected(web: Web) -> None:
    host = web.registry.add(
        web.db.write(hosts.insert, "pds1.example.com", no_ssl=False, account_limit=1, trusted=False)
    )
    broken = frame("#identity", {"seq": 2, "did": "did:web:abc.test", "time": "<script>"}).replace(b"abc", b"\xff\xfea")
    web.registry.rejected.add(host.id, 1e9, "frame-encoding", "not <b>UTF-8</b>", None, None, len(broken), broken)
    (shown,) = web.get("/host/pds1.example.com").json["rejected"]
    assert shown["at"] == "2001-09-09T01:46:40Z" and shown["size"] == len(broken)
    assert shown["rule"] == "The payload is DRISL-CBOR." and shown["specification"].endswith("/data-model")
    assert "text that is not UTF-8" in shown["shown"] and "'seq': 2" in shown["shown"] and "frame" not in shown
    page = web.get("/host/pds1.example.com", Accept="text/html").body
    assert b"The payload is DRISL-CBOR." in page and b"<script>" not in page and b"<b>" not in page
    path = f"/admin/pds/rejected?host=pds1.example.com&id={shown['id']}"
    assert web.get(path).status == 401
    assert web.admin(path).body == broken
    assert web.admin(path).headers["Content-Type"] == "application/octet-stream"
    assert web.admin("/admin/pds/rejected?host=pds1.example.com&id=99").json["error"] == "FrameNotFound"
    assert web.admin("/admin/pds/rejected?host=pds1.example.com&id=x").status == 400


def test_the_host_page_says_why_in_json_and_in_html(web: Web) -> None:
    with FakePds() as pds:
        web.admin("/admin/pds/requestCrawl", {"hostname": pds.url})
        until(lambda: web.hosts.connected() == [pds.hostname])
        view = web.get(f"/host/{pds.hostname}").json
        assert view["connected"] is True and view["status"] == "active" and view["advice"]
        assert (view["accountLimit"], view["eventsPerSecond"], view["droppedLastDay"]) == (100, 50, {})
        assert view["lastTried"] and view["lastConnected"] and view["lastError"] is None
        host = web.registry.by_name(pds.hostname)
        assert host is not None
        host.drops.note("signature-invalid", time.time())
        page = web.get(f"/host/{pds.hostname}", Accept="text/html,*/*;q=0.8")
        pds.refuse_upgrade = 503
        pds.hang_up()
        until(lambda: "503" in (web.get(f"/host/{pds.hostname}").json["lastError"] or ""))
        view = web.get(f"/host/{pds.hostname}").json
        assert view["droppedLastDay"] == {"signature-invalid": 1}
        assert view["lastErrorAt"] and view["nextTry"] and "upgrades" in view["advice"]
    assert page.headers["Content-Type"].startswith("text/html")
    assert pds.hostname.encode() in page.body and b"<script>" not in page.body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert web.get("/host/pds9.example.com").json["error"] == "HostNotFound"
    assert web.get("/host/%3Cscript%3E", Accept="text/html").status == 404
