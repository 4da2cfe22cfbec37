"""Promise 18: No connection goes out but through `net`, to an address that was checked. (The command line asks the
operator's own relay.)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.hosts.hosts import Hosts
from relay.kit.errors import RelayError
from relay.net.http import GuardedHttp
from tests.support.event_path import EventPath
from tests.support.fake_relay import LOCAL
from tests.support.pds import FakePds
from tests.support.repo import post
from tests.support.strangers import RawServer, reply
from tests.support.wait import until

RELAY = Path(__file__).parents[2] / "relay"
MAY = {"net/http.py"}
# The socket that it opens is handed over; databases, name servers and the servers of a cluster are the operator's, and
# the relay that a conformance suite starts has its database in a file.
OTHERS = {
    "cluster/nats_process.py",
    "conformance/subject.py",
    "net/dns_text.py",
    "net/websocket_client.py",
    "store/postgres_pool.py",
    "store/sqlite.py",
}
CONNECTS = {"create_connection", "connect", "connect_ex"}
watched: list[list[list[str]]] = []


def note(event: str, _arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and watched:
        frame, files = sys._getframe(), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(RELAY)):
                files.append(str(Path(frame.f_code.co_filename).relative_to(RELAY)))
            frame = frame.f_back  # type: ignore[assignment]
        watched[-1].append(files)


sys.addaudithook(note)


@pytest.fixture
def connections() -> Iterator[list[list[str]]]:
    """For each connection that is opened meanwhile, the files of ours that led to it."""
    watched.append([])
    yield watched[-1]
    watched.pop()


def test_all_that_a_relay_asks_of_others_goes_through_net(
    connections: list[list[str]], path: EventPath, pds: FakePds
) -> None:
    """A crawl, a stream, lookups in the directory and of a did:web, and a question for an account's status."""
    ingest, http = path.ingest, GuardedHttp("relay-test", allow_insecure=True)
    limit_raised = ingest.places.look_at
    hosts = Hosts(path.db, path.registry, ingest.lanes, ingest.renumbering.starts_again, limit_raised, http, LOCAL)
    hosts.start()
    repo = path.repo(pds.url)
    pds.publish(1, post(repo, "3kaaa").frame(1))
    hosts.new_hosts.request(pds.url, admin=True)
    path.logged(1)
    pds.publish(2, repo.account_frame(2, active=False, status="deactivated"))
    pds.publish(3, post(repo, "3kaab").frame(3))
    until(lambda: any("com.atproto.sync.getRepoStatus" in line for line in pds.requests))
    hosts.stop(5)
    ours = [files for files in connections if files]
    assert len(ours) >= 4
    assert {files[0] for files in ours} == MAY


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
    ],
)
def test_no_spelling_of_an_address_inside_is_connected(
    connections: list[list[str]], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"{}"))) as server:
        http = GuardedHttp("relay-test", allow_insecure=False)
        for scheme in ("https", "http"):
            with pytest.raises((RelayError, OSError)):
                http.get(f"{scheme}://{address}:{server.port}/", timeout=3)
        with pytest.raises((RelayError, OSError)):
            http.connect(address.strip("[]"), server.port, 3)
        assert server.connections == 0
    assert not [files for files in connections if files]


def test_nothing_else_in_the_code_connects() -> None:
    found = {
        str(path.relative_to(RELAY))
        for path in RELAY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CONNECTS
    }
    assert found == MAY | OTHERS
