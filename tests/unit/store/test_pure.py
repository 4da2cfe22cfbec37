"""The store's rules that need no database: combined status, ban suffixes, migration text."""

import pytest

from relay.atproto.events import STATUSES, effective_status
from relay.store import hosts
from relay.store import open as open_


def test_status_codes_are_those_in_old_log_records() -> None:
    assert STATUSES.index("active") == 0
    assert STATUSES.index("takendown") == 5
    assert STATUSES.index("inactive") == 8


@pytest.mark.parametrize(
    ("local", "upstream", "shown"),
    [
        ("active", "active", (True, None)),
        ("active", "deactivated", (False, "deactivated")),
        ("active", "inactive", (False, "inactive")),
        ("takendown", "active", (False, "takendown")),
        ("takendown", "deleted", (False, "takendown")),
        ("host-throttled", "active", (False, "throttled")),
        ("host-throttled", "deactivated", (False, "throttled")),
        ("host-throttled", "deleted", (False, "deleted")),
        ("desynchronized", "takendown", (False, "takendown")),
        ("active", "throttled", (False, "throttled")),
        ("active", "", (False, "inactive")),
        ("", "active", (False, "inactive")),
    ],
)
def test_own_status_wins_but_over_nothing_that_hides(local: str, upstream: str, shown: tuple[bool, str | None]) -> None:
    assert effective_status(local, upstream) == shown


@pytest.mark.parametrize(
    ("hostname", "names"),
    [
        ("a.b.example.com", ["a.b.example.com", "b.example.com", "example.com"]),
        ("example.com", ["example.com"]),
        ("localhost:2583", ["localhost"]),
        ("pds.example.com:8443", ["pds.example.com", "example.com"]),
    ],
)
def test_a_ban_covers_parents_of_two_labels(hostname: str, names: list[str]) -> None:
    assert hosts.suffixes(hostname) == names


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_migrations_leave_no_placeholder(engine: str) -> None:
    for name, sql in open_.migrations():
        for statement in open_.statements(sql, engine):  # type: ignore[arg-type]
            assert "{{" not in statement, name
            assert "--" not in statement, name
