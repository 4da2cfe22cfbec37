"""Importing another relay's collection index: what is taken, where it goes on, and what a hostile source can not do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest

from relay.store import collection_imports, collections
from relay.store.database import Database
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.collection_source import CollectionSource
from tests.support.fixtures import StartWeb
from tests.support.wait import until
from tests.support.web import Web

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
PATH = "/admin/backfill-collections"


@pytest.fixture
def source() -> Iterator[CollectionSource]:
    with CollectionSource() as source:
        yield source


@pytest.fixture
def web(start_web: StartWeb, database: Database) -> Web:
    """A relay on each engine, with five accounts: the second is taken down, the third deactivated."""
    (host,) = add_hosts(database, 1)
    statuses = [("active", "active")] * 5
    statuses[1:3] = [("takendown", "active"), ("active", "deactivated")]
    add_accounts(database, host, statuses)
    return start_web(db=database)


def ask(web: Web, source: CollectionSource, *nsids: str, more: str = "") -> Any:
    return web.admin(f"{PATH}?source={quote(source.url)}{more}", {"collections": list(nsids)}, method="POST")


def state(web: Web, source: CollectionSource) -> dict[str, Any]:
    found = web.admin(f"{PATH}?source={quote(source.url)}")
    assert found.status == 200, found.body
    view: dict[str, Any] = found.json
    return view


def ended(web: Web, source: CollectionSource) -> dict[str, Any]:
    until(lambda: not state(web, source)["running"], 30)
    return state(web, source)


def listed(web: Web, nsid: str) -> list[str]:
    page = web.get(f"/xrpc/com.atproto.sync.listReposByCollection?collection={nsid}").json
    assert "cursor" not in page
    return [repo["did"] for repo in page["repos"]]


def test_known_accounts_are_taken_and_inactive_ones_stay_out_of_answers(web: Web, source: CollectionSource) -> None:
    source.repos = {POST: [did(n) for n in range(1, 8)], LIKE: [did(4), did(99)]}
    source.page_size = 2
    assert ask(web, source, POST, LIKE).json == {"success": "true"}
    view = ended(web, source)
    assert (view["collections"], view["done"], view["failed"], view["error"]) == (2, 2, 0, None)
    assert (view["listed"], view["taken"]) == (9, 6)
    assert view["progress"] == [
        {"collection": LIKE, "listed": 2, "taken": 1, "done": True, "error": None},
        {"collection": POST, "listed": 7, "taken": 5, "done": True, "error": None},
    ]
    assert listed(web, POST) == [did(1), did(4), did(5)]
    assert listed(web, LIKE) == [did(4)]
    assert view["started_at"].endswith("Z") and view["ended_at"].endswith("Z") and view["current"] is None
    (summary,) = web.admin(PATH).json["backfills"]
    assert summary == {name: value for name, value in view.items() if name != "progress"}


def test_without_names_all_known_here_and_at_the_source_are_imported(web: Web, source: CollectionSource) -> None:
    web.db.write(collections.add_listed, LIKE, [did(1)])
    source.names = [POST, "no name", "com.example.empty"]
    source.repos = {POST: [did(1)], LIKE: [did(4)]}
    assert web.admin(f"{PATH}?source={quote(source.url)}", method="POST").status == 200
    assert [row["collection"] for row in ended(web, source)["progress"]] == [LIKE, POST, "com.example.empty"]
    assert listed(web, LIKE) == [did(1), did(4)] and listed(web, POST) == [did(1)]


def test_a_stopped_import_goes_on_where_it_was(web: Web, source: CollectionSource, start_web: StartWeb) -> None:
    source.repos = {POST: [did(n) for n in range(1, 6)]}
    source.page_size = 1
    held = gevent.event.Event()
    source.fault = lambda nsid, cursor, count: None if cursor != "2" else (held.wait(20), None)[1]
    ask(web, source, POST)
    until(lambda: source.asked[-1:] == [(POST, "2")])
    assert ask(web, source, more="&stop=true").json == {"success": "true"}
    view = state(web, source)
    assert (view["running"], view["listed"], view["done"]) == (False, 2, 0)
    assert ask(web, source, more="&stop=true").status == 400
    held.set()
    # A relay that starts meanwhile leaves a stopped import alone; one that was running goes on.
    again = start_web(db=web.db)
    gevent.sleep(0.2)
    assert state(again, source)["listed"] == 2
    source.asked.clear()
    assert ask(web, source).status == 200
    assert ended(web, source)["taken"] == 5
    assert source.asked == [(POST, "2"), (POST, "3"), (POST, "4")]


def test_a_restart_goes_on_with_the_running_import(web: Web, source: CollectionSource, start_web: StartWeb) -> None:
    source.repos = {POST: [did(n) for n in range(1, 6)]}
    source.page_size = 1
    held = gevent.event.Event()
    source.fault = lambda nsid, cursor, count: None if cursor != "3" else (held.wait(20), None)[1]
    ask(web, source, POST)
    until(lambda: source.asked[-1:] == [(POST, "3")])
    web.imports.stop()
    held.set()
    source.asked.clear()
    again = start_web(db=web.db)
    assert ended(again, source)["taken"] == 5
    assert source.asked == [(POST, "3"), (POST, "4")]


def test_a_second_import_after_the_end_begins_anew(web: Web, source: CollectionSource) -> None:
    source.repos = {POST: [did(1)]}
    ask(web, source, POST)
    ended(web, source)
    source.repos = {POST: [did(1), did(4)]}
    ask(web, source)
    view = ended(web, source)
    assert (view["listed"], view["taken"]) == (2, 2) and listed(web, POST) == [did(1), did(4)]


def test_one_import_at_a_time(web: Web, source: CollectionSource) -> None:
    source.repos = {POST: [did(1)]}
    held = gevent.event.Event()
    source.fault = lambda nsid, cursor, count: (held.wait(20), None)[1]
    ask(web, source, POST)
    refused = web.admin(f"{PATH}?source=bsky.network", method="POST")
    assert (refused.status, refused.json["error"]) == (409, "BackfillRunning")
    # More collections of the same source are taken in, and those that it tells of.
    source.names = ["com.example.told"]
    assert ask(web, source, LIKE).status == ask(web, source).status == 200
    held.set()
    assert ended(web, source)["collections"] == 3


def test_a_source_that_fails_for_a_while_is_asked_again(web: Web, source: CollectionSource) -> None:
    source.repos = {POST: [did(1)]}
    source.headers = [("Retry-After", "0")]
    source.fault = lambda nsid, cursor, count: [(503, b""), (429, b"{}"), None][min(count, 2)]
    ask(web, source, POST)
    assert ended(web, source)["taken"] == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, b""), "backfill-unavailable"),
        ((400, b'{"error":"InvalidRequest"}'), "backfill-refused"),
        ((200, b"<html>"), "backfill-answer"),
        ((200, b"[" * 100_000), "backfill-answer"),
        ((200, b'{"repos":"none"}'), "backfill-answer"),
        ((200, b'{"repos":[],"cursor":7}'), "backfill-answer"),
        ((200, b'{"repos":[],"cursor":"\\u0000"}'), "backfill-answer"),
        ((200, b'{"repos":[],"cursor":"\\ud800"}'), "backfill-answer"),
        ((200, json.dumps({"repos": [], "cursor": "x" * 2000}).encode()), "backfill-answer"),
        ((200, b'{"repos":[],"cursor":"same"}'), "backfill-endless"),
        ((200, b" " * (600 << 10)), "backfill-unavailable"),
    ],
)
def test_what_is_no_page_costs_its_collection_alone(
    web: Web, source: CollectionSource, answer: tuple[int, bytes], reason: str
) -> None:
    source.repos = {POST: [did(1)]}
    source.fault = lambda nsid, cursor, count: answer if nsid == LIKE else None
    ask(web, source, LIKE, POST)
    view = ended(web, source)
    assert (view["done"], view["failed"], view["error"]) == (1, 1, None)
    assert view["progress"][0]["error"].startswith(reason)
    # The next time it is tried again.
    source.fault = lambda nsid, cursor, count: None
    ask(web, source)
    assert ended(web, source)["failed"] == 0


def test_entries_that_are_no_accounts_are_left_out(web: Web, source: CollectionSource) -> None:
    entries: list[Any] = [None, 1, "x", {}, {"did": 7}, {"did": "did:plc:\0"}, {"did": did(1)}, {"did": did(1)}]
    source.fault = lambda nsid, cursor, count: (200, json.dumps({"repos": entries}).encode())
    ask(web, source, POST)
    view = ended(web, source)
    assert (view["listed"], view["taken"]) == (len(entries), 1)


@pytest.mark.parametrize("length", [2, 3, 20])
def test_a_list_that_goes_in_circles_ends(web: Web, source: CollectionSource, length: int) -> None:
    def circle(nsid: str, cursor: str, count: int) -> tuple[int, bytes]:
        page = {"repos": [{"did": did(1)}], "cursor": str((int(cursor or 0) + 1) % length)}
        return 200, json.dumps(page).encode()

    source.fault = circle
    ask(web, source, POST)
    view = ended(web, source)
    assert view["progress"][0]["error"].startswith("backfill-endless")
    assert len(source.asked) < 4 * length + 4


def test_a_page_that_leads_to_itself_is_not_asked_for_twice(web: Web, source: CollectionSource) -> None:
    def stands(nsid: str, cursor: str, count: int) -> tuple[int, bytes]:
        return 200, json.dumps({"repos": [{"did": did(1)}], "cursor": str(min(int(cursor or 0) + 1, 4))}).encode()

    source.fault = stands
    ask(web, source, POST)
    assert ended(web, source)["progress"][0]["error"].startswith("backfill-endless")
    assert [cursor for _, cursor in source.asked] == ["", "1", "2", "3", "4"]


def test_a_source_without_the_list_ends_the_import(web: Web, source: CollectionSource) -> None:
    source.fault = lambda nsid, cursor, count: (501, b'{"error":"MethodNotImplemented"}')
    ask(web, source, POST, LIKE)
    view = ended(web, source)
    assert view["error"].startswith("backfill-source") and len(source.asked) == 1
    source.repos = {POST: [did(1)]}
    source.fault = lambda nsid, cursor, count: None
    ask(web, source)
    assert (ended(web, source)["error"], listed(web, POST)) == (None, [did(1)])


def test_a_source_that_gives_nothing_is_not_asked_for_everything(web: Web, source: CollectionSource) -> None:
    names = [f"com.example.number{n}" for n in range(20)]
    source.fault = lambda nsid, cursor, count: (400, b"{}")
    ask(web, source, *names)
    view = ended(web, source)
    assert view["error"].startswith("backfill-refused") and (view["failed"], view["done"]) == (3, 0)


def test_addresses_that_are_not_public_are_refused_unless_allowed(
    start_web: StartWeb, source: CollectionSource
) -> None:
    web = start_web(allow_insecure_hosts=False)
    ask(web, source, POST)
    assert ended(web, source)["error"].startswith("backfill-source: http-url")
    assert source.asked == []


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", None),
        ("?source=", None),
        ("?source=not%20a%20host", None),
        ("?source=user%40bsky.network", None),
        ("?source=bsky.network&stop=perhaps", None),
        ("?source=bsky.network", {"collections": "x"}),
        ("?source=bsky.network", {"collections": ["no nsid"]}),
        ("?source=bsky.network", {"collections": [1]}),
    ],
)
def test_bad_parameters_are_refused(web: Web, query: str, body: Any) -> None:
    answer = web.admin(PATH + query, body, method="POST")
    assert (answer.status, answer.json["error"]) == (400, "InvalidRequest")


def test_what_was_never_imported_is_not_found(web: Web) -> None:
    assert web.admin(PATH).json == {"backfills": []}
    assert web.admin(f"{PATH}?source=bsky.network").status == 404
    assert web.admin(f"{PATH}?source=bsky.network&stop=true", method="POST").status == 400


def test_progress_comes_in_pages(web: Web, source: CollectionSource) -> None:
    names = [f"com.example.number{n:02}" for n in range(5)]
    ask(web, source, *names)
    ended(web, source)
    first = web.admin(f"{PATH}?source={quote(source.url)}&limit=3").json
    rest = web.admin(f"{PATH}?source={quote(source.url)}&limit=3&cursor={first['cursor']}").json
    assert [row["collection"] for row in first["progress"] + rest["progress"]] == names
    assert "cursor" not in rest


def test_the_names_of_one_import_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_imports, "MAX_COLLECTIONS", 3)
    database.write(collection_imports.begin, "https://relay.example", [POST, LIKE], named=False, now=1.0)
    database.write(collection_imports.add, "https://relay.example", [f"com.example.n{n}" for n in range(9)])
    assert len(database.read(collection_imports.progress, "https://relay.example", "", 100)) == 3
