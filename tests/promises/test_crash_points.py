"""Invariants 2, 3, 4, 11 and 16, at every crash point: the log, the projection and takedowns are stopped before each
durable step in turn (each write, sync, renaming, deletion, cutting, and each COMMIT), and started again.

On SQLite one life leaves a copy of its files before each step, as a kill, a torn write and two kinds of power loss
would leave them, and a relay starts from each. On both engines processes are killed with SIGKILL at steps of the same
life.
`CRASH_POINTS=all` takes all of them (`make kill-test`); else every so many, beginning at random.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.eventlog import high_water
from relay.kit.clock import SteadyClock
from relay.kit.errors import LogError
from tests.support import crash_life
from tests.support.crash_checks import check, check_seqs, look
from tests.support.crash_life import Life, Told
from tests.support.durable_steps import Files, Step, Steps
from tests.support.ledger import Ledger, make_ledger

ALL = os.environ.get("CRASH_POINTS") == "all"
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))
ROOT = Path(__file__).parents[2]
EVENTS = 80
SQLITE = "sqlite://"
ACCOUNTS_PER_HOST = 2


class Crash(NamedTuple):
    """What a crash before a step left: the log's files, those of SQL, and what had been told by then."""

    step: str
    log: Files
    sql: Files
    told: Told


def chosen(count: int, every: int) -> Iterator[int]:
    """The numbers of the points to try."""
    return iter(range(count)) if ALL else iter(range(random.randrange(every), count, every))


def ledger_of(seed: int) -> Ledger:
    return make_ledger(EVENTS, random.Random(seed), ACCOUNTS_PER_HOST)


def database_files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.glob("relay.sqlite*") if not path.name.endswith("-shm")}


class Recording:
    """Runs something on SQLite in `folder`, and keeps what a crash before each of its steps would leave."""

    def __init__(self, folder: Path, told: Told, keep: float = 1.0) -> None:
        """`keep`: such a part of the crashes."""
        self.folder = folder
        self._part = keep
        self.told = told
        self.steps = 0
        self.crashes: list[Crash] = []
        self._known: set[bytes] = set()

    def run(self, work: Callable[[], None], full_at: int = -1) -> None:
        """`full_at` is the step for which there is no room."""
        with Steps(self.folder / "persist") as steps:
            fail = full_disk_at(steps, full_at)

            def before(step: Step) -> None:
                if random.random() < self._part:
                    self._keep(steps, step)
                fail(step)

            steps.before = before
            work()
            self._keep(steps, Step("end", ""))
            self.steps = steps.count

    def _keep(self, steps: Steps, step: Step) -> None:
        sql = database_files(self.folder)
        for kind, files in steps.states(step).items():
            parts = sorted({**files, **sql}.items())
            state = pickle.dumps((parts, len(self.told.seen), self.told.answered, self.told.asking))
            digest = hashlib.sha256(state).digest()
            if digest not in self._known:
                self._known.add(digest)
                self.crashes.append(Crash(f"{kind} before {step}", files, sql, self.told.copy()))


def put(folder: Path, crash: Crash) -> str:
    """The files in place; the address of the database."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "persist").mkdir(parents=True)
    for name, data in crash.log.items():
        (folder / "persist" / name).write_bytes(data)
    for name, data in crash.sql.items():
        (folder / name).write_bytes(data)
    return f"{SQLITE}{folder}/relay.sqlite"


def recorded_life(folder: Path, ledger: Ledger) -> Recording:
    """A whole life from the very first start."""
    folder.mkdir()
    recording = Recording(folder, Told())
    recording.run(lambda: Life(folder / "persist", f"sqlite://{folder}/relay.sqlite", ledger, recording.told).play())
    return recording


def test_kill_or_power_loss_before_every_step(tmp_path: Path) -> None:
    ledger = ledger_of(1)
    recording = recorded_life(tmp_path / "life", ledger)
    tried = 0
    for number in chosen(len(recording.crashes), 11):
        crash = recording.crashes[number]
        url = put(tmp_path / "crash", crash)
        try:
            check(tmp_path / "crash" / "persist", url, ledger, crash.told)
        except BaseException as error:
            error.add_note(f"crash {number}: {crash.step}")
            raise
        tried += 1
    print(f"\n{recording.steps} steps, {len(recording.crashes)} different states after a crash, {tried} of them tried")


DOUBTS = ("torn end", "no newest segment", "header damaged", "mark emptied", "both marks emptied", "older database")


def spoil(folder: Path, doubt: str, older: Files) -> None:
    """Do to the files of a crashed relay what operators and disks do."""
    persist = folder / "persist"
    newest = max(persist.glob("*.seg"))
    if doubt == "torn end":
        os.truncate(newest, newest.stat().st_size - 40)
    elif doubt == "no newest segment":
        newest.unlink()
    elif doubt == "header damaged":
        newest.write_bytes(bytes(40) + newest.read_bytes()[40:])
    elif doubt in ("mark emptied", "both marks emptied"):
        (persist / high_water.NAME).write_bytes(b"")
        if doubt == "both marks emptied":
            (persist / high_water.GIVEN_OUT).write_bytes(b"")
    elif doubt == "older database":
        for path in folder.glob("relay.sqlite*"):
            path.unlink()
        for name, data in older.items():
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("doubt", DOUBTS)
def test_kill_before_every_step_of_a_start_in_doubt(tmp_path: Path, doubt: str) -> None:
    """A start that finds the log spoiled decides which seqs it passes over; a crash of that start changes nothing."""
    ledger = ledger_of(2)
    recording = recorded_life(tmp_path / "life", ledger)
    kills = (crash for crash in recording.crashes if crash.step.startswith("killed"))
    middle = next(crash for crash in kills if len(crash.told.seen) > 20)
    first = put(tmp_path / "spoiled", middle)
    spoil(tmp_path / "spoiled", doubt, recording.crashes[len(recording.crashes) // 8].sql)
    told = middle.told.copy()
    start = Recording(tmp_path / "spoiled", told)

    def begin() -> None:
        life = Life(tmp_path / "spoiled" / "persist", first, ledger, told)
        life.feed(2)
        life.flush()
        life.abandon()

    start.run(begin)
    for number in chosen(len(start.crashes), 5):
        crash = start.crashes[number]
        url = put(tmp_path / "crash", crash)
        try:
            check_seqs(tmp_path / "crash" / "persist", url, ledger, crash.told)
        except BaseException as error:
            error.add_note(f"crash {number}: {crash.step}")
            raise
    print(f"\n{doubt}: {start.steps} steps, {len(start.crashes)} different states after a crash")


def test_every_step_fails_once_for_want_of_room(tmp_path: Path) -> None:
    """A full disk at any step: the relay waits, or does not start and does the next time; nothing is lost by it."""
    ledger = ledger_of(3)
    with Steps(tmp_path / "count" / "persist") as steps:
        (tmp_path / "count").mkdir()
        Life(tmp_path / "count" / "persist", f"sqlite://{tmp_path}/count/relay.sqlite", ledger, Told()).play()
        count = steps.count
    for number in chosen(count, 13):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            life_with_a_full_disk(folder, ledger, number)
        except BaseException as error:
            error.add_note(f"step {number} failed")
            raise
        shutil.rmtree(folder)
    print(f"\n{count} steps")


def life_with_a_full_disk(folder: Path, ledger: Ledger, number: int) -> None:
    told = Told()
    persist, url = folder / "persist", f"sqlite://{folder}/relay.sqlite"
    with Steps(persist) as steps:

        def fail(step: Step) -> None:
            if steps.count - 1 == number and step.name != "COMMIT":
                raise OSError(errno.ENOSPC, f"no room to {step}")

        steps.before = fail
        try:
            life = Life(persist, url, ledger, told)
        except LogError:
            life = Life(persist, url, ledger, told)
        life.play()
    check(persist, url, ledger, told)


EVENTS_PER_ROUND = 20
FAR_US = 400 * 86_400 * 1_000_000


def clock_that_is_off(chance: random.Random) -> SteadyClock | None:
    """Right, or some seconds or days ahead or behind."""
    if chance.random() < 0.6:
        return None
    off = chance.choice((1, -1)) * chance.choice((4_000_000, FAR_US))
    return SteadyClock(lambda: time.time_ns() // 1000 + off, lambda: time.monotonic_ns() // 1000)


def full_disk_at(steps: Steps, number: int) -> Callable[[Step], None]:
    def fail(step: Step) -> None:
        if steps.count == number and step.name != "COMMIT":
            raise OSError(errno.ENOSPC, f"no room to {step}")

    return fail


@pytest.mark.timeout(600)
def test_rounds_of_crashes_with_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Life after life on the same files, each ended by a crash somewhere, among takedowns, with a disk that is full at
    some step, a clock that is off, and a database from some rounds ago.
    """
    monkeypatch.setattr(crash_life, "KEPT_BYTES", 100_000_000)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    ledger = make_ledger(ROUNDS * EVENTS_PER_ROUND, random.Random(seed), ACCOUNTS_PER_HOST)
    crash, older = Crash("the first start", {}, {}, Told()), [Crash("", {}, {}, Told())]
    for number in range(ROUNDS):
        sql = chance.choice(older[-3:]).sql if chance.random() < 0.2 else crash.sql
        crash = one_round(tmp_path, crash._replace(sql=sql), ledger, chance)
        older.append(crash)
        put(tmp_path / "look", crash)
        try:
            url = f"{SQLITE}{tmp_path}/look/relay.sqlite"
            look(tmp_path / "look" / "persist", url, ledger, crash.told)
        except BaseException as error:
            error.add_note(f"round {number}, seed {seed}: {crash.step}")
            raise
    url = put(tmp_path / "end", crash)
    check(tmp_path / "end" / "persist", url, ledger, crash.told)
    print(f"\n{ROUNDS} rounds, {len(crash.told.seen)} events, {len(crash.log)} files")


def one_round(folder: Path, crash: Crash, ledger: Ledger, chance: random.Random) -> Crash:
    """A life that goes on from what a crash left, and what one before a random step of it leaves."""
    url = put(folder / "life", crash)
    recording = Recording(folder / "life", crash.told.copy(), keep=0.3)
    clock, full_at = clock_that_is_off(chance), chance.randrange(400)

    def live() -> None:
        try:
            life = Life(folder / "life" / "persist", url, ledger, recording.told, clock)
        except LogError:
            life = Life(folder / "life" / "persist", url, ledger, recording.told, clock)
        life.play()

    recording.run(live, full_at)
    return chance.choice(recording.crashes)


KILLED = """
from gevent import monkey
monkey.patch_all()
import sys
from tests.support.crash_process import main
main(sys.argv[1:])
"""


def test_kill_by_sigkill_at_steps_on_both_engines(tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    ledger = ledger_of(4)
    (tmp_path / "ledger").write_bytes(pickle.dumps(ledger))
    number = tried = 0
    for number in chosen(1000, 30):
        url = new_database_url()
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", KILLED, str(folder), url, str(tmp_path / "ledger"), str(number)]
        code = subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode
        assert code in (0, -signal.SIGKILL)
        told = pickle.loads((folder / "told").read_bytes()) if code else Told()
        if not code:
            break
        try:
            check(folder / "persist", url, ledger, told)
        except BaseException as error:
            error.add_note(f"killed before step {number}")
            raise
        tried += 1
    print(f"\n{tried} kills, the last before step {number}")
