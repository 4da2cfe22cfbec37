"""Crawl requests of the public over real sockets: one address does not take the places of all others."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from relay.admin.actions import Admin
from relay.web.crawls import AT_ONCE_PER_ADDRESS
from tests.support.http import Answer, call
from tests.support.wait import until
from tests.support.web import Web


def request_crawl(web: Web, address: str | None) -> Answer:
    headers = {} if address is None else {"X-Forwarded-For": address}
    return call(f"{web.url}/xrpc/com.atproto.sync.requestCrawl", {"hostname": "pds.example.com"}, headers=headers)


def test_each_address_has_a_few_under_way(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, asked = Event(), list[str]()

    def silent_host(_admin: Admin, _actor: object, hostname: str) -> None:
        asked.append(hostname)
        go_on.wait(60)

    monkeypatch.setattr(Admin, "public_crawl", silent_host)
    first = [gevent.spawn(request_crawl, web, "2001:db8::1") for _ in range(AT_ONCE_PER_ADDRESS)]
    until(lambda: len(asked) == len(first))
    refused = request_crawl(web, "2001:db8::2")
    assert (refused.status, refused.json["error"]) == (429, "RateLimitExceeded")
    # Nobody says whose the third kind is.
    others = [gevent.spawn(request_crawl, web, address) for address in ("198.51.100.1", *[None] * 10)]
    until(lambda: len(asked) == len(first) + len(others))
    go_on.set()
    gevent.joinall([*first, *others], raise_error=True)
    assert {one.get().status for one in (*first, *others)} == {200}
    assert request_crawl(web, "2001:db8::1").status == 200
