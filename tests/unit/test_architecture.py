"""The house rules that a reader relies on: which room imports which, what `relay/atproto` runs without, file sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))
MAX_LINES = 400

# What each room may import beside itself: the table of docs/design.md. Imports point one way.
ROOMS: dict[str, set[str]] = {
    "atproto": set(),
    "kit": set(),
    "config": {"kit"},
    "net": {"kit", "atproto"},
    "store": {"kit", "atproto"},
    "eventlog": {"kit"},
    "stream": {"eventlog", "store", "net", "kit", "atproto"},
    "identity": {"store", "net", "kit", "atproto"},
    "hosts": {"stream", "store", "net", "config", "kit", "atproto"},
    "ingest": {"hosts", "identity", "stream", "store", "net", "kit", "atproto"},
    "collections": {"hosts", "stream", "store", "net", "kit", "atproto"},
    "admin": {"collections", "ingest", "hosts", "net", "kit", "atproto"},
    "web": {"admin", "hosts", "stream", "store", "net", "config", "kit", "atproto"},
    "dash": {"web", "admin", "hosts", "store", "kit", "atproto"},
    "edge": {"web", "stream", "eventlog", "store", "net", "config", "kit", "atproto"},
    "commands": {"app", "patched", "eventlog", "identity", "hosts", "store", "net", "config", "kit", "atproto"},
    "cli": {"config", "kit"},
    "patched": set(),
}
# Imports that the table does not have yet. Nothing is added here.
LEFT_TO_MOVE: set[tuple[str, str]] = set()
# Pure functions over bytes: no socket, no clock, no thread, no SQL, no logger.
NOT_IN_ATPROTO = {
    "asyncio",
    "datetime",
    "flask",
    "gevent",
    "http",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "psycopg2",
    "random",
    "select",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib",
    "urllib3",
}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "relay").parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def foreign_rooms(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {name[1] for name in names if name[0] == "relay" and len(name) > 1} - {room_of(path)}


def test_the_rooms_are_known() -> None:
    assert MODULES
    packages = {
        path.parent.name for path in MODULES if path.name == "__init__.py" and path.parent.parent == ROOT / "relay"
    }
    assert packages <= ROOMS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name != "__init__.py" or text.strip():
        assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert len(text.splitlines()) <= MAX_LINES, "a file this long is two ideas"
    if (room := room_of(path)) in ROOMS:
        left = {to for start, to in LEFT_TO_MOVE if start == room}
        assert foreign_rooms(path) <= ROOMS[room] | left
    if room == "atproto":
        assert not {name.split(".")[0] for name in imported(path)} & NOT_IN_ATPROTO


def test_only_commands_know_app() -> None:
    assert {room_of(path) for path in MODULES if "app" in foreign_rooms(path)} <= {"commands"}


def run_alone(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_worker_processes_stay_small() -> None:
    program = """
import sys
for name in ("gevent", "greenlet", "flask", "psycopg2", "prometheus_client", "sqlite3", "asyncio"):
    sys.modules[name] = None
import relay.ingest.worker
"""
    run_alone(program)


def test_atproto_runs_without_gevent() -> None:
    """In a fresh interpreter in which nothing else of ours, and no gevent, can be imported."""
    modules = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in MODULES
        if room_of(path) == "atproto"
    ]
    program = f"""
import importlib, sys
for name in ("gevent", "greenlet", "flask", "psycopg2", "prometheus_client"):
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
from relay.atproto import drisl
assert drisl.decode(drisl.encode({{"a": [1, "b"]}})) == {{"a": [1, "b"]}}
ours = {{name for name in sys.modules if name.startswith("relay.") and not name.startswith("relay.atproto")}}
assert not ours, ours
assert not {{"sqlite3", "asyncio"}} & sys.modules.keys()
"""
    run_alone(program)


def test_tests_run_on_both_databases() -> None:
    """Only the fixture chooses an engine, but for tests of one of them alone."""
    tests = ROOT / "tests"
    choosing = {
        str(path.relative_to(tests))
        for folder in ("integration", "process", "promises", "support")
        for path in (tests / folder).rglob("*.py")
        if re.search(r"(sqlite|postgres)://[^\"]", path.read_text(encoding="utf-8"))
    }
    of_one = {
        "integration/store/test_sqlite.py",
        "integration/store/test_postgres.py",
        "integration/store/test_migrate.py",
        "support/postgres.py",
        "support/relay_process.py",
        "process/test_database_outage.py",
    }
    assert choosing == {"support/fixtures.py", *of_one}


def test_only_the_guarded_client_makes_requests() -> None:
    """Each way out has to check addresses. The command line asks the operator's own relay."""
    clients = {"urllib3", "http.client", "urllib.request", "requests"}
    users = {path for path in MODULES if any(name.startswith(tuple(clients)) for name in imported(path))}
    assert {str(path.relative_to(ROOT / "relay")) for path in users} == {"net/http.py", "commands/client.py"}
