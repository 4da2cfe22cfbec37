"""The page for people: who may see it, what a foreign page can do to it, and that it shows what the relay knows."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from relay.dash.access import HEADERS
from relay.dash.charts import SUBJECTS
from relay.dash.past import RANGES
from relay.kit.errors import StoreError
from relay.kit.values import parse_networks
from relay.store.hosts import add_ban
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.dash import DashAdmin, text_of
from tests.support.fixtures import StartWeb
from tests.support.http import call
from tests.support.web import PASSWORD, Web

PAGES = (
    "/dash/",
    "/dash/hosts",
    "/dash/hosts/pds1.example.com",
    "/dash/crawling",
    "/dash/accounts",
    "/dash/consumers",
    "/dash/confirm/block?host=pds1.example.com",
)


@pytest.fixture
def admin(web: Web) -> DashAdmin:
    admin = DashAdmin(web.url)
    assert admin.log_in(PASSWORD).status == 303
    return admin


def relay_with_hosts(start_web: StartWeb, count: int = 3) -> tuple[Web, DashAdmin]:
    """A relay that has known `count` hosts since before it started, and an admin at it."""
    first = start_web()
    add_hosts(first.db, count)
    web = start_web(db=first.db)
    admin = DashAdmin(web.url)
    admin.log_in(PASSWORD)
    return web, admin


def dash_routes(web: Web) -> list[tuple[str, str]]:
    rules = [rule for rule in web.app.url_map.iter_rules() if rule.rule.startswith("/dash")]
    return [(method, rule.rule) for rule in rules for method in (rule.methods or set()) & {"GET", "POST"}]


def test_nothing_opens_without_login(web: Web) -> None:
    stranger = DashAdmin(web.url)
    routes = set(dash_routes(web)) - {
        ("GET", "/dash/login"),
        ("POST", "/dash/login"),
        ("GET", "/dash/static/<name>"),
    }
    assert len(routes) >= 9
    for method, rule in routes:
        path = re.sub("<[^>]+>", "crawl-requests", rule)
        answer = stranger.get(path) if method == "GET" else stranger.post(path, {"enabled": "false"})
        assert answer.status == 303, path
        assert answer.headers["Location"].startswith("/dash/login"), path
        assert answer.body.count(b"<") < 20
        if method == "GET":
            assert stranger.get(path, **{"X-Dash-Live": "1"}).status == 401
    assert web.hosts.new_hosts.crawl_enabled


@pytest.mark.parametrize("cookie", ["relay_dash=", "relay_dash=x", f"relay_dash={'A' * 43}", "relay_dash=\xe9"])
def test_an_invented_session_opens_nothing(web: Web, cookie: str) -> None:
    assert call(f"{web.url}/dash/", headers={"Cookie": cookie}).status == 303


def test_the_address_without_a_slash_leads_there(web: Web, admin: DashAdmin) -> None:
    """By its path alone: the relay does not know the scheme and the port of a proxy in front."""
    assert web.get("/dash").headers["Location"].startswith("/dash/login?")
    assert admin.get("/dash").headers["Location"] == "/dash/"


def test_login_opens_a_session_that_scripts_and_other_sites_do_not_get(web: Web) -> None:
    cookie = DashAdmin(web.url).log_in(PASSWORD).headers["Set-Cookie"]
    assert {part.strip() for part in cookie.split(";")[1:]} >= {
        "HttpOnly",
        "SameSite=Strict",
        "Path=/dash",
        "Max-Age=43200",
    }
    assert "Secure" not in cookie


@pytest.mark.parametrize(("proxies", "secure"), [("127.0.0.1", True), ("10.0.0.1", False)])
def test_the_cookie_stays_on_https_when_the_browser_came_over_it(
    start_web: StartWeb, proxies: str, secure: bool
) -> None:
    admin = DashAdmin(start_web(trusted_proxies=parse_networks(proxies)).url)
    admin.headers = {"X-Forwarded-Proto": "https"}
    assert ("Secure" in admin.log_in(PASSWORD).headers["Set-Cookie"]) is secure


def test_a_wrong_password_opens_nothing_and_guessing_is_stopped(web: Web) -> None:
    admin = DashAdmin(web.url)
    admin.headers = {"X-Forwarded-For": "198.51.100.7"}
    for guess in ("", *map(str, range(9))):
        answer = admin.log_in(guess)
        assert answer.status == 401 and "Set-Cookie" not in answer.headers
        assert "not the admin password" in text_of(answer.body)
    assert admin.log_in("9").status == 401
    answer = admin.log_in("10")
    assert answer.status == 429 and "Set-Cookie" not in answer.headers
    assert "Too many wrong passwords" in text_of(answer.body)
    # The admin API counts the same guesses.
    assert web.get("/admin/pds/list", Authorization="Bearer 11", **admin.headers).status == 429
    # Whoever knows the password is not locked out by those who do not.
    assert admin.log_in(PASSWORD).status == 303


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/dash/hosts?search=a", "/dash/hosts?search=a"),
        ("", "/dash/"),
        ("https://evil.example/dash/", "/dash/"),
        ("//evil.example", "/dash/"),
    ],
)
def test_login_leads_to_pages_of_ours_only(web: Web, asked: str, led_to: str) -> None:
    assert DashAdmin(web.url).log_in(PASSWORD, next=asked).headers["Location"] == led_to


def test_a_session_ends_with_logout(web: Web, admin: DashAdmin) -> None:
    other = DashAdmin(web.url)
    other.log_in(PASSWORD)
    answer = admin.post("/dash/logout", {"csrf": admin.csrf()})
    assert answer.status == 303 and "relay_dash=;" in answer.headers["Set-Cookie"]
    assert admin.get("/dash/").status == 303
    assert other.get("/dash/").status == 200


FOREIGN: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://[::1"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_forms_of_other_sites_are_refused(web: Web, admin: DashAdmin, headers: dict[str, str]) -> None:
    fields = {"csrf": admin.csrf(), "enabled": "false"}
    assert admin.post("/dash/do/crawl-requests", fields, headers).status == 403
    assert web.hosts.new_hosts.crawl_enabled
    assert admin.post("/dash/login", {"password": PASSWORD}, headers).status == 403


def test_a_browser_that_says_where_the_form_is_from_is_believed(web: Web, admin: DashAdmin) -> None:
    # Behind a proxy that does not pass the Host header on, the origin is not ours, and yet the same.
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "https://relay.example.com"}
    assert admin.post("/dash/do/crawl-requests", {"csrf": admin.csrf(), "enabled": "false"}, headers).status == 303
    assert not web.hosts.new_hosts.crawl_enabled


def test_a_form_that_is_too_large_is_not_taken_apart(web: Web, admin: DashAdmin) -> None:
    assert admin.post("/dash/login", {"password": "x" * 9000}).status == 413
    assert admin.post("/dash/login", {"password": "x" * 4000}).status == 401


def test_a_form_needs_the_token_of_its_own_session(web: Web, admin: DashAdmin) -> None:
    other = DashAdmin(web.url)
    other.log_in(PASSWORD)
    for token in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": "\xe9"}, {"csrf": other.csrf()}):
        answer = admin.post("/dash/do/crawl-requests", {**token, "enabled": "false"})
        assert answer.status == 403 and "out of date" in text_of(answer.body)
        assert admin.post("/dash/logout", token).status == 403
    assert web.hosts.new_hosts.crawl_enabled


def test_browsers_are_told_to_hold_back(start_web: StartWeb) -> None:
    _, admin = relay_with_hosts(start_web)
    answers = {path: admin.get(path) for path in (*PAGES, "/dash/hosts/none.example", "/dash/hosts?page=x")}
    stranger = DashAdmin(admin.url)
    answers |= {"login": stranger.get("/dash/login"), "refused": stranger.log_in("wrong")}
    for path, answer in answers.items():
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        assert answer.headers["Cache-Control"] == "no-store", path
        assert "Access-Control-Allow-Origin" not in answer.headers, path
        body = answer.body.decode()
        assert body.startswith("<!doctype html>"), path
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", body), path
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


OUTSIDE = (
    ("GET", "/dash/nothing"),
    ("GET", "/dash/hosts/"),
    ("GET", "/dash/hosts/a/b"),
    ("GET", "/dash//hosts"),
    ("GET", "/dash/static/"),
    ("POST", "/dash/nothing"),
    ("POST", "/dash/hosts"),
    ("GET", "/dash/do/block"),
    ("GET", "/dash/%3Cscript%3E"),
)


@pytest.mark.parametrize(("method", "path"), OUTSIDE, ids=str)
def test_what_is_no_page_is_told_on_a_page_with_the_same_policy(
    web: Web, admin: DashAdmin, method: str, path: str
) -> None:
    for cookie in ("", admin.cookie):
        headers = {"Cookie": cookie, "Origin": web.url}
        answer = call(web.url + path, None if method == "GET" else b"", method=method, headers=headers)
        assert answer.status in (404, 405), answer.body
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.body.startswith(b"<!doctype html>") and b"<script>" not in answer.body
        assert (b"Log out" in answer.body) is bool(cookie)
    assert "Content-Security-Policy" not in web.get("/dashboard").headers


def test_the_policy_is_on_answers_of_no_route(web: Web) -> None:
    for answer in (web.get("/dash"), call(f"{web.url}/dash/hosts", method="OPTIONS"), web.get("/dash/")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_the_script_and_the_style_sheet_can_be_kept(web: Web) -> None:
    page = web.get("/dash/login").body.decode()
    kinds = {"css": "text/css", "js": "text/javascript"}
    files = re.findall(r'"((?:/dash)?/static/(\w+)\.(\w+)\?v=\w+)"', page)
    assert [name for _, name, _ in files] == ["theme", "look", "dash", "dash", "charts"]
    for path, _, kind in files:
        answer = web.get(path)
        assert answer.headers["Content-Type"].startswith(kinds[kind]) and "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("pages.py", "..%2Froutes.py", "../routes.py"):
        assert web.get(f"/dash/static/{name}").status == 404
        assert web.get(f"/static/{name}").status == 404


EVIL = '"><script>alert(1)</script>'


def test_hostile_text_is_text(start_web: StartWeb) -> None:
    web, admin = relay_with_hosts(start_web)
    for host in web.registry:
        host.note_error(f"handshake-refused: {EVIL}", 1.0)
        host.drops.note(EVIL, 1e10)
    web.problem = EVIL
    with web.services.consumers.connected("127.0.0.1", EVIL, datetime.now(UTC)):
        paths = [*PAGES, f"/dash/hosts?search={EVIL}", "/dash/hosts?sort=error", f"/dash/accounts?did={EVIL}"]
        for path in paths:
            body = admin.get(path.replace('"', "%22").replace(">", "%3E").replace("<", "%3C")).body.decode()
            assert "<script>" not in body, path
            assert "&lt;script&gt;" in body, path
    body = DashAdmin(web.url).get("/dash/login?next=%22%3E%3Cscript%3E").body.decode()
    assert "<script>" not in body


def test_health_is_shown_on_every_page(start_web: StartWeb) -> None:
    web, admin = relay_with_hosts(start_web)
    for path in PAGES:
        assert "Health is red" not in admin.page(path)
    web.problem = "log: no space left"
    for path in PAGES:
        assert "Health is red. log: no space left" in admin.page(path)


def test_without_the_database_pages_say_so(web: Web, admin: DashAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise StoreError("store-unavailable", "away")

    monkeypatch.setattr(type(web.db), "read", away)
    assert "Health is red. can't connect to database" in admin.page("/dash/")
    answer = admin.get("/dash/crawling")
    assert answer.status == 503 and "The database does not answer" in text_of(answer.body)


def test_the_overview_shows_rates_and_the_window(web: Web, admin: DashAdmin) -> None:
    assert "Events none yet" in admin.page("/dash/") and "measuring" in admin.page("/dash/")
    web.history.sample()
    web.publish(7)
    web.history.sample()
    web.history.sample()
    page = admin.page("/dash/")
    assert "Newest seq 7" in page and "Oldest seq 1" in page
    assert admin.get("/dash/").body.count(b"<polyline") >= 4


def test_the_overview_draws_every_range(web: Web, admin: DashAdmin) -> None:
    assert admin.page("/dash/").count("Nothing was recorded yet.") == len(SUBJECTS)
    for name, shape in RANGES.items():
        web.history.past.note(time.time() - 3 * shape.step, {"received": 12.0, "memory": 3e8})
        web.history.past.note(time.time(), {"received": 20.0, "memory": 3e8})
        body = admin.get(f"/dash/?range={name}").body.decode()
        assert body.count('class="plot"') == len(SUBJECTS)
        (events,) = re.findall(r'<figure class="chart" id="chart-events">.*?</figure>', body, re.DOTALL)
        assert f'data-step="{shape.step}"' in events and "20" in re.findall(r'data-values="([^"]*)"', events)[0]
        assert re.search(r'<path class="line-1"[^>]* d="M\d+ \d+L', events)
        assert f'aria-current="true">{ {"1h": "1 hour", "24h": "24 hours", "7d": "7 days"}[name] }' in body
    assert admin.get("/dash/?range=nonsense").status == 200


def test_banned_domains_are_searched_and_paged(web: Web, admin: DashAdmin) -> None:
    web.db.write(lambda tx: [add_ban(tx, f"spam{number}.test") for number in range(250)])
    first, last = admin.page("/dash/crawling"), admin.page("/dash/crawling?page=3")
    assert "spam99.test" in first and "spam100.test" not in first and "1\N{EN DASH}100 of 250" in first
    assert "spam249.test Lift ban" in last and "spam199.test" not in last and "201\N{EN DASH}250 of 250" in last
    found = admin.page("/dash/crawling?search=SPAM24")
    assert "spam249.test" in found and "spam99.test" not in found and "11 of 11" in found
    assert "No banned domain is found." in admin.page("/dash/crawling?search=other")


def test_hosts_are_searched_sorted_and_paged(start_web: StartWeb) -> None:
    web, admin = relay_with_hosts(start_web, 120)
    web.hosts.block("pds7.example.com")

    def names(query: str) -> list[str]:
        return re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', admin.get(f"/dash/hosts?{query}").body.decode())

    assert len(names("")) == 50 and len(names("page=3")) == 20 and names("page=4") == []
    assert "51\N{EN DASH}100 of 120" in admin.page("/dash/hosts?page=2")
    assert names("search=pds11")[:2] == ["pds11.example.com", "pds110.example.com"]
    assert names("state=banned") == ["pds7.example.com"]
    assert names("search=%5Epds1.example&order=desc") == ["pds1.example.com"]
    assert names("order=desc")[0] == "pds99.example.com"
    # Others have an error too once they were dialled.
    assert "pds7.example.com" in names("sort=error&search=pds7")
    assert names("sort=nonsense&state=nonsense&order=nonsense") == names("")
    assert "No host matches" in admin.page("/dash/hosts?search=zzz")
    for page in ("x", "0", "-1", "9" * 30):
        assert admin.get(f"/dash/hosts?page={page}").status == 400
    assert admin.get("/dash/hosts/pds999.example.com").status == 404


def test_an_account_is_looked_up_and_takedowns_are_listed(start_web: StartWeb) -> None:
    web, admin = relay_with_hosts(start_web, 1)
    add_accounts(web.db, 1, [("active", "deactivated")] + [("takendown", "active")] * 101)
    page = admin.page(f"/dash/accounts?did={did(1)}")
    assert "Here deactivated" in page and "Host pds1.example.com" in page and "3jzfcijpj2z2a" in page
    assert page.count("did:plc:") == 101
    (more,) = re.findall(r'href="(/dash/accounts\?cursor=\d+)"', admin.get("/dash/accounts").body.decode())
    assert did(102) in admin.page(more)
    assert "No event of" in admin.page(f"/dash/accounts?did={did(999)}")
    assert admin.get("/dash/accounts?did=nobody").status == 400


def test_an_account_is_looked_up_as_its_name_is_copied(web: Web, admin: DashAdmin) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [("active", "active")])
    for copied in (account, f" at://{account} ", f"at://{account}/app.bsky.feed.post/a", f"@{account}"):
        assert "Take down" in admin.page(f"/dash/accounts?{urlencode({'did': copied})}"), copied
    led = admin.get(f"/dash/accounts?{urlencode({'did': 'at://alice.example.com'})}")
    assert led.headers["Location"] == "/dash/accounts/why?name=alice.example.com"
    assert admin.get("/dash/accounts?did=at://").status == admin.get("/dash/accounts/why?name=@").status == 400


def test_consumers_are_listed_the_slowest_first(web: Web, admin: DashAdmin) -> None:
    assert "Nobody consumes" in admin.page("/dash/consumers")
    web.publish(10)
    connected = web.services.consumers.connected
    now = datetime.now(UTC)
    with connected("192.0.2.1", "fast/1", now) as fast, connected("192.0.2.2", "slow/1", now):
        fast.position = 10
        page = admin.page("/dash/consumers")
        assert page.index("slow/1") < page.index("fast/1")
        assert "furthest behind by 10" in admin.page("/dash/")
        page = admin.page("/dash/consumers?sort=address&order=asc")
        assert page.index("fast/1") < page.index("slow/1")
