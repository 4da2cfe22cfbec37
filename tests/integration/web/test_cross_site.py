"""What a page of another site can make an admin's browser do, which adds the password that it remembers: nothing."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.support.http import Answer, call
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.web import ADMIN, Web

BAN = "/admin/subs/banDomain"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
BODY = b'{"Domain": "spammers.net"}'


def post(web: Web, path: str, body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(web.url + path, body, headers={**ADMIN, **named})


def banned(web: Web) -> list[str]:
    domains: list[str] = web.admin("/admin/subs/listDomainBans").json["banned_domains"]
    return domains


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
    ],
    ids=str,
)
def test_what_another_sites_page_sent_is_refused(web: Web, headers: dict[str, str]) -> None:
    for path, body, kind in (
        (BAN, BODY, JSON),
        (BAN, BODY, "text/plain"),
        ("/admin/subs/setEnabled?enabled=false", b"", FORM),
        ("/admin/subs/setPerDayLimit?limit=0", b"", FORM),
    ):
        answer = post(web, path, body, Content_Type=kind, **headers)
        assert (answer.status, answer.json["error"]) == (403, "Forbidden"), path
    assert not banned(web) and web.hosts.new_hosts.crawl_enabled and web.hosts.new_hosts.per_day == 50


@pytest.mark.parametrize("kind", ["text/plain", FORM, "multipart/form-data; boundary=x", "json"])
def test_json_has_to_say_that_it_is(web: Web, kind: str) -> None:
    """No form can send this type, in no browser: not even in one that does not say where a form comes from."""
    answer = post(web, BAN, BODY, Content_Type=kind)
    assert (answer.status, answer.json["error"]) == (415, "UnsupportedMediaType")
    assert "application/json" in answer.json["message"] and not banned(web)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "Application/JSON; charset=utf-8"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://relay.example.com"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
def test_programs_and_own_pages_work_as_before(web: Web, headers: dict[str, str]) -> None:
    assert post(web, BAN, BODY, **{"Content_Type": JSON, **headers}).status == 200
    assert banned(web) == ["spammers.net"]
    query = urlencode({"enabled": "false"})
    assert post(web, f"/admin/subs/setEnabled?{query}", b"", **{"Content_Type": FORM, **headers}).status == 200
    assert not web.hosts.new_hosts.crawl_enabled


def test_an_own_page_is_known_by_its_origin(web: Web) -> None:
    assert post(web, BAN, BODY, Content_Type=JSON, Origin=web.url).status == 200
