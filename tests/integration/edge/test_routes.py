"""The routes of an edge: what it leaves to its upstream, and what it does not."""

from __future__ import annotations

from dataclasses import fields, replace

from relay.edge.routes import create_edge_app
from relay.web.services import PREFIX, Services
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.web import Web


def test_queries_are_the_upstreams_and_the_firehose_is_not(web: Web) -> None:
    services = Services(**{one.name: getattr(web.services, one.name) for one in fields(Services)})
    settings = replace(services.settings, edge_upstream="https://relay.example.com")
    client = create_edge_app(replace(services, settings=settings)).test_client()
    for path in ("listRepos?limit=5", "getRepo?did=a%20b&did=c"):
        answer = client.get(f"{PREFIX}{path}")
        assert (answer.status_code, answer.headers["Location"]) == (307, f"https://relay.example.com{PREFIX}{path}")
    assert client.post(f"{PREFIX}requestCrawl", json={}).status_code == 307
    posted = client.post(f"{PREFIX}subscribeRepos")
    assert (posted.status_code, posted.get_json()["error"]) == (405, "MethodNotAllowed")
    assert "GET" in posted.headers["Allow"]
    assert client.get(f"{PREFIX}subscribeRepos").status_code == 426
