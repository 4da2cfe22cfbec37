"""The headers that every answer has, asked of each route: who runs here, and who may read the answer."""

from __future__ import annotations

import re

from tests.support.http import call
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.web import Web


def paths(web: Web) -> set[str]:
    """A path for each route that answers requests."""
    return {re.sub("<[^>]+>", "x", rule.rule) for rule in web.app.url_map.iter_rules() if not rule.websocket}


def test_pages_of_other_origins_read_all_answers_but_those_for_admins(web: Web) -> None:
    found = paths(web)
    assert len(found) > 40
    for path in found | {"/nothing", "/xrpc/com.atproto.sync.nothing"}:
        for method in ("GET", "OPTIONS"):
            answer = call(web.url + path, method=method, headers={"Origin": "https://other.example"})
            assert "(atproto-relay)" in answer.headers["Server"], path
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            for_admins = f"{path}/".startswith(("/dash/", "/admin/"))
            assert allowed == (None if for_admins else "*"), (method, path)
