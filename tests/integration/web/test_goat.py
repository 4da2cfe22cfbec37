"""The requests that `goat relay admin` makes, header by header, and what it needs of the answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.http import Answer, call
from tests.support.pds import FakePds
from tests.support.wait import until
from tests.support.web import ADMIN, PASSWORD, Web

BASIC, BEARER = ADMIN, {"Authorization": f"Bearer {PASSWORD}"}


def goat(
    web: Web, method: str, path: str, query: dict[str, str] | None = None, body: Any = None, auth: Any = BASIC
) -> Answer:
    """One request: JSON is sent as such, a POST without a body has neither a body nor a type."""
    target = web.url + path + (f"?{urlencode(query)}" if query else "")
    return call(target, body, method=method, headers={**auth, "User-Agent": "goat/0.2"})


@pytest.mark.parametrize("auth", [BASIC, BEARER], ids=["password", "token"])
def test_every_command_works(web: Web, auth: dict[str, str]) -> None:
    (host,) = add_hosts(web.db, 1)
    add_accounts(web.db, host, [("active", "active")])

    def done(path: str, query: dict[str, str] | None = None, body: Any = None) -> None:
        answer = goat(web, "POST", path, query, body, auth)
        assert (answer.status, answer.json) == (200, {"success": "true"}), (path, answer.body)

    def listed(path: str, query: dict[str, str] | None = None) -> Any:
        answer = goat(web, "GET", path, query, auth=auth)
        assert answer.status == 200, (path, answer.body)
        return answer.json

    done("/admin/repo/takeDown", body={"did": did(1)})
    takedowns = listed("/admin/repo/takedowns", {"cursor": "", "size": "500"})
    # It goes on for as long as there is a cursor, which has to be text.
    assert takedowns == {"dids": [did(1)]}
    done("/admin/repo/reverseTakedown", body={"did": did(1)})
    with FakePds() as pds:
        # A bare `localhost:PORT`, as goat passes on what is typed.
        done("/admin/pds/requestCrawl", body={"hostname": pds.hostname})
        until(lambda: web.hosts.connected() == [pds.hostname])
        assert [row["Host"] for row in listed("/admin/pds/list")] == [pds.hostname]
        done("/admin/pds/changeLimits", body={"host": pds.hostname, "repo_limit": 5000})
        done("/admin/pds/block", {"host": pds.hostname})
        done("/admin/pds/unblock", {"host": pds.hostname})
        done("/admin/subs/killUpstream", {"host": f" {pds.hostname} ", "block": "true"})
    done("/admin/subs/banDomain", body={"domain": "spammers.net"})
    assert listed("/admin/subs/listDomainBans") == {"banned_domains": ["spammers.net"]}
    done("/admin/subs/unbanDomain", body={"domain": "spammers.net"})
    assert listed("/admin/consumers/list") == []


def test_what_is_wrong_is_told_by_the_status(web: Web) -> None:
    for path, query, body, status in (
        ("/admin/pds/requestCrawl", None, {"hostname": "localhost"}, 400),
        ("/admin/pds/requestCrawl", None, {"hostname": "not a name"}, 400),
        ("/admin/pds/changeLimits", None, {"host": "none.example.com"}, 400),
        ("/admin/pds/changeLimits", None, {"host": "none.example.com", "repo_limit": 1}, 404),
        ("/admin/subs/killUpstream", {"host": "none.example.com"}, None, 400),
        ("/admin/repo/takeDown", None, {"did": did(9)}, 404),
        ("/admin/repo/takeDown", None, {}, 400),
    ):
        assert goat(web, "POST", path, query, body).status == status, (path, body)
