"""What a repo's event changes: the state of its repo, and what is known of its collections.

The gate asks it for an event that is being accepted, recovery for one that is in the log, so that both say the same.
Pure functions. Must not know how an event was verified, or where the change is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from relay.atproto.cid import Cid
from relay.atproto.events import Commit, Sync
from relay.store.accounts import RepoRow
from relay.store.collections import ALL


class Changed(NamedTuple):
    """The repo's state after an event, and collection -> whether the repo has records of it, None when its host has to
    be asked.
    """

    repo: RepoRow
    collections: Mapping[str, bool | None]


def changes_of(
    event: Commit | Sync,
    uid: int,
    commit: Cid,
    data: Cid,
    touched: Mapping[str, bool | None],
    before: RepoRow | None,
) -> Changed:
    """What `event` of the account `uid` changes, `before` being its repo until then.

    `commit` and `data` are the commit and the root of the tree that the event proves, `touched` is what it says about
    collections (`atproto.commit.touched`).
    """
    repo = repo_after(event, uid, commit, data, before)
    return Changed(repo, told_by(event, touched, repo, before))


def continues(event: Commit, repo: RepoRow) -> bool:
    """True when `event` builds on exactly what is known of its repo.

    `prevData` alone decides that (synchronization draft, 4.5 step 6): some hosts never fill `since`.
    """
    return event.prev_data == repo.data


def repo_after(event: Commit | Sync, uid: int, commit: Cid, data: Cid, before: RepoRow | None) -> RepoRow:
    """The repo's state after `event`."""
    gap = isinstance(event, Commit) and before is not None and (before.desynchronized or not continues(event, before))
    return RepoRow(uid, event.rev, commit, data, gap)


def told_by(
    event: Commit | Sync, touched: Mapping[str, bool | None], repo: RepoRow, before: RepoRow | None
) -> Mapping[str, bool | None]:
    """What `event` says about collections, `repo` being the state after it.

    A `#sync`, and a commit before which others were missed, leave every collection in doubt.
    """
    if isinstance(event, Sync):
        return {ALL: None}
    if repo.desynchronized and before is not None and not before.desynchronized:
        return {**touched, ALL: None}
    return touched
