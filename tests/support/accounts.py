"""Hosts and accounts for the queries to find, written the way that the projection writes them."""

from __future__ import annotations

import base64

from relay.atproto.cid import Cid
from relay.store import hosts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database
from relay.store.projection import ProjectionBatch

COMMIT = Cid.of_dag_cbor(b"\xa0")
REV = "3jzfcijpj2z2a"


def did(uid: int) -> str:
    """The DID of the account numbered `uid`."""
    return "did:plc:" + base64.b32encode(uid.to_bytes(15)).decode().lower()


def add_hosts(db: Database, count: int) -> list[int]:
    """Hosts pds1.example.com and on, each of which sent an event; their ids."""
    ids = []
    for number in range(1, count + 1):
        name = f"pds{number}.example.com"
        ids.append(db.write(hosts.insert, name, no_ssl=False, account_limit=100, trusted=False).id)
    db.write(projection.write, ProjectionBatch(0, 0, cursors={id: 1000 + id for id in ids}))
    return ids


def add_accounts(db: Database, host_id: int, statuses: list[tuple[str, str]], *, with_repo: bool = True) -> list[str]:
    """An account for each (own, upstream) status, numbered from 1; their DIDs."""
    rows = {uid: AccountRow(uid, did(uid), host_id, *both) for uid, both in enumerate(statuses, 1)}
    repos = {uid: RepoRow(uid, REV, COMMIT, COMMIT) for uid in rows} if with_repo else {}
    db.write(projection.write, ProjectionBatch(0, 0, accounts=rows, repos=repos))
    return [row.did for row in rows.values()]
