"""TXT records from a name server on loopback: what it says, and what it says that is not an answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator

import gevent
import pytest

from relay.kit.errors import AddressRefused
from relay.net.dns_text import MAX_RECORDS, MAX_SERVERS, text_records

NAME = "_atproto.user.test"
Answer = Callable[[bytes], Iterable[bytes]]


class NameServer:
    """`answer` makes the datagrams that a question gets."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        self.questions: list[bytes] = []
        self.answer: Answer = lambda question: []
        self._greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            self.questions.append(question)
            for datagram in self.answer(question):
                self._socket.sendto(datagram, client)

    def close(self) -> None:
        self._greenlet.kill()
        self._socket.close()


@pytest.fixture
def server() -> Iterator[NameServer]:
    one = NameServer()
    yield one
    one.close()


def record(*texts: bytes, kind: int = 16) -> bytes:
    """A record of the name that was asked for."""
    data = b"".join(bytes([len(text)]) + text for text in texts)
    return b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 60, len(data)) + data


def answer_to(question: bytes, *records: bytes, flags: int = 0x8180) -> bytes:
    end = question.index(b"\0", 12) + 5
    head = question[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0)
    return head + question[12:end] + b"".join(records)


def asked(server: NameServer, timeout: float = 5.0) -> list[str]:
    return text_records(NAME, timeout, [server.address])


def test_records_come_in_one_piece_each_and_others_are_passed_over(server: NameServer) -> None:
    alias = b"\xc0\x0c" + struct.pack("!2HIH", 5, 1, 60, 2) + b"\xc0\x0c"
    server.answer = lambda question: [answer_to(question, alias, record(b"did=", b"did:plc:x"), record(b"v=spf1"))]
    assert asked(server) == ["did=did:plc:x", "v=spf1"]
    assert b"\x08_atproto\x04user\x04test\x00\x00\x10\x00\x01" in server.questions[0]


def test_no_such_name_and_no_such_record_are_no_records(server: NameServer) -> None:
    server.answer = lambda question: [answer_to(question, flags=0x8183)]
    assert asked(server) == []
    server.answer = lambda question: [answer_to(question)]
    assert asked(server) == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda question: [answer_to(question, flags=0x8182)],
        lambda question: [answer_to(question, flags=0x8380)],
        lambda question: [answer_to(question, record(b"did=x"))[:-8][:30] + b"\xff" * 3],
        lambda question: [question[:2] + b"\x81\x80\x00\x01\xff\xff" + bytes(6)],
        lambda question: [],
        lambda question: [b"", b"x", b"\0\0" + answer_to(question, record(b"did=forged"))[2:]],
    ],
    ids=["failure", "truncated", "cut", "short", "silent", "of another question"],
)
def test_what_is_not_an_answer_is_an_error_in_time(server: NameServer, answer: Answer) -> None:
    server.answer = answer
    with pytest.raises(AddressRefused) as refused:
        asked(server, 0.3)
    assert refused.value.reason == "name-unresolved"


def test_answers_without_end_to_another_question_are_an_error_in_time(server: NameServer) -> None:
    def forged(question: bytes) -> Iterator[bytes]:
        while True:
            yield b"\0\0" + answer_to(question, record(b"did=forged"))[2:]
            gevent.sleep(0.01)

    server.answer = forged
    with gevent.Timeout(60), pytest.raises(AddressRefused):
        asked(server, 0.3)


def test_of_many_records_a_bounded_number_is_read(server: NameServer) -> None:
    server.answer = lambda question: [answer_to(question, *[record(b"%d" % number) for number in range(99)])]
    assert asked(server) == [str(number) for number in range(MAX_RECORDS)]


def test_few_servers_are_asked(server: NameServer) -> None:
    server.answer = lambda question: [answer_to(question, flags=0x8182)]
    with pytest.raises(AddressRefused):
        text_records(NAME, 5.0, [server.address] * 9)
    assert len(server.questions) == MAX_SERVERS


def test_the_next_server_is_asked_when_one_is_silent(server: NameServer) -> None:
    server.answer = lambda question: [answer_to(question, record(b"did=here"))]
    silent = NameServer()
    try:
        assert text_records(NAME, 2.0, [silent.address, server.address]) == ["did=here"]
    finally:
        silent.close()


def test_without_a_server_it_is_an_error() -> None:
    with pytest.raises(AddressRefused):
        text_records(NAME, 1.0, [])
