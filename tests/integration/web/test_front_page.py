"""`/`: a page for browsers, indigo's banner for programs; what it tells costs little, and what it shows is text."""

from __future__ import annotations

import html
import re
import sys
from dataclasses import fields, replace
from urllib.parse import urlencode

import pytest
from gevent import subprocess

from relay.edge.routes import create_edge_app
from relay.hosts.hosts import Hosts
from relay.net.http import SERVER
from relay.web.public_page import HEADERS
from relay.web.services import Services
from tests.support.dash import text_of
from tests.support.fixtures import StartWeb
from tests.support.http import Answer, call
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.pds import FakePds
from tests.support.wait import until
from tests.support.web import DID, Web

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BANNER = f"""{SERVER}

This is a relay of the AT Protocol network.

  firehose: /xrpc/com.atproto.sync.subscribeRepos
  health:   /xrpc/_health
"""
EVIL = '"><script>alert(1)</script>'


def page(web: Web, **headers: str) -> Answer:
    answer = web.get("/", Accept=BROWSER, **headers)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    return answer


def crawl(web: Web, hostname: str, **headers: str) -> Answer:
    form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    return call(f"{web.url}/crawl", urlencode({"hostname": hostname}).encode(), headers=form)


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "application/json", "text/*", "text/html;q=0", "x", "\xff"]
)
def test_programs_get_the_banner(web: Web, accept: str) -> None:
    answer = web.get("/", **({"Accept": accept} if accept else {}))
    assert (answer.status, answer.body.decode()) == (200, BANNER)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Vary"] == "Accept"


def test_a_long_list_of_what_is_accepted_is_not_taken_apart(web: Web) -> None:
    for path, media_type in (("/", "text/plain"), ("/host/x.example", "application/json")):
        answer = web.get(path, Accept="text/html," + "a/b," * 3000)
        assert answer.headers["Content-Type"].startswith(media_type)


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "text/html, */*;q=0.1"])
def test_browsers_get_a_page_under_a_strict_policy(web: Web, accept: str) -> None:
    answer = web.get("/", Accept=accept)
    body = answer.body.decode()
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert body.startswith("<!doctype html>")
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", body)
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', body):
        assert web.get(path).status == 200
    assert call(f"{web.url}/", method="HEAD", headers={"Accept": accept}).status == 200


def test_it_says_how_to_consume_and_who_runs_it(start_web: StartWeb) -> None:
    web = start_web(
        operator_name="Example & Co", operator_contact="relay@example.com", terms_url="https://example.com/terms"
    )
    web.publish(7)
    answer = page(web)
    body, text = answer.body.decode(), text_of(answer.body)
    here = web.url.removeprefix("http://")
    assert f"goat firehose --relay-host http://{here}" in text
    assert f"ws://{here}/xrpc/com.atproto.sync.subscribeRepos" in text
    assert "the newest number is 7" in text and "/subscribe" not in text
    assert "Operator Example & Co" in text and 'href="mailto:relay@example.com"' in body
    assert 'href="https://example.com/terms"' in body
    assert "Who runs it" not in text_of(page(start_web()).body)
    assert "/subscribe?wantedCollections" in text_of(page(start_web(json_stream=True)).body)


def test_the_python_of_the_page_prints_events(web: Web) -> None:
    shown = re.findall(r"<code>(.*?)</code>", page(web).body.decode(), re.DOTALL)
    (program,) = [html.unescape(code) for code in shown if "import" in code]
    child = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE)
    try:
        until(lambda: len(list(web.services.consumers)) == 1, timeout=60)
        web.publish()
        assert child.stdout
        assert DID.encode() in child.stdout.readline()
    finally:
        child.kill()
        child.wait(timeout=30)


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("https://example.com/contact", 'href="https://example.com/contact"'),
        ("@relay.example.com on Bluesky", None),
        ("javascript:alert(1)@a.b", None),
        (EVIL, None),
    ],
)
def test_a_contact_is_a_link_where_it_can_be_one(start_web: StartWeb, contact: str, link: str | None) -> None:
    body = page(start_web(operator_contact=contact, operator_name=EVIL)).body.decode()
    assert "<script>" not in body
    contacts = re.findall(r"<dt>Contact</dt><dd>(.*?)</dd>", body)
    assert [link in one if link else "<a" not in one for one in contacts] == [True]


def test_addresses_follow_the_proxy_and_hostile_ones_are_not_shown(web: Web) -> None:
    secure = page(web, Host="relay.example.com", **{"X-Forwarded-Proto": "https"})
    assert "wss://relay.example.com/xrpc/com.atproto.sync.subscribeRepos" in text_of(secure.body)
    for host in ("a\"onclick='x'", "<b>", "a b", "x" * 300):
        answer = web.get("/", Accept=BROWSER, Host=host)
        if answer.status == 200:
            assert b"ws://relay.example.com" in answer.body and b"<b>" not in answer.body


def test_its_figures_are_gathered_once_however_many_ask(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []
    search = Hosts.search

    def counted(hosts: Hosts, query: object) -> object:
        gathered.append(query)
        return search(hosts, query)  # type: ignore[arg-type]

    now = 1000.0
    monkeypatch.setattr(Hosts, "search", counted)
    monkeypatch.setattr("relay.web.front_page.time.monotonic", lambda: now)
    for _ in range(20):
        page(web)
    assert len(gathered) == 1
    now += 5.0
    page(web)
    assert len(gathered) == 2
    # SQL is not asked at all.
    web.db.close()
    assert "Hosts connected" in text_of(page(web).body)


def test_a_pds_is_crawled_by_the_form_as_by_the_api(web: Web) -> None:
    with FakePds() as pds:
        # Loopback is for admins: the checks are those of requestCrawl.
        api = call(f"{web.url}/xrpc/com.atproto.sync.requestCrawl", {"hostname": pds.url})
        answer = crawl(web, f" {pds.url} ", Accept=BROWSER, Origin=web.url)
        assert answer.status == api.status == 400
        text = text_of(answer.body)
        assert f"Not taken: {api.json['message']}." in text
        assert f'value="{pds.url}"' in answer.body.decode()
        program = crawl(web, pds.url)
        assert (program.status, program.json) == (400, api.json)


def test_what_the_form_grants_is_connected_and_leads_to_its_page(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakePds() as pds:
        granted = type(web.hosts.new_hosts).request
        monkeypatch.setattr(
            type(web.hosts.new_hosts), "request", lambda hosts, name, **_: granted(hosts, name, admin=True)
        )
        answer = crawl(web, pds.url, Accept=BROWSER, **{"Sec-Fetch-Site": "same-origin"})
        assert answer.status == 200 and f"The relay connects to {pds.hostname}." in text_of(answer.body)
        (path,) = re.findall(r'href="(/host/[^"]+)"', answer.body.decode())
        until(lambda: web.hosts.connected() == [pds.hostname])
        assert web.get(path, Accept="text/html").status == 200
        assert crawl(web, pds.url).status == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}], ids=str
)
def test_a_form_of_another_site_crawls_nothing(web: Web, headers: dict[str, str]) -> None:
    for path in ("/crawl", "/account/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/crawl"):
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        answer = call(web.url + path, b"hostname=pds.invalid", headers=form)
        assert answer.status == 403 and answer.json["error"] == "Forbidden"


@pytest.mark.parametrize("hostname", ["", EVIL, "x" * 5000, "\0", "not a name", "localhost"])
def test_what_is_no_host_is_told_as_text(web: Web, hostname: str) -> None:
    answer = crawl(web, hostname, Accept=BROWSER, Origin=web.url)
    assert answer.status == 400 and "Not taken:" in text_of(answer.body)
    assert b"<script>" not in answer.body and len(answer.body) < 20_000


def test_a_form_that_is_too_large_is_not_taken_apart(web: Web) -> None:
    assert crawl(web, "x" * 9000).status == 413


def test_no_form_is_shown_while_new_hosts_are_not_taken(web: Web) -> None:
    assert b'action="/crawl' in page(web).body
    web.hosts.new_hosts.crawl_enabled = False
    assert b'action="/crawl' not in page(web).body
    assert crawl(web, "pds.example.com", Accept=BROWSER, Origin=web.url).status == 403


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/account/nobody", 400, "that is neither a DID nor a handle"),
        ("/account?name=", 400, "name is required"),
        ("/host/none.example", 404, "no such host is known here"),
        ("/host/%3Cscript%3E", 404, "no such host"),
        ("/nothing/%3Cscript%3E", 404, "not found"),
        ("/static/nothing", 404, "not found"),
        ("/crawl", 405, "not allowed"),
    ],
)
def test_errors_are_pages_for_browsers_and_json_for_programs(web: Web, path: str, status: int, words: str) -> None:
    program, browser = web.get(path), web.get(path, Accept=BROWSER)
    assert program.status == browser.status == status
    assert set(program.json) == {"error", "message"} and words in program.json["message"]
    assert words[1:] in text_of(browser.body) and b"<script>" not in browser.body
    assert {name: browser.headers[name] for name in HEADERS} == HEADERS
    assert browser.headers["Access-Control-Allow-Origin"] == "*"
    assert program.headers.get("Allow") == browser.headers.get("Allow")


def test_who_asks_too_often_is_told_on_a_page(web: Web) -> None:
    answers = [web.get(f"/account/did:plc:{letter * 24}", Accept=BROWSER) for letter in "abcdefghijklmnop"]
    late = [answer for answer in answers if answer.status == 429]
    assert late and all("asked for from your address." in text_of(answer.body) for answer in late)
    assert all(answer.headers["Retry-After"] for answer in late)


@pytest.mark.parametrize("path", ["/xrpc/com.atproto.sync.getRepoStatus?did=x", "/admin/pds/list", "/xrpc/nothing"])
def test_what_only_programs_ask_is_answered_as_ever(web: Web, path: str) -> None:
    assert set(web.get(path, Accept=BROWSER).json) == {"error", "message"}


def test_an_account_is_looked_up_from_the_page(web: Web) -> None:
    for asked, path in (
        ("alice.example.com", "/account/alice.example.com"),
        (" @alice.example.com ", "/account/alice.example.com"),
        ("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "/account/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("at://alice.example.com", "/account/alice.example.com"),
        ("at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/a", "/account/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"),
    ):
        answer = web.get(f"/account?{urlencode({'name': asked})}", Accept=BROWSER)
        assert (answer.status, answer.headers["Location"]) == (303, path)
    for nothing in ("", "?name=", "?name=@", "?name=at://", "?name=//evil.example", f"?name={'x' * 3000}"):
        assert web.get(f"/account{nothing}").status == 400, nothing


def test_an_edge_says_whose_events_it_passes_on(web: Web) -> None:
    services = Services(**{one.name: getattr(web.services, one.name) for one in fields(Services)})
    settings = replace(services.settings, edge_upstream="https://relay.example.com", operator_name="Example")
    services = replace(services, settings=settings, live_rate=lambda: None)
    client = create_edge_app(services).test_client()
    body = client.get("/", headers={"Accept": BROWSER}).get_data()
    text = text_of(body)
    assert "what another relay, https://relay.example.com , has verified" in text and "Operator Example" in text
    assert b"<form" not in body and "Hosts connected" not in text and "Events now" not in text
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', body.decode()):
        assert client.get(path).status_code == 200
    assert client.get("/").get_data(as_text=True) == BANNER
    # So does a node that stands by, which has no such setting.
    other = create_edge_app(replace(services, settings=replace(settings, edge_upstream=""))).test_client()
    body = other.get("/", headers={"Accept": BROWSER}).get_data()
    assert "It passes on what another relay has verified, as one" in text_of(body) and b'href=""' not in body
    assert client.post("/crawl", data={"hostname": "pds.example.com"}).status_code == 404
