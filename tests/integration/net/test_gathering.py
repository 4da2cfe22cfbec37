"""Sockets that are looked at together: who is called, when, and that nothing is forgotten, with real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.socket import socketpair

from relay.kit.background import TURNS_SECONDS, yield_hub
from relay.net.gathering import BUSY_LOOKS, LONG_WAIT_SECONDS, Gathering, Watched
from relay.net.websocket_connection import Connection, StreamEnded, Timing
from tests.support.certificate import server_context
from tests.support.dialling import connect
from tests.support.pds import FakePds, websocket_frame

PATIENCE_SECONDS = 60.0
NEVER = 3600.0
QUIET_HOSTS = 400


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with gevent.Timeout(PATIENCE_SECONDS):
        yield


class Pair:
    """Two ends of a connection, of which one is watched."""

    def __init__(self, gathering: Gathering) -> None:
        self.far, self.near = socketpair()
        self.near.setblocking(False)
        self.watched: Watched = gathering.watch(self.near.fileno())

    def close(self) -> None:
        self.watched.forget()
        self.near.close()
        self.far.close()

    def read(self) -> bytes:
        """What there is, waited for."""
        assert self.watched.wait(PATIENCE_SECONDS)
        return self.near.recv(1 << 16)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Pair(Gathering(0.01))) as pair:
        yield pair


@contextmanager
def connected(
    pds: FakePds, gathering: Gathering, timing: Timing | None = None, certificate: Path | None = None
) -> Iterator[Connection]:
    with closing(connect(pds, timing or Timing(), certificate, gathering=gathering)) as stream:
        yield stream


def received(stream: Connection, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += [message for message in stream.receive() if isinstance(message, bytes)]
    return found


def test_whoever_has_something_to_read_goes_on(pair: Pair) -> None:
    reader = gevent.spawn(pair.read)
    gevent.sleep(0.05)
    assert not reader.ready()
    pair.far.sendall(b"news")
    assert reader.get() == b"news"


@pytest.mark.parametrize("busy", [False, True])
def test_what_came_meanwhile_is_read_before_anything_else_is_done(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But while one of them has much to say: then they go on in short turns."""
    monkeypatch.setattr("relay.net.gathering.TOGETHER_SECONDS", PATIENCE_SECONDS)
    gathering = Gathering(0.1)
    order: list[str] = []
    pairs = [Pair(gathering) for _ in range(8)]

    def read(pair: Pair) -> None:
        pair.read()
        gevent.get_hub().loop.run_callback(order.append, "judged")
        until = time.perf_counter() + 2 * TURNS_SECONDS
        while time.perf_counter() < until:
            pass
        order.append("read")

    readers = [gevent.spawn(read, pair) for pair in pairs]
    gevent.sleep(0)
    for pair in pairs:
        pair.far.sendall(b"news")
    if busy:
        gathering.hurry()
    gevent.joinall(readers, raise_error=True)
    gevent.sleep(0)
    together = ["read"] * len(pairs) + ["judged"] * len(pairs)
    assert order == (["read", "judged"] * len(pairs) if busy else together)
    for pair in pairs:
        pair.close()


def test_what_was_there_before_the_wait_is_seen(pair: Pair) -> None:
    pair.far.sendall(b"news")
    gevent.sleep(0.05)
    assert pair.read() == b"news"


def test_the_end_of_a_socket_is_something_to_read(pair: Pair) -> None:
    reader = gevent.spawn(pair.read)
    gevent.sleep(0)
    pair.far.close()
    assert reader.get() == b""


def test_a_wait_has_an_end(pair: Pair) -> None:
    assert not pair.watched.wait(0.05)
    pair.far.sendall(b"late")
    assert pair.read() == b"late"


def test_a_reader_that_is_busy_elsewhere_is_called_when_it_waits_again(pair: Pair) -> None:
    """Meanwhile its socket is not told of each time, and neither is its end lost."""
    pair.far.sendall(b"one")
    assert pair.read() == b"one"
    pair.far.sendall(b"two")
    gevent.sleep(0.1)
    assert not pair.watched._in_epoll
    pair.far.close()
    assert (pair.read(), pair.read()) == (b"two", b"")


def test_one_that_is_killed_while_it_waits_leaves_nothing(pair: Pair) -> None:
    reader = gevent.spawn(pair.watched.wait, PATIENCE_SECONDS)
    gevent.sleep(0.05)
    pair.far.sendall(b"news")
    reader.kill()
    assert not pair.watched.waits
    assert pair.read() == b"news"


def test_a_number_that_is_used_again_is_another_socket() -> None:
    gathering = Gathering(0.01)
    for turn in range(20):
        with closing(Pair(gathering)) as pair:
            reader = gevent.spawn(pair.read)
            gevent.sleep(0)
            pair.far.sendall(b"%d" % turn)
            assert reader.get() == b"%d" % turn
    assert not gathering._watched


def test_a_flood_beside_four_hundred_quiet_hosts_holds_up_none_of_them() -> None:
    gathering = Gathering(0.01)
    pairs = [Pair(gathering) for _ in range(QUIET_HOSTS + 1)]
    flood, *quiet = pairs
    flooded = 0

    def send_without_end() -> None:
        while True:
            flood.far.sendall(bytes(1 << 16))

    def read_the_flood() -> None:
        nonlocal flooded
        while True:
            try:
                flooded += len(flood.near.recv(1 << 14))
            except BlockingIOError:
                flood.watched.wait(PATIENCE_SECONDS)
            gathering.hurry()
            yield_hub()

    floods = [gevent.spawn(send_without_end), gevent.spawn(read_the_flood)]
    for turn in range(5):
        before = flooded
        readers = [gevent.spawn(pair.read) for pair in quiet]
        gevent.sleep(0.02)
        for pair in quiet:
            pair.far.sendall(b"%d" % turn)
        gevent.joinall(readers, raise_error=True)
        assert {reader.get() for reader in readers} == {b"%d" % turn}
        while flooded == before:
            gevent.sleep(0.01)
    gevent.killall(floods)
    for pair in pairs:
        pair.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_what_a_host_sent_before_it_is_looked_at_comes_at_once(tls: bool, certificate: Path) -> None:
    """Many records of TLS too, of which a read gives one, and of which the kernel says nothing."""
    sent = [b"%d" % number for number in range(200)]

    def send(sock: socket.socket) -> None:
        for message in sent:
            sock.sendall(websocket_frame(message))
        gevent.sleep(PATIENCE_SECONDS)

    with FakePds(tls=server_context(certificate) if tls else None) as pds:
        pds.on_stream = send
        gathering = Gathering(0.1)
        with connected(pds, gathering, certificate=certificate) as stream:
            assert received(stream, len(sent)) == sent


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_host_that_has_much_to_send_is_read_as_it_sends(tls: bool, certificate: Path) -> None:
    sent = [bytes([number]) * 1_000_000 for number in range(20)]
    hurried: list[int] = []

    class Noted(Gathering):
        def hurry(self) -> None:
            super().hurry()
            hurried.append(self._busy_looks)

    def send(sock: socket.socket) -> None:
        sock.sendall(b"".join(map(websocket_frame, sent)))
        gevent.sleep(PATIENCE_SECONDS)

    with FakePds(tls=server_context(certificate) if tls else None) as pds:
        pds.on_stream = send
        with connected(pds, Noted(0.1), certificate=certificate) as stream:
            assert received(stream, len(sent)) == sent
    assert hurried and set(hurried) == {BUSY_LOOKS}


def test_a_hurry_is_soon_and_comes_to_an_end() -> None:
    with closing(Pair(Gathering(NEVER))) as pair:
        gathering = pair.watched._gathering
        reader = gevent.spawn(pair.read)
        gevent.sleep(0)
        pair.far.sendall(b"news")
        gathering.hurry()
        assert reader.get() == b"news"
        while gathering._busy_looks:
            gevent.sleep(0.01)


def test_hosts_that_wait_together_are_pinged_and_left_each_by_its_own_time() -> None:
    gathering = Gathering(0.01)
    with FakePds() as answers, FakePds() as silent:
        silent.answer_pings = False
        timing = Timing(quiet=0.5)
        with connected(answers, gathering, timing) as good, connected(silent, gathering, timing) as bad:
            reader = gevent.spawn(good.receive)
            with pytest.raises(StreamEnded, match="no-pong"):
                bad.receive()
            while answers.pings < 2:
                gevent.sleep(0.05)
            assert not reader.ready()
            answers.publish(1, b"news")
            assert reader.get() == [b"news"]


class Counted(Gathering):
    looks = 0

    def _look(self) -> None:
        self.looks += 1
        super()._look()


def resting(gathering: Gathering) -> None:
    while not gathering._rests:
        gevent.sleep(0.01)


def test_while_nothing_comes_nothing_is_looked_at() -> None:
    gathering = Counted(0.01)
    with closing(Pair(gathering)) as pair, closing(Pair(gathering)) as other:
        waits = gevent.spawn(other.read)
        for turn in (b"one", b"two"):
            reader = gevent.spawn(pair.read)
            resting(gathering)
            looks = gathering.looks
            gevent.sleep(0.1)
            assert gathering.looks == looks and not reader.ready()
            pair.far.sendall(turn)
            assert reader.get() == turn
        assert not waits.ready()
        other.far.sendall(b"three")
        assert waits.get() == b"three"


def test_a_wait_that_begins_while_nothing_comes_has_its_own_end() -> None:
    gathering = Counted(0.01)
    with closing(Pair(gathering)) as pair, closing(Pair(gathering)) as other:
        waits = gevent.spawn(other.read)
        resting(gathering)
        assert not pair.watched.wait(0.05)
        resting(gathering)
        assert not pair.watched.wait(0.05)
        assert not waits.ready()
        other.far.sendall(b"news")
        assert waits.get() == b"news"


def test_a_hurry_while_nothing_comes_is_soon() -> None:
    gathering = Counted(NEVER)
    with closing(Pair(gathering)) as pair:
        reader = gevent.spawn(pair.read)
        for _ in range(2):
            gathering.hurry()
            resting(gathering)
        assert gathering.looks >= 2 * BUSY_LOOKS and not reader.ready()
        pair.far.sendall(b"news")
        assert reader.get() == b"news"


def test_long_waits_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the hosts that are quiet are pinged as a group. Short ones end at their own times."""
    monkeypatch.setattr("relay.net.gathering.ENDS_APART_SECONDS", 1e6)
    gathering = Gathering(0.01)
    pairs = [Pair(gathering) for _ in range(8)]
    readers = []
    for number, pair in enumerate(pairs):
        readers.append(gevent.spawn(pair.watched.wait, PATIENCE_SECONDS if number % 2 else LONG_WAIT_SECONDS / 2))
        gevent.sleep(0.01)
    assert len({end for end, _, _ in gathering._ends}) == 1 + len(pairs) // 2
    gevent.killall(readers)
    for pair in pairs:
        pair.close()


def test_nothing_is_looked_at_when_nobody_is_connected() -> None:
    gathering = Gathering(0.01)
    with FakePds() as pds, connected(pds, gathering):
        gathering.hurry()
    assert not gathering._watched and not gathering._busy_looks
