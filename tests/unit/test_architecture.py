"""The house rules that a reader relies on: which room imports which, what `relay/atproto` runs without, file sizes."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))
MAX_LINES = 400

DESIGN = ROOT / "docs" / "design.md"


def _table() -> dict[str, set[str]]:
    """What each room may import beside itself, a room or one module of it: the table of docs/design.md."""
    table = DESIGN.read_text(encoding="utf-8").split("    room         imports")[1].split("\n\n")[0]
    rows = re.findall(r"^    (\w+) {2,}([^\n]*?)(?: {2,}|$)", table, re.MULTILINE)
    return {room: set(allowed.split()) - {"-"} for room, allowed in rows}


ROOMS = _table()
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


def not_allowed(path: Path) -> set[str]:
    """What the module imports of other rooms although the table does not say that it may."""
    allowed = ROOMS[room_of(path)]
    foreign = {name.removeprefix("relay.") for name in imported(path) if name.startswith("relay.")}
    return {
        name
        for name in foreign
        if name.split(".")[0] not in {room_of(path), *allowed} and ".".join(name.split(".")[:2]) not in allowed
    }


def test_the_rooms_are_known() -> None:
    assert MODULES
    packages = {
        path.parent.name for path in MODULES if path.name == "__init__.py" and path.parent.parent == ROOT / "relay"
    }
    assert packages <= ROOMS.keys()
    named = {name.split(".")[0] for allowed in ROOMS.values() for name in allowed}
    assert named <= ROOMS.keys()
    # One way: a room is imported by those below it in the table alone.
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert all(order.index(name.split(".")[0]) < order.index(room) for name in allowed), room


def test_no_room_may_import_more_than_it_does() -> None:
    used: defaultdict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        names = (name.split(".") for name in imported(path) if name.startswith("relay."))
        used[room_of(path)] |= {part for _, *name in names for part in (name[0], ".".join(name[:2]))}
    assert {room: allowed - used[room] for room, allowed in ROOMS.items() if allowed - used[room]} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_to_its_room(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    if path.name == "__init__.py":
        assert not list(imported(path)), "a package says what it is and imports nothing"
    assert len(text.splitlines()) <= MAX_LINES, "a file this long is two ideas"
    room = room_of(path)
    if room not in ("__init__", "app"):
        assert not not_allowed(path)
    if room == "atproto":
        assert not {name.split(".")[0] for name in imported(path)} & NOT_IN_ATPROTO


def test_what_is_named_with_its_room_exists() -> None:
    """A docstring or comment that names `room.module` names a file, and one that names `room.Name` a name in it."""
    rooms = {path.name for path in (ROOT / "relay").iterdir() if path.is_dir()}
    for path in MODULES:
        for room, name in re.findall(r"`(?:relay\.)?([a-z]+)\.(\w+)(?:\.\w+)*`", path.read_text(encoding="utf-8")):
            if room in rooms:
                assert (ROOT / "relay" / room / f"{name}.py").is_file(), f"{path.name}: {room}.{name}"


def test_only_commands_know_app() -> None:
    assert {room_of(path) for path in MODULES if "app" in foreign_rooms(path)} <= {"commands"}


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
        "support/pooler.py",
        "support/busy_relay.py",
        "support/relay_process.py",
        "process/test_cluster.py",
        "process/test_database_outage.py",
        "promises/test_crash_points.py",
    }
    assert choosing == {"support/fixtures.py", *of_one}


def test_only_the_guarded_client_makes_requests() -> None:
    """Each way out has to check addresses. The command line asks the operator's own relay, as does the suite that
    tests one."""
    clients = {"urllib3", "http.client", "urllib.request", "requests"}
    users = {path for path in MODULES if any(name.startswith(tuple(clients)) for name in imported(path))}
    assert {str(path.relative_to(ROOT / "relay")) for path in users} == {
        "net/http.py",
        "net/http_pools.py",
        "commands/client.py",
        "conformance/subject.py",
    }
