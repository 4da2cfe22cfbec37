"""`/account/<name>` over a real database and a real host: every cause, as JSON and as a page, and its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import gevent
import pytest
from gevent.event import Event

from relay.atproto.crypto import parse_multikey
from relay.atproto.hostname import parse_endpoint
from relay.hosts.host import Host
from relay.identity.identity import Identity
from relay.store import hosts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.projection import ProjectionBatch
from relay.web.account_answers import AT_ONCE, AT_ONCE_PER_ADDRESS
from relay.web.account_report import AccountReport, AccountReports
from tests.support.accounts import COMMIT
from tests.support.dash import DashAdmin, text_of
from tests.support.fixtures import StartWeb
from tests.support.http import Answer
from tests.support.pds import FakePds
from tests.support.repo import SigningKey, account_did
from tests.support.wait import until
from tests.support.web import ADMIN, DID, PASSWORD, Web

KEY = SigningKey.create()
ADDRESSES = count(1)
OLD, NEW = "3labcdefghi2a", "3labcdefghi2b"


@pytest.fixture
def pds() -> Iterator[FakePds]:
    with FakePds() as host:
        host.repo_status[DID] = {"did": DID, "active": True, "rev": NEW}
        yield host


def registered(web: Web, pds: FakePds, handle: str | None = "user.test") -> None:
    web.identities[DID] = Identity(DID, parse_endpoint(pds.url), parse_multikey(KEY.multikey), handle)


def connected(web: Web, pds: FakePds) -> Host:
    registered(web, pds)
    web.admin("/admin/pds/requestCrawl", {"hostname": pds.url})
    until(lambda: web.hosts.connected() == [pds.hostname])
    host = web.registry.by_name(pds.hostname)
    assert host is not None
    return host


def known(web: Web, host_id: int, status: str = "active", upstream: str = "active", rev: str | None = NEW) -> None:
    repos = {} if rev is None else {1: RepoRow(1, rev, COMMIT, COMMIT)}
    accounts = {1: AccountRow(1, DID, host_id, status, upstream)}
    web.db.write(projection.write, ProjectionBatch(0, 0, accounts=accounts, repos=repos))


def limit(web: Web, host: Host, account_limit: int) -> None:
    web.hosts.change_limits(host.hostname, account_limit=account_limit, rates={}, alerts_silenced=None)


def view(web: Web, name: str = DID) -> dict[str, Any]:
    web.services.account_answers.forget(name)
    # Each from an address of its own, whose share is not used up.
    answer = web.get(f"/account/{name}", **{"X-Forwarded-For": f"198.51.100.{next(ADDRESSES)}"})
    assert answer.status == 200, answer.body
    found = answer.json
    assert isinstance(found, dict)
    return found


def test_a_host_that_is_not_known_can_be_crawled_by_the_button(web: Web, pds: FakePds) -> None:
    registered(web, pds)
    found = view(web)
    assert (found["cause"], found["canRequestCrawl"], found["pds"]) == ("host-unknown", True, pds.hostname)
    page = web.get(f"/account/{DID}", Accept="text/html").body.decode()
    assert f'action="/account/{DID}/crawl"' in page and "does not know the account" in page
    pressed = web.admin(f"/account/{DID}/crawl", b"")
    # Loopback is for admins: what the relay says to that is shown, and nothing is a crash.
    assert pressed.status == 200 and pressed.json["cause"] == "host-unknown"


def test_an_account_in_step_and_one_behind(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    assert view(web)["cause"] == "never-seen"
    known(web, host.id)
    found = view(web)
    assert (found["cause"], found["here"], found["there"]["rev"]) == (
        "in-step",
        {"active": True, "status": None, "rev": NEW},
        NEW,
    )
    assert found["host"]["connected"] is True and found["canRequestCrawl"] is False
    pds.repo_status[DID]["rev"] = "3lzzzzzzzzz2a"
    web.registry.rejected.add(host.id, 1e9, "signature-invalid", "k256 key", DID, 7, 3, b"abc")
    web.registry.rejected.add(host.id, 1e9, "signature-invalid", "k256 key", "did:plc:" + "b" * 24, 8, 3, b"abc")
    found = view(web)
    assert found["cause"] == "behind" and NEW in found["summary"] and "3lzzzzzzzzz2a" in found["summary"]
    assert [(frame["reason"], frame["seq"]) for frame in found["rejected"]] == [("signature-invalid", 7)]
    assert found["rejected"][0]["rule"] and "rejected" in found["advice"]
    pds.repo_status[DID]["rev"] = OLD
    assert view(web)["cause"] == "pds-behind"


def test_what_a_pds_says_of_an_account(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    known(web, host.id, upstream="deactivated")
    assert view(web)["cause"] == "status-outdated"
    pds.repo_status[DID] = {"did": DID, "active": False, "status": "deactivated"}
    found = view(web)
    assert found["cause"] == "inactive-at-pds" and "deactivated" in found["summary"]
    pds.repo_status[DID] = {"did": DID, "active": "yes"}
    web.db.write(lambda tx: tx.execute("UPDATE account SET upstream_status = 'active'"))
    assert view(web)["cause"] == "pds-silent"


def test_an_account_that_its_pds_does_not_have(web: Web, pds: FakePds) -> None:
    registered(web, pds)
    pds.answers["getRepoStatus"] = lambda _: (400, b'{"error": "RepoNotFound", "message": "Could not find repo"}')
    assert view(web)["cause"] == "not-at-pds"
    known(web, connected(web, pds).id)
    found = view(web)
    assert found["cause"] == "not-at-pds" and pds.hostname in found["summary"]


def test_a_pds_is_asked_for_a_did_as_it_is_written(web: Web, pds: FakePds) -> None:
    did = "did:web:localhost%3A4321"
    web.identities[did] = Identity(did, parse_endpoint(pds.url), parse_multikey(KEY.multikey), None)
    pds.repo_status[did] = {"did": did, "active": False, "status": "deactivated"}
    found = view(web, did.replace("%", "%25"))
    assert (found["did"], found["cause"]) == (did, "inactive-at-pds")


def test_limits_blocks_and_lost_connections(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    limit(web, host, 3)
    host.account_count = 3
    assert view(web)["cause"] == "account-limit"
    limit(web, host, 100)
    known(web, host.id, status="host-throttled")
    assert view(web)["cause"] == "account-limit"
    pds.refuse_upgrade = 503
    web.db.write(lambda tx: tx.execute("UPDATE account SET status = 'active'"))
    pds.hang_up()
    until(lambda: not host.connected and "503" in (host.row.last_error or ""))
    found = view(web)
    assert found["cause"] == "host-not-connected" and "503" in found["host"]["lastError"]
    assert found["host"]["lastConnected"] and found["canRequestCrawl"] is True
    web.hosts.block(pds.hostname)
    found = view(web)
    assert (found["cause"], found["canRequestCrawl"]) == ("host-blocked", False)
    refused = web.admin(f"/account/{DID}/crawl", b"")
    assert refused.status == 400


def test_a_takedown_is_said_to_be_no_service_and_nothing_more(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    known(web, host.id, status="takendown")
    found = view(web)
    assert found["cause"] == "not-served" and found["summary"] == "The account is not served by this relay."
    assert [found[part] for part in ("pds", "here", "there", "host", "rejected")] == [None, None, None, None, []]


def test_an_account_that_moved_here_from_another_host(web: Web, pds: FakePds) -> None:
    connected(web, pds)
    former = web.registry.add(
        web.db.write(hosts.insert, "old.example.com", no_ssl=False, account_limit=1, trusted=False)
    )
    known(web, former.id)
    assert view(web)["cause"] == "moved"


def test_handles_and_documents(web: Web, pds: FakePds) -> None:
    registered(web, pds)
    web.texts["_atproto.user.test"] = ["v=spf1", f"did={DID}"]
    assert view(web, "user.test")["cause"] == "host-unknown"
    assert view(web, "@User.Test")["did"] == DID
    web.texts["_atproto.other.test"] = [f"did={DID}"]
    found = view(web, "other.test")
    assert found["cause"] == "handle-mismatch" and "user.test" in found["summary"]
    web.texts["_atproto.two.test"] = [f"did={DID}", "did=did:plc:" + "b" * 24]
    assert view(web, "two.test")["cause"] == "handle-unresolved"
    gone = view(web, "did:plc:" + "c" * 24)
    assert gone["cause"] == "did-not-found" and gone["host"] is None
    web.identities[DID] = Identity(DID, None, None, None)
    assert view(web)["cause"] == "no-pds"
    web.identities[DID] = Identity(DID, parse_endpoint(pds.url), None, None)
    assert view(web)["cause"] == "no-signing-key"
    for name in ("nothing", "did:web:a.test:path", "x" * 3000):
        assert web.get(f"/account/{name}").json["error"] == "InvalidRequest"


def test_answers_are_kept_and_each_address_has_its_share(web: Web, pds: FakePds) -> None:
    registered(web, pds)
    asked = [web.get(f"/account/{DID}").status for _ in range(30)]
    assert asked == [200] * 30
    assert len([line for line in pds.requests if "getRepoStatus" in line]) == 1
    statuses = [web.get(f"/account/did:plc:{letter * 24}").status for letter in "abcdefghijklmn"]
    assert statuses[0] == 200 and statuses[-1] == 429
    # What is kept costs nothing.
    assert web.get(f"/account/{DID}").status == 200


def test_who_names_silent_servers_keeps_neither_others_nor_admins_waiting(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked, real = Event(), list[str](), AccountReports.report

    def report(reports: AccountReports, name: str) -> AccountReport:
        asked.append(name)
        go_on.wait(60)
        return real(reports, name)

    monkeypatch.setattr(AccountReports, "report", report)

    def ask(number: int, **headers: str) -> Answer:
        return web.get(f"/account/{account_did(number)}", **headers)

    addresses = [f"198.51.100.{number // AT_ONCE_PER_ADDRESS}" for number in range(AT_ONCE)]
    public = [gevent.spawn(ask, number, **{"X-Forwarded-For": one}) for number, one in enumerate(addresses)]
    until(lambda: len(asked) == AT_ONCE)
    assert ask(100, **{"X-Forwarded-For": addresses[0]}).status == 429
    admin = gevent.spawn(ask, 101, **ADMIN)
    until(lambda: len(asked) == AT_ONCE + 1)
    go_on.set()
    gevent.joinall([*public, admin], raise_error=True)
    assert {one.get().status for one in (*public, admin)} == {200}


def test_no_private_address_is_contacted(start_web: StartWeb, pds: FakePds) -> None:
    web = start_web(allow_insecure_hosts=False)
    for address in (pds.url, pds.url.replace("http:", "https:"), "https://127.0.0.1:" + pds.hostname[10:]):
        web.identities[DID] = Identity(DID, parse_endpoint(address), parse_multikey(KEY.multikey), None)
        assert view(web)["there"]["failure"]
    assert view(web)["there"]["failure"] == "address-refused", "and no address is told"
    web.texts["_atproto.local.test"] = []
    assert view(web, "local.test")["cause"] == "handle-unresolved"
    assert pds.requests == []


def test_strangers_are_not_told_to_which_address_a_name_leads(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    known(web, host.id)
    host.note_error("address-refused: pds.example.com is 10.0.0.5", 1.0)
    for path in (f"/account/{DID}", f"/host/{pds.hostname}"):
        shown = web.get(path).body
        assert b'"address-refused"' in shown and b"10.0.0.5" not in shown
    assert "10.0.0.5" in web.admin("/admin/pds/list").json[0]["LastError"]


def test_the_page_is_safe_to_show(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    known(web, host.id, rev=OLD)
    pds.repo_status[DID] = {"did": DID, "active": False, "status": "<script>alert(1)</script>"}
    page = web.get(f"/account/{DID}", Accept="text/html")
    assert b"<script>" not in page.body and b"&lt;script" in page.body
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(("name", "shown"), [("InternalError", True), ("\ud800", False), ("a\nb", False)])
def test_what_a_pds_calls_its_error_is_shown_only_if_a_page_can_show_it(
    web: Web, pds: FakePds, name: str, shown: bool
) -> None:
    host = connected(web, pds)
    known(web, host.id)
    pds.answers["getRepoStatus"] = lambda _: (400, json.dumps({"error": name}).encode())
    assert view(web)["cause"] == "pds-silent"
    page = web.get(f"/account/{DID}", Accept="text/html")
    assert page.status == 200 and "HTTP 400" in text_of(page.body)
    assert (name in text_of(page.body)) is shown


def test_the_dashboard_says_why_in_the_same_words(web: Web, pds: FakePds) -> None:
    host = connected(web, pds)
    known(web, host.id, rev=OLD)
    admin = DashAdmin(web.url)
    admin.log_in(PASSWORD)
    shown = admin.get(f"/dash/accounts?did={DID}").body.decode()
    (source,) = re.findall(r'id="why" data-from="([^"]+)"', shown)
    page = admin.page(source)
    assert f"This relay is behind: it has the rev {OLD}" in page and NEW in page and "Cause behind" in page
    # A handle leads there, too, and is asked about as often as the admin likes.
    web.texts["_atproto.user.test"] = [f"did={DID}"]
    answer = admin.get("/dash/accounts?did=user.test")
    assert (answer.status, answer.headers["Location"]) == (303, "/dash/accounts/why?name=user.test")
    assert "This relay is behind" in admin.page(answer.headers["Location"])
    for _ in range(30):
        web.services.account_answers.forget(DID)
        assert admin.get(source).status == 200
    assert admin.get("/dash/accounts/why?name=nobody").status == 400
