"""What an edge notes of its upstream's hosts, from a fake upstream: only what its own log bears out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.atproto.hostname import parse_endpoint
from relay.edge import upstream_hosts
from relay.edge.upstream_hosts import NAME, UpstreamHost, UpstreamHosts, load
from relay.net.http import SERVER, GuardedHttp
from tests.support.pds import FakePds, error_frame, identity_frame
from tests.support.wait import until


class Noting:
    """An edge's noting, with a log that is at `last_seq`."""

    def __init__(self, upstream: FakePds, folder: Path) -> None:
        self.last_seq = 0
        self.folder = folder
        http = GuardedHttp(SERVER, allow_insecure=True)
        self.notes = UpstreamHosts(http, parse_endpoint(upstream.url), folder, lambda: self.last_seq)

    def found(self) -> list[UpstreamHost] | None:
        listed = load(self.folder)
        return None if listed is None else listed.hosts


@pytest.fixture
def upstream() -> Iterator[FakePds]:
    with FakePds() as fake:
        yield fake


@pytest.fixture
def noting(upstream: FakePds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Noting]:
    monkeypatch.setattr(upstream_hosts, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(upstream_hosts, "NONE_SECONDS", 0.05)
    monkeypatch.setattr(upstream_hosts, "RETRY_SECONDS", 0.05)
    made = Noting(upstream, tmp_path)
    yield made
    made.notes.stop()


def host(name: object, seq: object = 7, accounts: object = 3, status: object = "active") -> dict[str, Any]:
    return {"hostname": name, "seq": seq, "accountCount": accounts, "status": status}


def test_a_list_is_kept_once_the_log_has_what_it_stands_for(upstream: FakePds, noting: Noting) -> None:
    upstream.hosts = [host("a.test"), host("b.test", 9, 0, "offline")]
    upstream.publish(40, identity_frame(40))
    noting.notes.start()
    until(lambda: None in upstream.cursors)
    # The upstream was asked for its hosts; what it gives out from now on is not older than its answer.
    upstream.publish(41, identity_frame(41))
    noting.last_seq = 40
    until(lambda: len(upstream.cursors) >= 1)
    assert noting.found() is None
    noting.last_seq = 41
    until(lambda: noting.found() is not None, timeout=30)
    assert noting.found() == [UpstreamHost("a.test", 7, 3, "active"), UpstreamHost("b.test", 9, 0, "offline")]


def test_what_cannot_be_read_is_left_out(upstream: FakePds, noting: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_hosts, "PAGE_HOSTS", 3)
    upstream.hosts = [
        host("a.test", accounts="many", status=["x"]),
        host("../etc"),
        host(7),
        host("b.test", 0),
        host("c.test", -1),
        host("d.test", 1 << 60),
        host("e.test", True),
        host("f.test", 1.5),
        host("g.test", status="unheard of"),
    ]
    noting.last_seq = 99
    noting.notes.start()
    until(lambda: None in upstream.cursors)
    upstream.publish(41, identity_frame(41))
    until(lambda: noting.found() is not None, timeout=30)
    assert noting.found() == [UpstreamHost("a.test", 7, 0, "active"), UpstreamHost("g.test", 7, 3, "active")]


def test_an_upstream_without_hosts_or_with_an_error_changes_nothing(upstream: FakePds, noting: Noting) -> None:
    noting.notes.start()
    until(lambda: noting.notes._loop.running)
    upstream.hosts = [host("a.test")]
    until(lambda: None in upstream.cursors)
    upstream.publish(1, error_frame("ConsumerTooSlow"))
    until(lambda: len(upstream.cursors) >= 2, timeout=30)
    assert noting.found() is None and noting.notes._loop.problem is None


def test_a_damaged_list_is_not_used(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    for data in (b"", b"{", b"[]", b"[1]", b"[1, [[2]]]", b'["x", []]', b"7"):
        (tmp_path / NAME).write_bytes(data)
        assert load(tmp_path) is None, data
