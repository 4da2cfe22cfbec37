"""Promise 12: No account is left behind in silence. A commit whose operations cannot be proven, but whose commit object
can, goes out as `#sync`; what is missed for any other reason is noted, and healed from its source.
"""

from __future__ import annotations

import pytest

from relay.atproto.frames import Commit, Sync
from relay.ingest import penalties
from tests.support import commits
from tests.support.commits import Spoil
from tests.support.event_path import EventPath, desynchronized
from tests.support.pds import FakePds
from tests.support.repo import CommitEvent, post
from tests.support.wait import until


def no_operations(event: CommitEvent) -> None:
    event.ops.clear()


def other_path(event: CommitEvent) -> None:
    event.ops[0]["path"] = "app.bsky.feed.post/3kzzz"


SPOILT: dict[str, Spoil] = {
    "without the record": commits.without_record,
    "without operations": no_operations,
    "one operation twice": commits.repeat_op,
    "another path": other_path,
    "other data before": commits.spoil_field("prevData", commits.OTHER),
    "a header in another order": commits.header_in_other_order,
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_signed_reaches_consumers_whatever_is_wrong_around_it(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever follows the revs and fetches where there is a `#sync` has the account as it is, after each event."""
    monkeypatch.setattr(penalties, "FREE_CHARGES", 1000)
    host, repo = path.host(pds.url), path.repo(pds.url)
    signed = []
    for seq in range(1, 10):
        event = post(repo, f"3kaa{seq}")
        signed.append(event.fields["rev"])
        if seq % 3 == 2:
            SPOILT[how](event)
        path.put(host, event.frame(seq))
    until(lambda: host.cursor.position == 9)
    out = path.logged(9)
    assert [event.rev for event in out if isinstance(event, Commit | Sync)] == signed
    assert [type(event) for event in out] == [Commit, Sync, Commit] * 3


def test_a_commit_that_was_missed_is_noted(path: EventPath, pds: FakePds) -> None:
    """The next one does not continue what is known: it passes, since it is signed, and the account is marked."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    post(repo, "3kaab")
    path.put(host, post(repo, "3kaac").frame(3))
    _, after = path.logged(2)
    assert after.did == repo.did
    assert isinstance(after, Sync) or desynchronized(path, repo)
