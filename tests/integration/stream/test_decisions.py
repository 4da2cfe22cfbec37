"""What operators decided, in the file beside the log and in SQL: which of them lacks what, and who gets it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.eventlog import disk
from relay.kit.errors import StoreError
from relay.store import collection_imports, hosts, installation
from relay.store import decisions as table
from relay.store.database import Database, Transaction
from relay.store.decisions import CRAWL_ENABLED, host_value, import_value
from relay.stream import decisions
from relay.stream.decisions import NAME, Decisions, load

SOURCE = "https://relay.example"


def ban(db: Database, kept: Decisions, domain: str) -> None:
    db.write(hosts.add_ban, domain)
    kept.note("ban", domain, True)
    kept.store()


def forget(tx: Transaction, after: int) -> None:
    """An older database in the place of this one: it has the decisions up to `after`, and no ban."""
    tx.execute("DELETE FROM domain_bans")
    table.put_last(tx, after)


def away(*_: Any, **__: Any) -> None:
    raise StoreError("store-unavailable", "away")


def test_an_older_database_gets_back_what_it_lacks(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    host = database.write(hosts.insert, "pds.test", no_ssl=True, account_limit=7, trusted=False)
    host.per_hour, host.status, host.last_error = 99, "banned", "blocked: by an admin"
    kept.note("host", host.hostname, host_value(host))
    kept.note("ban", "old.test", True)
    kept.note("ban", "old.test", False)
    kept.note("setting", CRAWL_ENABLED, "0")
    ban(database, kept, "evil.test")
    kept.note("import", SOURCE, import_value(["app.bsky.feed.post"], 5.0, ended=False))
    kept.store()
    database.write(lambda tx: [tx.execute("DELETE FROM host"), tx.execute("DELETE FROM relay_setting")])
    database.write(forget, 0)
    database.write(hosts.add_ban, "old.test")
    Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["evil.test"]
    assert database.read(hosts.all_rows) == [host]
    assert database.read(installation.get, CRAWL_ENABLED) == "0"
    assert database.read(collection_imports.running) == SOURCE
    step = database.read(collection_imports.next_step, SOURCE)
    assert step is not None and step.nsid == "app.bsky.feed.post"
    assert database.read(table.last) == 6


def test_what_a_newer_database_says_is_left_as_it_is(tmp_path: Path, database: Database) -> None:
    """An older relay, or a command, wrote to it: nothing shows that it went back."""
    kept = Decisions(tmp_path, database)
    ban(database, kept, "evil.test")
    database.write(hosts.remove_ban, "evil.test")
    database.write(hosts.add_ban, "other.test")
    again = Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["other.test"]
    again.store()
    database.write(forget, 1)
    Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["other.test"]


def test_a_database_without_a_file_keeps_what_it_has(tmp_path: Path, database: Database) -> None:
    """The first start of this version, and a log that was lost: from now on the file has it too."""
    database.write(hosts.add_ban, "evil.test")
    database.write(table.put_last, 41)
    kept = Decisions(tmp_path, database)
    kept.store()
    database.write(forget, 40)
    Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["evil.test"] and database.read(table.last) == 42


def test_an_import_that_was_ended_is_not_begun_again(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    database.write(collection_imports.begin, SOURCE, ["app.bsky.feed.post"], named=True, now=5.0)
    kept.note("import", SOURCE, import_value((), 9.0, ended=True))
    kept.store()
    database.write(table.put_last, 0)
    Decisions(tmp_path, database)
    assert database.read(collection_imports.running) is None


def test_an_import_that_the_database_has_goes_on_from_there(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    database.write(collection_imports.begin, SOURCE, ["app.bsky.feed.post"], named=True, now=5.0)
    step = database.read(collection_imports.next_step, SOURCE)
    assert step is not None
    database.write(collection_imports.take_page, SOURCE, step, [], 2000, "next")
    kept.note("import", SOURCE, import_value(["app.bsky.feed.post"], 5.0, ended=False))
    kept.store()
    database.write(table.put_last, 0)
    Decisions(tmp_path, database)
    after = database.read(collection_imports.next_step, SOURCE)
    assert after is not None and (after.cursor, after.listed) == ("next", 2000)
    with pytest.raises(collection_imports.StepMoved):
        database.write(collection_imports.take_page, SOURCE, step, [], 2000, "another")


def test_while_the_relay_runs_it_is_noticed_and_those_who_watch_are_told(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    ban(database, kept, "evil.test")
    told: list[list[str]] = []
    kept.watch(lambda: told.append(database.read(hosts.all_bans)))
    kept.look()
    assert told == []
    database.write(forget, 0)
    kept.look()
    assert told == [["evil.test"]] and database.read(table.last) == 1


def test_what_was_put_back_in_part_is_put_back_again(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    ban(database, kept, "evil.test")
    database.write(forget, 0)
    with pytest.raises(StoreError):
        kept.watch(away)
        kept.look()
    assert database.read(table.last) == 0
    Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["evil.test"] and database.read(table.last) == 1


@pytest.mark.parametrize("step", ["file", "database"])
def test_what_cannot_be_stored_is_stored_later(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Or is not lost to a kill before that: the database has it as well."""
    kept = Decisions(tmp_path, database)
    database.write(hosts.add_ban, "evil.test")

    def full(*_: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "replace", full) if step == "file" else patched.setattr(database, "write", away)
        kept.note("ban", "evil.test", True)
        kept.store()
    assert database.read(table.last) == 0
    killed = Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["evil.test"]
    killed.store()
    kept.store()
    database.write(forget, 0)
    Decisions(tmp_path, database)
    assert database.read(hosts.all_bans) == ["evil.test"]


def test_a_damaged_file_is_not_used(tmp_path: Path, database: Database) -> None:
    kept = Decisions(tmp_path, database)
    ban(database, kept, "evil.test")
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b"evil", b"good"))
    assert load(path) == []
    Decisions(tmp_path, database).store()
    assert [one.key for one in load(path)] == ["evil.test"]


def test_the_oldest_go_when_there_are_too_many(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "MAX_DECISIONS", 3)
    kept = Decisions(tmp_path, database)
    for number in range(5):
        kept.note("ban", f"evil{number}.test", True)
    kept.note("ban", "evil2.test", False)
    kept.store()
    assert [(one.number, one.key) for one in load(tmp_path / NAME)] == [
        (4, "evil3.test"),
        (5, "evil4.test"),
        (6, "evil2.test"),
    ]
