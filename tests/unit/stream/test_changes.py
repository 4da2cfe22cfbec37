"""What an event changes of its repo and of the collection index, by `relay.stream.changes`."""

from __future__ import annotations

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.events import Commit, Sync
from relay.store.accounts import RepoRow
from relay.store.collections import ALL
from relay.stream.changes import Changed, changes_of
from tests.support.repo import RepoBuilder, SigningKey, account_did, create

UID = 7
POSTS = "app.bsky.feed.post"
TOLD = {POSTS: True}


def commits(count: int) -> list[tuple[Commit, Cid]]:
    """The first commits of a repo, each with the root of the tree after it."""
    repo = RepoBuilder(account_did(1), SigningKey.create("k256", seed=1))
    events = []
    for number in range(count + 1):
        event = frames.decode(repo.commit(create(f"{POSTS}/3k{number:011d}", {"n": number})).frame(number + 1))
        assert isinstance(event, Commit)
        events.append(event)
    roots = [event.prev_data for event in events[1:]]
    return [(event, root) for event, root in zip(events, roots, strict=False) if root is not None]


def after(event: Commit | Sync, data: Cid, before: RepoRow | None) -> Changed:
    commit = event.commit if isinstance(event, Commit) else data
    return changes_of(event, UID, commit, data, TOLD, before)


def test_commits_that_follow_each_other_leave_nothing_in_doubt() -> None:
    (first, first_data), (second, second_data) = commits(2)
    repo, told, _ = after(first, first_data, None)
    assert (repo.uid, repo.rev, repo.commit, repo.data) == (UID, first.rev, first.commit, first_data)
    repo, more, follows = after(second, second_data, repo)
    assert follows and not repo.desynchronized and repo.rev == second.rev
    assert told == more == TOLD


def test_a_gap_leaves_all_collections_in_doubt_once_and_the_repo_until_a_sync() -> None:
    events = commits(4)
    repo, _, follows = after(*events[0], None)
    assert follows
    repo, told, follows = after(*events[2], repo)
    assert not follows and repo.desynchronized and told == {**TOLD, ALL: None}
    repo, told, follows = after(*events[3], repo)
    assert follows and repo.desynchronized and told == TOLD
    builder = RepoBuilder(account_did(1), SigningKey.create("k256", seed=1))
    builder.commit(create(f"{POSTS}/3k00000000000", {"n": 0}))
    sync = frames.decode(builder.sync_frame(9))
    assert isinstance(sync, Sync)
    repo, told, follows = after(sync, events[0][1], repo)
    assert follows and not repo.desynchronized and told == {ALL: None}
