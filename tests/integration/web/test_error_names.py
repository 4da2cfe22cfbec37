"""What the routes of com.atproto.sync call their errors: by the names of their lexicons, or XRPC's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from relay.atproto import events, frames
from relay.atproto.frames import StreamError
from relay.store import hosts
from relay.store.database import Database
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.fixtures import StartWeb
from tests.support.http import Answer, call
from tests.support.web import Web
from tests.support.websocket import connect

SYNC = "/xrpc/com.atproto.sync."
# The errors of the lexicons that a relay has an answer for, as they were published in August 2026.
REPO = {"RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated"}
LEXICONS: dict[str, set[str]] = {
    "getHostStatus": {"HostNotFound"},
    "getLatestCommit": REPO,
    "getRepo": REPO,
    "getRepoStatus": {"RepoNotFound"},
    "listHosts": set(),
    "listRepos": set(),
    "listReposByCollection": set(),
    "requestCrawl": {"HostBanned"},
    "subscribeRepos": {"FutureCursor", "ConsumerTooSlow"},
}
# What any method may answer, and what the reference relay says of a host that does not answer.
ANY_METHOD = {"InvalidRequest", "Forbidden", "MethodNotAllowed", "PayloadTooLarge", "RateLimitExceeded"}
FAULTS = {"DatabaseError", "InternalServerError", "ServiceUnavailable"}
OF_THE_REFERENCE = {"requestCrawl": {"HostNotFound"}, "subscribeRepos": {"UpgradeRequired"}}
STATUSES = (*events.STATUSES, "a-word-of-tomorrow")


@pytest.fixture
def web(start_web: StartWeb, database: Database) -> Web:
    return start_web(db=database)


def ask(web: Web, method: str, query: str = "", body: Any = None) -> Answer:
    """The method's answer, whose error has a name that the method may give."""
    answer = call(f"{web.url}{SYNC}{method}{query}", body)
    if answer.status >= 400:
        assert set(answer.json) == {"error", "message"} and answer.json["message"], answer.json
        allowed = (
            LEXICONS[method] | OF_THE_REFERENCE.get(method, set()) | (ANY_METHOD if answer.status < 500 else FAULTS)
        )
        assert answer.json["error"] in allowed, (method, query, body, answer.json)
    return answer


def name_of(answer: Answer) -> str | None:
    return answer.json["error"] if answer.status >= 400 else None


@pytest.mark.parametrize("own", STATUSES)
def test_what_is_not_given_for_an_accounts_status(web: Web, own: str) -> None:
    (host,) = add_hosts(web.db, 1)
    both = [(own, upstream) for upstream in STATUSES]
    for account, (_, upstream) in zip(add_accounts(web.db, host, both), both, strict=True):
        query = f"?did={account}"
        status = ask(web, "getRepoStatus", query).json
        commit, repo = name_of(ask(web, "getLatestCommit", query)), name_of(ask(web, "getRepo", query))
        # The relay's own word comes first, but for one that hides what was there.
        gone = upstream in events.HIDING_STATUSES and own not in events.HIDING_STATUSES
        word = upstream if gone or own == "active" else own
        names = {"takendown": "RepoTakendown", "suspended": "RepoSuspended", "deactivated": "RepoDeactivated"}
        assert commit == (None if status["active"] else names.get(word, "RepoNotFound")), (own, upstream)
        # Where nothing is known against it here, the account's own host tells.
        elsewhere = own in ("active", "desynchronized", "host-throttled")
        assert repo == (None if elsewhere else names.get(own, "RepoNotFound")), (own, upstream)


@pytest.mark.parametrize("method", sorted(LEXICONS))
def test_whatever_is_asked(web: Web, method: str) -> None:
    values = ("", "x", "-1", "0", "99999", "9" * 30, "a%00b", "did:plc:x", did(1), "did:web:x.com", "pds1.example.com")
    for name, value in itertools.product(("did", "hostname", "limit", "cursor", "collection"), values):
        ask(web, method, f"?{name}={value}")
        ask(web, method, f"?{name}={value}&{name}={value}&did={did(1)}&hostname=pds9.example.com&collection=a.b.c")
    bodies: tuple[Any, ...] = ({}, {"hostname": "x"}, {"hostname": 7}, [], "text", b"\xff", b"x" * 70_000)
    for body in bodies:
        ask(web, method, "", body)


def test_what_is_said_of_crawl_requests(start_web: StartWeb, database: Database) -> None:
    (blocked,) = add_hosts(database, 1)
    database.write(hosts.set_status, blocked, "banned")
    web = start_web(db=database)
    web.admin("/admin/subs/banDomain", {"Domain": "bad.test"})

    def crawl(name: str) -> tuple[int, str | None]:
        answer = ask(web, "requestCrawl", "", {"hostname": name})
        return answer.status, name_of(answer)

    for name in ("not a host", "localhost", "https://localhost:99", "https://[::1", "a" * 300):
        assert crawl(name) == (400, "InvalidRequest"), name
    assert crawl("pds.bad.test") == (401, "HostBanned")
    assert crawl("pds1.example.com") == (400, "HostBanned")
    web.admin("/admin/subs/setEnabled?enabled=false", {})
    assert crawl("pds2.example.com") == (403, "Forbidden")


def test_what_is_said_while_the_database_is_away(web: Web) -> None:
    web.db.close()
    for method in sorted(LEXICONS):
        query = f"?did={did(1)}&hostname=pds1.example.com&collection=a.b.c"
        ask(web, method, query, {"hostname": "pds1.example.com"} if method == "requestCrawl" else None)


def test_errors_within_the_stream(web: Web) -> None:
    web.publish(3)
    with connect(f"{web.stream}?cursor=99") as client:
        error = frames.decode(client.recv(timeout=30))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
    assert isinstance(error, StreamError) and error.error == "FutureCursor"
    assert error.error in LEXICONS["subscribeRepos"]
