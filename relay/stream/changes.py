"""What an event changes: the state of a repo, and what is known of its collections.

The gate asks `changes_of` for an event that is being accepted, recovery for one that is in the log, so that both say
the same. Pure. Must not know how an event was verified, or how what it changes is stored.
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
    be asked. `follows`: no event is missing between it and the repo's state before.
    """

    repo: RepoRow
    collections: Mapping[str, bool | None]
    follows: bool


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
    collections (`atproto.commit.touched`). A `#sync`, and a commit before which others were missed, leave every
    collection in doubt.
    """
    if isinstance(event, Sync):
        return Changed(RepoRow(uid, event.rev, commit, data, desynchronized=False), {ALL: None}, follows=True)
    # `prevData` alone decides that (synchronization draft, 4.5 step 6): some hosts never fill `since`.
    follows = before is None or event.prev_data == before.data
    desynchronized = before is not None and before.desynchronized
    if not follows and not desynchronized:
        touched = {**touched, ALL: None}
    return Changed(RepoRow(uid, event.rev, commit, data, desynchronized or not follows), touched, follows)
