"""Promise 19: The pure core and the worker process load no gevent, SQL or metrics; importing `cli`, `config` or
`commands` loads none either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from relay.ingest.worker_pool import WORKER
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.repo import post
from tests.support.wait import until

ROOT = Path(__file__).parents[2]
HEAVY = ("gevent", "greenlet", "flask", "psycopg2", "prometheus_client", "sqlite3")


def names_in(folder: str) -> list[str]:
    paths = sorted((ROOT / "relay" / folder).rglob("*.py"))
    assert paths
    names = [str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def run_alone(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_worker_processes_stay_small() -> None:
    program = """
import sys
from functools import partial
for name in ("gevent", "greenlet", "flask", "psycopg2", "prometheus_client", "sqlite3", "asyncio"):
    sys.modules[name] = None
import relay.ingest.worker
"""
    run_alone(program)


def test_atproto_runs_without_gevent() -> None:
    """In a fresh interpreter in which nothing else of ours, and no gevent, can be imported."""
    program = f"""
import importlib, sys
for name in ("gevent", "greenlet", "flask", "psycopg2", "prometheus_client"):
    sys.modules[name] = None
for name in {names_in("atproto")!r}:
    importlib.import_module(name)
from relay.atproto import drisl
assert drisl.decode(drisl.encode({{"a": [1, "b"]}})) == {{"a": [1, "b"]}}
ours = {{name for name in sys.modules if name.startswith("relay.") and not name.startswith("relay.atproto")}}
assert not ours, ours
assert not {{"sqlite3", "asyncio"}} & sys.modules.keys()
"""
    run_alone(program)


@pytest.mark.parametrize("name", ["relay.cli", "relay.config", *names_in("commands")])
def test_the_command_line_loads_nothing_before_the_patch(name: str) -> None:
    run_alone(f"import sys, {name}\nloaded = set({HEAVY!r}) & sys.modules.keys()\nassert not loaded, loaded")


def test_a_worker_at_work_has_none_of_it(path: EventPath, pds: FakePds) -> None:
    """The processes that verify, by the libraries that the kernel has mapped for them."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    workers = [entry for entry in Path("/proc").glob("[0-9]*") if works_for_us(entry)]
    assert bool(workers) == bool(path._processes)
    for worker in workers:
        # The one that the event did not go to may still be starting.
        until(partial(verifies, worker), timeout=30)
        mapped = (worker / "maps").read_text()
        assert not [name for name in ("gevent", "greenlet", "psycopg2", "sqlite3", "libpq") if name in mapped]


def verifies(process: Path) -> bool:
    mapped = (process / "maps").read_text()
    return "coincurve" in mapped or "cryptography" in mapped


def works_for_us(process: Path) -> bool:
    """True for a worker process that this one started."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return WORKER.encode() in words and int(parent) == os.getpid()
