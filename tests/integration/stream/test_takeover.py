"""An indigo installation, its database and its replay folder, is taken over: seqs go on above the old ones."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from relay.atproto import frames
from relay.eventlog.high_water import RESERVE
from relay.kit.errors import LogError
from relay.store import accounts, hosts
from relay.store.database import Database
from relay.store.open import open_database
from relay.stream import takeover
from tests.support.blocks import cid_text
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document
from tests.support.websocket import connect

INDIGO = Path(__file__).parents[1] / "store" / "indigo"


def record(seq: int, body: bytes = b"\xa0" * 50, flags: int = 0, kind: int = 1) -> bytes:
    """One event in a replay file of indigo; in its body is the seq that its host gave it."""
    return struct.pack("<IIIQQ", flags, kind, len(body), 7, seq) + body


class Indigo:
    """A database with indigo's tables, and its persist folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        folder.mkdir()
        engine = "sqlite" if url.startswith("sqlite") else "postgres"
        self._run((INDIGO / f"{engine}.sql").read_text().replace("{alerts}", ""))

    def _run(self, sql: str) -> None:
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite://"))) as file:
                file.executescript(sql)
        else:
            with closing(psycopg2.connect(self.url)) as server:
                server.cursor().execute(sql)
                server.commit()

    def file(self, first_seq: int, content: bytes | None, *, deleted: bool = False) -> None:
        """A replay file and its row; None for one that is not there any more."""
        if content is not None:
            (self.folder / f"evts-{first_seq}").write_bytes(content)
        at = "'2025-03-04 05:06:07+00:00'" if deleted else "NULL"
        self._run(
            "INSERT INTO log_file_refs (deleted_at, path, archived, seq_start)"
            f" VALUES ({at}, 'evts-{first_seq}', false, {first_seq})"
        )

    def host(self, hostname: str, last_seq: int) -> None:
        self._run(
            "INSERT INTO host (hostname, no_ssl, account_limit, trusted, status, last_seq, account_count)"
            f" VALUES ('{hostname}', true, 100, false, 'active', {last_seq}, 1)"
        )

    def repo(self, repo: RepoBuilder) -> None:
        assert repo.data
        self._run(
            f"INSERT INTO account (uid, did, host_id) VALUES (41, '{repo.did}', 1);"
            "INSERT INTO account_repo (uid, rev, commit_cid, commit_data_cid)"
            f" VALUES (41, '{repo.rev}', '{cid_text(repo.head)}', '{cid_text(repo.data)}');"
        )

    def next_seq(self) -> int:
        database = open_database(self.url, max_connections=2)
        try:
            return takeover.next_seq(database, self.folder)
        finally:
            database.close()


@pytest.fixture
def indigo(database_url: str, tmp_path: Path) -> Iterator[Indigo]:
    yield Indigo(database_url, tmp_path / "persist")


def test_without_indigo_there_is_nothing_to_go_on_from(database: Database, tmp_path: Path) -> None:
    assert takeover.next_seq(database, tmp_path / "nowhere") == 0


def test_the_newest_file_says_where_it_stopped(indigo: Indigo) -> None:
    indigo.file(0, b"".join(record(seq) for seq in range(1, 10_001)))
    indigo.file(10_001, record(10_001) + record(10_002, b"", flags=1) + record(10_003, kind=6))
    assert indigo.next_seq() == 10_004


def test_a_file_that_was_just_begun(indigo: Indigo) -> None:
    indigo.file(0, record(1))
    indigo.file(10_001, b"")
    assert indigo.next_seq() == 10_001


def test_files_count_also_when_the_database_does_not_list_them(indigo: Indigo) -> None:
    indigo.file(0, record(1))
    (indigo.folder / "evts-500").write_bytes(record(500) + record(501))
    (indigo.folder / "evts-9999-copy").write_bytes(record(9999))
    assert indigo.next_seq() == 502


def test_what_is_named_by_no_seq_is_not_a_file_of_indigos(indigo: Indigo) -> None:
    indigo.file(10, record(10))
    indigo.file(2**53, None)
    indigo.file(-1, None)
    (indigo.folder / f"evts-{10**30}").write_bytes(b"")
    assert indigo.next_seq() == 11


def test_deleted_files_do_not(indigo: Indigo) -> None:
    indigo.file(100, record(100))
    indigo.file(20_000, None, deleted=True)
    assert indigo.next_seq() == 101


@pytest.mark.parametrize("torn", [record(12)[:10], record(12)[:40], bytes(200), record(2**53), record(2**64 - 1)])
def test_a_torn_end_leaves_a_gap(indigo: Indigo, torn: bytes) -> None:
    indigo.file(10, record(10) + record(11) + torn)
    assert indigo.next_seq() == 12 + RESERVE


def test_a_file_that_is_gone_leaves_a_gap(indigo: Indigo) -> None:
    indigo.file(10_000, None)
    assert indigo.next_seq() == 10_000 + RESERVE


def test_a_file_that_cannot_be_read_stops_the_start(indigo: Indigo) -> None:
    (indigo.folder / "evts-7").mkdir()
    with pytest.raises(LogError):
        indigo.next_seq()


def test_the_relay_goes_on_where_indigo_stopped(tmp_path: Path, indigo: Indigo) -> None:
    """The real process on indigo's database, folder and env file: its host's next event gets the next seq."""
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(create("app.bsky.feed.post/a", {"text": "seen by indigo"}))
    with FakePds() as pds, FakePlc() as plc:
        plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)
        indigo.file(4_000, record(4_000) + record(4_001))
        indigo.host(pds.hostname, last_seq=6)
        indigo.repo(repo)
        pds.publish(6, repo.identity_frame(6))
        pds.publish(7, repo.commit(create("app.bsky.feed.post/b", {"text": "new"})).frame(7))
        relay = RelayProcess(tmp_path / "relay", {})
        its_own = {
            "DATABASE_URL": indigo.url,
            "RELAY_PERSISTER_DIR": str(indigo.folder),
            "RELAY_API_LISTEN": relay.settings.pop("RELAY_API_BIND"),
            "ATP_PLC_HOST": plc.url,
            "RELAY_ADMIN_KEY": relay.settings.pop("RELAY_ADMIN_PASSWORD"),
            "RELAY_CONCURRENCY_PER_PDS": "40",
            "MAX_METADB_CONNECTIONS": "4",
            "ENVIRONMENT": "prod",
        }
        del relay.settings["DATABASE_URL"], relay.settings["RELAY_PERSIST_DIR"]
        env_file = tmp_path / "indigo.env"
        env_file.write_text("".join(f'{name}="{value}"\n' for name, value in its_own.items()))
        relay.command = [*relay.command, "--env-file", env_file]
        try:
            relay.start()
            with connect(f"{relay.firehose}?cursor=4001") as stream:
                event = frames.decode(stream.recv(timeout=60, decode=False))
            assert isinstance(event, frames.Commit)
            assert (event.seq, event.did, event.rev) == (4_002, repo.did, repo.rev)
            assert pds.cursors == ["6"]
            assert relay.xrpc("listReposByCollection", "collection=app.bsky.feed.post").status == 200
            assert relay.stop() == 0
        finally:
            relay.close()
    database = open_database(indigo.url, max_connections=2)
    (host,) = database.read(hosts.all_rows)
    found = database.read(accounts.many_by_did, [repo.did]).get(repo.did)
    database.close()
    assert host.last_seq == 7
    assert found is not None and found[1] is not None
    assert (found[0].uid, found[1].rev, found[1].desynchronized) == (41, repo.rev, False)
