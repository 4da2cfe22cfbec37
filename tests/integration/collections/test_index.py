"""`listReposByCollection`: its pages, its errors, and who is not on the list."""

from __future__ import annotations

import pytest

from relay.store import projection
from relay.store.projection import ProjectionBatch
from tests.support.accounts import add_accounts, add_hosts
from tests.support.web import Web

LIST = "/xrpc/com.atproto.sync.listReposByCollection"
POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"


@pytest.fixture
def dids(web: Web) -> list[str]:
    """Five accounts with posts, of which the second and third are not active; the last one has likes."""
    (host,) = add_hosts(web.db, 1)
    statuses = [("active", "active")] * 5
    statuses[1:3] = [("takendown", "active"), ("active", "deactivated")]
    found = add_accounts(web.db, host, statuses)
    pairs: dict[tuple[int, str], bool | None] = {(uid, POST): True for uid in range(1, 6)}
    pairs[5, LIKE] = True
    web.db.write(projection.write, ProjectionBatch(3, 3, collections=pairs))
    return found


@pytest.mark.parametrize("limit", [1, 2, 2000])
def test_every_active_account_is_listed_once(web: Web, dids: list[str], limit: int) -> None:
    listed, cursor = [], ""
    while True:
        page = web.get(f"{LIST}?collection={POST}&limit={limit}&cursor={cursor}").json
        listed += [repo["did"] for repo in page["repos"]]
        if "cursor" not in page:
            break
        cursor = page["cursor"]
    assert listed == [dids[0], dids[3], dids[4]]


def test_collections_are_apart(web: Web, dids: list[str]) -> None:
    assert web.get(f"{LIST}?collection={LIKE}").json == {"repos": [{"did": dids[4]}]}
    assert web.get(f"{LIST}?collection=app.bsky.feed.repost").json == {"repos": []}


@pytest.mark.parametrize("query", ["", "?collection=", "?collection=no", f"?collection={POST}&limit=2001"])
def test_bad_parameters_are_refused(web: Web, query: str) -> None:
    answer = web.get(LIST + query)
    assert (answer.status, answer.json["error"]) == (400, "InvalidRequest")
