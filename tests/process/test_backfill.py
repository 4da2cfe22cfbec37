"""Two relays as processes: one imports the other's collection index, is killed in the middle, and goes on."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess
from gevent.os import make_nonblocking, nb_read

from relay.store import collections, projection
from relay.store.open import open_database
from relay.store.projection import ProjectionBatch
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.relay_process import RelayProcess

RELAY = Path(sys.executable).parent / "relay"
POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
ACCOUNTS = 24_000


def prepare(url: str, *, indexed: bool) -> None:
    """A relay's database with all accounts, and with the index that the other one lacks."""
    db = open_database(url, max_connections=4)
    (host,) = add_hosts(db, 1)
    add_accounts(db, host, [("active", "active")] * ACCOUNTS)
    if indexed:
        pairs: dict[tuple[int, str], bool | None] = {(uid, POST): True for uid in range(1, ACCOUNTS + 1)}
        db.write(projection.write, ProjectionBatch(3, 3, collections=pairs | {(7, LIKE): True}))
    else:
        db.write(collections.add_listed, LIKE, [did(1)])
    db.close()


@pytest.fixture
def relays(tmp_path: Path, new_database_url: Callable[[], str]) -> Iterator[tuple[RelayProcess, RelayProcess]]:
    started = []
    for name in ("source", "importing"):
        url = new_database_url()
        prepare(url, indexed=name == "source")
        process = RelayProcess(tmp_path / name, {"DATABASE_URL": url, "RELAY_INITIAL_SEQ_NUMBER": "10"})
        process.start(60)
        started.append(process)
    yield started[0], started[1]
    for process in started:
        process.close()


def command(relay: RelayProcess, *words: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RELAY, "backfill-collections", *words, "--url", relay.url, "--password", relay.password],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
    )


def signal_to(relay: RelayProcess, number: signal.Signals) -> None:
    assert relay.child is not None
    relay.child.process.send_signal(number)


@pytest.mark.timeout(300)
def test_a_kill_in_the_middle_costs_no_page(relays: tuple[RelayProcess, RelayProcess]) -> None:
    source, importing = relays

    def state() -> dict[str, Any]:
        found: dict[str, Any] = importing.admin(f"backfill-collections?source={source.url}")
        return found

    def listed_a_little_more() -> bool:
        """The source only answers for a moment each time that it is looked at, so that the kill is in the middle."""
        signal_to(source, signal.SIGCONT)
        gevent.sleep(0.02)
        signal_to(source, signal.SIGSTOP)
        return bool(state()["listed"] >= 3 * 2000)

    signal_to(source, signal.SIGSTOP)
    begun = command(importing, source.url, "--collection", POST, "--collection", LIKE, "--background")
    assert begun.returncode == 0, begun.stderr
    importing.wait_until(listed_a_little_more, 60)
    importing.kill()
    importing.start()
    resumed = state()
    assert resumed["running"] and 3 * 2000 <= resumed["listed"] < ACCOUNTS, "nothing was left to go on with"
    watched = command(importing, source.url, "--status")
    assert "running" in watched.stdout and watched.returncode == 0
    signal_to(source, signal.SIGCONT)
    importing.wait_until(lambda: not state()["running"], 60)
    done = state()
    assert (done["error"], done["done"], done["listed"], done["taken"]) == (None, 2, ACCOUNTS + 1, ACCOUNTS + 1)
    found, cursor = 0, ""
    while True:
        page = importing.xrpc("listReposByCollection", f"collection={POST}&limit=2000&cursor={cursor}").json
        found += len(page["repos"])
        if "cursor" not in page:
            break
        cursor = page["cursor"]
    assert found == ACCOUNTS
    likes = importing.xrpc("listReposByCollection", f"collection={LIKE}").json
    assert likes == {"repos": [{"did": did(1)}, {"did": did(7)}]}


@pytest.mark.timeout(300)
def test_the_command_shows_its_way_to_the_end(relays: tuple[RelayProcess, RelayProcess]) -> None:
    source, importing = relays
    ours, terminal = pty.openpty()
    make_nonblocking(ours)
    parts: list[bytes] = []

    def read() -> None:
        for _ in range(1000):
            parts.append(nb_read(ours, 4096))

    reader = gevent.spawn(read)
    shown = command(importing, source.url, "--collection", POST, stderr=terminal)
    gevent.sleep(0.2)
    reader.kill()
    os.close(ours)
    os.close(terminal)
    bar = b"".join(parts).decode()
    assert shown.returncode == 0, bar
    assert f"accounts, {ACCOUNTS} known here" in bar and "100%" in bar
    assert len(set(re.findall(r"(\d+) accounts", bar))) > 2, "the bar stood still"
    assert re.search(r"^collections done +1 of 1$", shown.stdout, re.MULTILINE)
    assert re.search(rf"^accounts listed +{ACCOUNTS}$", shown.stdout, re.MULTILINE)
    view = json.loads(command(importing, source.url, "--status", "--json").stdout)
    assert view["taken"] == ACCOUNTS and not view["running"]
    assert command(importing, source.url, "--stop").returncode == 1
    assert command(importing, source.url, "--stop", "--status").returncode == 2
