"""The collection index behind the event path: from commits to lists, over deletions, gaps and restarts."""

from __future__ import annotations

import json

import pytest

from relay.hosts.host import Host
from relay.store import collections
from relay.store.database import Transaction
from relay.store.open import open_database
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.repo import create, delete, update

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"


def listed(path: EventPath, nsid: str) -> list[str]:
    path.stream.projector.flush()
    return [did for _, did in path.db.read(collections.list_repos, nsid, 0, 100).repos]


def marked(path: EventPath) -> list[str]:
    path.stream.projector.flush()
    return [account.did for account in path.db.read(collections.marked, 0, 100)]


def test_commits_fill_and_empty_the_lists(path: EventPath, pds: FakePds) -> None:
    host, one, two = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, one.commit(create(f"{POST}/a", {}), create(f"{LIKE}/a", {})).frame(1))
    path.put(host, two.commit(create(f"{POST}/a", {}), create(f"{POST}/b", {})).frame(2))
    path.logged(2)
    assert sorted(listed(path, POST)) == sorted([one.did, two.did]) and listed(path, LIKE) == [one.did]
    path.put(host, one.commit(delete(f"{LIKE}/a"), update(f"{POST}/a", {"n": 1})).frame(3))
    path.put(host, two.commit(delete(f"{POST}/a")).frame(4))
    path.logged(4)
    assert listed(path, LIKE) == [] and len(listed(path, POST)) == 2
    path.put(host, two.commit(delete(f"{POST}/b")).frame(5))
    path.logged(5)
    assert listed(path, POST) == [one.did]
    path.put(host, two.commit(create(f"{POST}/c", {})).frame(6))
    path.logged(6)
    assert len(listed(path, POST)) == 2
    assert marked(path) == []


def test_the_thousandth_post_writes_nothing(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.commit(create(f"{POST}/a", {})).frame(1))
    path.logged(1)
    listed(path, POST)
    path.db.write(lambda tx: tx.execute("DELETE FROM collection_repo"))
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    path.logged(2)
    assert listed(path, POST) == []


def test_what_commits_were_missed_of_is_marked(path: EventPath, pds: FakePds) -> None:
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, repo.commit(create(f"{POST}/a", {})).frame(1))
    repo.commit(create(f"{LIKE}/missed", {}))
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    path.put(host, other.commit(create(f"{POST}/a", {})).frame(3))
    path.logged(3)
    assert marked(path) == [repo.did]
    other.commit(create(f"{LIKE}/missed", {}))
    path.put(host, other.sync_frame(4))
    path.logged(4)
    assert sorted(marked(path)) == sorted([repo.did, other.did])


def test_the_host_settles_what_is_in_doubt(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.commit(create(f"{POST}/a", {}), create(f"{FOLLOW}/a", {})).frame(1))
    repo.commit(create(f"{LIKE}/missed", {}), delete(f"{POST}/a"))
    path.put(host, repo.commit(create(f"{FOLLOW}/b", {})).frame(2))
    path.logged(2)
    assert marked(path) == [repo.did]
    pds.collections[repo.did] = [LIKE, FOLLOW, "not a name"]
    assert path.collection_check.run_once() == 1
    assert (listed(path, POST), listed(path, LIKE), listed(path, FOLLOW)) == ([], [repo.did], [repo.did])
    assert marked(path) == []
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
    path.logged(3)
    assert listed(path, POST) == [repo.did], "what the host did not list is written again when it comes"


def test_an_event_between_answer_and_settling_is_not_undone(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.commit(create(f"{POST}/a", {})).frame(1))
    path.logged(1)
    repo.commit(delete(f"{POST}/a"))
    path.put(host, repo.sync_frame(2))
    path.logged(2)
    assert marked(path) == [repo.did]
    check = path.collection_check
    ask = check._ask

    def and_then_a_post(did: str, host_asked: Host) -> set[str] | None:
        answer = ask(did, host_asked)
        path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
        path.logged(3)
        path.stream.projector.flush()
        return answer

    monkeypatch.setattr(check, "_ask", and_then_a_post)
    pds.collections[repo.did] = []
    assert check.run_once() == 1
    assert listed(path, POST) == [repo.did]


def test_a_host_that_fails_is_left_alone_for_a_while(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    repo.commit(create(f"{POST}/a", {}))
    path.put(host, repo.sync_frame(1))
    path.logged(1)
    assert marked(path) == [repo.did]
    pds.on_accept = lambda sock: None
    check = path.collection_check
    assert check.run_once() == 0 and marked(path) == [repo.did]
    pds.on_accept = None
    assert check.run_once() == 0, "not so soon"
    check._silent.clear()
    check._put_off.clear()
    assert check.run_once() == 1, "it does not describe the account: what is stored stays"
    assert marked(path) == []


@pytest.mark.parametrize("status", [500, 503])
def test_an_account_that_fails_keeps_no_other_of_its_host_waiting(path: EventPath, pds: FakePds, status: int) -> None:
    host, bad, good = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    for seq, repo in enumerate((bad, good), 1):
        repo.commit(create(f"{POST}/a", {}))
        path.put(host, repo.sync_frame(seq))
        path.logged(seq)
    assert marked(path) == [bad.did, good.did]

    def describe(query: dict[str, str]) -> tuple[int, bytes]:
        if query["repo"] == bad.did:
            return status, b"{}"
        return 200, json.dumps({"did": good.did, "collections": [POST]}).encode()

    pds.answers["describeRepo"] = describe
    check = path.collection_check
    if status == 500:
        assert check.run_once() == 1, "the host answers, only not for this account"
    else:
        assert check.run_once() == 0, "the host may be away as a whole"
        check._silent.clear()
        assert check.run_once() == 1
    assert marked(path) == [bad.did] and listed(path, POST) == [good.did]


def test_the_log_brings_the_index_up_after_a_crash(path: EventPath, pds: FakePds) -> None:
    """SQL lost everything since the first event: the log's tail has it, deletions included."""
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, repo.commit(create(f"{POST}/a", {}), create(f"{FOLLOW}/a", {})).frame(1))
    path.logged(1)
    path.stream.projector.flush()
    before = path.db.read(_pairs)
    path.put(host, repo.commit(delete(f"{POST}/a"), create(f"{LIKE}/a", {})).frame(2))
    path.put(host, other.commit(create(f"{LIKE}/a", {})).frame(3))
    path.put(host, other.commit(delete(f"{LIKE}/a")).frame(4))
    path.logged(4)
    path.close()
    database = open_database(path._url, max_connections=2)
    database.write(_put_back, before)
    database.close()
    path._open()
    assert (listed(path, POST), listed(path, LIKE), listed(path, FOLLOW)) == ([], [repo.did], [repo.did])


def _pairs(tx: Transaction) -> list[tuple[int, int]]:
    return tx.rows("SELECT collection_id, uid FROM collection_repo")


def _put_back(tx: Transaction, pairs: list[tuple[int, int]]) -> None:
    tx.execute("UPDATE relay_position SET position = 1")
    tx.execute("DELETE FROM collection_repo")
    tx.many("INSERT INTO collection_repo (collection_id, uid) VALUES (?, ?)", pairs)
