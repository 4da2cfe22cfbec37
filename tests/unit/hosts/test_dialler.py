"""Where a host is asked from, and what follows when it says that it is not that far."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from relay.hosts.dialler import Dialler
from relay.hosts.host import Host
from relay.net.websocket_connection import StreamEnded
from relay.stream.cursors import NONE_YET
from tests.support.hosts import known_host

WINDOW = 3600.0


@pytest.fixture
def dialler() -> Dialler:
    nothing = cast(Any, None)
    return Dialler(nothing, nothing, WINDOW)


@pytest.fixture
def host() -> Host:
    """One that has sent events up to 9."""
    made = known_host(connected=False)
    made.row.last_connected_at = time.time()
    made.cursor.start(9)
    return made


def refuse(dialler: Dialler, host: Host) -> None:
    dialler._cursor_refused(host, StreamEnded("future-cursor"), 0.0, brought_events=False)


def test_a_host_is_asked_from_its_cursor_or_behind_what_stopped_it(dialler: Dialler, host: Host) -> None:
    assert dialler._cursor(host) == 9
    host.skip = 4
    assert dialler._cursor(host) == 13
    host.go_live = True
    assert dialler._cursor(host) is None


def test_one_that_was_not_seen_for_long_starts_live_once_nothing_of_it_is_under_way(
    dialler: Dialler, host: Host
) -> None:
    host.row.last_connected_at = time.time() - 2 * WINDOW
    assert host.cursor.begin(10)
    assert dialler._cursor(host) == host.cursor.position == 9
    host.cursor.finish(10)
    assert dialler._cursor(host) is None and host.cursor.position == NONE_YET
    assert host.cursor._book.gaps == {host.id: "long-unseen"}


def test_a_host_that_has_nothing_behind_what_stopped_it_is_asked_from_now_on(dialler: Dialler, host: Host) -> None:
    host.skip = 4
    refuse(dialler, host)
    assert (host.skip, host.go_live, host.cursor.position) == (0, True, 9)
    assert dialler.next_attempt_in(host) is not None


def test_numbers_do_not_start_again_while_events_are_under_way(dialler: Dialler, host: Host) -> None:
    host.cursor.begin(10)
    refuse(dialler, host)
    assert host.cursor.position == 9 and not host.cursor._book.gaps
    assert dialler.next_attempt_in(host) is not None
    host.cursor.finish(10)
    refuse(dialler, host)
    assert host.cursor.position == NONE_YET and host.cursor._book.gaps == {host.id: "numbers-restarted"}


def test_a_connection_that_has_ended_is_closed(host: Host) -> None:
    steps: list[str] = []

    class Parts:
        """What the dialler calls, each noted."""

        def __getattr__(self, name: str) -> Any:
            def called(*_: object, **__: object) -> Any:
                steps.append(name)
                if name == "read":
                    raise StreamEnded("closed")
                return self

            return called

        cut_off = False

    parts = cast(Any, Parts())
    dialler = Dialler(parts, parts, WINDOW)
    dialler._attend(host)
    assert steps == ["open", "connected", "read", "close", "disconnected"]
    assert dialler.next_attempt_in(host) is not None and not dialler._greenlets
