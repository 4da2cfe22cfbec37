"""What systemd is told, over a real socket of the kind it makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

from relay.kit.systemd import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_ready_heartbeat_and_stopping(manager: socket.socket) -> None:
    notifier = Notifier(
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "60000", "WATCHDOG_PID": str(os.getpid())}
    )
    notifier.ready()
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    notifier.stopping()
    said = [manager.recv(100) for _ in range(3)]
    assert said.count(b"STOPPING=1") == 1 and b"WATCHDOG=1" in said
    notifier.close()


def test_a_start_that_takes_long_is_given_time_until_it_is_through(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.kit.systemd.EXTEND_SECONDS", 0.04)
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.starting()
    assert [manager.recv(100)[:20] for _ in range(3)] == [b"EXTEND_TIMEOUT_USEC="] * 3
    notifier.ready()
    said = manager.recv(100)
    while said.startswith(b"EXTEND"):
        said = manager.recv(100)
    assert said == b"READY=1"
    manager.settimeout(0.05)
    with pytest.raises(TimeoutError):
        manager.recv(100)


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0relay-test-{os.getpid()}")
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@relay-test-{os.getpid()}"}).ready()
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}])
def test_no_heartbeat_unless_it_is_asked_of_this_process(manager: socket.socket, watchdog: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), **watchdog})
    notifier.ready()
    gevent.sleep(0.02)
    notifier.stopping()
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_without_systemd_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready()
    assert not caplog.records
    Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).ready()
    assert "systemd was not told READY=1" in caplog.text
