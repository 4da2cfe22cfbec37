from __future__ import annotations

import pytest

from relay.kit.errors import StoreError
from relay.store.postgres_address import parameters_of

HERE = {"host": "db", "port": "5433", "user": "relay", "dbname": "network"}


@pytest.mark.parametrize(
    "address",
    [
        "postgres://relay@db:5433/network",
        "postgresql://relay@db:5433/network?",
        "postgres=host=db port=5433 user=relay dbname=network",
        "postgres= host = 'db'  port=5433 user=relay database=network ",
    ],
)
def test_where_the_database_is(address: str) -> None:
    assert parameters_of(address) == HERE


@pytest.mark.parametrize("written", ["p@ss", "p%40ss", "p@s%73"])
def test_the_last_at_sign_ends_the_password(written: str) -> None:
    assert parameters_of(f"postgres://relay:{written}@db:5433/network") == HERE | {"password": "p@ss"}


def test_a_password_in_a_list_is_quoted_where_it_must_be() -> None:
    assert parameters_of(r"postgres=user=relay password='it\'s a \\ word' host=db") == {
        "user": "relay",
        "password": r"it's a \ word",
        "host": "db",
    }


def test_parameters_of_the_session_are_sent_to_the_server() -> None:
    found = parameters_of("postgres://relay@db/network?sslmode=disable&search_path=relay%2C%20public&TimeZone=UTC")
    assert found["sslmode"] == "disable"
    assert found["options"] == r"-c search_path=relay,\ public -c TimeZone=UTC"
    listed = parameters_of("postgres=host=db search_path=relay options='-c geqo=off' default_query_exec_mode=exec")
    assert listed == {"host": "db", "options": "-c geqo=off -c search_path=relay"}


def test_a_host_may_be_a_socket() -> None:
    assert parameters_of("postgresql:///relay?host=/var/run/postgresql") == {
        "dbname": "relay",
        "host": "/var/run/postgresql",
    }


@pytest.mark.parametrize(
    "address",
    [
        "postgres://relay:secret@[db/network",
        "postgres=host=db password='secret",
        "postgres://db/x?secret",
        "postgres==secret",
    ],
)
def test_what_cannot_be_read_is_not_quoted(address: str) -> None:
    with pytest.raises(StoreError) as refused:
        parameters_of(address)
    assert "secret" not in str(refused.value)
